"""Matches, masks and field names in the words of an operator."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from nicoffload.model import FIELDS, RANGE_MASK, FieldValue, Kind, Masked, PortRange, format_value
from nicoffload.model.fields import (
    ETH_P_IP,
    ETH_P_IPV6,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
)

_PROTOCOLS = {
    IPPROTO_TCP: "TCP",
    IPPROTO_UDP: "UDP",
    IPPROTO_SCTP: "SCTP",
    IPPROTO_ICMP: "ICMP",
    IPPROTO_ICMPV6: "ICMPv6",
}
_ETHER_TYPES = {ETH_P_IP: "IPv4", ETH_P_IPV6: "IPv6", 0x0806: "ARP"}
_ENDS = (
    ("from", ("eth_src", "ipv4_src", "ipv6_src"), "tp_src"),
    ("to", ("eth_dst", "ipv4_dst", "ipv6_dst"), "tp_dst"),
)
_TOLD = frozenset({"eth_type", "ip_proto", "tp_src", "tp_dst", *_ENDS[0][1], *_ENDS[1][1]})


def text_name(field: str) -> str:
    """Return a field's name in the one-line form, such as ``nw_src``."""
    return FIELDS[field].texts[0]


def names(fields: Iterable[str]) -> str:
    """Return a set of fields for people, in printing order: ``{nw_src, tp_dst}``."""
    wanted = set(fields)
    return "{" + ", ".join(text_name(name) for name in FIELDS if name in wanted) + "}"


def value_text(field: str, value: FieldValue) -> str:
    """Return a field's value as text: ``10.0.0.0/8``, ``1000-2000``."""
    if isinstance(value, PortRange):
        return f"{value.first}-{value.last}"
    return format_value(FIELDS[field], value.value, value.mask)


def mask_text(field: str, mask: int) -> str:
    """Return a mask for people: ``/8``, ``/ff:ff:ff:00:00:00``, ``a range``."""
    spec = FIELDS[field]
    if mask == RANGE_MASK:
        return "a range"
    if spec.kind in (Kind.IPV4, Kind.IPV6):
        length = mask.bit_count()
        if mask == spec.full_mask ^ (spec.full_mask >> length):
            return f"/{length}"
    if spec.kind in (Kind.IPV4, Kind.IPV6, Kind.MAC):
        return f"/{format_value(spec, mask, spec.full_mask)}"
    return f"/{mask:#x}"


def exact_text(field: str) -> str:
    """Return the mask of an exact match for people: ``/32``, or that every bit counts."""
    spec = FIELDS[field]
    return f"/{spec.bits}, one address" if spec.kind in (Kind.IPV4, Kind.IPV6) else "one exact value"


def _subject(fields: Mapping[str, FieldValue], unknown: Collection[str]) -> str:
    proto, ether = fields.get("ip_proto"), fields.get("eth_type")
    known = (
        _ETHER_TYPES.get(ether.value, f"Ethernet type {ether.value:#06x}")
        if isinstance(ether, Masked)
        else ""
    )
    if isinstance(proto, Masked):
        name = _PROTOCOLS.get(proto.value, f"IP protocol {proto.value}")
        return f"{name} over IPv6" if known == "IPv6" and name != "ICMPv6" else name
    if "ip_proto" in unknown:
        return f"{known} traffic of one protocol".strip()
    return known


def describe(fields: Mapping[str, FieldValue], unknown: Collection[str] = ()) -> str:
    """Return what fields catch, in words: ``TCP from 10.0.0.0/8 to port 80``; empty for no fields.

    Args:
        fields: Field name to value.
        unknown: Fields that would have one value, not known which.
    """
    parts = [_subject(fields, unknown)]
    for preposition, addresses, port in _ENDS:
        ends = [value_text(name, fields[name]) for name in addresses if name in fields]
        ends += [f"one {text_name(name)}" for name in addresses if name in unknown]
        if port in fields:
            ends.append(f"port {value_text(port, fields[port])}")
        elif port in unknown:
            ends.append(f"one {text_name(port)}")
        if ends:
            parts.append(f"{preposition} {' '.join(ends)}")
    rest = [
        f"{text_name(name)} {value_text(name, value)}" for name, value in fields.items() if name not in _TOLD
    ]
    rest += [f"one {text_name(name)}" for name in unknown if name not in _TOLD]
    if rest:
        parts.append(f"with {', '.join(rest)}")
    return " ".join(part for part in parts if part)
