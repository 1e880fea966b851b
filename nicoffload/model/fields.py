"""The match vocabulary: every header field that a rule can name, once, for model, codec, compiler and docs alike."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

ETH_P_IP = 0x0800
ETH_P_IPV6 = 0x86DD
IPPROTO_ICMP = 1
IPPROTO_TCP = 6
IPPROTO_UDP = 17
IPPROTO_ICMPV6 = 58
IPPROTO_SCTP = 132


class Kind(enum.Enum):
    """How a field's value is written for people."""

    INT = "int"
    HEX = "hex"
    MAC = "mac"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    PORT = "port"
    """A TCP, UDP or SCTP port: the only kind that takes a range."""
    SWITCH_PORT = "switch_port"
    """A port of the NIC's internal switch: ``uplink`` (0), ``pf`` (1), ``vf:N`` (2 + N)."""
    FRAGMENT = "fragment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One header field.

    Args:
        name: Its name in the model and in JSON.
        bits: Width.
        kind: How its value is written.
        texts: Its names in the one-line form; the first is the one that is printed.
        needs: Field to the exact values of it without which this field means nothing.
        doc: One line for the reference table.
    """

    name: str
    bits: int
    kind: Kind
    texts: tuple[str, ...]
    needs: Mapping[str, tuple[int, ...]]
    doc: str

    @property
    def full_mask(self) -> int:
        """The mask that compares every bit."""
        return (1 << self.bits) - 1


_NOTHING: Mapping[str, tuple[int, ...]] = MappingProxyType({})
_IP = MappingProxyType({"eth_type": (ETH_P_IP, ETH_P_IPV6)})
_IPV4 = MappingProxyType({"eth_type": (ETH_P_IP,)})
_IPV6 = MappingProxyType({"eth_type": (ETH_P_IPV6,)})
_L4 = MappingProxyType({"ip_proto": (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP)})
_TCP = MappingProxyType({"ip_proto": (IPPROTO_TCP,)})
_ICMP = MappingProxyType({"ip_proto": (IPPROTO_ICMP, IPPROTO_ICMPV6)})


def _field(
    name: str,
    bits: int,
    kind: Kind,
    texts: tuple[str, ...],
    doc: str,
    needs: Mapping[str, tuple[int, ...]] = _NOTHING,
) -> Field:
    return Field(name=name, bits=bits, kind=kind, texts=texts, needs=needs, doc=doc)


_ALL = (
    _field("in_port", 16, Kind.SWITCH_PORT, ("in_port",), "Port of the NIC's switch that the packet enters"),
    _field("eth_src", 48, Kind.MAC, ("dl_src", "eth_src"), "Source MAC address"),
    _field("eth_dst", 48, Kind.MAC, ("dl_dst", "eth_dst"), "Destination MAC address"),
    _field("eth_type", 16, Kind.HEX, ("dl_type", "eth_type"), "Ethernet type, behind all VLAN tags"),
    _field("vlan_vid", 12, Kind.INT, ("dl_vlan", "vlan_vid"), "VLAN id of the outer tag"),
    _field("vlan_dei", 1, Kind.INT, ("vlan_dei",), "Drop-eligible bit (CFI) of the outer tag"),
    _field("vlan_pcp", 3, Kind.INT, ("dl_vlan_pcp", "vlan_pcp"), "Priority of the outer tag"),
    _field("cvlan_vid", 12, Kind.INT, ("cvlan_vid",), "VLAN id of the second tag"),
    _field("cvlan_pcp", 3, Kind.INT, ("cvlan_pcp",), "Priority of the second tag"),
    _field("ipv4_src", 32, Kind.IPV4, ("nw_src", "ip_src", "ipv4_src"), "IPv4 source address", _IPV4),
    _field("ipv4_dst", 32, Kind.IPV4, ("nw_dst", "ip_dst", "ipv4_dst"), "IPv4 destination address", _IPV4),
    _field("ipv6_src", 128, Kind.IPV6, ("ipv6_src",), "IPv6 source address", _IPV6),
    _field("ipv6_dst", 128, Kind.IPV6, ("ipv6_dst",), "IPv6 destination address", _IPV6),
    _field("ip_proto", 8, Kind.INT, ("nw_proto", "ip_proto"), "IP protocol, behind extension headers", _IP),
    _field(
        "ip_tos", 8, Kind.INT, ("nw_tos", "ip_tos"), "TOS byte: DSCP in the upper six bits, ECN below", _IP
    ),
    _field("ip_ttl", 8, Kind.INT, ("nw_ttl", "ip_ttl"), "TTL or hop limit", _IP),
    _field(
        "ip_frag", 2, Kind.FRAGMENT, ("nw_frag", "ip_frag"), "Bit 0: a fragment; bit 1: not the first", _IP
    ),
    _field("tp_src", 16, Kind.PORT, ("tp_src", "tcp_src", "udp_src"), "TCP, UDP or SCTP source port", _L4),
    _field(
        "tp_dst", 16, Kind.PORT, ("tp_dst", "tcp_dst", "udp_dst"), "TCP, UDP or SCTP destination port", _L4
    ),
    _field("tcp_flags", 12, Kind.HEX, ("tcp_flags",), "TCP flags", _TCP),
    _field("icmp_type", 8, Kind.INT, ("icmp_type",), "ICMP or ICMPv6 type", _ICMP),
    _field("icmp_code", 8, Kind.INT, ("icmp_code",), "ICMP or ICMPv6 code", _ICMP),
    _field("tun_id", 64, Kind.INT, ("tun_id", "tunnel_id"), "Tunnel key (VNI)"),
    _field("tun_ipv4_src", 32, Kind.IPV4, ("tun_src",), "Outer IPv4 source of the tunnel"),
    _field("tun_ipv4_dst", 32, Kind.IPV4, ("tun_dst",), "Outer IPv4 destination of the tunnel"),
    _field("tun_ipv6_src", 128, Kind.IPV6, ("tun_ipv6_src",), "Outer IPv6 source of the tunnel"),
    _field("tun_ipv6_dst", 128, Kind.IPV6, ("tun_ipv6_dst",), "Outer IPv6 destination of the tunnel"),
    _field("tun_tp_dst", 16, Kind.PORT, ("tun_tp_dst",), "Outer UDP destination port of the tunnel"),
)

FIELDS: Mapping[str, Field] = MappingProxyType({f.name: f for f in _ALL})
"""Every field by its model name, in the order in which they are printed."""

FIELDS_BY_TEXT: Mapping[str, Field] = MappingProxyType({text: f for f in _ALL for text in (*f.texts, f.name)})
"""Every field by each of its names in the one-line form."""

TEXT_PROTOCOLS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "ip": MappingProxyType({"eth_type": ETH_P_IP}),
        "ipv6": MappingProxyType({"eth_type": ETH_P_IPV6}),
        "arp": MappingProxyType({"eth_type": 0x0806}),
        "icmp": MappingProxyType({"eth_type": ETH_P_IP, "ip_proto": IPPROTO_ICMP}),
        "icmp6": MappingProxyType({"eth_type": ETH_P_IPV6, "ip_proto": IPPROTO_ICMPV6}),
        "tcp": MappingProxyType({"eth_type": ETH_P_IP, "ip_proto": IPPROTO_TCP}),
        "tcp6": MappingProxyType({"eth_type": ETH_P_IPV6, "ip_proto": IPPROTO_TCP}),
        "udp": MappingProxyType({"eth_type": ETH_P_IP, "ip_proto": IPPROTO_UDP}),
        "udp6": MappingProxyType({"eth_type": ETH_P_IPV6, "ip_proto": IPPROTO_UDP}),
        "sctp": MappingProxyType({"eth_type": ETH_P_IP, "ip_proto": IPPROTO_SCTP}),
        "sctp6": MappingProxyType({"eth_type": ETH_P_IPV6, "ip_proto": IPPROTO_SCTP}),
    }
)
"""Open vSwitch's short words for a protocol, and the fields that they stand for."""
