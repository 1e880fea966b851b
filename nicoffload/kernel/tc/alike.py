"""Filters that say the same but for the values of their fields, read by layout: one is decoded, the others are cut.

`columns` does so for counters. This does it for what filters say, so that thousands of rules are read back in the time
that it takes to compare them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from nicoffload.kernel.attributes import walk
from nicoffload.kernel.netlink import HEADER
from nicoffload.kernel.tc import actions as act
from nicoffload.kernel.tc import flower
from nicoffload.kernel.tc.columns import boundaries
from nicoffload.kernel.tc.read import CLASSIFIERS, decode
from nicoffload.kernel.tc.template import HEAD_BYTES, TCA_KIND, TCA_OPTIONS
from nicoffload.kernel.tc.values import FilterState
from nicoffload.model import RANGE_MASK

_HANDLE = slice(24, 28)
_PREF = slice(34, 36) if sys.byteorder == "little" else slice(32, 34)
_COOKIE_BYTES = 16
_FEW = 4
"""Fewer messages of one length than this are decoded one by one."""
_MOST_LAYOUTS = 256
_PORTION_BYTES = 1 << 19
_PARAMETERS: Mapping[bytes, int] = MappingProxyType({b"csum": 1, b"police": 1, b"pedit": 4})
"""Which attribute of each kind of action begins with the number that the kernel gave it; 2 for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """Filters that are equal to an example but for what the columns say; row i of each is filter i.

    Args:
        example: One of them, decoded in full.
        handles: Their handles.
        prefs: Their prefs.
        cookies: 16 bytes each; empty where filters have no cookie of that length.
        values: What their fields are compared with, in the order of the example's shape.
    """

    example: FilterState
    handles: Sequence[int]
    prefs: Sequence[int]
    cookies: Sequence[bytes]
    values: Sequence[tuple[int | tuple[int, int], ...]]


@dataclass(slots=True)
class _Plan:
    """Where the bytes are that may differ between alike messages."""

    free: list[slice] = field(default_factory=lambda: [_HANDLE, _PREF])
    keys: dict[int, slice] = field(default_factory=dict)
    cookie: slice | None = None


def alike(datagrams: Sequence[bytes]) -> list[Alike]:
    """Return the filters of a dump's datagrams, those together that are alike.

    Raises:
        MalformedError: They break their format.
    """
    found: list[Alike] = []
    for data in _portions(datagrams):
        starts, lengths = boundaries(data)
        raw = np.frombuffer(data, np.uint8)
        for length in np.unique(lengths):
            places = starts[lengths == length]
            rows = np.lib.stride_tricks.sliding_window_view(raw, int(length))[places]
            found += _of_one_length(rows)
    return found


def _portions(datagrams: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the datagrams joined, about as many bytes at a time as a cache holds: more would need new memory."""
    first = size = 0
    for place, datagram in enumerate(datagrams, 1):
        size += len(datagram)
        if size >= _PORTION_BYTES or place == len(datagrams):
            yield b"".join(datagrams[first:place])
            first, size = place, 0


def _of_one_length(rows: npt.NDArray[np.uint8]) -> Iterator[Alike]:
    for _ in range(_MOST_LAYOUTS):
        if len(rows) < _FEW:
            break
        message = rows[0].tobytes()
        plan = _plan(message)
        fixed = np.full(len(message), 0xFF, np.uint8)
        for part in plan.free:
            fixed[part] = 0
        same = ~((rows ^ rows[0]) & fixed).any(axis=1)
        yield from _cut(rows[same], message, plan)
        rows = rows[~same]
    for row in rows:
        message = row.tobytes()
        yield from _cut(row[None], message, _plan(message))


def _cut(rows: npt.NDArray[np.uint8], message: bytes, plan: _Plan) -> Iterator[Alike]:
    example = decode(message[HEADER.size :])
    if example is None:
        return  # it only says that a pref is in use
    handles = np.ascontiguousarray(rows[:, _HANDLE]).view("u4")[:, 0].tolist()
    prefs = np.ascontiguousarray(rows[:, _PREF]).view("u2")[:, 0].tolist()
    cookies: list[bytes] = []
    if plan.cookie is not None:
        joined = np.ascontiguousarray(rows[:, plan.cookie]).tobytes()
        cookies = [joined[at : at + _COOKIE_BYTES] for at in range(0, len(joined), _COOKIE_BYTES)]
    yield Alike(
        example=example,
        handles=handles,
        prefs=prefs,
        cookies=cookies,
        values=_values(rows, example, plan),
    )


def _values(
    rows: npt.NDArray[np.uint8], example: FilterState, plan: _Plan
) -> list[tuple[int | tuple[int, int], ...]]:
    match = example.filter.match
    protocol = match.ip_proto.value if match.ip_proto is not None else -1  # type: ignore[union-attr]  # never a range
    columns: list[Sequence[int | tuple[int, int]]] = []
    for (name, mask), value in zip(match.shape, match.values, strict=True):
        place = plan.keys.get(flower.value_key(name, protocol)) if example.ref.kind == "flower" else None
        if (
            place is None or mask == RANGE_MASK
        ):  # a range stands elsewhere, also where a damaged message has both
            columns.append([value] * len(rows))
        else:
            columns.append(_numbers(rows[:, place], mask, network=flower.in_network_order(name)))
    return list(zip(*columns, strict=True)) if columns else [()] * len(rows)


def _numbers(part: npt.NDArray[np.uint8], mask: int, *, network: bool) -> list[int]:
    width = part.shape[1]
    if width == 16:
        joined = np.ascontiguousarray(part).tobytes()
        return [int.from_bytes(joined[at : at + 16], "big") & mask for at in range(0, len(joined), 16)]
    wide = np.zeros((len(part), 8), np.uint8)
    big = network or sys.byteorder == "big"
    if big:
        wide[:, 8 - width :] = part
    else:
        wide[:, :width] = part
    numbers: list[int] = (wide.view(">u8" if big else "<u8")[:, 0] & np.uint64(mask)).tolist()
    return numbers


def _plan(message: bytes) -> _Plan:
    """Return what may differ: place, values that are compared, cookies, and what the kernel counts and numbers."""
    plan = _Plan()
    top = {kind: (first, last) for kind, first, last in walk(message, HEAD_BYTES, len(message))}
    kind = message[slice(*top.get(TCA_KIND, (0, 0)))].rstrip(b"\0")
    numbers = CLASSIFIERS.get(kind)
    if numbers is None or TCA_OPTIONS not in top:
        return plan
    for number, first, last in walk(message, *top[TCA_OPTIONS]):
        if number == numbers.act:
            for place, (_, begin, end) in enumerate(walk(message, first, last)):
                _plan_action(message, begin, end, plan, first=place == 0)
        elif kind == b"flower" and number in flower.VALUE_BYTES:
            # What is behind a value, as no kernel sends it, is not read, but may not differ.
            value = slice(first, first + flower.VALUE_BYTES[number])
            if value.stop <= last:
                plan.keys[number] = value
                plan.free.append(value)
    return plan


def _plan_action(message: bytes, begin: int, end: int, plan: _Plan, *, first: bool) -> None:
    entry = {kind: (start, stop) for kind, start, stop in walk(message, begin, end)}
    kind = message[slice(*entry.get(act.KIND, (0, 0)))].rstrip(b"\0")
    if act.STATS in entry:
        plan.free.append(slice(*entry[act.STATS]))
    if act.COOKIE in entry:
        cookie = slice(*entry[act.COOKIE])
        plan.free.append(cookie)
        if first and cookie.stop - cookie.start == _COOKIE_BYTES:
            plan.cookie = cookie
    if act.OPTIONS in entry:
        options = {number: (start, stop) for number, start, stop in walk(message, *entry[act.OPTIONS])}
        if (times := options.get(act.TIMES.get(kind, -1))) is not None:
            plan.free.append(slice(*times))
        if (parameters := options.get(_PARAMETERS.get(kind, 2))) is not None:
            plan.free.append(slice(parameters[0], parameters[0] + 4))
