"""The actions of a filter: read from a request with their numbers, cookies and flags, and written with statistics."""

from __future__ import annotations

import errno
import heapq
import struct
from collections.abc import Container
from dataclasses import dataclass, field

from nicoffload.testing.fake_kernel.route import police
from nicoffload.testing.fake_kernel.route.action_values import (
    READERS,
    Csum,
    Gact,
    Mirred,
    Pedit,
    Skbedit,
    TunnelKey,
    Vlan,
    check_verdict,
    goes_to,
)
from nicoffload.testing.fake_kernel.route.police import Police
from nicoffload.testing.fake_kernel.route.wire import (
    Rejected,
    bits_of,
    parse,
    put,
    put_bits,
    put_text,
    put_u32,
    text_of,
    u32_of,
)

Value = Gact | Mirred | Vlan | Pedit | Csum | TunnelKey | Skbedit | Police

MAX_ACTIONS = 32
MAX_COOKIE_BYTES = 16
_KIND, _OPTIONS, _STATS, _COOKIE, _FLAGS, _HW_STATS, _USED_HW_STATS, _IN_HW_COUNT = 1, 2, 4, 6, 7, 8, 9, 10
_NO_PERCPU, _SKIP_HW, SKIP_SW = 1, 2, 4
_ANY_STATS = 3
IMMEDIATE, DELAYED = 1, 2
"""Whether a driver asks its hardware on the spot, or polls it, as mlx5e_stats_flower and efx_tc_flower_stats say."""
_LEAST = {3: 4}
_KIND_BYTES = 16
_BASIC, _QUEUE, _BASIC_HW, _PACKETS64 = 1, 3, 7, 8
_COUNTS = struct.Struct("=QIxxxx")
_TIMES = struct.Struct("=QQQQ")
_EMPTY_QUEUE = put(_QUEUE, bytes(20))
_MAX_32 = 0xFFFF_FFFF
_TICK_NS = 10_000_000
_TIMES_AT = {"csum": 2, "police": 6}
_PARAMETERS_AT = {"csum": 1, "police": 1}


class Indexes:
    """Numbers of one kind of thing: the lowest free one is given out, as the kernel's idr does."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._free: list[int] = []
        self._next = 1

    def take(self, wanted: int = 0) -> int:
        """Return a number that is now taken: the wanted one, which must be free, or the lowest."""
        while not wanted:
            if self._free:
                number = heapq.heappop(self._free)
            else:
                number = self._next
                self._next += 1
            if number not in self._taken:
                wanted = number
        self._taken.add(wanted)
        return wanted

    def give(self, number: int) -> None:
        """Give a number back. Repeatable."""
        if number in self._taken:
            self._taken.remove(number)
            if number < self._next:
                heapq.heappush(self._free, number)

    def __contains__(self, number: object) -> bool:
        return number in self._taken

    def __len__(self) -> int:
        return len(self._taken)


@dataclass(slots=True)
class Counted:
    """What a filter has counted: in all, and the hardware's share of it; times are in nanoseconds of the fake clock.

    `used_hw_stats` is how the driver came by its share; 0 while it has told of none.
    """

    packets: int = 0
    bytes: int = 0
    hw_packets: int = 0
    hw_bytes: int = 0
    installed_ns: int = 0
    last_used_ns: int = 0
    used_hw_stats: int = 0


@dataclass(slots=True)
class Action:
    """One action that is installed.

    Args:
        kind: Its name.
        value: What it does.
        index: Its number among those of its kind.
        cookie: Of its owner; None for none.
        flags: Of its owner, and those that it has from its filter.
        hw_stats: Which statistics of the hardware its owner takes.
    """

    kind: str
    value: Value
    index: int
    cookie: bytes | None
    flags: int
    hw_stats: int
    options: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.options = self.value.options(self.index)

    @property
    def leads_to(self) -> int | None:
        """The chain that it leads to; None for none."""
        return goes_to(self.value.verdict)


class Actions:
    """All actions of the fake kernel, by their numbers.

    Reading is remembered: filters of one owner mostly do one of few things.
    """

    def __init__(self) -> None:
        self._indexes: dict[str, Indexes] = {}
        self._known: dict[bytes, tuple[str, Value, int]] = {}

    def read(
        self, data: bytes, *, skip_sw: bool, skip_hw: bool, ingress: bool, exists: Container[int]
    ) -> list[Action]:
        """Return the actions of a filter, with numbers of their own.

        Args:
            data: The list, as a classifier's attribute has it.
            skip_sw: Whether the filter is for the hardware only.
            skip_hw: Whether it is for the kernel only.
            ingress: Whether its hook is at ingress.
            exists: The numbers of the devices that there are.

        Raises:
            Rejected: As ``tcf_action_init`` does; nothing is left behind then.
        """
        entries = parse(data, least={}, words=True)
        parts = []
        for place in range(1, MAX_ACTIONS + 1):
            if place not in entries:
                break
            parts.append(self._look(entries[place]))
        made: list[Action] = []
        try:
            for kind, found in parts:
                action = self._make(kind, found, ingress=ingress)
                made.append(action)
                _check(action, skip_sw=skip_sw, skip_hw=skip_hw, exists=exists)
                action.flags |= (SKIP_SW if skip_sw else 0) | (_SKIP_HW if skip_hw else 0)
        except Rejected:
            self.release(made)
            raise
        return made

    def release(self, actions: list[Action]) -> None:
        """Give back the numbers of actions that are gone."""
        for action in actions:
            self._indexes[action.kind].give(action.index)

    def _look(self, entry: bytes) -> tuple[str, dict[int, bytes]]:
        found = parse(entry, least=_LEAST, words=True)
        if len(found.get(_COOKIE, b"")) > MAX_COOKIE_BYTES:
            raise Rejected(errno.ERANGE, "Attribute failed policy validation")
        if _KIND not in found:
            raise Rejected(errno.EINVAL, "TC action kind must be specified")
        kind = text_of(found[_KIND])
        if len(kind) >= _KIND_BYTES:
            raise Rejected(errno.EINVAL, "TC action name too long")
        if kind != "police" and kind not in READERS:
            raise Rejected(errno.ENOENT, "Failed to load TC action module")
        return kind, found

    def _make(self, kind: str, found: dict[int, bytes], *, ingress: bool) -> Action:
        hw_stats, flags = _ANY_STATS, 0
        if _HW_STATS in found:
            hw_stats = bits_of(found[_HW_STATS], _ANY_STATS)[0]
        if _FLAGS in found:
            flags = bits_of(found[_FLAGS], _NO_PERCPU | _SKIP_HW | SKIP_SW)[0]
            if flags & _SKIP_HW and flags & SKIP_SW:
                raise Rejected(errno.EINVAL)
        value, wanted = self._value(kind, found.get(_OPTIONS))
        if isinstance(value, Skbedit) and value.queue is not None and ingress and not flags & SKIP_SW:
            words = '"queue_mapping" option on receive side is hardware only, use skip_sw'
            raise Rejected(errno.EOPNOTSUPP, f"act_skbedit: {words}")
        indexes = self._indexes.setdefault(kind, Indexes())
        if wanted in indexes:
            raise Rejected(errno.EOPNOTSUPP, "fake kernel: actions that filters share are not modelled")
        return Action(
            kind=kind,
            value=value,
            index=indexes.take(wanted),
            cookie=found.get(_COOKIE),
            flags=flags,
            hw_stats=hw_stats,
        )

    def _value(self, kind: str, options: bytes | None) -> tuple[Value, int]:
        if options is None:
            words = {
                "mirred": "act_mirred: Mirred requires attributes to be passed",
                "pedit": "act_pedit: Pedit requires attributes to be passed",
                "tunnel_key": "Tunnel requires attributes to be passed",
            }
            raise Rejected(errno.EINVAL, words.get(kind, ""))
        key = kind.encode() + options
        known = self._known.get(key)
        if known is None:
            if len(self._known) > _MAX_KNOWN:
                self._known.clear()
            value = police.read_police(options) if kind == "police" else READERS[kind](options)
            check_verdict(value.verdict)
            known = self._known[key] = kind, value, _index_of(kind, value, options)
        return known[1], known[2]


_MAX_KNOWN = 20_000


def _check(action: Action, *, skip_sw: bool, skip_hw: bool, exists: Container[int]) -> None:
    """Refuse what names a device that is not there, or is not for those that the filter is for."""
    if isinstance(action.value, Mirred) and action.value.ifindex and action.value.ifindex not in exists:
        raise Rejected(errno.ENODEV)
    if (action.flags & SKIP_SW and not skip_sw) or (action.flags & _SKIP_HW and not skip_hw):
        raise Rejected(errno.EINVAL, "Mismatch between action and filter offload flags")


def _index_of(kind: str, value: Value, options: bytes) -> int:
    found = parse(options, least={})
    place = _PARAMETERS_AT.get(kind, 2)
    if isinstance(value, Pedit) and place not in found:
        place = 4
    return u32_of(found[place])


def write_actions(actions: list[Action], counted: Counted, now_ns: int, *, terse: bool) -> bytes:
    """Return the list of a filter's actions as a dump has it, without the classifier's header.

    Args:
        actions: At least one.
        counted: What the filter has counted; each of its actions has counted the same.
        now_ns: The time.
        terse: Without parameters.
    """
    statistics = put(_STATS, _counts(counted))
    if terse:
        return b"".join(
            put(place, put_text(_KIND, action.kind) + statistics + _cookie(action))
            for place, action in enumerate(actions, 1)
        )
    times = _TIMES.pack(
        (now_ns - counted.installed_ns) // _TICK_NS, (now_ns - counted.last_used_ns) // _TICK_NS, 0, 0
    )
    parts = []
    for place, action in enumerate(actions, 1):
        body = put_text(_KIND, action.kind) + statistics + _cookie(action)
        if action.hw_stats != _ANY_STATS:
            body += put_bits(_HW_STATS, action.hw_stats, _ANY_STATS)
        if counted.used_hw_stats:
            body += put_bits(_USED_HW_STATS, counted.used_hw_stats, _ANY_STATS)
        if action.flags:
            body += put_bits(_FLAGS, action.flags, action.flags)
        body += put_u32(_IN_HW_COUNT, 0)
        body += put(_OPTIONS, action.options + put(_TIMES_AT.get(action.kind, 1), times))
        parts.append(put(place, body))
    return b"".join(parts)


def _cookie(action: Action) -> bytes:
    return put(_COOKIE, action.cookie) if action.cookie is not None else b""


def _counts(counted: Counted) -> bytes:
    return (
        _basic(_BASIC, counted.bytes, counted.packets)
        + _basic(_BASIC_HW, counted.hw_bytes, counted.hw_packets)
        + _EMPTY_QUEUE
    )


def _basic(kind: int, size: int, packets: int) -> bytes:
    data = put(kind, _COUNTS.pack(size, packets & _MAX_32))
    return data if packets <= _MAX_32 else data + put(_PACKETS64, packets.to_bytes(8, "little"))
