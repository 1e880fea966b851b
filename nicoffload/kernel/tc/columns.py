"""Statistics of many filters, read by layout: messages laid out alike are cut into columns by numpy, all at once."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nicoffload.kernel.attributes import MalformedError, walk
from nicoffload.kernel.netlink import HEADER
from nicoffload.kernel.tc import actions as act
from nicoffload.kernel.tc.read import BASIC, BASIC_HW, CLASSIFIERS, PACKETS64
from nicoffload.kernel.tc.template import HEAD_BYTES, RTM_NEWTFILTER, TCA_CHAIN, TCA_KIND, TCA_OPTIONS
from nicoffload.kernel.tc.values import OUR_HANDLES

_LENGTH = struct.Struct("=IH")
_HANDLE_AT, _INFO_AT = 24, 32
_IN_HW = 4
_MAX_LAYOUTS = 64
_BLOCK_BYTES = 96 << 10
_FEW, _RUN = 4, 64
"""Fewer messages are not worth looking at together, and no more are."""
"""Bytes of messages cut at once: they stay in the cache, and below what malloc would map and unmap each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterColumns:
    """Counters of many filters; row i is filter i of the dump. The totals hold the hardware's share.

    Args:
        handles: uint32[N].
        prefs: uint16[N].
        chains: uint32[N].
        cookies: uint8[N, 16], the rule id; zeros where `ours` is False.
        ours: bool[N], whether it has a rule id: the first action a cookie of 16 bytes, and the filter a handle of ours.
        in_hw: bool[N], whether the kernel says that a NIC runs it.
        counted: bool[N], whether it has counters; they are 0 elsewhere.
        packets: uint64[N], all.
        bytes: uint64[N], all.
        hw_counted: bool[N], whether the kernel tells the NIC's share apart.
        hw_packets: uint64[N], the NIC's share.
        hw_bytes: uint64[N], the NIC's share.
        idle_ns: int64[N], time since the last packet; -1 where there was none or it was not asked for.
    """

    handles: npt.NDArray[np.uint32]
    prefs: npt.NDArray[np.uint16]
    chains: npt.NDArray[np.uint32]
    cookies: npt.NDArray[np.uint8]
    ours: npt.NDArray[np.bool_]
    in_hw: npt.NDArray[np.bool_]
    counted: npt.NDArray[np.bool_]
    packets: npt.NDArray[np.uint64]
    bytes: npt.NDArray[np.uint64]
    hw_counted: npt.NDArray[np.bool_]
    hw_packets: npt.NDArray[np.uint64]
    hw_bytes: npt.NDArray[np.uint64]
    idle_ns: npt.NDArray[np.int64]

    def rule_id(self, row: int) -> uuid.UUID | None:
        """Return the rule id of one filter."""
        return uuid.UUID(bytes=self.cookies[row].tobytes()) if self.ours[row] else None


@dataclass(slots=True)
class _Layout:
    """Where things are in messages of one layout; -1 where they are not.

    `skeleton` are the offsets of the bytes that say so: lengths and kinds of attributes. Messages that are equal in
    those are laid out alike. `marked` says that handles tell our filters from others'.
    """

    skeleton: list[int] = field(default_factory=list)
    chain: int = -1
    flags: int = -1
    marked: bool = True
    cookie: int = -1
    basic: int = -1
    basic64: int = -1
    hw: int = -1
    hw64: int = -1
    times: int = -1


def columns(datagrams: Sequence[bytes]) -> FilterColumns:
    """Return the counters of the filters in a dump's datagrams.

    Raises:
        MalformedError: They break their format.
    """
    data = b"".join(datagrams)
    starts, lengths = boundaries(data)
    out = _empty(len(starts))
    raw = np.frombuffer(data, np.uint8)
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        step = max(1, _BLOCK_BYTES // int(length))
        windows = np.lib.stride_tricks.sliding_window_view(raw, int(length))
        for low in range(0, len(places), step):
            part = places[low : low + step]
            _cut(windows[starts[part]], part, out)
    named = out.handles != 0  # the others only say that a pref is in use
    return out if named.all() else _select(out, named)


def boundaries(data: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return start and length of each message about a filter."""
    starts: list[npt.NDArray[np.int64]] = []
    lengths: list[npt.NDArray[np.int64]] = []
    start, limit = 0, len(data)
    unpack = _LENGTH.unpack_from
    while limit - start >= HEADER.size:
        length, kind = unpack(data, start)
        if length < HEADER.size or length > limit - start:
            raise MalformedError(f"a message claims {length} of {limit - start} bytes")
        step = length + 3 & ~3
        count = _run(data, start, step, min((limit - start - length) // step + 1, _RUN))
        if kind == RTM_NEWTFILTER:
            if length < HEAD_BYTES:
                raise MalformedError(f"a filter has {length} of {HEAD_BYTES} bytes")
            starts.append(np.arange(start, start + count * step, step, dtype=np.int64))
            lengths.append(np.full(count, length, np.int64))
        start += count * step
    if not starts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(starts), np.concatenate(lengths)


def _run(data: bytes, start: int, step: int, most: int) -> int:
    """Return how many messages in a row, of at most so many, have the length and type of the first."""
    size = _LENGTH.size
    if most < _FEW or data[start : start + size] != data[start + step : start + step + size]:
        return 1
    heads = np.ndarray((most, size), np.uint8, data, start, (step, 1))
    others = np.flatnonzero((heads != heads[0]).any(axis=1))
    return int(others[0]) if len(others) else most


def _empty(count: int) -> FilterColumns:
    def zeros() -> npt.NDArray[np.uint64]:
        return np.zeros(count, np.uint64)

    def no() -> npt.NDArray[np.bool_]:
        return np.zeros(count, np.bool_)

    return FilterColumns(
        handles=np.zeros(count, np.uint32),
        prefs=np.zeros(count, np.uint16),
        chains=np.zeros(count, np.uint32),
        cookies=np.zeros((count, 16), np.uint8),
        ours=no(),
        in_hw=no(),
        counted=no(),
        packets=zeros(),
        bytes=zeros(),
        hw_counted=no(),
        hw_packets=zeros(),
        hw_bytes=zeros(),
        idle_ns=np.full(count, -1, np.int64),
    )


def _select(found: FilterColumns, rows: npt.NDArray[np.bool_]) -> FilterColumns:
    names = FilterColumns.__dataclass_fields__
    return FilterColumns(**{name: getattr(found, name)[rows] for name in names})


def _cut(rows: npt.NDArray[np.uint8], places: npt.NDArray[np.int64], out: FilterColumns) -> None:
    """Cut messages of one length into the columns, one layout after the other."""
    left = np.arange(len(rows))
    for _ in range(_MAX_LAYOUTS):
        if not len(left):
            return
        exemplar = rows[left[0]]
        layout = _layout(exemplar.tobytes())
        bones = np.zeros(rows.shape[1], np.uint8)
        bones[layout.skeleton] = 0xFF
        alike = ~(((rows[left] if len(left) < len(rows) else rows) ^ exemplar) & bones).any(axis=1)
        if alike.all() and len(left) == len(rows):
            _take(rows, places, out, layout)
            return
        _take(rows[left[alike]], places[left[alike]], out, layout)
        left = left[~alike]
    for row in left:  # no two alike: no use in comparing each with all
        _take(rows[row : row + 1], places[row : row + 1], out, _layout(rows[row].tobytes()))


def _layout(message: bytes) -> _Layout:
    found = _Layout()
    top = _inside(message, HEAD_BYTES, len(message), found)
    chain = top.get(TCA_CHAIN)
    if chain and chain[1] - chain[0] >= 4:
        found.chain = chain[0]
    kind = top.get(TCA_KIND, (0, 0))
    found.skeleton += range(*kind)
    classifier = message[slice(*kind)].rstrip(b"\0")
    numbers = CLASSIFIERS.get(classifier)
    if numbers is None or TCA_OPTIONS not in top:
        return found
    found.marked = classifier != b"u32"
    options = _inside(message, *top[TCA_OPTIONS], found)
    flags = options.get(numbers.flags)
    if flags and flags[1] - flags[0] >= 4:
        found.flags = flags[0]
    if numbers.act in options:
        entries = _inside(message, *options[numbers.act], found)
        if entries:
            _lay_out_action(message, _inside(message, *next(iter(entries.values())), found), found)
    return found


def _inside(message: bytes, start: int, end: int, found: _Layout) -> dict[int, tuple[int, int]]:
    """Return where the attributes of a stretch are; their headers become part of the skeleton."""
    inside = {}
    for kind, first, last in walk(message, start, end):
        found.skeleton += range(first - 4, first)
        inside[kind] = first, last
    return inside


def _lay_out_action(message: bytes, entry: dict[int, tuple[int, int]], found: _Layout) -> None:
    cookie = entry.get(act.COOKIE)
    if cookie and cookie[1] - cookie[0] == 16:
        found.cookie = cookie[0]
    kind = entry.get(act.KIND, (0, 0))
    found.skeleton += range(*kind)
    if act.STATS in entry:
        last = 0
        for number, first, end in walk(message, *entry[act.STATS]):
            found.skeleton += range(first - 4, first)
            if number in {BASIC, BASIC_HW} and end - first >= 12:
                last = number
                if number == BASIC:
                    found.basic, found.basic64 = first, -1
                else:
                    found.hw, found.hw64 = first, -1
            elif number == PACKETS64 and last and end - first >= 8:
                if last == BASIC:
                    found.basic64 = first
                else:
                    found.hw64 = first
    place = act.TIMES.get(message[slice(*kind)].rstrip(b"\0"))
    if place is not None and act.OPTIONS in entry:
        times = _inside(message, *entry[act.OPTIONS], found).get(place)
        if times and times[1] - times[0] >= 32:
            found.times = times[0]


def _take(
    rows: npt.NDArray[np.uint8], places: npt.NDArray[np.int64], out: FilterColumns, layout: _Layout
) -> None:
    """Cut messages of one layout into the columns."""

    def word(offset: int, form: str) -> npt.NDArray[np.uint64]:
        size = int(form[1:])
        return np.ascontiguousarray(rows[:, offset : offset + size]).view(form)[:, 0].astype(np.uint64)

    out.handles[places] = word(_HANDLE_AT, "u4")
    out.prefs[places] = word(_INFO_AT, "u4") >> np.uint64(16)
    if layout.chain >= 0:
        out.chains[places] = word(layout.chain, "u4")
    if layout.flags >= 0:
        out.in_hw[places] = (word(layout.flags, "u4") & np.uint64(_IN_HW)) != 0
    if layout.cookie >= 0:
        ours = out.handles[places] >= OUR_HANDLES if layout.marked else np.ones(len(rows), np.bool_)
        out.cookies[places] = np.where(ours[:, None], rows[:, layout.cookie : layout.cookie + 16], 0)
        out.ours[places] = ours
    if layout.basic >= 0:
        out.counted[places] = True
        out.bytes[places] = word(layout.basic, "u8")
        wide = layout.basic64 >= 0
        out.packets[places] = word(layout.basic64, "u8") if wide else word(layout.basic + 8, "u4")
    if layout.hw >= 0:
        out.hw_counted[places] = True
        out.hw_bytes[places] = word(layout.hw, "u8")
        out.hw_packets[places] = word(layout.hw64, "u8") if layout.hw64 >= 0 else word(layout.hw + 8, "u4")
    if layout.times >= 0:
        # In the first 10 ms after the first packet the times look as if there had been none.
        used = (word(layout.times + 24, "u8") != 0) | (out.packets[places] != 0)
        ticks = word(layout.times + 8, "u8").clip(0, np.uint64(act.MAX_TICKS)).astype(np.int64)
        out.idle_ns[places] = np.where(used, ticks * act.CLOCK_TICK_NS, -1)
