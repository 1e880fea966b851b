"""Hierarchical token buckets (HTB): a class for each sender, with what it is sure of and what it may have at most."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from nicoffload.kernel.attributes import Buffer, attribute, fields, nested, number, parse, string, text, u64
from nicoffload.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE, Netlink, messages
from nicoffload.kernel.tc.template import TCA_KIND, TCA_OPTIONS, TCMSG

_RTM_NEWQDISC, _RTM_DELQDISC = 36, 37
_RTM_NEWTCLASS, _RTM_DELTCLASS, _RTM_GETTCLASS = 40, 41, 42
_ROOT = 0xFFFF_FFFF
_PARMS, _INIT, _CTAB, _RTAB, _RATE64, _CEIL64 = 1, 2, 3, 4, 6, 7
_STATS2 = 7
_STATS_BASIC, _STATS_QUEUE = 1, 3
_GLOBAL = struct.Struct("=IIIII")
_VERSION = 3
_R2Q = 10
_RATESPEC = struct.Struct("=BBHhHI")
_OPTION = struct.Struct("=IIIII")
"""What struct tc_htb_opt has behind its two rates: buffer, cbuffer, quantum, level, prio."""
_QUEUE = struct.Struct("=IIIII")
_ETHERNET = 1
_RATE_32_LIMIT = (1 << 32) - 1
_TABLE_BYTES = 1024
_CAPABILITY = "rates"
_NS_PER_TICK = 64
"""PSCHED_SHIFT of the kernel is 6: a buffer is given in ticks of 64 ns."""
_NS_PER_S = 1_000_000_000
_MAX_TICKS = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HtbClass:
    """A class.

    Args:
        class_id: Its number, ``major << 16 | minor``.
        parent: That of the class that it shares; the qdisc's handle (minor 0) at the top.
        rate_bps: What it is sure of, in bits per second, at least 8.
        ceil_bps: What it may have at most.
        burst_bytes: What it may send at once of what it is sure of; at least one segmentation-offload packet (64 KiB).
        ceil_burst_bytes: Likewise, of what it may have at most.
        quantum_bytes: What it sends in a turn when classes share what is left.
    """

    class_id: int
    parent: int
    rate_bps: int
    ceil_bps: int
    burst_bytes: int
    ceil_burst_bytes: int
    quantum_bytes: int = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HtbCounters:
    """What a class counted.

    Args:
        class_id: The class.
        packets: Sent; a segmentation-offload packet counts as its segments.
        bytes: Sent.
        dropped: Packets that found its queue full.
    """

    class_id: int
    packets: int
    bytes: int
    dropped: int


def add_htb(netlink: Netlink, ifindex: int, handle: int, default_minor: int) -> None:
    """Make HTB the root qdisc of a device, in the place of another one.

    Equivalent to: ``tc qdisc replace dev X root handle H: htb default MINOR``

    Raises:
        NicOffloadError: The kernel refuses, or has no HTB.
    """
    options = attribute(_INIT, _GLOBAL.pack(_VERSION, _R2Q, default_minor, 0, 0))
    payload = TCMSG.pack(0, ifindex, handle, _ROOT, 0) + text(TCA_KIND, "htb") + nested(TCA_OPTIONS, options)
    refused, _ = netlink.request(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, payload)
    if refused:
        raise refused.error("making a qdisc htb", capability=_CAPABILITY)


def set_class(netlink: Netlink, ifindex: int, one: HtbClass) -> None:
    """Make a class or change it. Repeatable; what is queued in it stays.

    Equivalent to: ``tc class replace dev X parent P classid C htb rate R ceil C burst B cburst CB quantum Q``

    Raises:
        NicOffloadError: The kernel refuses.
    """
    rate, ceil = max(one.rate_bps // 8, 1), max(one.ceil_bps // 8, 1)
    parms = _spec(rate) + _spec(ceil)
    parms += _OPTION.pack(
        _ticks(one.burst_bytes, rate), _ticks(one.ceil_burst_bytes, ceil), one.quantum_bytes, 0, 0
    )
    options = [
        attribute(_PARMS, parms),
        attribute(_RTAB, bytes(_TABLE_BYTES)),
        attribute(_CTAB, bytes(_TABLE_BYTES)),
    ]
    options += [u64(_RATE64, rate)] if rate > _RATE_32_LIMIT else []
    options += [u64(_CEIL64, ceil)] if ceil > _RATE_32_LIMIT else []
    payload = TCMSG.pack(0, ifindex, one.class_id, one.parent, 0)
    payload += text(TCA_KIND, "htb") + nested(TCA_OPTIONS, *options)
    refused, _ = netlink.request(_RTM_NEWTCLASS, NLM_F_CREATE | NLM_F_REPLACE, payload)
    if refused:
        raise refused.error(f"setting class {one.class_id:x}", capability=_CAPABILITY)


def delete_class(netlink: Netlink, ifindex: int, class_id: int) -> bool:
    """Remove a class; returns whether it was there.

    Equivalent to: ``tc class del dev X classid C``

    Raises:
        NicOffloadError: The kernel refuses.
    """
    refused, _ = netlink.request(_RTM_DELTCLASS, 0, TCMSG.pack(0, ifindex, class_id, 0, 0))
    if refused and refused.errno != 2:
        raise refused.error(f"removing class {class_id:x}", capability=_CAPABILITY)
    return not refused


def counters(netlink: Netlink, ifindex: int) -> list[HtbCounters]:
    """Return the counters of a device's classes; none where it has no such qdisc.

    Equivalent to: ``tc -s class show dev X``

    Raises:
        NicOffloadError: The kernel refuses.
    """
    found: list[HtbCounters] = []
    for datagram in netlink.dump(_RTM_GETTCLASS, TCMSG.pack(0, ifindex, 0, 0, 0), capability=_CAPABILITY):
        for message in messages(datagram):
            if message.kind == _RTM_NEWTCLASS:
                one = _decode(message.payload)
                found += [one] if one is not None else []
    return found


def _decode(payload: Buffer) -> HtbCounters | None:
    class_id = fields(TCMSG, payload)[2]
    found = parse(payload, TCMSG.size)
    if string(found.get(TCA_KIND, b"")) != "htb":
        return None
    stats = parse(found.get(_STATS2, b""))
    basic, queue = stats.get(_STATS_BASIC, bytes(16)), stats.get(_STATS_QUEUE, bytes(_QUEUE.size))
    return HtbCounters(
        class_id=class_id,
        packets=number(basic[8:], 4),
        bytes=number(basic, 8),
        dropped=fields(_QUEUE, queue)[2],
    )


def _spec(bytes_per_s: int) -> bytes:
    # The link layer is named so that the kernel computes with the rate and takes no table of ours.
    return _RATESPEC.pack(0, _ETHERNET, 0, 0, 0, min(bytes_per_s, _RATE_32_LIMIT))


def _ticks(size: int, bytes_per_s: int) -> int:
    return min(-(-size * _NS_PER_S // bytes_per_s) // _NS_PER_TICK, _MAX_TICKS)
