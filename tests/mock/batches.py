"""Batches for tests that can't take a fixture (hypothesis calls them many times)."""

from __future__ import annotations

import numpy as np

from nicoffload.packets import HAS_ETH, HAS_IPV4, HAS_PORTS, HEADER_DTYPE, PacketBatch


def make_batch(headers, count):
    """Return `count` packets of TCP over IPv4, 20 ms apart, whose headers come round robin."""
    rows = np.zeros(len(headers), HEADER_DTYPE)
    for row, fields in zip(rows, headers, strict=True):
        row["present"], row["l2_bytes"] = HAS_ETH | HAS_IPV4 | HAS_PORTS, 14
        row["eth_type"], row["ip_proto"] = 0x0800, 6
        for name, value in fields.items():
            row[name] = value
    return PacketBatch(
        time_ns=np.arange(count, dtype=np.int64) * 20_000_000,
        wire_bytes=np.full(count, 100, np.int64),
        header_index=(np.arange(count) % len(headers)).astype(np.int32),
        headers=rows,
    )
