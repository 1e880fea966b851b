"""Moves flows between the paths: asks for rules, takes them out, and keeps states, epochs and decision records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nicoffload import Nic
from nicoffload.flexivoffload.executor import Executor, Failure, backoff_s, reading_of
from nicoffload.flexivoffload.flows import NEVER_NS, Decision, FlowState, FlowTable
from nicoffload.flexivoffload.headers import key_row
from nicoffload.flexivoffload.ledger import Count, Path, Reading, RuleCounter, Verdict
from nicoffload.flexivoffload.lowering import Lowered, catches
from nicoffload.flexivoffload.market import Market
from nicoffload.flexivoffload.placement import NS_PER_S, OperationBudget, PlacementConfig, Prices
from nicoffload.flexivoffload.policy.types import Policy, Tier
from nicoffload.flexivoffload.units import Unit, UnitState, UnitTable
from nicoffload.flexivoffload.vms import RX, VSWITCH_ONLY, VmDirectory
from nicoffload.model import FlowRule

_STATES = tuple(FlowState)
"""By number: faster than a call of the enumeration, which a new flow would pay."""

RETURN_NS = 10 * NS_PER_S
"""A flow that comes back to the NIC within this time counts as one that comes and goes."""


@dataclass(slots=True)
class Disagreements:
    """Readings of the NIC that the dispatcher's count contradicts.

    Args:
        readings: Readings compared.
        by_kind: Contradicted ones, by kind.
        by_flow: First kind of each flow, by its key; bounded.
    """

    readings: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)


class Mover:
    """Carries out moves. Whoever asks for one has decided that it should happen, and has paid its operations.

    Args:
        nic: The NIC.
        policy: For names and residence times.
        table: The flows.
        directory: The VMs.
        now_ns: Now.
        placement: For the cap on the lead of flows that come and go.
        gather_ns: How long requests are gathered for one bulk call.
        believes_nic: Whether the NIC's counters are all that is known of its path, as in a live session without
            dispatchers; else they are held against what the dispatchers counted.
    """

    def __init__(
        self,
        *,
        nic: Nic,
        policy: Policy,
        table: FlowTable,
        directory: VmDirectory,
        now_ns: int,
        placement: PlacementConfig,
        gather_ns: int,
        believes_nic: bool = False,
    ) -> None:
        self.table = table
        self.units = UnitTable()
        self.executor = Executor(nic, self._nic_gone)
        self.market = Market(nic, policy, self.units, directory, now_ns=now_ns)
        self.budget = OperationBudget(policy.limits.max_operations_per_s, now_ns=now_ns)
        self.prices = Prices(operation=placement.base_op_price)
        self.disagreements = Disagreements()
        self.dispatch_changed: set[int] = set()
        """VMs whose dispatcher got new orders; the replay empties it."""
        self.now_ns = now_ns
        self.flush_ns: int | None = None
        self.gone_text = ""
        self._policy = policy
        self._directory = directory
        self._max_lead = placement.max_lead
        self._gather_ns = gather_ns
        self._believes_nic = believes_nic
        self._queue: list[Unit] = []
        self._tx_queue: list[int] = []

    @property
    def rules(self) -> int:
        """How many rules of ours are in the NIC: what was asked for and not yet handed over is not."""
        return len(self.units) - len(self._queue)

    # ------------------------------------------------------------------------------------ records

    def settle(self, row: int, state: FlowState, code: str, detail: str = "") -> None:
        """Put a flow into a state, and on record why."""
        table = self.table
        spoke = int(table.spoke[row])
        decision = Decision(
            time_ns=self.now_ns,
            before=_STATES[table.state[row]],
            after=state,
            code=code,
            policy_rule=self._policy.rules[spoke].rule_id if spoke >= 0 else "",
            detail=detail,
            rate_pps=float(table.rate_pps[row]),
            row_price_pps=self.prices.row_pps,
            op_price_packets=self.prices.operation,
        )
        table.state[row] = state
        table.record(row).add(decision)

    def arrive(self, row: int, code: str, detail: str) -> None:
        """Put a flow on the NIC's path; its account on the virtual switch is closed."""
        table = self.table
        table.failures[row] = 0
        if table.state[row] == FlowState.OFFLOADED:
            return
        came_back = table.removed_ns[row] != NEVER_NS and self.now_ns - table.removed_ns[row] < RETURN_NS
        if came_back:
            table.returns[row] = min(int(table.returns[row]) + 1, 100)
        table.ledger.close(Path.VSWITCH, np.array([row]))
        table.installed_ns[row] = self.now_ns
        table.moves[row] += 1
        self.executor.operations.moves_to_nic += 1
        self.dispatch_changed.add(int(table.vm[row]))
        self.settle(row, FlowState.OFFLOADED, code, detail)

    def leave(self, row: int, code: str, detail: str = "") -> None:
        """Put a flow back on the virtual switch; its account on the NIC's path is closed."""
        table = self.table
        if table.state[row] in (FlowState.OFFLOADED, FlowState.DRAINING):
            table.ledger.close(Path.NIC, np.array([row]))
            table.removed_ns[row] = self.now_ns
            table.moves[row] += 1
            self.executor.operations.moves_to_vswitch += 1
            self.dispatch_changed.add(int(table.vm[row]))
        table.unit[row] = -1
        table.installed_ns[row] = NEVER_NS
        is_pinned = table.tier[row] == Tier.DENY or table.kind[row] == VSWITCH_ONLY
        self.settle(row, FlowState.PINNED if is_pinned else FlowState.ONLOAD, code, detail)

    # ------------------------------------------------------------------------------------ onto the NIC

    def request(self, row: int, target: Lowered, code: str) -> Unit:
        """Ask for a new rule."""
        vm = int(self.table.vm[row])
        rule = FlowRule(match=target.rung.match, actions=(target.rung.action,))
        unit = self.units.add(rule, target, vm, self.market.index(target.table))
        self._enlist(row, unit)
        self._queue.append(unit)
        self._schedule()
        self.settle(row, FlowState.PENDING, code, f"{target.rung.name} rule in table {target.table}")
        return unit

    def dispatch(self, row: int, code: str) -> None:
        """Ask the dispatcher of a VM to send a flow by its VF."""
        self._tx_queue.append(row)
        self._schedule()
        self.settle(row, FlowState.PENDING, code, "needs no NIC rule: the VM's dispatcher picks the path")

    def join(self, row: int, unit: Unit) -> bool:
        """Let a flow be served by a rule that is there for another; False where that rule is on its way out."""
        state = self.units.state[unit.number]
        if state == UnitState.DRAINING:
            return False
        self._enlist(row, unit)
        detail = f"{unit.lowered.rung.name} rule in table {unit.lowered.table} catches it as well"
        if state == UnitState.INSTALLED:
            if not self._believes_nic:
                unit.counter = None
            self.arrive(row, "rule.shared", detail)
        else:
            self.settle(row, FlowState.PENDING, "rule.shared", detail)
        return True

    def join_coarse(self, row: int) -> bool:
        """Let a flow be served by a coarse rule that catches it anyway."""
        key = key_row(self.table.keys[row])
        for unit in list(self.units.coarse(int(self.table.vm[row]))):
            if catches(unit.rule.match, key):
                return self.join(row, unit)
        return False

    def flush(self, now_ns: int) -> None:
        """Hand the gathered requests to the NIC and to the dispatchers."""
        self.now_ns = now_ns
        self.flush_ns = None
        queue, self._queue = self._queue, []
        tx_queue, self._tx_queue = self._tx_queue, []
        failures = self.executor.install(queue)
        if not self.executor.alive:
            return
        for unit in queue:
            failure = failures.get(unit.rule_id)
            if failure is None:
                self._installed(unit)
            else:
                self._failed(unit, failure)
        for row in tx_queue:
            if self.table.state[row] == FlowState.PENDING:
                self.arrive(row, "dispatcher.vf", "the VM's dispatcher sends it by the VF")

    def _enlist(self, row: int, unit: Unit) -> None:
        table, units, number = self.table, self.units, unit.number
        unit.members.add(row)
        table.unit[row] = number
        units.pinned[number] |= table.tier[row] == Tier.PIN
        spoke = int(table.spoke[row])
        if spoke >= 0:
            stay_s = self._policy.rules[spoke].min_residence_s
            units.min_residence_s[number] = max(units.min_residence_s[number], stay_s)
        units.lead[number] = max(units.lead[number], lead_of(int(table.returns[row]), self._max_lead))

    def _schedule(self) -> None:
        if self.flush_ns is None:
            self.flush_ns = self.now_ns + self._gather_ns

    def _installed(self, unit: Unit) -> None:
        self.units.state[unit.number] = UnitState.INSTALLED
        self.units.installed_ns[unit.number] = self.now_ns
        if self._believes_nic or (not unit.is_coarse and len(unit.members) == 1):
            row = min(unit.members)
            unit.counter = RuleCounter(int(self.table.l2_bytes[row]))
            unit.base = self.table.ledger.flow(Path.NIC, row)
        for row in sorted(unit.members):
            self.arrive(row, "nic.installed", f"{unit.lowered.rung.name} rule in table {unit.lowered.table}")
        if unit.is_coarse:
            self._catch_others(unit)

    def _catch_others(self, unit: Unit) -> None:
        table, high = self.table, self.table.high
        same = (table.vm[:high] == unit.vm) & (table.kind[:high] == RX) & (table.unit[:high] < 0)
        for row in np.flatnonzero(same & table.in_use[:high]).tolist():
            if catches(unit.rule.match, key_row(table.keys[row])):
                self.join(row, unit)

    def _failed(self, unit: Unit, failure: Failure) -> None:
        table = self.table
        if failure.is_full:
            self.market.full(unit.lowered.table, self.now_ns)
        for row in sorted(unit.members):
            table.unit[row] = -1
            if failure.is_final:
                table.impossible[row] = True
                self.settle(row, FlowState.ONLOAD, "nic.refused", failure.text)
            elif failure.is_full:
                self.settle(row, FlowState.ONLOAD, "table.full", failure.text)
            else:
                table.failures[row] = min(int(table.failures[row]) + 1, 100)
                wait_s = backoff_s(int(table.failures[row]))
                table.retry_ns[row] = self.now_ns + wait_s * NS_PER_S
                self.settle(
                    row, FlowState.BACKOFF, f"nic.{failure.code}", f"{failure.text}; again in {wait_s} s"
                )
        self.units.remove(unit)

    # ----------------------------------------------------------------------------------- off the NIC

    def drain(self, units: Sequence[Unit], code: str, detail: str = "") -> None:
        """Take rules out of the NIC: redirect, read, destroy, close the epoch."""
        for unit in units:
            self.units.state[unit.number] = UnitState.DRAINING
            for row in sorted(unit.members):
                self.settle(row, FlowState.DRAINING, code, detail)
        self._remove(units, code)

    def retry_drains(self) -> None:
        """Try again to take out what could not be taken out."""
        stuck = [self.units[number] for number in self.units.in_state(UnitState.DRAINING)]
        due = [unit for unit in stuck if unit.retry_ns <= self.now_ns]
        self._remove([unit for unit in due if self.budget.take()], "nic.removed_at_last")

    def _remove(self, units: Sequence[Unit], code: str) -> None:
        out, finals = self.executor.remove(units, self.now_ns)
        for unit in out:
            if unit.counter is not None:
                self._take_reading(unit, reading_of(finals.get(unit.rule_id)))
            for row in sorted(unit.members):
                self.leave(row, code)
            self.units.remove(unit)

    # ----------------------------------------------------------------------------- counters and trouble

    def poll(self, now_ns: int) -> None:
        """Read the NIC's counters: hold them against what the dispatchers counted, or enter them into the ledger."""
        self.now_ns = now_ns
        installed = [self.units[number] for number in self.units.in_state(UnitState.INSTALLED)]
        followed = [unit for unit in installed if unit.counter is not None]
        for unit, reading in zip(followed, self.executor.read(followed), strict=True):
            if self.executor.alive:
                self._take_reading(unit, reading)

    def _take_reading(self, unit: Unit, reading: Reading) -> None:
        if self._believes_nic:
            self._enter(unit, reading)
        else:
            self._compare(unit, reading)

    def _enter(self, unit: Unit, reading: Reading) -> None:
        """Enter into the ledger what a rule counted. Of flows that share a rule the first has it all."""
        assert unit.counter is not None
        before = unit.counter.total
        if not unit.counter.advance(reading):
            return
        self.disagreements.readings += 1
        now, row = unit.counter.total, min(unit.members)
        packets, size = now.packets - before.packets, now.bytes - before.bytes
        rows = np.array([row])
        self.table.ledger.count(Path.NIC, rows, np.array([packets]), np.array([size]))
        if packets:
            self.table.last_ns[sorted(unit.members)] = self.now_ns

    def _compare(self, unit: Unit, reading: Reading) -> None:
        (row,) = unit.members
        now = self.table.ledger.flow(Path.NIC, row)
        truth = Count(packets=now.packets - unit.base.packets, bytes=now.bytes - unit.base.bytes)
        assert unit.counter is not None
        verdict = unit.counter.observe(reading, truth, self.now_ns)
        if verdict is Verdict.MISSING:
            return
        self.disagreements.readings += 1
        if verdict is not Verdict.AGREES:
            self.disagreements.by_kind[verdict.value] += 1
            self.table.disagreements[row] += 1

    def _nic_gone(self, text: str) -> None:
        self.gone_text = text
        self.flush_ns = None
        self._queue.clear()
        self._tx_queue.clear()
        for unit in list(self.units):
            self.units.remove(unit)
        table = self.table
        moving = (FlowState.PENDING, FlowState.OFFLOADED, FlowState.DRAINING, FlowState.BACKOFF)
        for row in np.flatnonzero(np.isin(table.state[: table.high], moving)).tolist():
            self.leave(row, "nic.gone", text)
        self.dispatch_changed.update(range(len(self._directory.vms)))


def lead_of(returns: int, most: float) -> float:
    """Return the factor for a flow that came back so many times in short order: doubled from the second time on."""
    return min(2.0 ** max(returns - 1, 0), most)
