"""FlexivOffload on live flows: watches what reaches the virtual switch, and moves flows to the NIC and back.

For a NIC whose VFs are ports of the virtual switch (switchdev mode): what no rule takes is the virtual switch's, either
way, so a VM needs no second interface and no dispatcher. What a rule takes is known from the NIC's counter alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nicoffload import Nic
from nicoffload.errors import InvalidRequestError
from nicoffload.flexivoffload.accounts import (
    FlowReport,
    OperationsReport,
    VmReport,
    counts_by_vm,
    flow_reports,
    operations_report,
    sum_of_path,
    vm_reports,
)
from nicoffload.flexivoffload.flows import DEFAULT_CAP, FlowTable
from nicoffload.flexivoffload.folding import Folded, fold_idle
from nicoffload.flexivoffload.intake import Intake
from nicoffload.flexivoffload.ledger import Count, Path
from nicoffload.flexivoffload.manager import FlowManager, ManagerConfig
from nicoffload.flexivoffload.market import tables_of_ports
from nicoffload.flexivoffload.placement import NS_PER_S
from nicoffload.flexivoffload.policy.types import Granularity, Policy
from nicoffload.flexivoffload.session import check_names
from nicoffload.flexivoffload.setup import prepare
from nicoffload.flexivoffload.units import UnitState
from nicoffload.flexivoffload.vms import Vm, VmDirectory
from nicoffload.packets import PacketBatch

STEP_S = 0.05
"""Between two looks at the packets."""


class PacketSource(Protocol):
    """Where packets that reach the virtual switch are seen."""

    def read(self) -> PacketBatch:
        """Return what came since the last time; does not wait."""

    @property
    def missed(self) -> int:
        """Packets so far that came and were not seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveReport:
    """What a live session knows: both paths in one view.

    Args:
        duration_s: From the start on.
        offloaded: What the NIC's rules counted.
        onloaded: What the virtual switch received.
        missed: Packets that reached the virtual switch and were not seen: they are in no count.
        uncounted: Rules in tables without counters: what they carry is in no count.
        flows_total: Flows seen; a flow that left the table and came again counts again.
        flows: The largest, largest first.
        vms: In the order of the list.
        operations: What was done to the NIC.
        nic_gone: Why the NIC was lost; empty where it was not.
        notes: What the user should know.
    """

    duration_s: float
    offloaded: Count
    onloaded: Count
    missed: int
    uncounted: int
    flows_total: int
    flows: tuple[FlowReport, ...]
    vms: tuple[VmReport, ...]
    operations: OperationsReport
    nic_gone: str
    notes: tuple[str, ...]


class LiveSession:
    """One session on one NIC, in one thread.

    Args:
        nic: The NIC.
        policy: Which flows are to go where; its granularity is `flow`, as there is a counter only for each rule.
        vms: The VMs; each one's VF is the interface it has.
        source: Where the virtual switch's packets are seen.
        config: Periods; None for the usual ones.
        flow_cap: Most flows that are told apart.
        clock_ns: Nanoseconds since the epoch, as the packets' times are.

    Raises:
        InvalidRequestError: A VM names a VF that it can't have, the policy allows rules for more than one flow, the
            NIC's VFs are not ports of the virtual switch, or it does not count by rule.
        PolicyError: The policy names a VM that is not there.
    """

    def __init__(
        self,
        nic: Nic,
        policy: Policy,
        vms: Sequence[Vm],
        source: PacketSource,
        *,
        config: ManagerConfig | None = None,
        flow_cap: int = DEFAULT_CAP,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        if policy.granularity != (Granularity.FLOW,):
            raise InvalidRequestError(
                "a live session counts what the NIC carries by rule, so each flow needs one of its own",
                device=nic.name,
                path="/granularity",
                hint="let the policy say: granularity: [flow]",
            )
        check_names(policy, tuple(vms))
        self._uncounted = check_tables(nic)
        self.nic = nic
        self.config = config or ManagerConfig(poll_s=0.5)
        self.prepared = prepare(nic, vms, shares_addresses=False)
        self.table = FlowTable(cap=flow_cap)
        self.folded = Folded()
        self.directory = VmDirectory(vms)
        self.intake = Intake(self.table, self.directory, policy)
        self._source = source
        self._clock_ns = clock_ns
        self.start_ns = self._now_ns = clock_ns()
        self.manager = FlowManager(
            policy=policy,
            nic=nic,
            directory=self.directory,
            table=self.table,
            now_ns=self.start_ns,
            config=self.config,
            unusable=self.prepared.unusable,
            believes_nic=True,
        )
        self._next_tick_ns = self.start_ns + self._tick_ns

    @property
    def _tick_ns(self) -> int:
        return int(self.config.tick_s * NS_PER_S)

    def step(self) -> None:
        """Take in the packets that came, and do what is due."""
        # A clock that is set back stands still until it has caught up.
        now_ns = self._now_ns = max(self._now_ns, self._clock_ns())
        batch = self._source.read()
        if len(batch):
            fold_idle(self.table, self.manager, self.folded, now_ns)
            self._take(batch, now_ns)
        mover = self.manager.mover
        if mover.flush_ns is not None and mover.flush_ns <= now_ns:
            mover.flush(now_ns)
        if now_ns >= self._next_tick_ns:
            self.manager.tick(now_ns)
            self._next_tick_ns = now_ns + self._tick_ns
        mover.dispatch_changed.clear()

    def _take(self, batch: PacketBatch, now_ns: int) -> None:
        times = np.maximum.accumulate(np.clip(batch.time_ns, self.start_ns, now_ns))
        chunk = self.intake.chunk(batch, times, self.start_ns)
        for place, number in enumerate(chunk.new.tolist()):
            self.intake.take_up(self.manager, chunk, place, int(times[chunk.first_packet[number]]))
        self.intake.enter(chunk, chunk.flow, batch.wire_bytes, Path.VSWITCH)
        self.table.last_ns[chunk.row[chunk.flow]] = times
        self.intake.note_flags(chunk, slice(None))

    def run(self, goes_on: Callable[[], bool], *, pause: Callable[[float], None] = time.sleep) -> None:
        """Step until told otherwise.

        Args:
            goes_on: Asked before each step.
            pause: Waits for so many seconds.
        """
        while goes_on():
            self.step()
            pause(STEP_S)

    def finish(self) -> None:
        """Take our rules out of the NIC, so that the virtual switch has all flows again. Repeatable.

        Raises:
            NicOffloadError: A rule could not be taken out.
        """
        self.step()
        mover = self.manager.mover
        installed = [mover.units[number] for number in mover.units.in_state(UnitState.INSTALLED)]
        mover.drain(installed, "session.ended")
        left = [unit.rule_id for unit in mover.units]
        if left and mover.executor.alive:
            self.nic.remove_flows(left, missing_ok=True)

    def report(self) -> LiveReport:
        """Return what is known by now."""
        by_vm, dropped = counts_by_vm(self)
        return LiveReport(
            duration_s=(self._now_ns - self.start_ns) / NS_PER_S,
            offloaded=sum_of_path(by_vm, Path.NIC),
            onloaded=sum_of_path(by_vm, Path.VSWITCH),
            missed=self._source.missed,
            uncounted=sum(unit.lowered.table in self._uncounted for unit in self.manager.mover.units),
            flows_total=len(self.table) - len(self.intake.overflow_rows) + self.folded.flows,
            flows=flow_reports(self),
            vms=vm_reports(self.directory.vms, by_vm, dropped),
            operations=operations_report(self),
            nic_gone=self.manager.mover.gone_text,
            notes=self.prepared.notes,
        )


def check_tables(nic: Nic) -> frozenset[str]:
    """Check that a NIC is fit for a live session; return its tables without a counter for each rule.

    Raises:
        InvalidRequestError: Its VFs are not ports of the virtual switch, or the table of these has no counters.
    """
    for_ports = tables_of_ports(nic)
    if not for_ports:
        raise InvalidRequestError(
            "its VFs send past the virtual switch, so a live session would need a dispatcher in each VM",
            device=nic.name,
            hint="put the NIC into switchdev mode, or use one that has it",
        )
    blind = frozenset(
        state.table.name
        for state in nic.tables()
        if state.table.counters is None or "packets" not in state.table.counters.values
    )
    if all(table.name in blind for table in for_ports):
        raise InvalidRequestError(
            f"its table {for_ports[0].name} counts no packets, and nothing else would tell what a rule carries",
            device=nic.name,
            hint="use a NIC that counts by rule",
        )
    return blind
