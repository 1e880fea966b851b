"""The police action as the kernel keeps it."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from nicoffload.testing.fake_kernel.route.action_values import (
    check_verdict,
    goes_to,
    valid_verdict,
)
from nicoffload.testing.fake_kernel.route.wire import Rejected, parse, put, put_u32, put_u64, u32_of, u64_of

_LEAST = {2: 1024, 3: 1024, 4: 4, 5: 4, 8: 8, 9: 8, 10: 8, 11: 8}
_PARAMETERS = struct.Struct("=IiIIIBBHhHIBBHhHIiiI")
"""struct tc_police: index, action, limit, burst, mtu, rate (6), peak rate (6), refcnt, bindcnt, capab."""
_COMPAT_BYTES = 44
_TABLE_BYTES = 1024
_TICK_SHIFT = 6
_NS_PER_S = 1_000_000_000
_MAX_32 = 0xFFFF_FFFF
_MAX_64 = (1 << 64) - 1
_ETHERNET = 1
_LINK_LAYER = 0x0F


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A rate as the kernel holds it.

    Args:
        bytes_per_s: Above 0.
        overhead: Bytes that each packet costs besides.
        link_layer: Ethernet, or the cells of ATM.
    """

    bytes_per_s: int
    overhead: int
    link_layer: int

    def packed(self) -> tuple[int, ...]:
        """Return the fields of a ``tc_ratespec``."""
        return (0, self.link_layer, self.overhead, 0, 0, min(self.bytes_per_s, _MAX_32))


_NO_RATE = (0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Police:
    """``police``: what may pass, and what becomes of the rest.

    Args:
        verdict: What becomes of what exceeds.
        result: What becomes of what conforms; 0: it ends here.
        rate: Bytes; None for none.
        peak: Likewise, in a bucket of one packet.
        burst_ticks: How long the bucket takes to fill, in 64 ns.
        mtu: Bytes of the longest packet that can conform.
        packets_per_s: None for none.
        packet_burst_ticks: As `burst_ticks`, for packets.
        average: Rate in bytes a second by the kernel's estimator; 0 for none.
    """

    verdict: int
    result: int = 0
    rate: Rate | None = None
    peak: Rate | None = None
    burst_ticks: int = 0
    mtu: int = _MAX_32
    packets_per_s: int | None = None
    packet_burst_ticks: int = 0
    average: int = 0

    @property
    def burst_bytes(self) -> int:
        """Size of the bucket, rounded up as the ticks were rounded down."""
        rate = self.rate.bytes_per_s if self.rate else 0
        return -(-(self.burst_ticks << _TICK_SHIFT) * rate // _NS_PER_S)

    def options(self, index: int) -> bytes:
        """Return its parameters as a dump has them."""
        parts = []
        for kind, rate in ((8, self.rate), (9, self.peak)):
            if rate is not None and rate.bytes_per_s > _MAX_32:
                parts.append(put_u64(kind, rate.bytes_per_s))
        if self.packets_per_s is not None:
            parts += [put_u64(10, self.packets_per_s), put_u64(11, self.packet_burst_ticks)]
        packed = _PARAMETERS.pack(
            *(index, self.verdict, 0, self.burst_ticks, self.mtu),
            *(self.rate.packed() if self.rate else _NO_RATE),
            *(self.peak.packed() if self.peak else _NO_RATE),
            *(1, 1, 0),
        )
        parts.append(put(1, packed))
        if self.result:
            parts.append(put_u32(5, self.result & _MAX_32))
        if self.average:
            parts.append(put_u32(4, self.average))
        return b"".join(parts)


def read_police(options: bytes) -> Police:
    """Return the action of some options.

    Raises:
        Rejected: As ``tcf_police_init`` does.
    """
    found = parse(options, least=_LEAST)
    if 1 not in found or len(found[1]) not in {_PARAMETERS.size, _COMPAT_BYTES}:
        raise Rejected(errno.EINVAL)
    values = _PARAMETERS.unpack(found[1].ljust(_PARAMETERS.size, b"\0"))
    check_verdict(values[1])
    rate = _rate(values[5:11], found.get(2), found.get(8))
    peak = _rate(values[11:17], found.get(3), found.get(9)) if rate else None
    if 4 in found:
        raise Rejected(errno.EINVAL)  # without an estimator, which is not modelled
    result = _result(found.get(5))
    if (10 in found) != (11 in found):
        raise Rejected(errno.EINVAL, "Both or neither packet-per-second burst and rate must be provided")
    if 10 in found and rate is not None:
        raise Rejected(
            errno.EINVAL,
            "packet-per-second and byte-per-second rate limits not allowed in same action",
        )
    return Police(
        verdict=values[1],
        result=result,
        rate=rate,
        peak=peak,
        burst_ticks=values[3],
        mtu=values[4] or (255 << values[5] if rate else _MAX_32),
        packets_per_s=u64_of(found[10]) if 10 in found else None,
        packet_burst_ticks=_held(u64_of(found[11])) if 11 in found else 0,
    )


def _rate(spec: tuple[int, ...], table: bytes | None, wide: bytes | None) -> Rate | None:
    cell_log, layer, overhead, _, _, rate = spec
    if not rate:
        return None
    if table is None or not 0 < cell_log < 32 or len(table) != _TABLE_BYTES:  # qdisc_get_rtab
        raise Rejected(errno.ENOMEM)
    # psched_ratecfg_precompute takes the larger one.
    bytes_per_s = max(rate, u64_of(wide) if wide else 0)
    return Rate(bytes_per_s=bytes_per_s, overhead=overhead, link_layer=(layer & _LINK_LAYER) or _ETHERNET)


def _result(payload: bytes | None) -> int:
    if payload is None:
        return 0
    number = u32_of(payload)
    result = number - (1 << 32) if number >> 31 else number
    if not valid_verdict(result):
        raise Rejected(errno.EINVAL, "invalid fallback control action")
    if goes_to(result) is not None:
        raise Rejected(errno.EINVAL, "goto chain not allowed on fallback")
    return result


def _held(ticks: int) -> int:
    """Return what is left of ticks that the kernel keeps as nanoseconds in 64 bits."""
    ns = ticks << _TICK_SHIFT & _MAX_64
    return (ns - (1 << 64) if ns >> 63 else ns) >> _TICK_SHIFT & _MAX_64
