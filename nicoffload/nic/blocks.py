"""Records of rules, and the blocks in which the journal keeps them: made for writing 100,000 at once, not for people.

Rules of one shape differ in their values only. So a block says once what its rules have in common, and keeps ids,
slots and values side by side. It is small, that damage to one page costs few rules, and it has a checksum, that no rule
is read which nobody wrote.
"""

from __future__ import annotations

import json
import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

from nicoffload.driver.contract import RuleRef
from nicoffload.errors import JournalError, NicOffloadError
from nicoffload.model import (
    FIELDS,
    RANGE_MASK,
    Action,
    FlowRule,
    Masked,
    Match,
    PortRange,
    Shape,
)
from nicoffload.model.match import FieldValue
from nicoffload.nic.records import plain_actions, read_actions

RULES_PER_BLOCK = 32
"""About as many as fit a page of the file."""

Values = tuple[int | tuple[int, int], ...]

_HEAD = struct.Struct("<IHI")  # checksum of all that follows it, records, bytes of the text
_CHECKSUM_BYTES = 4
_ID_BYTES = 16
_SLOT = struct.Struct("<q")
_WIDE = "16s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the rules of a block have in common.

    Args:
        table: Where they are.
        shape: Fields and masks.
        actions: What they do.
        priority: Their priority; None for none.
        slots: Whether they have slots.
    """

    table: str
    shape: Shape
    actions: tuple[Action, ...]
    priority: int | None
    slots: bool


class Written(NamedTuple):
    """A rule that was read from a block, and is made only when it is needed.

    Args:
        kind: What it has in common with others.
        values: What its fields are compared with, in the order of the shape.
    """

    kind: Kind
    values: Values

    def rule(self, rule_id: uuid.UUID) -> FlowRule:
        """Return the rule.

        Raises:
            JournalError: Its values fit no rule: another release wrote it.
        """
        try:
            fields: dict[str, FieldValue] = {
                name: Masked(value, mask) if isinstance(value, int) else PortRange(*value)
                for (name, mask), value in zip(self.kind.shape, self.values, strict=True)
            }
            return FlowRule(
                match=Match(**fields),
                actions=self.kind.actions,
                priority=self.kind.priority,
                rule_id=rule_id,
            )
        except (ValueError, TypeError, KeyError, NicOffloadError) as cause:
            raise JournalError(f"the record of rule {rule_id} is damaged: {cause}") from cause

    def is_of(self, rule: FlowRule) -> bool:
        """Tell whether a rule says the same; cheaper than making the rule."""
        kind, match = self.kind, rule.match
        return (
            match.values == self.values
            and match.shape == kind.shape
            and rule.priority == kind.priority
            and rule.actions == kind.actions
        )


class RuleRecord(NamedTuple):
    """A rule of ours as the journal has it; a tuple, for there are as many as rules."""

    rule_id: uuid.UUID
    table: str
    slot: int | None
    body: FlowRule | Written

    @property
    def rule(self) -> FlowRule:
        """The rule.

        Raises:
            JournalError: The record is damaged.
        """
        body = self.body
        return body if isinstance(body, FlowRule) else body.rule(self.rule_id)

    @property
    def ref(self) -> RuleRef:
        """Where it is."""
        return RuleRef(rule_id=self.rule_id, table=self.table, slot=self.slot)


class Block(NamedTuple):
    """Records as they are stored.

    Args:
        rules: How many.
        body: Their bytes.
    """

    rules: int
    body: bytes


def pack(records: Iterable[RuleRecord]) -> Iterator[Block]:
    """Yield the blocks of records, those together that are of one kind; so they change their order."""
    for kind, alike in _by_kind(records).items():
        row = _row(kind.shape)
        values = [_values(record.body) for record in alike]
        words: Iterable[Sequence[object]] = values if row.plain else map(row.flatten, values)
        write = row.words.pack
        yield from _cut(
            _kind_text(kind),
            b"".join([record.rule_id.int.to_bytes(_ID_BYTES, "big") for record in alike]),
            b"".join([_SLOT.pack(record.slot) for record in alike]) if kind.slots else b"",
            b"".join([write(*each) for each in words]),
        )


def pack_ids(rule_ids: Sequence[uuid.UUID]) -> Iterator[Block]:
    """Yield blocks that name rules and say no more: rules that are gone."""
    return _cut(b"", b"".join([rule_id.bytes for rule_id in rule_ids]), b"", b"")


def read_ids(body: bytes) -> Iterator[uuid.UUID]:
    """Yield the rules that a block names.

    Raises:
        JournalError: The block is damaged.
    """
    count, text_bytes = check(body)
    start = _HEAD.size + text_bytes
    for at in range(start, start + count * _ID_BYTES, _ID_BYTES):
        yield uuid.UUID(bytes=body[at : at + _ID_BYTES])


def unpack(body: bytes) -> list[RuleRecord]:
    """Return the records of a block of `pack`.

    Raises:
        JournalError: The block is damaged.
    """
    count, text_bytes = check(body)
    start = _HEAD.size + text_bytes
    kind = _read_kind(body[_HEAD.size : start])
    row = _row(kind.shape)
    place = start + count * _ID_BYTES
    slots: Iterable[int | None] = repeat(None, count)
    if kind.slots:
        slots = [slot for (slot,) in _SLOT.iter_unpack(body[place : place + count * _SLOT.size])]
        place += count * _SLOT.size
    numbers = row.words.iter_unpack(body[place:]) if row.words.size else repeat((), count)
    values: Iterable[Values] = numbers if row.plain else map(row.restore, numbers)
    try:
        return [
            RuleRecord(rule_id, kind.table, slot, Written(kind, each))
            for rule_id, slot, each in zip(read_ids(body), slots, values, strict=True)
        ]
    except ValueError as cause:
        raise JournalError("a block of records does not hold what its head says") from cause


def check(body: object) -> tuple[int, int]:
    """Return how many records a block has, and how long its text is.

    Raises:
        JournalError: It is damaged.
    """
    if isinstance(body, bytes) and len(body) >= _HEAD.size:
        checksum, count, text_bytes = _HEAD.unpack_from(body)
        if (
            checksum == zlib.crc32(memoryview(body)[_CHECKSUM_BYTES:])
            and len(body) >= _HEAD.size + text_bytes + count * _ID_BYTES
        ):
            return count, text_bytes
    raise JournalError("a block of records is damaged: its checksum is wrong")


def _cut(text: bytes, *columns: bytes) -> Iterator[Block]:
    """Yield blocks of as many records as a block takes, from columns with as many bytes for each record."""
    total = len(columns[0]) // _ID_BYTES
    widths = [len(column) // total for column in columns] if total else []
    for first in range(0, total, RULES_PER_BLOCK):
        count = min(RULES_PER_BLOCK, total - first)
        parts = [
            column[first * width : (first + count) * width]
            for column, width in zip(columns, widths, strict=True)
        ]
        rest = b"".join([_HEAD.pack(0, count, len(text))[_CHECKSUM_BYTES:], text, *parts])
        yield Block(count, zlib.crc32(rest).to_bytes(_CHECKSUM_BYTES, "little") + rest)


def _by_kind(records: Iterable[RuleRecord]) -> Mapping[Kind, list[RuleRecord]]:
    # By identity first, which is nearly always enough: comparing actions costs as much as all the rest.
    groups: dict[object, list[RuleRecord]] = {}
    last: object = None
    group: list[RuleRecord] = []
    for record in records:
        _, table, slot, body = record
        if isinstance(body, FlowRule):
            key: object = (table, id(body.match.shape), id(body.actions), body.priority, slot is None)
        else:
            key = (table, id(body.kind), slot is None)
        if key != last:
            last = key
            group = groups.setdefault(key, [])
        group.append(record)
    kinds: dict[Kind, list[RuleRecord]] = {}
    for group in groups.values():
        kinds.setdefault(_kind_of(group[0]), []).extend(group)
    return kinds


def _kind_of(record: RuleRecord) -> Kind:
    body = record.body
    if isinstance(body, FlowRule):
        shape, actions, priority = body.match.shape, body.actions, body.priority
    else:
        shape, actions, priority = body.kind.shape, body.kind.actions, body.kind.priority
    return Kind(
        table=record.table, shape=shape, actions=actions, priority=priority, slots=record.slot is not None
    )


def _values(body: FlowRule | Written) -> Values:
    return body.match.values if isinstance(body, FlowRule) else body.values


class _Row:
    """How the values of a rule of one shape are written.

    Args:
        shape: The shape.
    """

    def __init__(self, shape: Shape) -> None:
        self._ranges = [mask == RANGE_MASK for _, mask in shape]
        codes = ["HH" if mask == RANGE_MASK else _code(FIELDS[name].bits) for name, mask in shape]
        self._wide = [code == _WIDE for code in codes]
        self.words = struct.Struct("<" + "".join(codes))
        self.plain = not any(self._ranges) and not any(self._wide)
        """Whether each value is one number of a length that `struct` knows."""

    def flatten(self, values: Values) -> tuple[int | bytes, ...]:
        """Return what `words` writes."""
        found: list[int | bytes] = []
        for value, wide in zip(values, self._wide, strict=True):
            if isinstance(value, tuple):
                found += value
            else:
                found.append(value.to_bytes(16, "big") if wide else value)
        return tuple(found)

    def restore(self, words: Sequence[int | bytes]) -> Values:
        """Return the values that `flatten` wrote."""
        found: list[int | tuple[int, int]] = []
        numbers = [int.from_bytes(word, "big") if isinstance(word, bytes) else word for word in words]
        place = 0
        for is_range in self._ranges:
            if is_range:
                found.append((numbers[place], numbers[place + 1]))
            else:
                found.append(numbers[place])
            place += 1 + is_range
        return tuple(found)


def _code(bits: int) -> str:
    return next((code for code, most in (("B", 8), ("H", 16), ("I", 32), ("Q", 64)) if bits <= most), _WIDE)


@lru_cache(maxsize=1024)
def _row(shape: Shape) -> _Row:
    return _Row(shape)


def _kind_text(kind: Kind) -> bytes:
    words = [kind.table, kind.shape, plain_actions(kind.actions), kind.priority, kind.slots]
    return json.dumps(words, separators=(",", ":")).encode()


@lru_cache(maxsize=1024)
def _read_kind(text: bytes) -> Kind:
    try:
        table, shape, actions, priority, slots = json.loads(text)
        return Kind(
            table=str(table),
            shape=tuple((name, mask) for name, mask in shape if name in FIELDS),
            actions=read_actions(actions),
            priority=priority,
            slots=slots,
        )
    except (ValueError, TypeError, KeyError, AttributeError, NicOffloadError) as cause:
        raise JournalError(f"a block of records is damaged: {cause}") from cause
