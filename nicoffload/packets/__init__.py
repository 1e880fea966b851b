"""Packet headers in bulk: what a capture reader yields and an emulated NIC classifies."""

from __future__ import annotations

from nicoffload.packets.batch import (
    HAS_CVLAN,
    HAS_ETH,
    HAS_ICMP,
    HAS_IPV4,
    HAS_IPV6,
    HAS_PORTS,
    HAS_TCP_FLAGS,
    HAS_VLAN,
    HEADER_DTYPE,
    TRUNCATED,
    PacketBatch,
)
from nicoffload.packets.frames import LINK_TYPES, RawFrames, read_structs
from nicoffload.packets.parse import parse_frames

__all__ = [
    "HAS_CVLAN",
    "HAS_ETH",
    "HAS_ICMP",
    "HAS_IPV4",
    "HAS_IPV6",
    "HAS_PORTS",
    "HAS_TCP_FLAGS",
    "HAS_VLAN",
    "HEADER_DTYPE",
    "LINK_TYPES",
    "TRUNCATED",
    "PacketBatch",
    "RawFrames",
    "parse_frames",
    "read_structs",
]
