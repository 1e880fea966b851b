"""Filters as the kernel dumps them, one value each: for plans and repairs. Statistics of many are read by `columns`."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.errors import DeviceBusyError, InvalidRequestError
from nicoffload.kernel.attributes import Buffer, attribute, fields, number, parse, string, u32, walk
from nicoffload.kernel.netlink import Netlink, messages
from nicoffload.kernel.tc import actions as act
from nicoffload.kernel.tc import flower, matchall
from nicoffload.kernel.tc import u32 as u32_words
from nicoffload.kernel.tc.template import (
    RTM_GETTFILTER,
    RTM_NEWTFILTER,
    TCA_CHAIN,
    TCA_DUMP_FLAGS,
    TCA_KIND,
    TCA_OPTIONS,
    TCMSG,
    protocol_of,
)
from nicoffload.kernel.tc.values import (
    MAX_CHAIN,
    OUR_HANDLES,
    Counters,
    FilterRef,
    FilterState,
    Hook,
    Placing,
    TcFilter,
    UnknownAction,
)
from nicoffload.kernel.tc.witness import Witness
from nicoffload.model import Match

CAPABILITY = "flow_filters"
_TERSE = 1
_ATTEMPTS = 16
_SKIP_HW, _SKIP_SW, _IN_HW, _NOT_IN_HW = 1, 2, 4, 8
BASIC, _QUEUE, BASIC_HW, PACKETS64 = 1, 3, 7, 8


@dataclass(frozen=True, slots=True)
class Numbers:
    """Where a classifier keeps what all of them have."""

    act: int
    flags: int
    in_hw_count: int = 0


CLASSIFIERS: Mapping[bytes, Numbers] = MappingProxyType(
    {
        b"flower": Numbers(flower.ACT, flower.FLAGS, flower.IN_HW_COUNT),
        b"matchall": Numbers(matchall.ACT, matchall.FLAGS),
        b"u32": Numbers(u32_words.ACT, u32_words.FLAGS),
    }
)


def request(
    netlink: Netlink, hook: Hook, *, pref: int = 0, chain: int | None = None, terse: bool = False
) -> list[bytes]:
    """Return the datagrams of a dump of a hook's filters.

    Args:
        netlink: A route socket.
        hook: Where they hang.
        pref: Only these; 0 for all.
        chain: Only these; None for all.
        terse: Without keys and parameters, which only flower can.

    Where a change meanwhile may have left filters out of the answer, it asks again.

    Raises:
        NicOffloadError: The kernel refuses, or `DeviceBusyError`: whole prefs came and went all the time.
    """
    payload = TCMSG.pack(0, hook.ifindex, 0, hook.parent, pref << 16)
    if chain is not None:
        payload += u32(TCA_CHAIN, chain)
    if terse:
        payload += attribute(TCA_DUMP_FLAGS, _TERSE.to_bytes(4, HOST) * 2)  # nla_bitfield32: value, selector
    for _ in range(_ATTEMPTS):
        with Witness(netlink, hook) as witness:
            found = netlink.dump(RTM_GETTFILTER, payload, capability=CAPABILITY)
            if not witness.disturbed(found):
                return found
    raise DeviceBusyError(f"filters came and went while they were read, {_ATTEMPTS} times")


def states(datagrams: Iterable[Buffer]) -> list[FilterState]:
    """Return the filters of a dump's datagrams.

    Raises:
        MalformedError: They break their format.
    """
    return [
        state
        for datagram in datagrams
        for message in messages(datagram)
        if message.kind == RTM_NEWTFILTER and (state := decode(message.payload)) is not None
    ]


def decode(payload: Buffer) -> FilterState | None:
    """Return one filter; None for what only says that a pref is in use, or that a hash table is.

    Raises:
        MalformedError: It breaks its format.
    """
    _, _, handle, _, word = fields(TCMSG, payload)
    attributes = parse(payload, TCMSG.size)
    kind = string(attributes.get(TCA_KIND, b""))
    numbers = CLASSIFIERS.get(kind.encode())
    if handle == 0 or TCA_OPTIONS not in attributes:
        return None
    chain = number(attributes[TCA_CHAIN], 4) if TCA_CHAIN in attributes else 0
    ref = FilterRef(pref=word >> 16, handle=handle, chain=chain, protocol=protocol_of(word), kind=kind)
    if numbers is None or ref.pref == 0:
        return _foreign(ref, f"classifier {kind}")
    return _state(ref, parse(attributes[TCA_OPTIONS]), numbers)


def _foreign(ref: FilterRef, why: str) -> FilterState:
    item = TcFilter(match=Match(), actions=(), pref=max(ref.pref, 1), handle=ref.handle, chain=0)
    return FilterState(ref=ref, filter=item, in_hw=None, in_hw_count=None, counters=None, foreign=(why,))


def _state(ref: FilterRef, options: dict[int, Buffer], numbers: Numbers) -> FilterState | None:
    foreign: list[str] = []
    tpids = 0x8100, 0x8100
    match = Match()
    try:
        if ref.kind == "flower":
            match, tpids, foreign = flower.decode_match(options, ref.protocol)
        elif ref.kind == "matchall":
            match = Match.of(eth_type=None if ref.protocol == flower.ETH_P_ALL else ref.protocol)
        else:
            if u32_words.is_table(ref.handle, options):
                return None
            match, foreign = _words(ref, options)
    except InvalidRequestError as cause:
        foreign = [cause.message]
    if ref.chain > MAX_CHAIN:
        return _foreign(ref, f"chain {ref.chain:#x}")
    flags = number(options[numbers.flags], 4) if numbers.flags in options else 0
    found = entries(options.get(numbers.act, b""))
    actions = tuple(act.decode_action(entry) for entry in found)
    foreign += [
        f"action {action.kind} ({action.detail})" for action in actions if isinstance(action, UnknownAction)
    ]
    hw_tc = _hw_tc(options.get(1, b""), foreign)
    count = number(options[numbers.in_hw_count], 4) if numbers.in_hw_count in options else None
    return FilterState(
        ref=ref,
        filter=TcFilter(
            match=match,
            actions=actions,
            pref=ref.pref,
            handle=ref.handle,
            chain=ref.chain,
            placing=placing(flags),
            rule_id=rule_id(found, OUR_HANDLES if ref.kind == "u32" else ref.handle),
            hw_tc=hw_tc,
            outer_tpid=tpids[0],
            inner_tpid=tpids[1],
        ),
        in_hw=in_hardware(flags),
        in_hw_count=count,
        counters=counters(found[0]) if found else None,
        foreign=tuple(foreign),
    )


def _words(ref: FilterRef, options: dict[int, Buffer]) -> tuple[Match, list[str]]:
    keys, link, hashed, foreign = u32_words.decode(options)
    foreign += ["a table by hash"] if hashed is not None else []
    match, strange = u32_words.decode_match(ref.protocol, keys)
    if link:
        foreign.append(f"leads to table {link:x}")
    if any(key.next_header for key in keys):
        foreign.append(f"is in table {ref.handle >> 20:x}, behind a header")
    return match, foreign + strange


def entries(data: Buffer) -> list[Buffer]:
    """Return the attributes of each action of a filter."""
    return [data[first:last] for _, first, last in walk(data)][: act.MAX_ACTIONS]


def in_hardware(flags: int) -> bool | None:
    """Return whether a NIC runs the filter; None where the kernel does not say."""
    return bool(flags & _IN_HW) if flags & (_IN_HW | _NOT_IN_HW) else None


def placing(flags: int) -> Placing:
    """Return what a filter's flags say."""
    if flags & _SKIP_SW:
        return Placing.HARDWARE
    return Placing.SOFTWARE if flags & _SKIP_HW else Placing.BOTH


def _hw_tc(classid: Buffer, foreign: list[str]) -> int | None:
    if not classid:
        return None
    value = number(classid, 4)
    if 0xFFFF_FFE0 <= value < 0xFFFF_FFF0:
        return value - 0xFFFF_FFE0
    foreign.append(f"class {value >> 16:x}:{value & 0xFFFF:x}")
    return None


def rule_id(entries: list[Buffer], handle: int = OUR_HANDLES) -> uuid.UUID | None:
    """Return our rule id from the first action's cookie; cookies of other lengths are somebody else's.

    Args:
        entries: The actions.
        handle: The filter's, where it tells ours from others'; see `OUR_HANDLES`.
    """
    if not entries or handle < OUR_HANDLES:
        return None
    cookie = bytes(parse(entries[0]).get(act.COOKIE, b""))
    return uuid.UUID(bytes=cookie) if len(cookie) == 16 else None


def counters(entry: Buffer) -> Counters | None:
    """Return the counters of an action; None where it has none.

    Args:
        entry: The attributes of the action.

    Raises:
        MalformedError: They break their format.
    """
    data = parse(entry).get(act.STATS)
    if data is None:
        return None
    totals: dict[int, tuple[int, int]] = {}
    last = 0
    for kind, first, end in walk(data):
        if kind in {BASIC, BASIC_HW}:
            totals[kind] = number(data[first:end], 8), number(data[first + 8 : end], 4)
            last = kind
        elif (
            kind == PACKETS64 and last
        ):  # 64 bits of the packets that the attribute before it holds 32 bits of
            totals[last] = totals[last][0], number(data[first:end], 8)
    if BASIC not in totals:
        return None
    in_hw = totals.get(BASIC_HW)
    return Counters(
        packets=totals[BASIC][1],
        bytes=totals[BASIC][0],
        hw_packets=in_hw[1] if in_hw else None,
        hw_bytes=in_hw[0] if in_hw else None,
        idle_ns=act.idle_ns(entry, totals[BASIC][1]),
    )


HOST = sys.byteorder
