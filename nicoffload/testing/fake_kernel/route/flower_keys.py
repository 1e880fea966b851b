"""Keys of flower as the kernel keeps them: what it takes out of a request, and what it puts into a dump.

The kernel reads into a structure, in which a key that a protocol does not have is left out without a word, and writes
what the structure holds, in an order of its own.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.testing.fake_kernel.route.wire import (
    Rejected,
    be16_of,
    put,
    put_be16,
    put_text,
    put_u8,
    put_u16,
    text_of,
    u8_of,
    u16_of,
)

CLASSID, INDEV, ACT, FLAGS, IN_HW_COUNT = 1, 2, 3, 22, 86
_ETH_TYPE, _IP_PROTO, _VLAN_ETH_TYPE, _CVLAN_ETH_TYPE = 8, 9, 25, 79
_VLAN_ID, _VLAN_PRIO, _CVLAN_ID, _CVLAN_PRIO = 23, 24, 77, 78
_NUM_OF_VLANS = 102
_KEY_FLAGS, _KEY_FLAGS_MASK = 47, 48
_IP, _IPV6, _ARP, _RARP = 0x0800, 0x86DD, 0x0806, 0x8035
_VLAN_TYPES = frozenset({0x8100, 0x88A8})
_ICMP, _TCP, _UDP, _ICMPV6, _SCTP = 1, 6, 17, 58, 132
_VID_MASK, _PRIO_MASK = 0xFFF, 0x7
_FRAGMENT_BITS = 3

_Numbers = tuple[int, int | None, int]
"""Attribute of the value, of the mask (None: every bit counts), and bytes."""

_ETH: Mapping[str, _Numbers] = MappingProxyType({"eth_dst": (4, 5, 6), "eth_src": (6, 7, 6)})
_TOS_TTL: Mapping[str, _Numbers] = MappingProxyType({"ip_tos": (73, 74, 1), "ip_ttl": (75, 76, 1)})
_ADDRESSES: tuple[Mapping[str, _Numbers], ...] = (
    MappingProxyType({"ipv4_src": (10, 11, 4), "ipv4_dst": (12, 13, 4)}),
    MappingProxyType({"ipv6_src": (14, 15, 16), "ipv6_dst": (16, 17, 16)}),
)
_TRANSPORT: Mapping[int, Mapping[str, _Numbers]] = MappingProxyType(
    {
        _TCP: MappingProxyType({"tp_src": (18, 35, 2), "tp_dst": (19, 36, 2), "tcp_flags": (71, 72, 2)}),
        _UDP: MappingProxyType({"tp_src": (20, 37, 2), "tp_dst": (21, 38, 2)}),
        _SCTP: MappingProxyType({"tp_src": (41, 39, 2), "tp_dst": (42, 40, 2)}),
    }
)
_ICMP_KEYS: Mapping[tuple[int, int], Mapping[str, _Numbers]] = MappingProxyType(
    {
        (_IP, _ICMP): MappingProxyType({"icmp_type": (51, 52, 1), "icmp_code": (49, 50, 1)}),
        (_IPV6, _ICMPV6): MappingProxyType({"icmp_type": (55, 56, 1), "icmp_code": (53, 54, 1)}),
    }
)
_ARP_KEYS: Mapping[str, _Numbers] = MappingProxyType(
    {
        "arp_sip": (57, 58, 4),
        "arp_tip": (59, 60, 4),
        "arp_op": (61, 62, 1),
        "arp_sha": (63, 64, 6),
        "arp_tha": (65, 66, 6),
    }
)
_RANGES: tuple[tuple[str, int, int, str], ...] = (
    ("tp_dst", 89, 90, "destination"),
    ("tp_src", 87, 88, "source"),
)
_OUTER: tuple[Mapping[str, _Numbers], ...] = (
    MappingProxyType({"tun_ipv4_src": (27, 28, 4), "tun_ipv4_dst": (29, 30, 4)}),
    MappingProxyType({"tun_ipv6_src": (31, 32, 16), "tun_ipv6_dst": (33, 34, 16)}),
)
_TUNNEL: Mapping[str, _Numbers] = MappingProxyType(
    {
        "tun_id": (26, None, 4),
        "tun_tp_src": (43, 44, 2),
        "tun_tp_dst": (45, 46, 2),
        "tun_tos": (80, 81, 1),
        "tun_ttl": (82, 83, 1),
    }
)

_PLAIN_WIDTHS = {
    _ETH_TYPE: 2,
    _IP_PROTO: 1,
    _VLAN_ID: 2,
    _VLAN_PRIO: 1,
    _VLAN_ETH_TYPE: 2,
    _CVLAN_ID: 2,
    _CVLAN_PRIO: 1,
    _CVLAN_ETH_TYPE: 2,
    _NUM_OF_VLANS: 1,
    _KEY_FLAGS: 4,
    _KEY_FLAGS_MASK: 4,
    CLASSID: 4,
    FLAGS: 4,
    87: 2,
    88: 2,
    89: 2,
    90: 2,
}


def _least() -> dict[int, int]:
    groups = [
        _ETH,
        _TOS_TTL,
        *_ADDRESSES,
        *_TRANSPORT.values(),
        *_ICMP_KEYS.values(),
        _ARP_KEYS,
        *_OUTER,
        _TUNNEL,
    ]
    found = dict(_PLAIN_WIDTHS)
    for group in groups:
        for value, mask, width in group.values():
            found[value] = width
            if mask is not None:
                found[mask] = width
    return found


LEAST: Mapping[int, int] = MappingProxyType(_least())
"""The least length of each attribute."""
_SILENT = frozenset({INDEV, ACT, IN_HW_COUNT})
KNOWN = frozenset(LEAST) | _SILENT

Masked = tuple[int, int]
"""Value and mask."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What flower compares.

    Args:
        fields: Name to value and mask. A value may have bits outside its mask, which the kernel keeps.
        ranges: ``tp_src`` and ``tp_dst`` to first and last.
        extra: What the kernel's mask holds besides, so that two masks are equal where the kernel finds them equal.
        indev: Name of the device that packets have come in by; empty for any.
    """

    fields: Mapping[str, Masked]
    ranges: Mapping[str, tuple[int, int]]
    extra: frozenset[str]
    indev: str

    def mask(self) -> object:
        """Return what decides which hash table the kernel puts the filter into."""
        return (
            tuple((name, mask) for name, (_, mask) in self.fields.items()),
            tuple(self.ranges),
            self.extra,
            bool(self.indev),
        )

    def masked(self) -> object:
        """Return what must differ between two filters of one mask."""
        values = tuple(value & mask for value, mask in self.fields.values())
        return values, tuple(self.ranges.values()), self.indev


def read_keys(found: Mapping[int, bytes]) -> Keys:  # noqa: C901  (in the order of fl_set_key)
    """Return the keys of a filter's options.

    Args:
        found: The attributes, each as long as `LEAST` says.

    Raises:
        Rejected: As ``fl_set_key`` does.
    """
    for kind, payload in found.items():
        if kind not in KNOWN and any(payload):
            raise Rejected(errno.EOPNOTSUPP, f"fake kernel: key {kind} of flower is not modelled")
    fields: dict[str, Masked] = {}
    extra: set[str] = set()

    def take(group: Mapping[str, _Numbers]) -> bool:
        """Take a group's keys; return whether there is any."""
        any_there = False
        for name, (number, mask_number, width) in group.items():
            payload = found.get(number)
            if payload is None:
                continue
            any_there = True
            full = (1 << 8 * width) - 1
            mask = full
            if mask_number is not None and mask_number in found:
                mask = int.from_bytes(found[mask_number][:width], "big")
            if mask:
                fields[name] = (int.from_bytes(payload[:width], "big"), mask)
        return any_there

    take(_ETH)
    _take_types(found, fields)
    eth_type, ip_proto = fields.get("eth_type", (0, 0))[0], 0
    if eth_type in {_IP, _IPV6}:
        if _IP_PROTO in found:
            ip_proto = u8_of(found[_IP_PROTO])
            fields["ip_proto"] = (ip_proto, 0xFF)
        take(_TOS_TTL)
    for family, group in enumerate(_ADDRESSES):
        if take(group):
            extra.add(f"addresses {family}")
            break
    if ip_proto in _TRANSPORT:
        take(_TRANSPORT[ip_proto])
    elif (eth_type, ip_proto) in _ICMP_KEYS:
        take(_ICMP_KEYS[eth_type, ip_proto])
    elif eth_type in {_ARP, _RARP}:
        take(_ARP_KEYS)
    ranges = _take_ranges(found) if ip_proto in _TRANSPORT else {}
    for family, group in enumerate(_OUTER):
        if take(group):
            extra.add(f"outer addresses {family}")
    take(_TUNNEL)
    _take_flags(found, fields)
    return Keys(fields, ranges, frozenset(extra), text_of(found[INDEV]) if INDEV in found else "")


def _take_types(found: Mapping[int, bytes], fields: dict[str, Masked]) -> None:
    """Take the Ethernet types and the tags, as ``is_vlan_key`` and ``fl_set_key_vlan`` do."""
    tags = 0
    if _NUM_OF_VLANS in found:
        tags = u8_of(found[_NUM_OF_VLANS])
        fields["num_of_vlans"] = (tags, 0xFF)
    levels = (
        (_ETH_TYPE, "vlan", _VLAN_ID, _VLAN_PRIO, _VLAN_ETH_TYPE),
        (_VLAN_ETH_TYPE, "cvlan", _CVLAN_ID, _CVLAN_PRIO, _CVLAN_ETH_TYPE),
    )
    for level, (own, name, vid, pcp, following) in enumerate(levels):
        kind = be16_of(found[own]) if own in found else None
        if kind is not None and kind not in _VLAN_TYPES and tags <= level:
            fields["eth_type"] = (kind, 0xFFFF)
            return
        if kind is None and tags <= level:
            return
        if vid in found:
            fields[f"{name}_vid"] = (u16_of(found[vid]) & _VID_MASK, _VID_MASK)
        if pcp in found:
            fields[f"{name}_pcp"] = (u8_of(found[pcp]) & _PRIO_MASK, _PRIO_MASK)
        if kind:
            fields[f"{name}_tpid"] = (kind, 0xFFFF)
        if following in found:
            fields[f"{name}_eth_type"] = (be16_of(found[following]), 0xFFFF)
            if level:
                fields["eth_type"] = fields[f"{name}_eth_type"]


def _take_ranges(found: Mapping[int, bytes]) -> dict[str, tuple[int, int]]:
    ranges = {}
    for _, low, high, words in _RANGES:
        if (low in found) != (high in found):
            raise Rejected(errno.EINVAL, f"Both min and max {words} ports must be specified")
    for name, low, high, words in _RANGES:
        if low not in found:
            continue
        first, last = be16_of(found[low]), be16_of(found[high])
        if last <= first:
            text = f"Invalid {words} port range (min must be strictly smaller than max)"
            raise Rejected(errno.EINVAL, text)
        ranges[name] = (first, last)
    return ranges


def _take_flags(found: Mapping[int, bytes], fields: dict[str, Masked]) -> None:
    for kind in (_KEY_FLAGS, _KEY_FLAGS_MASK):
        if kind in found and int.from_bytes(found[kind][:4], "big") & ~_FRAGMENT_BITS:
            raise Rejected(errno.EINVAL)
    if _KEY_FLAGS not in found:
        return
    if _KEY_FLAGS_MASK not in found:
        raise Rejected(errno.EINVAL, "Missing flags mask")
    mask = int.from_bytes(found[_KEY_FLAGS_MASK][:4], "big")
    if mask:
        fields["flags"] = (int.from_bytes(found[_KEY_FLAGS][:4], "big") & mask, mask)


def write_keys(keys: Keys) -> bytes:  # noqa: C901  (in the order of fl_dump_key)
    """Return the keys as ``fl_dump_key`` writes them."""
    fields = keys.fields
    parts: list[bytes] = [put_text(INDEV, keys.indev)] if keys.indev else []

    def give(group: Mapping[str, _Numbers]) -> None:
        for name, (number, mask_number, width) in group.items():
            if name in fields:
                value, mask = fields[name]
                parts.append(put(number, value.to_bytes(width, "big")))
                if mask_number is not None:
                    parts.append(put(mask_number, mask.to_bytes(width, "big")))

    give(_ETH)
    eth_type, ip_proto = fields.get("eth_type", (0, 0))[0], fields.get("ip_proto", (0, 0))[0]
    if "eth_type" in fields:
        parts.append(put_be16(_ETH_TYPE, eth_type))
    if "num_of_vlans" in fields:
        parts.append(put_u8(_NUM_OF_VLANS, fields["num_of_vlans"][0]))
    _give_tags(fields, parts)
    if eth_type in {_IP, _IPV6}:
        if "ip_proto" in fields:
            parts.append(put_u8(_IP_PROTO, ip_proto))
        give(_TOS_TTL)
    for group in _ADDRESSES:
        give(group)
    if ip_proto in _TRANSPORT:
        give(_TRANSPORT[ip_proto])
    elif (eth_type, ip_proto) in _ICMP_KEYS:
        give(_ICMP_KEYS[eth_type, ip_proto])
    elif eth_type in {_ARP, _RARP}:
        give(_ARP_KEYS)
    for name, low, high, _ in _RANGES:
        if name in keys.ranges:
            parts += [put_be16(low, keys.ranges[name][0]), put_be16(high, keys.ranges[name][1])]
    # Of two families the kernel writes the one that it read last.
    give(_OUTER["outer addresses 1" in keys.extra])
    give(_TUNNEL)
    if "flags" in fields:
        value, mask = fields["flags"]
        parts += [put(_KEY_FLAGS, value.to_bytes(4, "big")), put(_KEY_FLAGS_MASK, mask.to_bytes(4, "big"))]
    return b"".join(parts)


def _give_tags(fields: Mapping[str, Masked], parts: list[bytes]) -> None:
    for name, vid, pcp in (("vlan", _VLAN_ID, _VLAN_PRIO), ("cvlan", _CVLAN_ID, _CVLAN_PRIO)):
        if f"{name}_vid" in fields:
            parts.append(put_u16(vid, fields[f"{name}_vid"][0]))
        if f"{name}_pcp" in fields:
            parts.append(put_u8(pcp, fields[f"{name}_pcp"][0]))
    if "cvlan_tpid" in fields:
        parts.append(put_be16(_VLAN_ETH_TYPE, fields["cvlan_tpid"][0]))
    if "eth_type" in fields:
        if "cvlan_eth_type" in fields:
            parts.append(put_be16(_CVLAN_ETH_TYPE, fields["eth_type"][0]))
        elif "vlan_eth_type" in fields:
            parts.append(put_be16(_VLAN_ETH_TYPE, fields["vlan_eth_type"][0]))
