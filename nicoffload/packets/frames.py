"""Raw frames in bulk: what a source of packets hands to `parse_frames`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LINK_NULL = 0
LINK_ETHERNET = 1
LINK_RAW_BSD = 12
LINK_RAW_OPENBSD = 14
LINK_RAW = 101
LINK_LOOP = 108
LINK_LINUX_SLL = 113
LINK_IPV4 = 228
LINK_IPV6 = 229
LINK_LINUX_SLL2 = 276

LINK_TYPES: frozenset[int] = frozenset(
    {
        LINK_NULL,
        LINK_ETHERNET,
        LINK_RAW_BSD,
        LINK_RAW_OPENBSD,
        LINK_RAW,
        LINK_LOOP,
        LINK_LINUX_SLL,
        LINK_IPV4,
        LINK_IPV6,
        LINK_LINUX_SLL2,
    }
)
"""The link types (numbers of the pcap registry) that `parse_frames` reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFrames:
    """Frames as they lie in a buffer, in the order of their capture.

    Args:
        data: The buffer; it must not change while it is being parsed.
        offset: int64[N], where in `data` each frame starts.
        captured_bytes: int64[N], how much of each frame is in `data`.
        wire_bytes: int64[N], length of each frame on the wire.
        time_ns: int64[N], nanoseconds since the epoch.
        link_type: int64[N], members of `LINK_TYPES`.
    """

    data: bytes | bytearray | memoryview
    offset: npt.NDArray[np.int64]
    captured_bytes: npt.NDArray[np.int64]
    wire_bytes: npt.NDArray[np.int64]
    time_ns: npt.NDArray[np.int64]
    link_type: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offset)


def read_structs(
    data: bytes | bytearray | memoryview, at: npt.NDArray[np.int64], layout: np.dtype[Any]
) -> npt.NDArray[np.void]:
    """Return a copy of the structures at many places of a buffer.

    Args:
        data: The buffer.
        at: int64[N], where each structure starts, in any order and alignment; each lies inside the buffer.
        layout: What lies there.

    Returns:
        N structures of `layout`.

    Raises:
        IndexError: A structure lies outside the buffer.
    """
    if not len(at):
        return np.empty(0, layout)
    size = layout.itemsize
    count = max(len(data) - size + 1, 0)
    # One overlapping window per byte of the buffer: a gather then copies whole structures, not single bytes.
    windows: npt.NDArray[np.void] = np.ndarray((count,), np.dtype(f"V{size}"), buffer=data, strides=(1,))
    return windows[at].view(layout)
