"""The police action: rates above 34 Gbit/s, rates of packets, and buckets that the kernel holds as time."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

from nicoffload.errors import InvalidRequestError
from nicoffload.kernel.attributes import Buffer, attribute, fields, number, parse, u32, u64
from nicoffload.kernel.tc.values import PolicePackets, PoliceRate, TcAction, UnknownAction

TBF = 1
RATE_TABLE = 2
_PEAK_RATE = 3
_AVERAGE_RATE = 4
RESULT = 5
RATE64 = 8
_PEAK_RATE64 = 9
PACKET_RATE64 = 10
PACKET_BURST64 = 11

_PARAMETERS = struct.Struct("=IiIIIBBHhHIBBHhHIiiI")
"""struct tc_police: index, action, limit, burst, mtu, rate (6), peak rate (6), refcnt, bindcnt, capab."""
_RATE = 10  # place of the rate among the fields above
_PEAK = 16
_SHOT = 2
_PIPE = 3
_ETHERNET = 1
_MAX_32 = 0xFFFF_FFFF
_NS_PER_S = 1_000_000_000
_TICK_NS = 64
# A packet longer than the MTU is dropped however slow it comes, and a receive path that merges packets (GRO) hands over
# 64 KiB at once. tc's own default is 2047 bytes.
_MTU_BYTES = 1 << 20
_CELL_LOG = 13
# The kernel wants the table of tc's early days, and looks into it only for the link layer, which is named beside it.
_EMPTY_TABLE = bytes(1024)


def encode(action: PoliceRate | PolicePackets) -> bytes:
    """Return the options of a police action.

    Raises:
        InvalidRequestError: The bucket holds more than 275 seconds of the rate, which is all the kernel can hold.
    """
    exceed = _SHOT if action.drop else _PIPE
    # Without a result the kernel ends here with whatever conforms, and the actions behind never run.
    tail = u32(RESULT, _PIPE)
    if isinstance(action, PolicePackets):
        ticks = burst_ticks(action.burst_packets, action.rate_packets_per_s, 64)
        return b"".join(
            (
                attribute(TBF, _PARAMETERS.pack(0, exceed, *[0] * 18)),
                u64(PACKET_RATE64, action.rate_packets_per_s),
                u64(PACKET_BURST64, ticks),
                tail,
            )
        )
    rate = action.rate_bytes_per_s
    wide = u64(RATE64, rate) if rate > _MAX_32 else b""
    parameters = _PARAMETERS.pack(
        *(0, exceed, 0, burst_ticks(action.burst_bytes, rate, 32), _MTU_BYTES),
        *(_CELL_LOG, _ETHERNET, 0, 0, 0, min(rate, _MAX_32)),
        *[0] * 9,
    )
    return b"".join((attribute(TBF, parameters), attribute(RATE_TABLE, _EMPTY_TABLE), wide, tail))


def burst_ticks(burst: int, rate: int, bits: int) -> int:
    """Return a bucket's size as the kernel holds it: how long it takes to fill, in ticks of 64 ns.

    Rounded down, but never to nothing, as tc does.

    Raises:
        InvalidRequestError: It takes longer than the kernel's field of `bits` can hold.
    """
    ticks = max(burst * _NS_PER_S // (rate * _TICK_NS), 1)
    if ticks >= 1 << bits:
        raise InvalidRequestError(
            f"a bucket of {burst} takes {ticks * _TICK_NS / _NS_PER_S:.0f} s to fill at {rate} a second",
            path="/actions",
            hint="the kernel holds up to 274 s: raise the rate or lower the burst",
        )
    return ticks


def decode(options: Buffer) -> PoliceRate | PolicePackets | UnknownAction:
    """Return a police action.

    Raises:
        MalformedError: It is cut short.
    """
    found = parse(options)
    if TBF not in found:
        return UnknownAction(kind="police", detail="no parameters")
    values = fields(_PARAMETERS, found[TBF])
    exceed, ticks, rate = values[1], values[3], values[_RATE]
    result = number(found[RESULT], 4) if RESULT in found else 0
    strange = _strange(found, values, exceed, result)
    if strange:
        return UnknownAction(kind="police", detail=strange)
    drop = exceed == _SHOT
    if PACKET_RATE64 in found:
        packets = number(found[PACKET_RATE64], 8)
        burst = _burst(number(found[PACKET_BURST64], 8) if PACKET_BURST64 in found else 0, packets)
        if 1 <= packets < 1 << 63 and 1 <= burst <= 1 << 32:
            return PolicePackets(rate_packets_per_s=packets, burst_packets=burst, drop=drop)
        return UnknownAction(kind="police", detail=f"{packets} packets/s, burst {burst}")
    rate = number(found[RATE64], 8) if RATE64 in found else rate
    burst = _burst(ticks, rate)
    if 1 <= rate < 1 << 63 and 1 <= burst <= 1 << 32:
        return PoliceRate(rate_bytes_per_s=rate, burst_bytes=burst, drop=drop)
    return UnknownAction(kind="police", detail=f"{rate} bytes/s, burst {burst}")


def _strange(found: dict[int, Buffer], values: tuple[int, ...], exceed: int, result: int) -> str:
    if exceed not in {_SHOT, _PIPE} or result != _PIPE:
        return f"exceed {exceed}, conform {result}"
    if _PEAK_RATE in found or _PEAK_RATE64 in found or values[_PEAK]:
        return "a peak rate"
    return "an average rate" if _AVERAGE_RATE in found else ""


def _burst(ticks: int, rate: int) -> int:
    """Return the bucket's size: what the rate brings in that time, rounded up, as `burst_ticks` rounds down."""
    return -(-ticks * _TICK_NS * rate // _NS_PER_S)


def held(action: PoliceRate | PolicePackets) -> PoliceRate | PolicePackets:
    """Return the action as the kernel will hold it, with the bucket that its ticks allow.

    Raises:
        InvalidRequestError: See `burst_ticks`.
    """
    if isinstance(action, PolicePackets):
        ticks = burst_ticks(action.burst_packets, action.rate_packets_per_s, 64)
        return replace(action, burst_packets=_burst(ticks, action.rate_packets_per_s))
    ticks = burst_ticks(action.burst_bytes, action.rate_bytes_per_s, 32)
    return replace(action, burst_bytes=_burst(ticks, action.rate_bytes_per_s))


def held_actions(actions: Sequence[TcAction]) -> tuple[TcAction, ...]:
    """Return actions as the kernel will hold them: all but the buckets of `police` are as they were asked for.

    Raises:
        InvalidRequestError: See `burst_ticks`.
    """
    return tuple(
        held(action) if isinstance(action, PoliceRate | PolicePackets) else action for action in actions
    )
