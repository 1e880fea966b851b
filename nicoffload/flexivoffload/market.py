"""The NIC's tables as markets: how many rows each has for us, what a row costs, who gets one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nicoffload import Nic
from nicoffload.errors import NicOffloadError
from nicoffload.flexivoffload.flows import FlowTable
from nicoffload.flexivoffload.placement import NS_PER_S, Capacity, Residents
from nicoffload.flexivoffload.policy.types import Policy
from nicoffload.flexivoffload.units import UnitState, UnitTable
from nicoffload.flexivoffload.vms import VmDirectory
from nicoffload.profiles import Table

UNKNOWN_ROWS = 1 << 20
"""Stands for the capacity of a table that nobody knows: the NIC itself says when it is full."""

_TAKEN = (UnitState.PENDING, UnitState.INSTALLED, UnitState.DRAINING)


@dataclass(slots=True, kw_only=True)
class TableMarket:
    """One table.

    Args:
        name: Its name in the profile.
        capacity: Rows for us.
        row_price_pps: Price of a row.
    """

    name: str
    capacity: Capacity
    row_price_pps: float = 0.0


class Market:
    """All tables of a NIC.

    Args:
        nic: The NIC.
        policy: Says how much of a table may be used.
        units: What is in them.
        directory: The VMs.
        now_ns: Now.
    """

    def __init__(
        self, nic: Nic, policy: Policy, units: UnitTable, directory: VmDirectory, *, now_ns: int
    ) -> None:
        self.tables: list[TableMarket] = []
        self.max_vm_share = policy.limits.max_vm_share
        self.vfs_need_rules = False
        """Whether what a VF sends needs a rule to get to the wire: so it is in switchdev mode."""
        self._units = units
        self._directory = directory
        self._index: dict[str, int] = {}
        try:
            states = nic.tables()
            self.vfs_need_rules = bool(tables_of_ports(nic))
        except NicOffloadError:
            states = ()  # a NIC that can't tell its tables gets no rules; asking for one says why
        for state in states:
            rows = UNKNOWN_ROWS if state.rows is None else max(state.rows - state.in_use, 0)
            each = max(state.table.rows_per_rule, 1)
            ours = int(rows // each * policy.limits.max_table_share)
            self._index[state.table.name] = len(self.tables)
            self.tables.append(TableMarket(name=state.table.name, capacity=Capacity(ours, now_ns=now_ns)))

    def index(self, name: str) -> int:
        """Return the place of a table."""
        return self._index[name]

    def advance(self, now_ns: int) -> None:
        """Let time pass."""
        for table in self.tables:
            table.capacity.advance(now_ns)

    def full(self, name: str, now_ns: int) -> None:
        """Learn that the NIC called a table full."""
        index = self._index[name]
        # The rule that was refused still counts as pending.
        in_use = len(self._units.numbers(table=index, states=_TAKEN)) - 1
        self.tables[index].capacity.full(in_use, now_ns)

    def in_use(self, index: int) -> int:
        """Return how many rows of a table are ours, or about to be."""
        return int(self._units.taken[index])

    def has_room(self, index: int, vm: int) -> bool:
        """Tell whether a VM may have one more row without anybody losing one."""
        usable = self.tables[index].capacity.usable
        if self.in_use(index) >= usable:
            return False
        if len(self._directory.vms) < 2:
            return True
        most = max(1, int(usable * self.max_vm_share))
        return self._units.taken_by_vm[(index, vm)] < most

    def residents(self, index: int, table: FlowTable, now_ns: int) -> tuple[npt.NDArray[np.int64], Residents]:
        """Return the rules in a table, those on their way included: their numbers, and what placement looks at."""
        units, high = self._units, table.high
        numbers = units.numbers(table=index, states=_TAKEN)
        member = table.unit[:high] >= 0
        owner = table.unit[:high][member]
        size = max(units.high, 1)
        rate = np.bincount(owner, weights=table.rate_pps[:high][member], minlength=size)
        last = np.zeros(size, np.int64)
        np.maximum.at(last, owner, table.last_ns[:high][member])
        still_open = np.bincount(owner[~table.closing[:high][member]], minlength=size)
        # Only what is installed can be taken out again; the rest counts as pinned.
        busy = units.state[numbers] != UnitState.INSTALLED
        residents = Residents(
            rate_pps=rate[numbers].astype(np.float64),
            idle_s=np.maximum(now_ns - last[numbers], 0) / NS_PER_S,
            residence_s=(now_ns - units.installed_ns[numbers]) / NS_PER_S,
            min_residence_s=units.min_residence_s[numbers],
            vm=units.vm[numbers],
            pinned=units.pinned[numbers] | busy,
            closing=still_open[numbers] == 0,
            lead=units.lead[numbers],
        )
        return numbers, residents


def tables_of_ports(nic: Nic) -> tuple[Table, ...]:
    """Return the tables that stand between VFs that are ports of the virtual switch; none outside switchdev mode."""
    eswitch = nic.profile.eswitch
    is_always = eswitch is not None and set(eswitch.modes) == {"switchdev"}
    return tuple(
        state.table
        for state in nic.tables()
        if not state.blocked and (is_always or state.table.needs.eswitch_mode == "switchdev")
    )
