"""The rules that stand in a table, indexed for one question: what of them is in the way of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from nicoffload.driver.contract import InstalledRule
from nicoffload.model import FlowRule, Match, Shape
from nicoffload.profiles.types import FlowType, Table

Values = tuple[object, ...]


class Standing:
    """The rules of a table and of those that share its rows.

    Args:
        table: The table that was asked.
        rules: From a dump.
    """

    def __init__(self, table: Table, rules: Iterable[InstalledRule]) -> None:
        self._table = table
        self.slots: dict[int, FlowRule] = {}
        self._others: list[FlowRule] = []
        for installed in rules:
            if installed.ref.slot is None:
                self._others.append(installed.rule)
            else:
                self.slots[installed.ref.slot] = installed.rule
        self._copies: Counter[object] = Counter(self._identity(rule.match) for rule in self._all())
        self._fields: Counter[str] = Counter(name for rule in self._all() for name, _ in rule.match.shape)
        self._masks: dict[str, Counter[Shape]] = {}
        for rule in self._all():
            group, shape = self._masked(rule.match)
            self._masks.setdefault(group, Counter())[shape] += 1

    def add(self, match: Match) -> None:
        """Note one more rule, for `copies`."""
        self._copies[self._identity(match)] += 1

    def copies(self, match: Match, *, but: int | None) -> int:
        """Return how many rules match the same, that in slot `but` left out."""
        identity = self._identity(match)
        same = but is not None and but in self.slots and self._identity(self.slots[but].match) == identity
        return self._copies[identity] - same

    def comparing(self, field: str, *, but: int | None) -> int:
        """Return how many rules compare a field, that in slot `but` left out."""
        there = but is not None and but in self.slots
        return self._fields[field] - (there and _compares(self.slots[but], field))  # type: ignore[index]

    def has_other_masks(self, match: Match, *, but: int | None) -> bool:
        """Return whether rules stand there whose masks a new rule would have to share, and does not."""
        model = self._table.mask_model
        if model not in ("one_mask_per_port", "one_input_set_per_flow_type"):
            return False
        group, shape = self._masked(match)
        held = self._masks.get(group, Counter())
        others = sum(held.values()) - held[shape]
        if model == "one_input_set_per_flow_type" and but is not None and but in self.slots:
            old_group, old_shape = self._masked(self.slots[but].match)
            others -= old_group == group and old_shape != shape
        return others > 0

    def has_other_target(self, field: str, rule: FlowRule, *, but: int | None) -> bool:
        """Return whether a rule with the same value of a field has other actions."""
        value = getattr(rule.match, field)
        if value is None:
            return False
        left_out = self.slots.get(but) if but is not None else None
        return any(
            other is not left_out and getattr(other.match, field) == value and other.actions != rule.actions
            for other in self._all()
        )

    def _all(self) -> Iterable[FlowRule]:
        yield from self.slots.values()
        yield from self._others

    def _identity(self, match: Match) -> object:
        kind = self._kind(match)
        ignored = self._table.duplicate.ignores | (kind.duplicate_ignores if kind else frozenset())
        ignored |= _ignored(kind)
        return tuple(
            (name, mask, value)
            for (name, mask), value in zip(match.shape, match.values, strict=True)
            if name not in ignored
        )

    def _masked(self, match: Match) -> tuple[str, Shape]:
        """Return whose masks a match must share, and its own."""
        kind = self._kind(match)
        shape = tuple((name, mask) for name, mask in match.shape if name not in _ignored(kind))
        if self._table.mask_model == "one_mask_per_port" or kind is None:
            return "", shape
        return kind.name, tuple((name, mask) for name, mask in shape if name not in kind.fixed)

    def _kind(self, match: Match) -> FlowType | None:
        return next((kind for kind in self._table.flow_types if fits(kind, match)), None)


def fits(kind: FlowType, match: Match) -> bool:
    """Return whether a match has the values that a flow type fixes."""
    values = dict(zip((name for name, _ in match.shape), match.values, strict=True))
    return all(
        (values.get(name) in allowed) if allowed else name not in values
        for name, allowed in kind.fixed.items()
    )


def _ignored(kind: FlowType | None) -> frozenset[str]:
    if kind is None:
        return frozenset()
    return frozenset(name for name, rule in kind.fields.items() if rule.mask == "ignored")


def _compares(rule: FlowRule, field: str) -> bool:
    return any(name == field for name, _ in rule.match.shape)
