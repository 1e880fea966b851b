"""ixgbe: 82599, X540, X550."""

from __future__ import annotations

from collections.abc import Sequence

from nicoffload.driver import Driver, InstalledRule, RuleRef
from nicoffload.linux import LinuxNic, NtupleTables, compose
from nicoffload.linux.u32 import U32Tables
from nicoffload.profiles import Table


class FlowDirector(NtupleTables):
    """The perfect filters of Flow Director, through ethtool.

    The driver lists the rules of u32 among them, for they share its rows (ixgbe_main.c:9573 ixgbe_configure_clsu32):
    those are told once, by the table that they are in.

    Args:
        nic: The NIC.
        tables: Those of its profile that ethtool fills.
        u32: Those that u32 fills.
    """

    def __init__(self, nic: LinuxNic, tables: Sequence[Table], u32: U32Tables) -> None:
        super().__init__(nic, tables)
        self._u32 = u32

    def dump(self, refs: Sequence[RuleRef] | None) -> Sequence[InstalledRule]:
        """Return the rules that ethtool installed."""
        found = super().dump(refs)
        if refs is not None or not found:
            return found
        shared = self._u32.slots()
        return [rule for rule in found if rule.ref.slot not in shared]


def compose_ixgbe(nic: LinuxNic) -> Driver:
    """Return the driver of a NIC: Flow Director to VFs and queues by ethtool, and to VFs by u32.

    Both share rows, locations and the one mask. ethtool says more of a refusal, and takes VLANs and queues of a VF; u32
    needs ``hw-tc-offload`` and the VF's driver on the host.
    """
    tables = nic.profile.tables
    u32 = U32Tables(nic, [table for table in tables if table.mechanism == "u32"])
    ntuple = FlowDirector(nic, [table for table in tables if table.mechanism == "ntuple"], u32)
    return compose(nic, serve=[ntuple, u32])
