"""Rates of flows, from what their paths counted between two ticks."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nicoffload.flexivoffload.flows import FlowTable

NS_PER_S = 1_000_000_000


def update_rates(table: FlowTable, now_ns: int, elapsed_s: float, tau_s: float) -> None:
    """Move every flow's rate towards what it did since the last tick.

    The average forgets with the time constant `tau_s`; that it started at zero is divided out, so that a young flow's
    rate is not too low.
    """
    if elapsed_s <= 0:
        return
    high = table.high
    keep = math.exp(-elapsed_s / tau_s)
    packets, size = table.packets(), table.bytes()
    new_pps = (packets - table.tick_packets[:high]) / elapsed_s
    new_bps = (size - table.tick_bytes[:high]) * 8 / elapsed_s
    table.tick_packets[:high] = packets
    table.tick_bytes[:high] = size
    raw_pps, raw_bps = table.raw_pps[:high], table.raw_bps[:high]
    raw_pps *= keep
    raw_pps += (1 - keep) * new_pps
    raw_bps *= keep
    raw_bps += (1 - keep) * new_bps
    warm = np.maximum(1 - np.exp(-ages_s(table, now_ns) / tau_s), 0.2)
    table.rate_pps[:high] = raw_pps / warm
    table.rate_bps[:high] = raw_bps / warm


def ages_s(table: FlowTable, now_ns: int) -> npt.NDArray[np.float64]:
    """Return how long ago the first packet of each flow was."""
    ages: npt.NDArray[np.float64] = np.maximum(now_ns - table.first_ns[: table.high], 0) / NS_PER_S
    return ages
