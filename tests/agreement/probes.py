"""Packets that tell whether a NIC compares what a rule asks for. What a rule means is written here anew."""

from __future__ import annotations

from collections.abc import Mapping

from nicoffload.model import FIELDS, FlowRule, Masked

Packet = Mapping[str, int]
"""Field to value; a field that the packet does not have is left out."""

_IPV4, _IPV6 = 0x0800, 0x86DD


def hits(rule: FlowRule, packet: Packet) -> bool:
    """Tell whether a rule, as its words say, means a packet."""
    for name, value in rule.match.items():
        if name not in packet:
            return False
        if isinstance(value, Masked):
            if packet[name] & value.mask != value.value:
                return False
        elif not value.first <= packet[name] <= value.last:
            return False
    return True


def packets_for(rule: FlowRule, pf_mac: int) -> list[Packet]:
    """Return a packet that a rule means, and near misses of it.

    Args:
        rule: The rule.
        pf_mac: Destination of the packets where the rule says nothing of it.
    """
    wanted = {
        name: value.value if isinstance(value, Masked) else value.first for name, value in rule.match.items()
    }
    base = {"eth_dst": pf_mac, "eth_src": 0x02_00_00_00_00_99, **wanted}
    found = [base]
    for name, value in rule.match.items():
        mask = value.mask if isinstance(value, Masked) else FIELDS[name].full_mask
        full = FIELDS[name].full_mask
        bits = [
            bit for bit in (mask & -mask, 1 << mask.bit_length() - 1, full & ~mask & -(full & ~mask)) if bit
        ]
        found += [{**base, name: base[name] ^ bit} for bit in bits if name != "in_port"]
        if name.startswith(("vlan", "cvlan")):
            found.append({key: other for key, other in base.items() if not key.startswith(("vlan", "cvlan"))})
    return [*map(_complete, found)]


def _complete(fields: Packet) -> Packet:
    """Return a packet that could be on a wire: with all fields of its protocols, and no others."""
    packet = {name: value for name, value in fields.items() if not name.startswith("tun_")}
    packet.setdefault("in_port", 0)
    packet.setdefault("eth_type", _IPV4)
    tags = [name for name in packet if name.startswith(("vlan", "cvlan"))]
    if tags:
        for name in ("vlan_vid", "vlan_dei", "vlan_pcp"):
            packet.setdefault(name, 0)
    if any(name.startswith("cvlan") for name in tags):
        for name in ("cvlan_vid", "cvlan_pcp"):
            packet.setdefault(name, 0)
    version = {_IPV4: "ipv4", _IPV6: "ipv6"}.get(packet["eth_type"])
    allowed = {"in_port", "eth_src", "eth_dst", "eth_type", *(n for n in packet if n in tags or "vlan" in n)}
    if version:
        packet.setdefault("ip_proto", 6)
        for name in (f"{version}_src", f"{version}_dst", "ip_tos", "ip_ttl", "ip_frag"):
            packet.setdefault(name, 0)
            allowed.add(name)
        allowed.add("ip_proto")
        if packet["ip_proto"] in (6, 17, 132):
            needs = ["tp_src", "tp_dst", *(["tcp_flags"] if packet["ip_proto"] == 6 else [])]
        else:
            needs = ["icmp_type", "icmp_code"] if packet["ip_proto"] in (1, 58) else []
        for name in needs:
            packet.setdefault(name, 0)
            allowed.add(name)
    return {name: value for name, value in packet.items() if name in allowed}
