"""What the host's CPU spends on packets, by the paper's own measurement.

The FlexivOffload paper measures the CPU of its host (2.67 GHz, 10 Gbit/s, frames of 1500 bytes) against the traffic
that goes through the virtual switch. A straight line fits: 12.5 % at rest, and 52.8 % of one core for each Gbit/s, up
to 250 %, where the host has no more to give. An installation costs 10 microseconds (9 to 16 are derived from ntop's
measurements of flow offload), reading one counter a fifth of one.
"""

from __future__ import annotations

from dataclasses import dataclass

BASE_PERCENT = 12.5
PERCENT_PER_GBPS = 52.8
CAP_PERCENT = 250.0
INSTALL_US = 10.0
POLL_US = 0.2
FORMULA = (
    "CPU % = 12.5 + 52.8 x Gbit/s through the virtual switch + 100 x (10 us x installs/s + 0.2 us x counters read/s), "
    "at most 250"
)
SOURCE = (
    "base, slope and cap: derived from the CPU figures of the FlexivOffload paper (IEICE; 1500-byte frames, 2.67 GHz); "
    "10 us an install: derived from ntop's flow-offload measurements (9 to 16 us); 0.2 us a counter: an assumption"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the host had to do.

    Args:
        vswitch_bytes: Through the virtual switch.
        installs: Rules installed.
        counters_read: Rule counters read.
    """

    vswitch_bytes: int
    installs: int = 0
    counters_read: int = 0

    @property
    def core_s(self) -> float:
        """Seconds of one core, that at rest left out."""
        packets_s = self.vswitch_bytes * 8 / 1e9 * PERCENT_PER_GBPS / 100
        return packets_s + self.installs * INSTALL_US * 1e-6 + self.counters_read * POLL_US * 1e-6


def cpu_percent(work: Work, duration_s: float) -> float:
    """Return the modelled CPU of the host, in percent of one core, over some time; at rest where that time is none.

    >>> cpu_percent(Work(vswitch_bytes=125_000_000), 1.0)
    65.3
    """
    if duration_s <= 0:
        return BASE_PERCENT
    return round(min(BASE_PERCENT + 100 * work.core_s / duration_s, CAP_PERCENT), 6)
