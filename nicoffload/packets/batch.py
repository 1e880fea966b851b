"""Parsed packets in bulk: one row a packet, one row a distinct header, in the vocabulary of `nicoffload.model`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HEADER_DTYPE = np.dtype(
    [
        # Which columns below hold something. Bits: see the constants HAS_*.
        ("present", "u4"),
        # Bytes before the L3 header, VLAN tags included: what a counter without L2 leaves out.
        ("l2_bytes", "u2"),
        ("eth_src", "u8"),
        ("eth_dst", "u8"),
        # The type behind all VLAN tags.
        ("eth_type", "u2"),
        ("vlan_depth", "u1"),
        # Outer tag, then the next one; the TCI holds priority, DEI and VID as on the wire.
        ("vlan_tci", "u2"),
        ("cvlan_tci", "u2"),
        ("ipv4_src", "u4"),
        ("ipv4_dst", "u4"),
        ("ipv6_src_hi", "u8"),
        ("ipv6_src_lo", "u8"),
        ("ipv6_dst_hi", "u8"),
        ("ipv6_dst_lo", "u8"),
        # The protocol behind all IPv6 extension headers.
        ("ip_proto", "u1"),
        ("ip_tos", "u1"),
        ("ip_ttl", "u1"),
        # 0 whole, 1 first fragment, 3 later fragment (Open vSwitch's nw_frag).
        ("ip_frag", "u1"),
        ("tp_src", "u2"),
        ("tp_dst", "u2"),
        ("tcp_flags", "u2"),
        ("icmp_type", "u1"),
        ("icmp_code", "u1"),
    ]
)
"""One distinct packet header, integers in host order; an absent column is 0 and its bit in `present` is clear."""

HAS_ETH = 1 << 0
HAS_VLAN = 1 << 1
HAS_CVLAN = 1 << 2
HAS_IPV4 = 1 << 3
HAS_IPV6 = 1 << 4
HAS_PORTS = 1 << 5
HAS_TCP_FLAGS = 1 << 6
HAS_ICMP = 1 << 7
TRUNCATED = 1 << 8
"""The captured bytes end before the headers do; what could be read is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketBatch:
    """Packets in the order in which they were captured.

    Args:
        time_ns: int64[N], nanoseconds since the epoch; never decreasing is not promised.
        wire_bytes: int64[N], length of the frame on the wire, without FCS (not of what was captured of it).
        header_index: int32[N], row in `headers` of each packet.
        headers: HEADER_DTYPE[U], the distinct headers of this batch.
    """

    time_ns: npt.NDArray[np.int64]
    wire_bytes: npt.NDArray[np.int64]
    header_index: npt.NDArray[np.int32]
    headers: npt.NDArray[np.void]

    def __len__(self) -> int:
        return len(self.time_ns)
