"""Works out what it takes to bring a NIC to a desired state. Changes nothing."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from nicoffload.codec import format_rule
from nicoffload.compiler import Refusal
from nicoffload.driver.contract import Ahead, Driver, Placement, TableState, VirtualFunctions
from nicoffload.errors import InvalidRequestError, NicOffloadError, NotFoundError, Reason
from nicoffload.model import (
    Disruption,
    FlowRule,
    Masked,
    RateLimit,
    RateReport,
    ToVf,
    VfConfig,
    VfState,
    VlanTag,
    format_mac,
)
from nicoffload.model.values import FIRST_VF_PORT
from nicoffload.nic.flow_book import FlowBook, rule_key
from nicoffload.nic.flow_change import with_notes
from nicoffload.nic.rate_check import check_rates
from nicoffload.nic.settings import differences, needs_no_vfs, rate_of
from nicoffload.nic.values import DesiredState, Owned, Step
from nicoffload.nic.verify import Reading
from nicoffload.profiles.types import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done, in the order in which it is done.

    Args:
        steps: For people.
        remove: Rules of ours that go.
        clear: Whether all VFs go before tables are enabled, and are made after.
        first: Tables to enable before VFs are made: the driver changes its mode only while there are none.
        vf_count: How many VFs there are to be; None to leave them.
        configs: Settings of VFs that differ.
        tables: Tables to enable once the VFs are there.
        rates: Rates that differ.
        add: Rules that come, with where they will go.
        disturbs: What is done to VFs that somebody may hold, in words; empty for nothing.
    """

    steps: tuple[Step, ...]
    remove: tuple[Owned, ...] = ()
    clear: bool = False
    first: tuple[TableState, ...] = ()
    vf_count: int | None = None
    configs: tuple[VfConfig, ...] = ()
    tables: tuple[TableState, ...] = ()
    rates: Mapping[int, RateLimit] = dataclasses.field(default_factory=dict)
    add: tuple[Placement, ...] = ()
    disturbs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flows:
    """What is done about rules.

    Args:
        remove: Rules of ours that go.
        add: Rules that come.
        first: See `Work`.
        tables: See `Work`.
    """

    remove: tuple[Owned, ...] = ()
    add: tuple[Placement, ...] = ()
    first: tuple[TableState, ...] = ()
    tables: tuple[TableState, ...] = ()


class Planner:
    """Compares a desired state with a NIC.

    Args:
        driver: The NIC.
        book: Its rules; None where it has no flow filters.
        applied: What was set in this process, by VF: the only knowledge of a setting that the NIC does not report.
        need: Raises for a facet that the NIC lacks.
    """

    def __init__(
        self,
        driver: Driver,
        book: FlowBook | None,
        applied: Mapping[int, VfConfig],
        need: Callable[[str], None],
    ) -> None:
        self._driver = driver
        self._book = book
        self._applied = applied
        self._need = need
        self._device = driver.info.name

    def work(self, desired: DesiredState) -> Work:
        """Return what is to be done.

        Raises:
            NicOffloadError: The NIC can't be brought to that state.
        """
        vfs = self._driver.virtual_functions
        states = {state.vf: state for state in vfs.states()} if vfs else {}
        count = self._count(desired, states, vfs)
        work = self._work(desired, count, states)
        if work.clear and count is None:  # they are made anew, and with them all that hangs on them
            work = self._work(desired, len(states), states)
        return dataclasses.replace(work, steps=tuple(self._steps(work, states)))

    def _work(self, desired: DesiredState, count: int | None, states: Mapping[int, VfState]) -> Work:
        """Return what is to be done, without the steps that say it to people."""
        made = frozenset(range(count)) if count is not None else frozenset(states)
        present = states if count is None else {}
        configs = self._configs(desired, present, made)
        rates = self._rates(desired, made, anew=count is not None)
        flows = self._flows(desired, count, len(made))
        clear = bool(states) and any(state.enable is None for state in flows.first)
        disturbs = ""
        if count is not None or clear:
            disturbs = "changing the number of VFs would take all of them away"
        elif costly := [state for state in flows.tables if state.enable not in (None, Disruption.NONE)]:
            cost = " and ".join(sorted({str(state.enable) for state in costly}))
            names = ", ".join(state.table.name for state in costly)
            disturbs = f"enabling table {names} would disturb the VFs ({cost})"
        return Work(
            steps=(),
            remove=flows.remove,
            clear=clear,
            first=flows.first,
            vf_count=count,
            configs=configs,
            tables=flows.tables,
            rates=rates,
            add=flows.add,
            disturbs=disturbs,
        )

    def _steps(self, work: Work, states: Mapping[int, VfState]) -> Iterator[Step]:
        """Yield what is done, for people, in the order in which it is done."""
        try:
            yield from self._ordered(work, states)
        finally:
            self._driver.look_ahead(Ahead())

    def _ordered(self, work: Work, states: Mapping[int, VfState]) -> Iterator[Step]:
        driver, remove, add = self._driver, work.remove, work.add
        driver.look_ahead(Ahead())
        coming = {placement.rule.rule_id for placement in add}
        gone = sorted(remove, key=lambda each: each.rule_id in coming)  # what comes back goes last
        by_hand = self._removals(gone)
        yield from (
            self._removal_step(each, by_hand[each.rule_id]) for each in gone if each.rule_id not in coming
        )
        count = work.vf_count
        if work.clear:
            yield self._count_step(0, len(states))
            driver.look_ahead(Ahead(vf_count=0))
        for state in work.first:
            yield self._table_step(state)
        if count is not None and (count or not work.clear):
            yield self._count_step(count, 0 if work.clear else len(states))
        mode = next((state.mode for state in work.first), "")
        driver.look_ahead(Ahead(vf_count=count, mode=mode))
        for config in work.configs:
            yield self._config_step(config)
        for state in work.tables:
            yield self._table_step(state)
            if state.mode:
                driver.look_ahead(Ahead(vf_count=count, mode=state.mode))
        for vf, limit in work.rates.items():
            yield self._rate_step(vf, limit)
        yield from self._adding_steps(by_hand, add)

    def _removals(self, gone: Sequence[Owned]) -> Mapping[uuid.UUID, Sequence[str]]:
        try:
            commands = self._driver.equivalents_of_removal([each.ref for each in gone])
        except NicOffloadError as error:
            commands = [_unknown(error)] * len(gone)
        return {each.rule_id: words for each, words in zip(gone, commands, strict=True)}

    def _count(
        self, desired: DesiredState, states: Mapping[int, VfState], vfs: VirtualFunctions | None
    ) -> int | None:
        if desired.vf_count is None:
            return None
        self._need("virtual_functions")
        assert vfs is not None
        limit = vfs.limit()
        if not 0 <= desired.vf_count <= limit:
            raise InvalidRequestError(
                f"{desired.vf_count} is not within 0 and {limit}", path="/vf_count", device=self._device
            )
        return None if desired.vf_count == len(states) else desired.vf_count

    def _configs(
        self, desired: DesiredState, present: Mapping[int, VfState], made: frozenset[int]
    ) -> tuple[VfConfig, ...]:
        if desired.vfs:
            self._need("virtual_functions")
        configs = []
        for index, config in enumerate(desired.vfs):
            if config.vf not in made:
                raise self._no_vf(config.vf, made, f"/vfs/{index}/vf")
            state = present.get(config.vf)
            pruned = config if state is None else self._pruned(config, state)
            if pruned != VfConfig(vf=config.vf):
                configs.append(pruned)
        return tuple(configs)

    def _pruned(self, config: VfConfig, state: VfState) -> VfConfig:
        """Return only the settings that are not in force."""
        differ: dict[str, Any] = {name: want for name, want, _ in differences(config, state)}
        done = self._applied.get(config.vf)
        for spec in dataclasses.fields(config):
            want = getattr(config, spec.name)
            unreported = spec.name != "vf" and want is not None and getattr(state, spec.name) is None
            if unreported and (done is None or getattr(done, spec.name) != want):
                differ[spec.name] = want
        return VfConfig(vf=config.vf, **differ)

    def _rates(self, desired: DesiredState, made: frozenset[int], *, anew: bool) -> dict[int, RateLimit]:
        if not desired.rates:
            return {}
        self._need("rates")
        assert self._driver.rates is not None
        reports = {} if anew else {report.vf: report for report in self._driver.rates.read()}
        wanted = {}
        for vf, limit in sorted(desired.rates.items()):
            if vf not in made:
                raise self._no_vf(vf, made, f"/rates/{vf}")
            report = reports.get(vf)
            if report is None or not self._has_rate(report, limit):
                wanted[vf] = limit
        check_rates(wanted, self._driver.profile.rates, self._device)
        return wanted

    def _has_rate(self, report: RateReport, limit: RateLimit) -> bool:
        """Tell whether a VF has its rates, to within what the NIC can express."""
        if report.requested == limit:
            return True
        now = rate_of(report)
        facts = self._driver.profile.rates
        return _near(now.min_tx_bps, limit.min_tx_bps, facts.min_tx) and _near(
            now.max_tx_bps, limit.max_tx_bps, facts.max_tx
        )

    def _flows(self, desired: DesiredState, count: int | None, vfs: int) -> _Flows:
        book = self._book
        if book is None:
            if desired.flows:
                self._need("flow_filters")
            return _Flows()
        keep, come = self._compared(desired, book)
        stay = {rule_id for rule_id in keep if count is None or not _touches_vf(book.owned[rule_id].rule)}
        names = {rule.rule_id for rule in come}
        go = [
            each
            for rule_id, each in book.owned.items()
            if rule_id in names
            or (rule_id not in stay and (desired.exact or (count is not None and _touches_vf(each.rule))))
        ]
        back = [
            each.rule for each in go if each.rule_id not in names and self._comes_back(each, keep, desired)
        ]
        placements, needed = self._placed([*come, *back], go, vfs, desired.flows)
        going = {each.rule_id for each in go}
        used = {placement.table for placement in placements}
        used |= {each.ref.table for rule_id, each in book.owned.items() if rule_id not in going}
        first, tables = self._enabled(needed, used, count)
        return _Flows(remove=tuple(go), add=placements, first=first, tables=tables)

    def _enabled(
        self, needed: Sequence[TableState], used: Collection[str], count: int | None
    ) -> tuple[tuple[TableState, ...], tuple[TableState, ...]]:
        """Return which tables are enabled before VFs are made, and which after.

        Args:
            needed: Tables that are blocked, and rules come into them.
            used: Tables in which there are rules in the end.
            count: How many VFs are made; None where none are.
        """
        early = needs_no_vfs(self._driver)
        first = [state for state in needed if state.mode and early]
        later = [state for state in needed if state not in first]
        if count and self._book is not None:
            # VFs come with what these need turned off.
            names = {state.table.name for state in later}
            opened = {state.table.name for state in first}
            later += [
                dataclasses.replace(state, blocked=(_NEW_PORTS,), enable=Disruption.NONE, mode="")
                for state in self._book.filters.tables()
                if state.on_each_vf
                and state.table.name in used
                and state.table.name not in names
                and (not state.blocked or state.table.name in opened)
            ]
        return tuple(first), tuple(later)

    def _compared(self, desired: DesiredState, book: FlowBook) -> tuple[set[uuid.UUID], list[FlowRule]]:
        """Return which of our rules are wanted as they are, and which wanted rules are not there."""
        named = {rule.rule_id for rule in desired.flows}
        same = {
            rule_key(each.rule): each.rule_id for each in book.owned.values() if each.rule_id not in named
        }
        keep: set[uuid.UUID] = set()
        come: list[FlowRule] = []
        for rule in desired.flows:
            there = book.owned.get(rule.rule_id)
            if there is not None and rule_key(there.rule) == rule_key(rule):
                keep.add(rule.rule_id)
            elif there is None and (twin := same.get(rule_key(rule))) is not None:
                keep.add(twin)
            else:
                come.append(rule)
        return keep, come

    def _comes_back(self, each: Owned, keep: set[uuid.UUID], desired: DesiredState) -> bool:
        return each.rule_id in keep or not desired.exact

    def _placed(
        self, rules: Sequence[FlowRule], go: Sequence[Owned], vfs: int, request: Sequence[FlowRule]
    ) -> tuple[tuple[Placement, ...], tuple[TableState, ...]]:
        """Place rules, in tables that have to be enabled where there is no other."""
        assert self._book is not None
        if not rules:
            return (), ()
        reading = Reading(self._book.filters.dump())
        states = self._book.filters.tables()
        gone = [each.rule_id for each in go]
        compiler = self._book.fresh_compiler(reading, without=gone, tables=states, vfs=vfs)
        answers = compiler.place_many(rules)
        # Last, so that a rule that has a place without it does not make a table be enabled; VFs go at the very last.
        closed = [state for state in states if state.blocked and state.enable is not None]
        closed += [
            state for state in states if state.blocked and state.enable is None and state.enable_without_vfs
        ]
        if closed and any(isinstance(answer, Refusal) for answer in answers):
            opened = [
                *(state for state in states if state not in closed),
                *(dataclasses.replace(state, blocked=()) for state in closed),
            ]
            compiler = self._book.fresh_compiler(reading, without=gone, tables=opened, vfs=vfs)
            answers = compiler.place_many(rules)
        refused = [
            (rule, answer.error(self._device))
            for rule, answer in zip(rules, answers, strict=True)
            if isinstance(answer, Refusal)
        ]
        if refused:
            raise with_notes(refused, request)
        placements = tuple(answer for answer in answers if not isinstance(answer, Refusal))
        used = {placement.table for placement in placements}
        return placements, tuple(state for state in states if state.table.name in used and state in closed)

    def _no_vf(self, vf: int, made: frozenset[int], path: str) -> NotFoundError:
        return NotFoundError(
            f"there is no VF {vf}; there are {len(made)}",
            path=path,
            device=self._device,
            hint="VFs are counted from 0; vf_count makes more",
        )

    def _by_hand(self, ask: Callable[[], Sequence[str]]) -> tuple[str, ...]:
        """Return the commands of a step. That none can be shown keeps nobody from planning it."""
        try:
            return tuple(ask())
        except NicOffloadError as error:
            return _unknown(error)

    def _count_step(self, count: int, now: int) -> Step:
        return Step(
            action="set_vf_count",
            target="vfs",
            detail=f"make {count} VFs where there are {now}; all of them are made anew",
            disruption=Disruption.VF_RESET if now else Disruption.NONE,
            equivalents=self._by_hand(lambda: self._driver.equivalents_of_count(count)),
        )

    def _config_step(self, config: VfConfig) -> Step:
        names = [spec.name for spec in dataclasses.fields(config) if spec.name != "vf"]
        named = [name for name in names if getattr(config, name) is not None]
        facts = self._driver.profile.vf
        resets = facts is not None and any(getattr(facts, name).resets_vf for name in named)
        return Step(
            action="configure_vf",
            target=f"vf:{config.vf}",
            detail=", ".join(f"{name} {_shown(getattr(config, name))}" for name in named),
            disruption=Disruption.VF_RESET if resets else Disruption.NONE,
            equivalents=self._by_hand(lambda: self._driver.equivalents_of_config(config)),
        )

    def _table_step(self, state: TableState) -> Step:
        return Step(
            action="enable_table",
            target=state.table.name,
            detail="; ".join(map(str, state.blocked)),
            disruption=state.enable or state.enable_without_vfs or Disruption.NONE,
            equivalents=self._by_hand(lambda: self._driver.equivalents_of_table(state.table.name)),
        )

    def _rate_step(self, vf: int, limit: RateLimit) -> Step:
        low = "none" if limit.min_tx_bps is None else f"{limit.min_tx_bps} bit/s"
        high = "none" if limit.max_tx_bps is None else f"{limit.max_tx_bps} bit/s"
        return Step(
            action="set_rate",
            target=f"vf:{vf}",
            detail=f"guarantee {low}, limit {high}",
            equivalents=self._by_hand(lambda: self._driver.equivalents_of_rate(vf, limit)),
        )

    def _removal_step(self, each: Owned, commands: Sequence[str]) -> Step:
        return Step(
            action="remove_flow",
            target=str(each.rule_id),
            detail=format_rule(each.rule),
            equivalents=tuple(commands),
        )

    def _adding_steps(
        self, by_hand: Mapping[uuid.UUID, Sequence[str]], add: Sequence[Placement]
    ) -> Iterable[Step]:
        """Yield what comes.

        Args:
            by_hand: What goes, with the commands for it.
            add: What comes.
        """
        coming = {placement.rule.rule_id for placement in add}
        # All that is replaced goes before anything comes: a rule may get the place that another one had.
        first = [command for rule_id in by_hand if rule_id in coming for command in by_hand[rule_id]]
        for placement in add:
            yield Step(
                action="replace_flow" if placement.rule.rule_id in by_hand else "add_flow",
                target=str(placement.rule.rule_id),
                detail=f"{format_rule(placement.rule)} in table {placement.table}",
                equivalents=(*first, *self._by_hand(partial(self._driver.equivalents, placement))),
            )
            first = []


_NEW_PORTS = Reason(
    code="table.feature", path="", message="what it needs is off on the ports of VFs that are made anew"
)


def _unknown(error: NicOffloadError) -> tuple[str, ...]:
    """Return what stands in the place of commands that can't be shown: a comment."""
    return (f"# no command can be shown: {error.message}",)


def _shown(value: object) -> str:
    """Return a setting's value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, VlanTag):
        if not value.vid and not value.pcp:
            return "none"
        return f"{value.vid} priority {value.pcp} ({value.protocol})"
    if isinstance(value, enum.Enum):
        return str(value.value)
    return format_mac(value) if isinstance(value, int) else str(value)


def _near(now: int | None, wanted: int | None, facts: Rate) -> bool:
    if now is None or wanted is None:
        return now == wanted
    return abs(now - wanted) < max(facts.quantum_bps, facts.api_quantum_bps)


def _touches_vf(rule: FlowRule) -> bool:
    port = rule.match.in_port
    from_vf = isinstance(port, Masked) and port.value >= FIRST_VF_PORT
    return from_vf or any(isinstance(action, ToVf) for action in rule.actions)
