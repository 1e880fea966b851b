"""Flow rules of a live NIC, over the tables of all its mechanisms."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import TypeVar

from nicoffload.driver.contract import (
    FlowFilters,
    InstalledRule,
    Outcome,
    Placement,
    QueueCounts,
    RuleRef,
    TableState,
)
from nicoffload.errors import NicOffloadError, NotFoundError, NotSupportedError, Reason
from nicoffload.linux.counting import CounterColumns
from nicoffload.linux.mechanism import Mechanism
from nicoffload.linux.nic import LinuxNic
from nicoffload.model import ACTION_NAMES, Action, FlowCounters
from nicoffload.profiles.types import Table

T = TypeVar("T", Placement, RuleRef)
R = TypeVar("R")


class LinuxFlows(FlowFilters):
    """The filter tables of a live NIC. A table of the profile that no mechanism serves is not offered.

    Args:
        nic: The NIC.
        mechanisms: What serves its tables.
    """

    def __init__(self, nic: LinuxNic, mechanisms: Sequence[Mechanism]) -> None:
        self._nic = nic
        self._mechanisms = tuple(mechanisms)
        for one in self._mechanisms:
            one.read_all = self.dump
        self._by_table = {table.name: one for one in mechanisms for table in one.tables}

    def queues(self) -> QueueCounts:
        """Return the receive queues of the PF in sysfs, and those of a VF by the profile."""
        sriov = self._nic.profile.sriov
        try:
            names = self._nic.kernel.list_sysfs(f"class/net/{self._nic.pf().ifname}/queues")
        except OSError:
            names = ()
        count = sum(name.startswith("rx-") for name in names)
        return QueueCounts(pf=count or None, vf=sriov.queues_per_vf if sriov is not None else None)

    def tables(self) -> Sequence[TableState]:
        """Return the tables in the profile's order."""
        states = {state.table.name: state for one in self._mechanisms for state in one.states()}
        return [states[table.name] for table in self._nic.profile.tables if table.name in states]

    def create_many(self, placements: Sequence[Placement]) -> Sequence[Outcome]:
        """Install rules, one bulk call a mechanism."""

        def call(mechanism: Mechanism, items: Sequence[Placement]) -> Sequence[Outcome]:
            with self._nic.asking("installing rules", "flow_filters"):
                return mechanism.create(items)

        wrong = self._without_effect(placements)
        if not wrong:
            return self._each(placements, call)
        good = [placement for place, placement in enumerate(placements) if place not in wrong]
        answers = iter(self._each(good, call) if good else ())
        return [wrong.get(place) or next(answers) for place in range(len(placements))]

    def destroy_many(self, refs: Sequence[RuleRef]) -> Sequence[NicOffloadError | None]:
        """Remove rules, one bulk call a mechanism."""

        def call(mechanism: Mechanism, items: Sequence[RuleRef]) -> Sequence[NicOffloadError | None]:
            with self._nic.asking("removing rules", "flow_filters"):
                return mechanism.destroy(items)

        return self._each(refs, call)

    def dump(self, refs: Sequence[RuleRef] | None = None) -> Sequence[InstalledRule]:
        """Return the rules of all tables; a table that is blocked holds none."""
        with self._nic.asking("reading rules", "flow_filters"):
            if refs is None:
                return [rule for one in self._mechanisms for rule in one.dump(None)]
            found: list[InstalledRule] = []
            for mechanism in self._mechanisms:
                names = {table.name for table in mechanism.tables}
                mine = [ref for ref in refs if ref.table in names]
                if mine:
                    found += mechanism.dump(mine)
            return found

    def read_counters(self, refs: Sequence[RuleRef]) -> FlowCounters:
        """Return the counters of rules; what the hardware counts, and nothing in its place."""
        columns = CounterColumns(
            rule_ids=[ref.rule_id or uuid.uuid4() for ref in refs],
            time_ns=int(self._nic.context.monotonic_s() * 1e9),
        )
        with self._nic.asking("reading counters", "statistics.rule"):
            for mechanism in self._mechanisms:
                names = {table.name for table in mechanism.tables if table.counters is not None}
                rows = [row for row, ref in enumerate(refs) if ref.table in names] if names else []
                if rows:
                    mechanism.count([refs[row] for row in rows], rows, columns)
        return columns.done()

    def enable_table(self, name: str) -> None:
        """Turn on what a table needs."""
        mechanism, table = self._find(name)
        with self._nic.asking(f"enabling table {name}", f"flow_filters.{name}"):
            mechanism.enable(table)

    def mode(self) -> str:
        """Return the mode of the switch."""
        return self._nic.eswitch_mode() or ""

    def set_mode(self, mode: str) -> None:
        """Change the mode of the switch, by the mechanism whose tables depend on it."""
        one = next(
            (one for one in self._mechanisms if any(table.needs.eswitch_mode for table in one.tables)),
            None,
        )
        if one is None:
            super().set_mode(mode)
            return
        with self._nic.asking(f"changing the eswitch to {mode}", "eswitch"):
            one.set_mode(mode)

    def forget_shown(self) -> None:
        """Show commands as if none had been shown before."""
        for one in self._mechanisms:
            one.forget_shown()

    def commands(self, placement: Placement) -> Sequence[str]:
        """Return the shell commands that install a rule."""
        return self._find(placement.table)[0].commands(placement)

    def removal_commands(self, refs: Sequence[RuleRef]) -> Sequence[Sequence[str]]:
        """Return, for each rule, the shell commands that remove it; of one in no table none."""
        found: list[Sequence[str]] = [()] * len(refs)
        for mechanism in self._mechanisms:
            rows = [row for row, ref in enumerate(refs) if self._by_table.get(ref.table) is mechanism]
            commands = mechanism.removal_commands([refs[row] for row in rows])
            for row, words in zip(rows, commands, strict=True):
                found[row] = words
        return found

    def enable_commands(self, name: str) -> Sequence[str]:
        """Return the shell commands that turn on what a table needs."""
        mechanism, table = self._find(name)
        return mechanism.enable_commands(table)

    def _without_effect(self, placements: Sequence[Placement]) -> dict[int, NotSupportedError]:
        """Return the refusals of rules with an action that their table has not: some drivers look at no action."""
        known: dict[tuple[str, int], str] = {}
        found: dict[int, NotSupportedError] = {}
        for place, placement in enumerate(placements):
            actions = placement.rule.actions
            key = (placement.table, id(actions))
            lacking = known.get(key)
            if lacking is None:
                lacking = known[key] = self._lacking(placement.table, actions)
            if lacking:
                found[place] = self._no_action(placement, lacking)
        return found

    def _lacking(self, name: str, actions: Sequence[Action]) -> str:
        if name not in self._by_table:
            return ""
        table = self._find(name)[1]
        names = (ACTION_NAMES[type(action)] for action in actions)
        return next((one for one in names if one not in table.actions), "")

    def _no_action(self, placement: Placement, lacking: str) -> NotSupportedError:
        table = self._find(placement.table)[1]
        reason = Reason(
            code="driver.vf_target" if lacking == "vf" else "driver.action",
            path="/actions",
            message=f"table {table.name} has no action {lacking}",
            accepted=", ".join(sorted(table.actions)),
            source=table.source,
            errno=table.errors.get("action") or "",
        )
        return NotSupportedError(
            f"rule {placement.rule.rule_id} was not installed",
            capability=f"flow_filters.{table.name}",
            reasons=[reason],
            path="/actions",
            device=self._nic.device,
        )

    def _find(self, name: str) -> tuple[Mechanism, Table]:
        mechanism = self._by_table.get(name)
        if mechanism is None:
            raise self._no_table(name)
        return mechanism, next(table for table in mechanism.tables if table.name == name)

    def _no_table(self, name: str) -> NotFoundError:
        known = ", ".join(self._by_table) or "none"
        return NotFoundError(f"the NIC has no table {name}; its tables: {known}", device=self._nic.device)

    def _each(self, items: Sequence[T], call: Callable[[Mechanism, Sequence[T]], Sequence[R]]) -> list[R]:
        """Hand each mechanism its items in one call, and return the answers in the order of the items."""
        by_table = self._by_table
        names = {item.table for item in items}
        if len({by_table.get(name) for name in names}) == 1 and names <= by_table.keys():
            return list(call(by_table[next(iter(names))], items))
        answers: list[R | NicOffloadError] = [self._no_table(item.table) for item in items]
        for mechanism in self._mechanisms:
            places = [place for place, item in enumerate(items) if by_table.get(item.table) is mechanism]
            if places:
                found = call(mechanism, [items[place] for place in places])
                for place, answer in zip(places, found, strict=True):
                    answers[place] = answer
        return answers  # type: ignore[return-value]  # both calls answer with errors too
