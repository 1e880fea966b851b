"""An open NIC that was probed: what it says of itself names what nobody can know before it is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nicoffload.driver import Placement, RuleRef, TableState
from nicoffload.linux import LinuxDriver, LinuxNic, compose
from nicoffload.model import Capability, Drop, Evidence, FlowRule, Match, Support

_NOT_TRIED = "which rules the driver takes, it says rule by rule"


class GenericDriver(LinuxDriver):
    """One open NIC whose driver no profile describes."""

    def __init__(self, *args: Any, **facets: Any) -> None:
        super().__init__(*args, **facets)
        self.tried: dict[str, str] = {}
        """Table to why it refused a simple rule; empty where it took it."""

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

    def try_out(self) -> None:
        """Put a rule that no packet matches into each table that takes rules, and take it out at once."""
        if self.flows is None:
            return
        for state in self.flows.tables():
            place = _trial(state)
            if place is None:
                continue
            (outcome,) = self.flows.create_many([place])
            if isinstance(outcome, RuleRef):
                (left,) = self.flows.destroy_many([outcome])
                if left is not None:
                    raise left
            self.tried[state.table.name] = "" if isinstance(outcome, RuleRef) else str(outcome)

    def _probed(self, one: Capability) -> Capability:
        refused = self.tried.get(one.name.removeprefix("flow_filters."))
        if refused is not None:
            support = Support.NO if refused else Support.YES
            what = f"refused a simple rule: {refused}" if refused else "a simple rule went in and out"
            return replace(one, support=support, evidence=Evidence.OBSERVED, detail=f"{one.detail}; {what}")
        if one.name.startswith("flow_filters.") and one.support is Support.YES:
            return replace(one, support=Support.UNKNOWN, detail=f"{one.detail}; {_NOT_TRIED}")
        if self.profile.sriov is None and one.name.startswith(("vf", "rates.")):
            return replace(one, evidence=Evidence.PROBED, detail="it can have no VFs")
        return one


def _trial(state: TableState) -> Placement | None:
    """Return a rule for a table that no packet matches: what the network for examples (RFC 5737) sends to itself."""
    table = state.table
    if state.blocked or (table.picker == "caller" and state.rows is None):
        return None
    rule = FlowRule(
        match=Match.of(ipv4_src="192.0.2.1", ipv4_dst="192.0.2.1", ip_proto=6, tp_src=9, tp_dst=9),
        actions=(Drop(),),
    )
    # The last slot, which whoever fills a table from its beginning reaches last; one in use is never overwritten.
    slot = state.rows - 1 if table.picker == "caller" and state.rows is not None else None
    return Placement(rule, table.name, "tcp4", slot)
