"""The flow manager: decides for each flow, at its first packet and at every tick, and has it moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from nicoffload import Nic
from nicoffload.flexivoffload.flows import FlowState, FlowTable
from nicoffload.flexivoffload.headers import key_row
from nicoffload.flexivoffload.lowering import Lowered, Lowering, Unable
from nicoffload.flexivoffload.mover import Mover, lead_of
from nicoffload.flexivoffload.placement import (
    NS_PER_S,
    Candidates,
    PlacementConfig,
    admit,
    idle_rows,
    next_operation_price,
    next_row_price,
)
from nicoffload.flexivoffload.policy.decide import FirstVerdicts, Readings, StatisticsRules
from nicoffload.flexivoffload.policy.types import Measure, Policy, RuleKind, Tier
from nicoffload.flexivoffload.rates import ages_s, update_rates
from nicoffload.flexivoffload.units import UnitState
from nicoffload.flexivoffload.vms import RX, TX, VSWITCH_ONLY, VmDirectory


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerConfig:
    """Periods of the manager, on the clock of the capture.

    Args:
        tick_s: Between two looks at all flows.
        poll_s: Between two readings of the NIC's counters.
        gather_s: How long requests are gathered for one bulk call.
        placement: Constants of the placement rule.
    """

    tick_s: float = 0.5
    poll_s: float = 1.0
    gather_s: float = 0.01
    placement: PlacementConfig = field(default_factory=PlacementConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """VMs that can't use their virtual function, by index, and why.

    Args:
        both: Neither way.
        sending: Only to send: nothing would hold them to their limit.
    """

    both: Mapping[int, str] = field(default_factory=dict)
    sending: Mapping[int, str] = field(default_factory=dict)


class FlowManager:
    """Decides. It sees packets only as counts in the ledger.

    Args:
        policy: What is wanted.
        nic: Where to.
        directory: Whose packets are whose.
        table: The flows.
        now_ns: Time of the first packet.
        config: Periods.
        unusable: VMs whose VF can't be used.
        believes_nic: See `Mover`.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        nic: Nic,
        directory: VmDirectory,
        table: FlowTable,
        now_ns: int,
        config: ManagerConfig,
        unusable: Unusable,
        believes_nic: bool = False,
    ) -> None:
        self.policy = policy
        self.config = config
        self.table = table
        self.statistics = StatisticsRules(policy, table.rows)
        table.on_grow.append(self.statistics.grow)
        self.mover = Mover(
            nic=nic,
            policy=policy,
            table=table,
            directory=directory,
            now_ns=now_ns,
            placement=config.placement,
            gather_ns=int(config.gather_s * NS_PER_S),
            believes_nic=believes_nic,
        )
        self._directory = directory
        self._unusable = unusable
        self._lowering = Lowering(nic, policy)
        self._targets: dict[int, Lowered | Unable] = {}
        self._last_tick_ns = now_ns
        self._next_poll_ns = now_ns

    # ------------------------------------------------------------------------------ the first packet

    def new_flow(self, row: int, time_ns: int, verdicts: FirstVerdicts, place: int) -> None:
        """Take up a flow whose first packet just came; whose it is has been filled in.

        Args:
            row: Its row.
            time_ns: When the packet came.
            verdicts: What the header rules say.
            place: Which of the verdicts is this flow's.
        """
        table, mover = self.table, self.mover
        mover.now_ns = max(mover.now_ns, time_ns)
        self.statistics.start(row, verdicts.applies[:, place])
        tier, rule = int(verdicts.tier[place]), int(verdicts.rule[place])
        if table.kind[row] == VSWITCH_ONLY:
            mover.settle(row, FlowState.PINNED, "vswitch.only")
            return
        table.tier[row], table.header_rule[row], table.spoke[row] = tier, rule, rule
        is_plain_local = bool(table.is_local[row]) and tier == Tier.DEFAULT
        wants = bool(verdicts.offload[place]) and not is_plain_local
        table.wants_offload[row] = wants
        if tier == Tier.DENY:
            mover.settle(row, FlowState.PINNED, "policy.deny")
        elif not wants:
            mover.settle(row, FlowState.ONLOAD, "policy.local" if is_plain_local else "policy.default_onload")
        is_caught = table.kind[row] == RX and mover.executor.alive and mover.join_coarse(row)
        if wants and not is_caught:
            self._ask_at_once(row)

    def _ask_at_once(self, row: int) -> None:
        """Take a flow on while nothing is scarce; otherwise it has to show its rate first."""
        table, mover = self.table, self.mover
        if not mover.executor.alive:
            mover.settle(row, FlowState.ONLOAD, "nic.gone", mover.gone_text)
            return
        if table.kind[row] == TX and not self._needs_rule(row):
            self._send_by_vf(row, "first_packet.offload")
            return
        budget = mover.budget
        budget.advance(mover.now_ns)
        if budget.tokens < 1 or (budget.level < 0.25 and table.tier[row] != Tier.PIN):
            mover.settle(row, FlowState.ONLOAD, "budget.operations")
            return
        target = self._target(row)
        if isinstance(target, Unable):
            self._unable(row, target)
        elif self._join(row, target):
            return
        elif not mover.market.has_room(mover.market.index(target.table), int(table.vm[row])):
            mover.settle(row, FlowState.ONLOAD, "table.no_room", f"table {target.table}")
        elif budget.take():
            mover.request(row, target, "first_packet.offload")

    def _needs_rule(self, row: int) -> bool:
        return bool(self.table.kind[row] == RX) or self.mover.market.vfs_need_rules

    def _target(self, row: int) -> Lowered | Unable:
        """Return the rule that would serve a flow; asked once, unless the answer may change."""
        found = self._targets.get(row)
        if found is not None and (isinstance(found, Lowered) or found.is_final):
            return found
        vm = int(self.table.vm[row])
        is_sent = bool(self.table.kind[row] == TX)
        trouble = self._unusable.both.get(vm) or (self._unusable.sending.get(vm) if is_sent else "")
        if trouble:
            found = Unable(code="nic.no_vf", refused=(("virtual function", trouble),), is_final=True)
        elif is_sent and self.table.is_local[row]:
            why = "a rule that brings it to the wire would not bring it to the other VM"
            found = Unable(code="nic.local", refused=(("5-tuple", why),), is_final=True)
        else:
            key = key_row(self.table.keys[row])
            found = self._lowering.lower(key, self._directory.vms[vm], is_sent=is_sent)
        self._targets[row] = found
        return found

    def _unable(self, row: int, target: Unable) -> None:
        self.table.impossible[row] = target.is_final
        self.mover.settle(row, FlowState.ONLOAD, target.code, target.text)

    def _join(self, row: int, target: Lowered) -> bool:
        unit = self.mover.units.find(target.rung.match, int(self.table.vm[row]))
        return unit is not None and self.mover.join(row, unit)

    def _send_by_vf(self, row: int, code: str) -> None:
        vm = int(self.table.vm[row])
        trouble = self._unusable.both.get(vm) or self._unusable.sending.get(vm)
        if trouble:
            self.table.impossible[row] = True
            self.mover.settle(row, FlowState.ONLOAD, "nic.no_vf", trouble)
        else:
            self.mover.dispatch(row, code)

    def forget(self, row: int) -> None:
        """Let go of a flow that leaves the table."""
        self._targets.pop(row, None)

    # --------------------------------------------------------------------------------------- the tick

    def tick(self, now_ns: int) -> None:
        """Look at all flows: rates, rules on statistics, prices; then move."""
        mover, placement = self.mover, self.config.placement
        elapsed_s = (now_ns - self._last_tick_ns) / NS_PER_S
        mover.now_ns = self._last_tick_ns = now_ns
        mover.budget.advance(now_ns)
        mover.market.advance(now_ns)
        update_rates(self.table, now_ns, elapsed_s, placement.tau_s)
        self._judge(now_ns)
        if not mover.executor.alive:
            return
        if now_ns >= self._next_poll_ns:
            self._next_poll_ns = now_ns + int(self.config.poll_s * NS_PER_S)
            mover.poll(now_ns)
        if not mover.market.vfs_need_rules:
            self._move_tx()
        unwanted = [mover.units[number] for number in self._unwanted_units()]
        mover.drain([unit for unit in unwanted if mover.budget.take()], "policy.no_longer")
        mover.retry_drains()
        for index in range(len(mover.market.tables)):
            if mover.executor.alive:
                self._reclaim_and_place(index)
        operation = next_operation_price(mover.prices.operation, mover.budget.level, placement)
        mover.prices = replace(mover.prices, operation=operation)

    def _judge(self, now_ns: int) -> None:
        """Work out where every flow is wanted, by tier."""
        table, high = self.table, self.table.high
        on_nic = table.state[:high] == FlowState.OFFLOADED
        values = {
            Measure.PACKETS: table.packets().astype(np.float64),
            Measure.BYTES: table.bytes().astype(np.float64),
            Measure.PPS: table.rate_pps[:high],
            Measure.BPS: table.rate_bps[:high],
            Measure.AGE_S: ages_s(table, now_ns),
        }
        on_nic_s = np.where(on_nic, (now_ns - table.installed_ns[:high]) / NS_PER_S, -1.0)
        self.statistics.update(Readings(now_ns=now_ns, values=values, on_nic_s=on_nic_s))
        tier, header_rule = table.tier[:high], table.header_rule[:high]
        demoted = self.statistics.verdicts(RuleKind.DEMOTE, high)
        promoted = self.statistics.verdicts(RuleKind.PROMOTE, high)
        is_header = tier == Tier.HEADER
        by_default = self.policy.default_offload & ~table.is_local[:high]
        wants = (is_header | (promoted >= 0) | by_default) & (demoted < 0)
        spoke = np.where(demoted >= 0, demoted, np.where(is_header, header_rule, promoted))
        is_fixed = (tier == Tier.DENY) | (tier == Tier.PIN)
        wants = np.where(is_fixed, tier == Tier.PIN, wants) & (table.kind[:high] != VSWITCH_ONLY)
        table.wants_offload[:high] = wants
        table.spoke[:high] = np.where(is_fixed, header_rule, spoke)

    def _unwanted_units(self) -> list[int]:
        table, units, high = self.table, self.mover.units, self.table.high
        unit = table.unit[:high]
        wanted = np.bincount(unit[(unit >= 0) & table.wants_offload[:high]], minlength=units.high)
        installed = units.state[: units.high] == UnitState.INSTALLED
        found: list[int] = np.flatnonzero(installed & (wanted[: units.high] == 0)).tolist()
        return found

    def _move_tx(self) -> None:
        table, high = self.table, self.table.high
        state, wants = table.state[:high], table.wants_offload[:high]
        is_tx = table.kind[:high] == TX
        for row in np.flatnonzero(is_tx & ~wants & (state == FlowState.OFFLOADED)).tolist():
            self.mover.leave(row, "policy.no_longer")
        ready = is_tx & wants & (state == FlowState.ONLOAD) & ~table.impossible[:high] & self._is_active()
        for row in np.flatnonzero(ready).tolist():
            self._send_by_vf(row, "policy.offload")

    def _is_active(self) -> npt.NDArray[np.bool_]:
        """Return which flows had a packet in the last second, and were not seen to end."""
        table, high = self.table, self.table.high
        active: npt.NDArray[np.bool_] = (
            self.mover.now_ns - table.last_ns[:high] < NS_PER_S
        ) & ~table.closing[:high]
        return active

    # ------------------------------------------------------------------------------------- placement

    def _reclaim_and_place(self, index: int) -> None:
        mover = self.mover
        market = mover.market.tables[index]
        usable = market.capacity.usable
        mover.prices = replace(mover.prices, row_pps=market.row_price_pps)
        numbers, residents = mover.market.residents(index, self.table, mover.now_ns)
        idle = idle_rows(residents, usable, mover.prices, mover.budget)
        mover.drain([mover.units[int(numbers[row])] for row in idle], "placement.idle")
        self._place(index)
        numbers, residents = mover.market.residents(index, self.table, mover.now_ns)
        market.row_price_pps = next_row_price(market.row_price_pps, residents.rate_pps, usable)

    def _place(self, index: int) -> None:
        """Let prices decide who gets the rows of one table."""
        mover, table = self.mover, self.table
        rows, candidates = self._candidates(index)
        if not rows:
            return
        numbers, residents = mover.market.residents(index, table, mover.now_ns)
        admission = admit(
            candidates,
            residents,
            usable=mover.market.tables[index].capacity.usable,
            weights=np.ones(len(self._directory.vms)),
            max_vm_share=mover.market.max_vm_share,
            prices=mover.prices,
            budget=mover.budget,
            config=self.config.placement,
        )
        mover.drain([mover.units[int(numbers[victim])] for victim in admission.victims], "placement.outbid")
        if not mover.executor.alive:
            return
        for place in admission.admitted:
            self._admitted(rows[place], index)
        for place, code in admission.refused.items():
            if table.state[rows[place]] == FlowState.ONLOAD:
                mover.settle(rows[place], FlowState.ONLOAD, f"placement.{code}")

    def _admitted(self, row: int, index: int) -> None:
        mover, target = self.mover, self._target(row)
        # Two candidates of one tick can turn out to want the same rule.
        if not isinstance(target, Lowered) or self._join(row, target):
            return
        if mover.market.in_use(index) >= mover.market.tables[index].capacity.usable:
            # The rule that was to make room could not be taken out.
            mover.settle(row, FlowState.ONLOAD, "placement.table_full")
            return
        mover.executor.operations.retries += bool(self.table.state[row] == FlowState.BACKOFF)
        mover.request(row, target, "placement.admitted")

    def _candidates(self, index: int) -> tuple[list[int], Candidates]:
        """Return the flows that want a row of a table and are fast enough to be looked at."""
        mover, table, high = self.mover, self.table, self.table.high
        state = table.state[:high]
        ready = (state == FlowState.ONLOAD) | (
            (state == FlowState.BACKOFF) & (table.retry_ns[:high] <= mover.now_ns)
        )
        is_ruled = table.kind[:high] == RX
        if mover.market.vfs_need_rules:
            is_ruled = table.kind[:high] != VSWITCH_ONLY
        ready &= table.wants_offload[:high] & is_ruled & ~table.impossible[:high]
        # A rate fades slowly: what has just been taken off for being idle must not come back by it.
        ready &= self._is_active() | (table.tier[:high] == Tier.PIN)
        best = np.flatnonzero(ready)
        best = best[np.argsort(-table.rate_pps[best], kind="stable")]
        found: list[int] = []
        # No more can be admitted than there are operations; asking the NIC about the rest would be in vain.
        most = int(mover.budget.tokens) + 64
        for row in best[: 2 * most].tolist():
            target = self._target(row)
            if isinstance(target, Unable):
                self._unable(row, target)
            elif mover.market.index(target.table) == index and not self._join(row, target):
                found.append(row)
            if len(found) >= most:
                break
        rows = np.array(found, np.int64)
        return found, Candidates(
            rate_pps=table.rate_pps[rows],
            age_s=ages_s(table, mover.now_ns)[rows],
            vm=table.vm[rows].astype(np.int64),
            pinned=table.tier[rows] == Tier.PIN,
            lead=np.array(
                [lead_of(int(n), self.config.placement.max_lead) for n in table.returns[rows]], np.float64
            ),
        )
