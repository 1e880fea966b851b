"""What is taken in the tables at present: rows, slots, masks and matches, one `Bank` for tables that share them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nicoffload.driver.contract import TableState
from nicoffload.model import ACTION_NAMES, FATES, Action, FlowRule, Match, Shape

Same = FlowRule | tuple[FlowRule, ...]
"""The rules with one match: nearly always one, and then no tuple is made for it."""

Copies = dict[object, Same]
"""Rules of one shape, by the values that a driver compares to tell two rules apart."""


@dataclass(slots=True)
class InputSet:
    """The fields that all rules of a flow type compare, and how many rules there are."""

    fields: frozenset[str]
    rules: int = 0


@dataclass(slots=True)
class Target:
    """Where all rules that compare a field with one value deliver to, and how many rules there are."""

    fate: Action
    rules: int = 0


class Bank:
    """Rows, slots and masks that some tables share.

    Args:
        states: The tables of the bank. Their `in_use` is taken as the bank's: rows are shared, so each reports all.
    """

    def __init__(self, states: Sequence[TableState]) -> None:
        known = [state.rows for state in states if state.rows is not None]
        self.rows = min(known) if known else None
        self.rules = 0
        self.used = 0
        self.slots: dict[int, FlowRule] = {}
        self.masks: Shape = ()
        self.input_sets: dict[str, InputSet] = {}
        self.limited: Counter[tuple[str, str]] = Counter()
        self.targets: dict[object, Target] = {}
        self.by_table: Counter[str] = Counter()
        self._reported = max((state.in_use for state in states), default=0)
        self._copies: dict[Shape, Copies] = {}
        self._next = 0
        self._freed: list[int] = []
        # First slot of a table to the lowest one from there on that may be free: those between are taken.
        self._free_from: dict[int, int] = {}

    def settle(self) -> None:
        """Believe the tables where they report more rows than the known rules take: the rest is somebody's."""
        self.used = max(self.used, self._reported)

    def copies_of(self, shape: Shape) -> Copies:
        """Return the rules of one shape; the same object for as long as the bank lives."""
        return self._copies.setdefault(shape, {})

    def lowest_free(self, first: int = 0) -> int:
        """Return the lowest slot from `first` on that nothing is in, without taking it."""
        found = self._lowest_free()
        if found >= first:
            return found
        found = self._free_from.get(first, first)
        while found in self.slots:
            found += 1
        self._free_from[first] = found
        return found

    def _lowest_free(self) -> int:
        while self._freed and self._freed[0] in self.slots:
            heapq.heappop(self._freed)
        while self._next in self.slots:
            self._next += 1
        return self._freed[0] if self._freed and self._freed[0] < self._next else self._next

    def free_between(self, low: int, high: int) -> Iterator[int]:
        """Yield the free slots from `low` to `high`, both included."""
        return (slot for slot in range(low, high + 1) if slot not in self.slots)

    def free_slot(self, slot: int) -> None:
        """Give a slot back."""
        if self.slots.pop(slot, None) is None:
            return
        if slot < self._next:
            heapq.heappush(self._freed, slot)
        for first, found in self._free_from.items():
            if first <= slot < found:
                self._free_from[first] = slot


def fate(rule: FlowRule) -> Action:
    """Return the action that ends a packet's way."""
    return next(action for action in rule.actions if ACTION_NAMES[type(action)] in FATES)


def add_copy(same: Same, rule: FlowRule) -> Same:
    """Return the rules with one match and one more."""
    return (*same, rule) if isinstance(same, tuple) else (same, rule)


def drop_copy(same: Same, rule: FlowRule) -> Same | None:
    """Return the rules with one match without one of them; None where none is left."""
    if not isinstance(same, tuple):
        return None
    left = tuple(other for other in same if other is not rule)
    return left[0] if len(left) == 1 else left


def first_copy(same: Same) -> FlowRule:
    """Return the oldest of the rules with one match."""
    return same[0] if isinstance(same, tuple) else same


def overlap(one: Match, other: Match) -> bool:
    """Tell whether a packet can match both; two ranges or a range and a mask are taken to meet."""
    for (name, mask), value in zip(one.shape, one.values, strict=True):
        for (other_name, other_mask), other_value in zip(other.shape, other.values, strict=True):
            if name != other_name or not isinstance(value, int) or not isinstance(other_value, int):
                continue
            if (value ^ other_value) & mask & other_mask:
                return False
    return True
