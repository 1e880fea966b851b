"""An open NIC that was probed: what it says of itself names what nobody can know before it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nicoffload.linux import LinuxDriver, LinuxNic, compose
from nicoffload.model import Capability, Evidence, Support

_NOT_TRIED = "which rules the driver takes, it says rule by rule"


class GenericDriver(LinuxDriver):
    """One open NIC whose driver no profile describes."""

    @classmethod
    def of(cls, nic: LinuxNic) -> GenericDriver:
        """Return the driver of a NIC with every facet that it was found to have."""
        found = compose(nic)
        return cls(
            nic,
            flows=found.flows,
            functions=found.functions,
            rates=found.rate_control,
            statistics=found.counters,
        )

    def capabilities(self) -> Sequence[Capability]:
        """Return what was probed; a table that takes rules is no promise that it takes a given one."""
        found = [self._probed(one) for one in super().capabilities()]
        if self.flow_filters is None:
            none = "tc offload is fixed off, and the receive classifier takes no rules"
            no = Capability(name="flow_filters", support=Support.NO, evidence=Evidence.PROBED, detail=none)
            found.insert(0, no)
        return found

    def _probed(self, one: Capability) -> Capability:
        if one.name.startswith("flow_filters.") and one.support is Support.YES:
            return replace(one, support=Support.UNKNOWN, detail=f"{one.detail}; {_NOT_TRIED}")
        if self.profile.sriov is None and one.name.startswith(("vf", "rates.")):
            return replace(one, evidence=Evidence.PROBED, detail="it can have no VFs")
        return one
