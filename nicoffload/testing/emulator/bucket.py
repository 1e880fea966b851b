"""Rates as the hardware has them: steps, limits, and the token bucket that enforces them packet by packet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nicoffload.testing.emulator.answer import Refused


@dataclass(frozen=True, slots=True)
class Setting:
    """One rate of a VF: what was asked for, what is enforced, what is reported. 0 is none."""

    asked: int = 0
    applied: int = 0
    reported: int = 0


def apply_rate(doc: Mapping[str, Any], bps: int, link_bps: int, *, up: bool = True) -> Setting:
    """Return what a NIC makes of a rate.

    Args:
        doc: The profile's part of the document.
        bps: Bits per second, as the request encodes it; 0 clears it.
        link_bps: Speed of the port, or that which it had last.
        up: Whether the link is up.

    Raises:
        Refused: Not supported, or out of range.
    """
    if bps == 0:
        return Setting()
    if doc["supported"] == "no":
        raise Refused(doc.get("errno", "EOPNOTSUPP"), "rate", "not supported")
    speeds = doc.get("link_speeds_bps")
    if speeds and not (up and link_bps in speeds):
        raise Refused(
            doc.get("link_errno", "EINVAL"), "rate_link", f"not at a link speed of {link_bps * up} bit/s"
        )
    range_errno = doc.get("range_errno", "EINVAL")
    largest = link_bps if doc.get("largest_bps") == "link" else doc.get("largest_bps")
    if largest is not None and bps > largest:
        raise Refused(range_errno, "rate_range", f"more than {largest} bit/s")
    applied = _raised(doc, bps, range_errno)
    applied = _rounded(doc, applied, range_errno)
    reported = {"applied": applied, "requested": bps, "zero": 0}[doc.get("read_back", "applied")]
    return Setting(bps, applied, reported)


def _raised(doc: Mapping[str, Any], bps: int, errno: str) -> int:
    smallest = doc.get("smallest_bps")
    if smallest is None or bps >= smallest:
        return bps
    if doc.get("below_smallest", "refuse") == "refuse":
        raise Refused(errno, "rate_range", f"less than {smallest} bit/s")
    return int(smallest)


def _rounded(doc: Mapping[str, Any], bps: int, errno: str) -> int:
    quantum = int(doc.get("quantum_bps", 1))
    if bps % quantum == 0:
        return bps
    match doc.get("rounding", "refuse"):
        case "down":
            return max(bps // quantum, 1) * quantum
        case "nearest":
            return max((bps + quantum // 2) // quantum, 1) * quantum
        case _:
            raise Refused(errno, "rate_range", f"not a multiple of {quantum} bit/s")


class TokenBucket:
    """Lets packets pass up to a rate, with a burst.

    Args:
        rate_bps: Bits per second.
        burst_bytes: Size of the bucket; it starts full.
        time_ns: Now.
    """

    def __init__(self, rate_bps: int, burst_bytes: int, time_ns: int) -> None:
        self.rate_bps = rate_bps
        self._depth = burst_bytes * 8 * 1_000_000_000
        self._tokens = self._depth
        self._time_ns = time_ns

    def admit(self, times: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which packets pass (bool[N]), given their arrivals and bytes (int64[N] each), in order."""
        passed = np.zeros(len(times), np.bool_)
        tokens, now, rate, depth = self._tokens, self._time_ns, self.rate_bps, self._depth
        # One packet depends on those before it, so this is the one loop over packets.
        for at, (time_ns, size) in enumerate(zip(times.tolist(), sizes.tolist(), strict=True)):
            if time_ns > now:
                tokens = min(depth, tokens + (time_ns - now) * rate)
                now = time_ns
            # Tokens are bits times 1e9, so that nanoseconds times bit/s need no division.
            cost = size * 8_000_000_000
            if cost <= tokens:
                tokens -= cost
                passed[at] = True
        self._tokens, self._time_ns = tokens, now
        return passed
