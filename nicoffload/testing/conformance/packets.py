"""Packets that a rule matches, and how they get into an emulated NIC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nicoffload.driver import PacketPath
from nicoffload.model import FlowRule, Masked
from nicoffload.packets import (
    HAS_CVLAN,
    HAS_ETH,
    HAS_ICMP,
    HAS_IPV4,
    HAS_IPV6,
    HAS_PORTS,
    HAS_TCP_FLAGS,
    HAS_VLAN,
    HEADER_DTYPE,
    PacketBatch,
)
from nicoffload.testing.conformance.under_test import Packet

WIRE_BYTES = 100
"""Length of every packet that the kit sends, without FCS."""

_IPV4, _IPV6 = 0x0800, 0x86DD
_SOURCE_MAC, _OTHER_MAC = 0x02_00_00_00_00_99, 0x02_00_00_00_FF_00


def packet_for(rule: FlowRule) -> Packet:
    """Return a packet that a rule matches, with all headers of its protocols and no others."""
    packet = {
        name: value.value if isinstance(value, Masked) else value.first for name, value in rule.match.items()
    }
    packet = {name: value for name, value in packet.items() if not name.startswith("tun_")}
    packet.setdefault("eth_src", _SOURCE_MAC)
    packet.setdefault("eth_dst", _OTHER_MAC)
    packet.setdefault("eth_type", _IPV4)
    for tag in ("vlan", "cvlan"):
        if any(name.startswith(tag) for name in packet):
            for name in (f"{tag}_vid", f"{tag}_pcp"):
                packet.setdefault(name, 0)
    version = {_IPV4: "ipv4", _IPV6: "ipv6"}.get(packet["eth_type"])
    if version is not None:
        packet.setdefault("ip_proto", 6)
        packet.setdefault(f"{version}_src", 1)
        packet.setdefault(f"{version}_dst", 2)
        packet.setdefault("ip_ttl", 64)
        if packet["ip_proto"] in (6, 17, 132):
            packet.setdefault("tp_src", 1)
            packet.setdefault("tp_dst", 2)
    return packet


def to_batch(packets: Sequence[Packet], start_ns: int = 0) -> PacketBatch:
    """Return packets as a batch, one header each, a microsecond apart."""
    headers = np.zeros(len(packets), HEADER_DTYPE)
    for header, packet in zip(headers, packets, strict=True):
        _fill(header, packet)
    count = len(packets)
    return PacketBatch(
        time_ns=np.arange(count, dtype=np.int64) * 1000 + start_ns,
        wire_bytes=np.full(count, WIRE_BYTES, np.int64),
        header_index=np.arange(count, dtype=np.int32),
        headers=headers,
    )


def send_by_path(path: PacketPath, packets: Sequence[Packet]) -> None:
    """Send packets into the ports of an emulated NIC that they name, the uplink where they name none."""
    batch = to_batch(packets)
    for index, packet in enumerate(packets):
        path.receive(batch, index, index + 1, packet.get("in_port", 0))


def _fill(header: np.void, packet: Packet) -> None:
    present = HAS_ETH
    for name in ("eth_src", "eth_dst", "eth_type", "ip_proto", "ip_tos", "ip_ttl", "ip_frag"):
        header[name] = packet.get(name, 0)
    for name in ("ipv4_src", "ipv4_dst", "tp_src", "tp_dst", "tcp_flags", "icmp_type", "icmp_code"):
        header[name] = packet.get(name, 0)
    for name in ("ipv6_src", "ipv6_dst"):
        header[f"{name}_hi"] = packet.get(name, 0) >> 64
        header[f"{name}_lo"] = packet.get(name, 0) & (1 << 64) - 1
    for tag, bit in (("vlan", HAS_VLAN), ("cvlan", HAS_CVLAN)):
        if f"{tag}_vid" in packet:
            present |= bit
            tci = packet[f"{tag}_vid"] | packet.get(f"{tag}_dei", 0) << 12
            header[f"{tag}_tci"] = tci | packet.get(f"{tag}_pcp", 0) << 13
            header["vlan_depth"] += 1
    for name, bit in (
        ("ipv4_src", HAS_IPV4),
        ("ipv6_src", HAS_IPV6),
        ("tp_src", HAS_PORTS),
        ("tcp_flags", HAS_TCP_FLAGS),
        ("icmp_type", HAS_ICMP),
    ):
        present |= bit if name in packet else 0
    header["present"] = present
    header["l2_bytes"] = 14 + 4 * int(header["vlan_depth"])
