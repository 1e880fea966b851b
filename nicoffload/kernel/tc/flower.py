"""The flower classifier: a model's match into keys and masks, and back."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.errors import NotSupportedError, Reason
from nicoffload.kernel.attributes import Buffer, attribute, be16, network_number, number
from nicoffload.kernel.tc.template import Keys, Slot
from nicoffload.model import RANGE_MASK, FieldValue, Masked, Match, PortRange, Shape
from nicoffload.model.fields import (
    ETH_P_IP,
    ETH_P_IPV6,
    FIELDS,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
)

CAPABILITY = "flow_filters.flower"

CLASSID = 1
ACT = 3
ETH_TYPE = 8
IP_PROTO = 9
FLAGS = 22
IN_HW_COUNT = 86
_VLAN_ETH_TYPE = 25
_CVLAN_ETH_TYPE = 79
_ENC_KEY_ID = 26
_KEY_FLAGS, _KEY_FLAGS_MASK = 47, 48
_RANGES: Mapping[str, tuple[int, int]] = MappingProxyType({"tp_src": (87, 88), "tp_dst": (89, 90)})
ETH_P_ALL = 3
_VLAN_TYPES = (0x8100, 0x88A8)
_CVLAN_KEYS = frozenset({77, 78})
_VLAN_KEYS = frozenset({23, 24}) | _CVLAN_KEYS


@dataclass(frozen=True, slots=True)
class Key:
    """How flower holds a field: numbers of the value and of its mask (None: always every bit), and its form."""

    value: int
    mask: int | None
    width: int
    network: bool = True


_KEYS: Mapping[str, Key] = MappingProxyType(
    {
        "eth_dst": Key(4, 5, 6),
        "eth_src": Key(6, 7, 6),
        "vlan_vid": Key(23, None, 2, network=False),
        "vlan_pcp": Key(24, None, 1),
        "cvlan_vid": Key(77, None, 2, network=False),
        "cvlan_pcp": Key(78, None, 1),
        "ipv4_src": Key(10, 11, 4),
        "ipv4_dst": Key(12, 13, 4),
        "ipv6_src": Key(14, 15, 16),
        "ipv6_dst": Key(16, 17, 16),
        "ip_proto": Key(IP_PROTO, None, 1),
        "ip_tos": Key(73, 74, 1),
        "ip_ttl": Key(75, 76, 1),
        "tcp_flags": Key(71, 72, 2),
        "tun_id": Key(_ENC_KEY_ID, None, 4),
        "tun_ipv4_src": Key(27, 28, 4),
        "tun_ipv4_dst": Key(29, 30, 4),
        "tun_ipv6_src": Key(31, 32, 16),
        "tun_ipv6_dst": Key(33, 34, 16),
        "tun_tp_dst": Key(45, 46, 2),
    }
)
_PORTS: Mapping[int, tuple[Key, Key]] = MappingProxyType(
    {
        IPPROTO_TCP: (Key(18, 35, 2), Key(19, 36, 2)),
        IPPROTO_UDP: (Key(20, 37, 2), Key(21, 38, 2)),
        IPPROTO_SCTP: (Key(41, 39, 2), Key(42, 40, 2)),
    }
)
_ICMP: Mapping[int, tuple[Key, Key]] = MappingProxyType(
    {
        IPPROTO_ICMP: (Key(51, 52, 1), Key(49, 50, 1)),
        IPPROTO_ICMPV6: (Key(55, 56, 1), Key(53, 54, 1)),
    }
)
VALUE_BYTES: Mapping[int, int] = MappingProxyType(
    {
        key.value: key.width
        for key in (
            *(key for name, key in _KEYS.items() if name != "ip_proto"),
            *(key for pair in (*_PORTS.values(), *_ICMP.values()) for key in pair),
        )
    }
)
"""Attributes that hold what a field is compared with, and may differ between filters that are alike; bytes of each."""
# The fields of the model that stand for a fragment, and flower's two bits (a fragment, the first one) with their mask.
_FRAGMENTS: Mapping[tuple[int, int], tuple[int, int]] = MappingProxyType(
    {(0, 1): (0, 1), (0, 3): (0, 1), (1, 1): (1, 1), (1, 3): (3, 3), (2, 2): (1, 3), (3, 3): (1, 3)}
)
_FRAGMENTS_READ: Mapping[tuple[int, int], tuple[int, int]] = MappingProxyType(
    {(0, 1): (0, 3), (0, 3): (0, 3), (1, 1): (1, 1), (3, 3): (1, 3), (2, 2): (1, 3), (1, 3): (3, 3)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What of a match decides which attributes a message has, beside its shape. Equal ones share a template.

    Args:
        shape: Fields and masks.
        eth_type: The Ethernet type; -1 for none.
        ip_proto: The protocol; -1 for none.
        ip_frag: The value for fragments; 0 for none.
        outer_tpid: Protocol of the outer VLAN tag.
        inner_tpid: Protocol of the second one.
    """

    shape: Shape
    eth_type: int
    ip_proto: int
    ip_frag: int
    outer_tpid: int = 0x8100
    inner_tpid: int = 0x8100


def structure(match: Match, outer_tpid: int = 0x8100, inner_tpid: int = 0x8100) -> Structure:
    """Return the structure of a match."""
    return Structure(
        shape=match.shape,
        eth_type=match.eth_type.value if isinstance(match.eth_type, Masked) else -1,
        ip_proto=match.ip_proto.value if isinstance(match.ip_proto, Masked) else -1,
        ip_frag=match.ip_frag.value if isinstance(match.ip_frag, Masked) else 0,
        outer_tpid=outer_tpid,
        inner_tpid=inner_tpid,
    )


@functools.lru_cache(maxsize=4096)
def compile_keys(form: Structure) -> Keys:
    """Return the attributes of a match with the slots for its values; the columns are the fields of its shape.

    Raises:
        NotSupportedError: Flower has no such key, or no mask for it; every reason is named.
    """
    reasons = tuple(
        reason for name, mask in form.shape if (reason := _obstacle(name, mask, form)) is not None
    )
    if reasons:
        raise NotSupportedError(
            "tc flower can't match this", capability=CAPABILITY, reasons=reasons, path=reasons[0].path
        )
    protocol, data = _ethernet_types(form)
    slots: list[Slot] = []
    for column, (name, mask) in enumerate(form.shape):
        if name in {"eth_type", "in_port"}:
            continue
        if name == "ip_frag":
            bits, bits_mask = _FRAGMENTS[form.ip_frag, mask]
            data += attribute(_KEY_FLAGS, bits.to_bytes(4, "big"))
            data += attribute(_KEY_FLAGS_MASK, bits_mask.to_bytes(4, "big"))
        elif mask == RANGE_MASK:
            for part, kind in enumerate(_RANGES[name]):
                slots.append(Slot(len(data) + 4, 2, column, part))
                data += be16(kind, 0)
        else:
            key = _key(name, form.ip_proto)
            slots.append(Slot(len(data) + 4, key.width, column, None, key.network))
            data += attribute(key.value, bytes(key.width))
            if key.mask is not None:
                data += attribute(key.mask, mask.to_bytes(key.width, "big"))
    return Keys(data=data, slots=tuple(slots), protocol=protocol)


def protocol_of_match(match: Match, outer_tpid: int = 0x8100, inner_tpid: int = 0x8100) -> int:
    """Return the Ethernet type of the filter that has a match; filters of one pref have one.

    Raises:
        NotSupportedError: Flower has no such key, or no mask for it.
    """
    return compile_keys(structure(match, outer_tpid, inner_tpid)).protocol


def _ethernet_types(form: Structure) -> tuple[int, bytes]:
    """Return the filter's protocol and the attributes of its Ethernet types, from the outermost in."""
    names = {name for name, _ in form.shape}
    chain = [form.eth_type] if form.eth_type >= 0 else []
    if names & {"cvlan_vid", "cvlan_pcp"}:
        chain = [form.outer_tpid, form.inner_tpid, *chain]
    elif names & {"vlan_vid", "vlan_pcp"}:
        chain = [form.outer_tpid, *chain]
    kinds = (ETH_TYPE, _VLAN_ETH_TYPE, _CVLAN_ETH_TYPE)
    data = b"".join(be16(kind, value) for kind, value in zip(kinds, chain, strict=False))
    return (chain[0] if chain else ETH_P_ALL), data


def _key(name: str, ip_proto: int) -> Key:
    if name in {"tp_src", "tp_dst"}:
        return _PORTS[ip_proto][name == "tp_dst"]
    if name in {"icmp_type", "icmp_code"}:
        return _ICMP[ip_proto][name == "icmp_code"]
    return _KEYS[name]


def value_key(name: str, ip_proto: int) -> int:
    """Return the number of the attribute that holds a field's value; -1 where it has none of its own.

    Args:
        name: The field.
        ip_proto: The protocol that is matched; -1 for none.
    """
    if name in {"tp_src", "tp_dst"}:
        return _PORTS[ip_proto][name == "tp_dst"].value if ip_proto in _PORTS else -1
    if name in {"icmp_type", "icmp_code"}:
        return _ICMP[ip_proto][name == "icmp_code"].value if ip_proto in _ICMP else -1
    return _KEYS[name].value if name in _KEYS else -1


def in_network_order(name: str) -> bool:
    """Tell whether the value of a field is in network order."""
    return _KEYS[name].network if name in _KEYS else True


def _obstacle(name: str, mask: int, form: Structure) -> Reason | None:  # noqa: C901, PLR0911  (one reason a kind)
    def reason(code: str, message: str, accepted: str = "") -> Reason:
        return Reason(
            code=code,
            path=f"/match/{name}",
            message=message,
            accepted=accepted,
            source="net/sched/cls_flower.c:fl_set_key",
        )

    if mask == RANGE_MASK and name not in _RANGES:
        return reason("mask.range", "flower has ranges of tp_src and tp_dst only", "one value")
    if name == "in_port":
        return reason("field.hook", "the device that a filter hangs on decides it", "no in_port")
    if name == "vlan_dei":
        return reason("field.unknown", "flower has no key for the drop-eligible bit")
    if name == "ip_frag":
        if (form.ip_frag, mask) in _FRAGMENTS:
            return None
        return reason("value.fragment", "flower can't say this", "no, yes, first or later")
    if name == "tun_id":
        return None if mask == FIELDS[name].full_mask else reason("mask.partial", "every bit counts")
    if name.startswith("icmp") and (form.eth_type == ETH_P_IP) != (form.ip_proto == IPPROTO_ICMP):
        return reason("value.protocol", "ICMP is of IPv4, ICMPv6 of IPv6", "icmp or icmp6")
    if name.startswith("tun_ipv6") and any(other.startswith("tun_ipv4") for other, _ in form.shape):
        return reason("field.excluded", "an outer header is IPv4 or IPv6", "one of them")
    if name == "eth_type" or (name in _KEYS and _KEYS[name].mask is None):
        full = FIELDS[name].full_mask
        return None if mask == full else reason("mask.partial", "every bit of it counts", f"{full:#x}")
    return None


def out_of_range(match: Match) -> Reason | None:
    """Return why a value does not fit flower's key although it fits the model's field; None where all do."""
    tunnel = match.tun_id
    if isinstance(tunnel, Masked) and tunnel.value > 0xFFFF_FFFF:
        return Reason(
            code="value.range",
            path="/match/tun_id",
            message="flower's tunnel keys have 32 bits",
            accepted="0 to 0xffffffff",
            source="net/sched/cls_flower.c:fl_set_key",
        )
    return None


def decode_match(options: Mapping[int, Buffer], protocol: int) -> tuple[Match, tuple[int, int], list[str]]:
    """Return the match of a filter's options, the protocols of its two VLAN tags, and the keys that have no form here.

    Args:
        options: The attributes by their number.
        protocol: The filter's own.

    Raises:
        MalformedError: A value is cut short.
        InvalidRequestError: The values contradict each other.
    """
    read: set[int] = {CLASSID, ACT, FLAGS, IN_HW_COUNT}
    found: dict[str, FieldValue] = {}
    eth_type, tpids = _decode_ethernet_types(options, protocol, read)
    ip_proto = number(options[IP_PROTO], 1) if IP_PROTO in options else -1
    foreign: list[str] = []
    for name, key in _KEYS.items():
        _decode_key(name, key, options, found, read)
    for names, keys in (
        (("tp_src", "tp_dst"), _PORTS.get(ip_proto)),
        (("icmp_type", "icmp_code"), _ICMP.get(ip_proto)),
    ):
        for name, key in zip(names, keys or (), strict=False):
            _decode_key(name, key, options, found, read)
    for name, (low, high) in _RANGES.items():
        if low in options and high in options:
            read |= {low, high}
            found[name] = PortRange(network_number(options[low], 2), network_number(options[high], 2))
    _decode_fragments(options, found, read, foreign)
    foreign += [f"key {kind}" for kind in sorted(options.keys() - read) if any(options[kind])]
    if eth_type >= 0:
        found["eth_type"] = Masked(eth_type, 0xFFFF)
    return Match(**found), tpids, foreign


def _decode_ethernet_types(
    options: Mapping[int, Buffer], protocol: int, read: set[int]
) -> tuple[int, tuple[int, int]]:
    """Return the Ethernet type behind all tags (-1: any) and the protocols of the two tags.

    The kernel gives the innermost type as the type; the outer tag's protocol is only in the filter's own.
    """
    read |= {ETH_TYPE, _VLAN_ETH_TYPE, _CVLAN_ETH_TYPE}
    tagged = bool(_VLAN_KEYS & options.keys())
    tpids = [0x8100, 0x8100]
    if tagged and protocol in _VLAN_TYPES:
        tpids[0] = protocol
    if _CVLAN_KEYS & options.keys() and _VLAN_ETH_TYPE in options:
        inner = network_number(options[_VLAN_ETH_TYPE], 2)
        tpids[1] = inner if inner in _VLAN_TYPES else 0x8100
    eth_type = -1 if tagged or protocol == ETH_P_ALL else protocol
    if ETH_TYPE in options:
        eth_type = network_number(options[ETH_TYPE], 2)
    return eth_type, (tpids[0], tpids[1])


def _decode_key(
    name: str, key: Key, options: Mapping[int, Buffer], found: dict[str, FieldValue], read: set[int]
) -> None:
    data = options.get(key.value)
    if data is None:
        return
    read.add(key.value)
    value = network_number(data, key.width) if key.network else number(data, key.width)
    mask = FIELDS[name].full_mask
    if key.mask is not None and key.mask in options:
        read.add(key.mask)
        mask = network_number(options[key.mask], key.width)
    if mask:
        found[name] = Masked(value & mask, mask)


def _decode_fragments(
    options: Mapping[int, Buffer], found: dict[str, FieldValue], read: set[int], foreign: list[str]
) -> None:
    if _KEY_FLAGS not in options:
        return
    read |= {_KEY_FLAGS, _KEY_FLAGS_MASK}
    bits = network_number(options[_KEY_FLAGS], 4)
    mask = network_number(options[_KEY_FLAGS_MASK], 4) if _KEY_FLAGS_MASK in options else 0xFFFF_FFFF
    if not mask:
        return
    if (bits & mask, mask) in _FRAGMENTS_READ:
        value, its_mask = _FRAGMENTS_READ[bits & mask, mask]
        found["ip_frag"] = Masked(value, its_mask)
    else:
        foreign.append(f"flags {bits:#x}/{mask:#x}")


def explain_protocol(protocol: int) -> str:
    """Return tc's name of an Ethernet type."""
    return _PROTOCOLS.get(protocol, f"{protocol:#06x}")


_PROTOCOLS: Mapping[int, str] = MappingProxyType(
    {
        ETH_P_ALL: "all",
        ETH_P_IP: "ip",
        ETH_P_IPV6: "ipv6",
        0x0806: "arp",
        0x8100: "802.1Q",
        0x88A8: "802.1ad",
    }
)
