"""Places for many rules at once, where none of them is in the way of another, so that their order does not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nicoffload.compiler.bank import Bank, Copies
from nicoffload.compiler.plan import Plan, Planner
from nicoffload.compiler.verdict import Verdict
from nicoffload.driver.contract import Placement
from nicoffload.model import FlowRule

FEW = 8
"""Fewer rules than this are sooner placed one by one."""


@dataclass(slots=True, eq=False)
class _Lane:
    """Rules of one kind, and what their placements have in common.

    Args:
        plan: The places for them.
        rules: The rules.
    """

    plan: Plan
    rules: list[FlowRule] = field(default_factory=list)

    def verdict(self) -> Verdict | None:
        """Return the place for all of them, if it depends on how many there are and on nothing else of the others."""
        if not self.plan.fits:
            return None
        verdict = self.plan.fits[0]
        if verdict.depends or verdict.picks_slot or verdict.by_priority:
            return None
        for index, low, high in verdict.bounds:
            column = [rule.match.values[index] for rule in self.rules]
            if not (low <= min(column) and max(column) <= high):  # type: ignore[operator]  # no ranges there
                return None
        return verdict


def place_together(
    rules: Sequence[FlowRule], planner: Planner, placed: dict[int, Placement]
) -> list[Placement] | None:
    """Return where rules go, and take those places; None, with nothing taken, where they must be asked one by one.

    Args:
        rules: The rules.
        planner: Knows the places by kind.
        placed: What is placed already, by number of the rule; takes these.
    """
    numbers = [rule.rule_id.int for rule in rules]
    if len(set(numbers)) != len(rules) or not placed.keys().isdisjoint(numbers):
        return None
    lanes, lane_of = _lanes(rules, planner)
    rows: dict[Bank, int] = {}
    copies: dict[int, tuple[Copies, Copies]] = {}
    chosen: list[Verdict] = []
    for lane in lanes:
        verdict = lane.verdict()
        if verdict is None or not _note_copies(verdict, lane.rules, copies):
            return None
        chosen.append(verdict)
        rows[verdict.bank] = rows.get(verdict.bank, 0) + verdict.rows_per_rule * len(lane.rules)
    for verdict in chosen:
        last = verdict.bank.used + rows[verdict.bank] - verdict.rows_per_rule
        if last > verdict.last_used or last >= verdict.hash_from:
            return None
    for there, new in copies.values():
        there.update(new)
    common = []
    for lane, verdict in zip(lanes, chosen, strict=True):
        verdict.bank.used += verdict.rows_per_rule * len(lane.rules)
        verdict.bank.rules += len(lane.rules)
        common.append((verdict.table_name, verdict.type_name, None, verdict.caveats, lane.plan.why(verdict)))
    placement = tuple.__new__  # half the time of the constructor
    placements = [
        placement(Placement, (rule, *common[number])) for rule, number in zip(rules, lane_of, strict=True)
    ]
    placed.update(zip(numbers, placements, strict=True))
    return placements


def _lanes(rules: Sequence[FlowRule], planner: Planner) -> tuple[list[_Lane], list[int]]:
    """Return rules by kind, and the number of each rule's lane."""
    lanes: list[_Lane] = []
    known: dict[object, int] = {}
    lane_of: list[int] = []
    shape, actions, picked, ranked = None, None, None, False
    pick, number = planner.picker(()), 0
    for rule in rules:
        match = rule.match
        if match.shape is not shape:
            shape, actions = match.shape, None
            pick = planner.picker(shape)
        # By identity: comparing actions costs more than all the rest, and equal ones in two lanes do no harm.
        found = pick(match.values)
        if rule.actions is not actions or found != picked or (rule.priority is not None) != ranked:
            actions, picked, ranked = rule.actions, found, rule.priority is not None
            number = known.setdefault((id(shape), id(actions), picked, ranked), len(lanes))
            if number == len(lanes):
                lanes.append(_Lane(planner.plan(rule)))
        lanes[number].rules.append(rule)
        lane_of.append(number)
    return lanes, lane_of


def _note_copies(
    verdict: Verdict, rules: Sequence[FlowRule], copies: dict[int, tuple[Copies, Copies]]
) -> bool:
    """Note what rules are compared by; False where one is a copy of another or of one that is there."""
    there, new = copies.setdefault(id(verdict.copies), (verdict.copies, {}))
    before = len(new)
    if verdict.pick is None:
        new.update(zip([rule.match.values for rule in rules], rules, strict=True))
    else:
        new.update((verdict.key(rule), rule) for rule in rules)
    return len(new) == before + len(rules) and new.keys().isdisjoint(there)
