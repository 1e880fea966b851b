"""Packet headers seen as flows: which fields a match compares, what names a flow, what it is called."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from nicoffload.codec import format_match
from nicoffload.model import Masked, Match, PortRange
from nicoffload.packets import (
    HAS_CVLAN,
    HAS_ETH,
    HAS_ICMP,
    HAS_IPV4,
    HAS_IPV6,
    HAS_PORTS,
    HAS_TCP_FLAGS,
    HAS_VLAN,
    TRUNCATED,
)

Headers = npt.NDArray[np.void]
"""Rows of HEADER_DTYPE."""

KEY_DTYPE = np.dtype(
    [
        ("present", "u4"),
        ("l2_bytes", "u2"),
        ("eth_src", "u8"),
        ("eth_dst", "u8"),
        ("eth_type", "u2"),
        ("vlan_depth", "u1"),
        ("vlan_vid", "u2"),
        ("cvlan_vid", "u2"),
        ("ipv4_src", "u4"),
        ("ipv4_dst", "u4"),
        ("ipv6_src_hi", "u8"),
        ("ipv6_src_lo", "u8"),
        ("ipv6_dst_hi", "u8"),
        ("ipv6_dst_lo", "u8"),
        ("ip_proto", "u1"),
        ("tp_src", "u2"),
        ("tp_dst", "u2"),
    ]
)
"""What tells one flow from another. It holds the length of the L2 header, so that a counter without L2 can be
brought to the same basis: packets times that length are missing."""

_KEY_BITS = HAS_ETH | HAS_VLAN | HAS_CVLAN | HAS_IPV4 | HAS_IPV6 | HAS_PORTS | TRUNCATED
_HAS_IP = HAS_IPV4 | HAS_IPV6
_VID = 0xFFF

# Field of the model: column, right shift, and the bits of `present` of which one must be set.
_COLUMNS: Mapping[str, tuple[str, int, int]] = MappingProxyType(
    {
        "eth_src": ("eth_src", 0, HAS_ETH),
        "eth_dst": ("eth_dst", 0, HAS_ETH),
        "eth_type": ("eth_type", 0, HAS_ETH | _HAS_IP),
        "vlan_vid": ("vlan_tci", 0, HAS_VLAN),
        "vlan_dei": ("vlan_tci", 12, HAS_VLAN),
        "vlan_pcp": ("vlan_tci", 13, HAS_VLAN),
        "cvlan_vid": ("cvlan_tci", 0, HAS_CVLAN),
        "cvlan_pcp": ("cvlan_tci", 13, HAS_CVLAN),
        "ipv4_src": ("ipv4_src", 0, HAS_IPV4),
        "ipv4_dst": ("ipv4_dst", 0, HAS_IPV4),
        "ip_proto": ("ip_proto", 0, _HAS_IP),
        "ip_tos": ("ip_tos", 0, _HAS_IP),
        "ip_ttl": ("ip_ttl", 0, _HAS_IP),
        "ip_frag": ("ip_frag", 0, _HAS_IP),
        "tp_src": ("tp_src", 0, HAS_PORTS),
        "tp_dst": ("tp_dst", 0, HAS_PORTS),
        "tcp_flags": ("tcp_flags", 0, HAS_TCP_FLAGS),
        "icmp_type": ("icmp_type", 0, HAS_ICMP),
        "icmp_code": ("icmp_code", 0, HAS_ICMP),
    }
)
_IPV6_FIELDS = frozenset({"ipv6_src", "ipv6_dst"})

COMPARABLE_FIELDS: frozenset[str] = frozenset(_COLUMNS) | _IPV6_FIELDS | {"in_port"}
"""Match fields that a parsed header can answer; tunnels are not taken apart."""


def flow_keys(headers: Headers) -> list[bytes]:
    """Return the flow that each header belongs to, as bytes of a KEY_DTYPE row."""
    keys = np.zeros(len(headers), KEY_DTYPE)
    for name in KEY_DTYPE.names or ():
        if name not in ("present", "vlan_vid", "cvlan_vid"):
            keys[name] = headers[name]
    keys["present"] = headers["present"] & _KEY_BITS
    keys["vlan_vid"] = headers["vlan_tci"] & _VID
    keys["cvlan_vid"] = headers["cvlan_tci"] & _VID
    whole: list[bytes] = keys.view(f"V{KEY_DTYPE.itemsize}").tolist()
    return whole


def key_row(key: bytes) -> np.void:
    """Return a flow's key as a row of KEY_DTYPE."""
    row: np.void = np.frombuffer(key, KEY_DTYPE)[0]
    return row


def match_headers(match: Match, headers: Headers, in_port: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Tell which headers a match catches.

    Args:
        match: Fields within `COMPARABLE_FIELDS`.
        headers: HEADER_DTYPE[N].
        in_port: int32[N], the port of the NIC's switch that each enters.

    Returns:
        bool[N].
    """
    hit = np.ones(len(headers), np.bool_)
    for name, value in match.items():
        hit &= _compare(name, value, headers, in_port)
    return hit


def _compare(
    name: str, value: Masked | PortRange, headers: Headers, in_port: npt.NDArray[np.int32]
) -> npt.NDArray[np.bool_]:
    if name == "in_port":
        return _bits(in_port, value)
    if name in _IPV6_FIELDS:
        assert isinstance(value, Masked)
        low = (1 << 64) - 1
        high_ok = (headers[f"{name}_hi"] & np.uint64(value.mask >> 64)) == np.uint64(value.value >> 64)
        low_ok = (headers[f"{name}_lo"] & np.uint64(value.mask & low)) == np.uint64(value.value & low)
        both: npt.NDArray[np.bool_] = _present(headers, HAS_IPV6) & high_ok & low_ok
        return both
    column, shift, needs = _COLUMNS[name]
    hit: npt.NDArray[np.bool_] = _present(headers, needs) & _bits(headers[column] >> shift, value)
    return hit


def _present(headers: Headers, bits: int) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (headers["present"] & bits) != 0
    return found


def _bits(column: npt.NDArray[Any], value: Masked | PortRange) -> npt.NDArray[np.bool_]:
    wide = column.astype(np.uint64)
    hit: npt.NDArray[np.bool_]
    if isinstance(value, PortRange):
        hit = (wide >= np.uint64(value.first)) & (wide <= np.uint64(value.last))
    else:
        hit = (wide & np.uint64(value.mask)) == np.uint64(value.value)
    return hit


def flow_match(row: np.void) -> Match:
    """Return the match that names a flow for people, VLAN tags and all: what `why --flow` takes."""
    present = int(row["present"])
    fields: dict[str, int | str] = {}
    if present & HAS_VLAN:
        fields["vlan_vid"] = int(row["vlan_vid"])
    if present & HAS_CVLAN:
        fields["cvlan_vid"] = int(row["cvlan_vid"])
    if present & _HAS_IP:
        fields |= address_fields(row, "src") | address_fields(row, "dst")
        fields["ip_proto"] = int(row["ip_proto"])
        if present & HAS_PORTS:
            fields |= {"tp_src": int(row["tp_src"]), "tp_dst": int(row["tp_dst"])}
    elif present & HAS_ETH:
        fields |= {"eth_src": int(row["eth_src"]), "eth_dst": int(row["eth_dst"])}
    if present & (HAS_ETH | _HAS_IP) and int(row["eth_type"]):
        fields["eth_type"] = int(row["eth_type"])
    return Match.of(**fields)


def address_fields(row: np.void, end: str) -> dict[str, int | str]:
    """Return the fields of a match on one address, ``src`` or ``dst``, of a flow that has IP."""
    if int(row["present"]) & HAS_IPV4:
        return {"eth_type": 0x0800, f"ipv4_{end}": int(row[f"ipv4_{end}"])}
    return {"eth_type": 0x86DD, f"ipv6_{end}": ip6(row, end)}


def ip6(row: np.void, end: str) -> int:
    """Return an IPv6 address of a row as a number."""
    return int(row[f"ipv6_{end}_hi"]) << 64 | int(row[f"ipv6_{end}_lo"])


CUT, UNKNOWN = " (cut)", "unknown"
"""What the name of a flow ends with whose header is cut, and the name of one that has no match."""


def flow_text(key: bytes) -> str:
    """Return a flow's name: the one-line match, with the MAC addresses where it has no IP."""
    row = key_row(key)
    text = format_match(flow_match(row))
    return f"{text or 'any'}{CUT}" if int(row["present"]) & TRUNCATED else text or UNKNOWN
