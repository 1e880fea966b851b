"""From raw frames to a `PacketBatch`: layer by layer for all packets at once."""

from __future__ import annotations

import numpy as np

from nicoffload.errors import InvalidRequestError
from nicoffload.packets._columns import Table
from nicoffload.packets._link import parse_link
from nicoffload.packets._network import parse_network, parse_transport
from nicoffload.packets.batch import PacketBatch
from nicoffload.packets.frames import LINK_TYPES, RawFrames


def parse_frames(frames: RawFrames) -> PacketBatch:
    """Read the headers of frames; every frame becomes one packet, in the same order.

    A frame that ends before its headers do has the bit TRUNCATED and the columns of each layer whose fixed part
    is whole (ports need only their four bytes). A header that contradicts itself (IPv4 of version 6, an IHL below
    5) is absent. An 802.3 frame without a type has Open vSwitch's 0x05ff. Of a frame that is not Ethernet,
    `l2_bytes` is the length of the capture's own link header.

    Args:
        frames: The frames. No byte outside their captured bytes is looked at.

    Raises:
        InvalidRequestError: A link type is not in `LINK_TYPES`, or a frame lies outside the buffer.
    """
    unknown = sorted(set(np.unique(frames.link_type).tolist()) - LINK_TYPES)
    if unknown:
        raise InvalidRequestError(
            f"link type {unknown[0]} is not read",
            path="link_type",
            hint=f"read are {', '.join(map(str, sorted(LINK_TYPES)))}",
        )
    _check_bounds(frames)
    table = Table(frames)
    parse_link(table, frames.link_type)
    parse_network(table)
    parse_transport(table)
    headers, header_index = table.distinct()
    return PacketBatch(
        time_ns=frames.time_ns, wire_bytes=frames.wire_bytes, header_index=header_index, headers=headers
    )


def _check_bounds(frames: RawFrames) -> None:
    beyond = frames.offset > len(frames.data) - frames.captured_bytes
    outside = (frames.offset < 0) | (frames.captured_bytes < 0) | beyond
    if outside.any():
        row = int(np.argmax(outside))
        raise InvalidRequestError(f"frame {row} lies outside the buffer", path=f"offset/{row}")
