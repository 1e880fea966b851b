"""The rules that the manager has in a NIC or is about to: each serves one flow, or many where it is coarse."""

from __future__ import annotations

import enum
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nicoffload.flexivoffload.ledger import Count, RuleCounter
from nicoffload.flexivoffload.lowering import Lowered
from nicoffload.flexivoffload.policy.types import Granularity
from nicoffload.model import FlowRule, Match


class UnitState(enum.IntEnum):
    """Where a rule is on its way into the NIC and out of it."""

    FREE = 0
    PENDING = 1
    INSTALLED = 2
    DRAINING = 3


@dataclass(slots=True, kw_only=True)
class Unit:
    """One rule.

    Args:
        number: Its place in the columns.
        rule: As given to the NIC.
        lowered: How it came about.
        vm: Index of the VM that it serves.
        members: Rows of the flows that it serves.
        counter: Follows the NIC's counter; None before the installation, and for a rule that serves many.
        base: What the dispatcher had counted of the one flow at the installation.
        failures: Failed removals in a row.
        retry_ns: When to try the removal again.
    """

    number: int
    rule: FlowRule
    lowered: Lowered
    vm: int
    members: set[int] = field(default_factory=set)
    counter: RuleCounter | None = None
    base: Count = field(default_factory=Count)
    failures: int = 0
    retry_ns: int = 0

    @property
    def rule_id(self) -> uuid.UUID:
        """The rule's id."""
        return self.rule.rule_id

    @property
    def is_coarse(self) -> bool:
        """Whether it may catch more than one flow."""
        return self.lowered.rung.granularity is not Granularity.FLOW


class UnitTable:
    """All units, with what placement looks at in columns."""

    def __init__(self) -> None:
        self.state = np.zeros(256, np.int8)
        self.vm = np.zeros(256, np.int64)
        self.installed_ns = np.zeros(256, np.int64)
        self.pinned = np.zeros(256, np.bool_)
        self.min_residence_s = np.zeros(256, np.float64)
        self.lead = np.ones(256, np.float64)
        self.table = np.full(256, -1, np.int16)
        self.taken: Counter[int] = Counter()
        self.taken_by_vm: Counter[tuple[int, int]] = Counter()
        self._units: list[Unit | None] = []
        self._free: list[int] = []
        self._by_match: dict[tuple[Match, int], Unit] = {}
        self._coarse: dict[int, dict[int, Unit]] = {}

    def __iter__(self) -> Iterator[Unit]:
        return (unit for unit in self._units if unit is not None)

    def __len__(self) -> int:
        return len(self._by_match)

    def __getitem__(self, number: int) -> Unit:
        unit = self._units[number]
        assert unit is not None
        return unit

    @property
    def high(self) -> int:
        """One past the highest number in use."""
        return len(self._units)

    def find(self, match: Match, vm: int) -> Unit | None:
        """Return the unit with a match, for a VM."""
        return self._by_match.get((match, vm))

    def coarse(self, vm: int) -> Iterator[Unit]:
        """Return the units of a VM that may catch more than one flow."""
        return iter(self._coarse.get(vm, {}).values())

    def add(self, rule: FlowRule, lowered: Lowered, vm: int, table: int) -> Unit:
        """Return a new unit, pending."""
        number = self._free.pop() if self._free else len(self._units)
        unit = Unit(number=number, rule=rule, lowered=lowered, vm=vm)
        if number == len(self._units):
            self._units.append(unit)
            if number == len(self.state):
                self._grow()
        else:
            self._units[number] = unit
        self.state[number] = UnitState.PENDING
        self.vm[number], self.table[number] = vm, table
        self.installed_ns[number] = 0
        self.pinned[number], self.min_residence_s[number], self.lead[number] = False, 0.0, 1.0
        self.taken[table] += 1
        self.taken_by_vm[(table, vm)] += 1
        self._by_match[(rule.match, vm)] = unit
        if unit.is_coarse:
            self._coarse.setdefault(vm, {})[number] = unit
        return unit

    def remove(self, unit: Unit) -> None:
        """Forget a unit."""
        del self._by_match[(unit.rule.match, unit.vm)]
        table = int(self.table[unit.number])
        self.taken[table] -= 1
        self.taken_by_vm[(table, unit.vm)] -= 1
        self._coarse.get(unit.vm, {}).pop(unit.number, None)
        self._units[unit.number] = None
        self.state[unit.number] = UnitState.FREE
        self.table[unit.number] = -1
        self._free.append(unit.number)

    def in_state(self, state: UnitState) -> list[int]:
        """Return the numbers of the units that are in a state."""
        found: list[int] = np.flatnonzero(self.state[: self.high] == state).tolist()
        return found

    def numbers(self, *, table: int, states: tuple[UnitState, ...]) -> npt.NDArray[np.int64]:
        """Return the numbers of the units of a table that are in one of some states."""
        found = np.isin(self.state[: self.high], states) & (self.table[: self.high] == table)
        return np.flatnonzero(found)

    def _grow(self) -> None:
        for name in ("state", "vm", "installed_ns", "pinned", "min_residence_s", "lead", "table"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
