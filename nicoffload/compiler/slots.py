"""Picks locations in a table where the lower location wins, so that priorities keep their meaning."""

from __future__ import annotations

from nicoffload.compiler.bank import overlap
from nicoffload.compiler.verdict import Verdict
from nicoffload.model import FlowRule
from nicoffload.model.rule import MAX_PRIORITY

_TOP, _BOTTOM = MAX_PRIORITY + 1, -1
"""Stand for the ends of the table."""


def slot_by_priority(verdict: Verdict, rule: FlowRule) -> int | None:
    """Return a free slot above all rules that must lose and below all that must win; None where there is none.

    Only rules that overlap and have a priority count: a rule without one overlaps nothing, by its own word. Where it
    can be had, the slot is in order with the others too, and leaves room on both sides.

    Args:
        verdict: Of the rule.
        rule: A rule with a priority.
    """
    bank = verdict.bank
    assert rule.priority is not None, "asked only for a rule with a priority"
    low, high = verdict.first_slot, (bank.rows or MAX_PRIORITY + 1) - 1
    tidy_low, tidy_high, above, below = low, high, _TOP, _BOTTOM
    for slot, other in bank.slots.items():
        if other.priority is None or other.priority == rule.priority:
            continue
        binds = overlap(rule.match, other.match)
        if other.priority > rule.priority:
            tidy_low, above = max(tidy_low, slot + 1), min(above, other.priority)
            low = max(low, slot + 1) if binds else low
        else:
            tidy_high, below = min(tidy_high, slot - 1), max(below, other.priority)
            high = min(high, slot - 1) if binds else high
    wish = tidy_low + int(_part(rule.priority, above, below) * max(tidy_high - tidy_low, 0))
    free = list(bank.free_between(max(low, tidy_low), min(high, tidy_high))) or bank.free_between(low, high)
    return min(free, key=lambda slot: abs(slot - wish), default=None)


def _part(priority: int, above: int, below: int) -> float:
    """Return how far down a gap a rule goes, 0 to 1, by the priorities that bound the gap.

    Priorities often are close to each other and come in order: at the ends a rule stays near the one that is there.
    """
    if above == _TOP and below != _BOTTOM:
        return 31 / 32
    if below == _BOTTOM and above != _TOP:
        return 1 / 32
    return min(max((above - priority) / (above - below), 1 / 4), 3 / 4)
