"""Rules of `ethtool -N` as the kernel lays them out (struct ethtool_rxnfc of linux/ethtool.h), in both directions."""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.errors import InvalidRequestError
from nicoffload.kernel.attributes import MalformedError
from nicoffload.model import Drop, FieldValue, Masked, Match, ToQueue, ToVf

LOCATION_ANY = 0xFFFF_FFFF
"""``RX_CLS_LOC_ANY``: the driver chooses."""

_FLOW_EXT = 0x8000_0000
_FLOW_MAC_EXT = 0x4000_0000
_FLOW_RSS = 0x2000_0000
_DROP = 0xFFFF_FFFF_FFFF_FFFF
_MAX_VF = 254
_RING_MASK = 0xFFFF_FFFF
_VF_SHIFT = 32
_IP4_ONLY = 1  # ETH_RX_NFC_IP4

# cmd, flow_type, data | flow_type, h_u, h_ext, m_u, m_ext, pad, ring_cookie, location, pad | rule_cnt or rss_context
_RXNFC = struct.Struct("=IIQ I52s20s52s20s4xQI4x I4x")
RXNFC_BYTES = _RXNFC.size
_UNION_BYTES = 52
_EXT_BYTES = 20


class FlowType(enum.Enum):
    """What kind of packets a rule looks at; it says which fields the rule can have."""

    TCP4 = 0x01
    UDP4 = 0x02
    SCTP4 = 0x03
    TCP6 = 0x05
    UDP6 = 0x06
    SCTP6 = 0x07
    AH4 = 0x09
    ESP4 = 0x0A
    AH6 = 0x0B
    ESP6 = 0x0C
    IP4 = 0x0D
    IP6 = 0x0E
    ETHER = 0x12


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a number lies in a structure, in network order.

    Args:
        field: Field of the model, or a name of `NtupleRule`.
        start: First byte.
        size: Bytes.
    """

    field: str
    start: int
    size: int


def _places(*places: tuple[str, int, int]) -> tuple[Place, ...]:
    return tuple(Place(field=field, start=start, size=size) for field, start, size in places)


_PORTS4 = _places(
    ("ipv4_src", 0, 4), ("ipv4_dst", 4, 4), ("tp_src", 8, 2), ("tp_dst", 10, 2), ("ip_tos", 12, 1)
)
_PORTS6 = _places(
    ("ipv6_src", 0, 16), ("ipv6_dst", 16, 16), ("tp_src", 32, 2), ("tp_dst", 34, 2), ("ip_tos", 36, 1)
)
_IPSEC4 = _places(("ipv4_src", 0, 4), ("ipv4_dst", 4, 4), ("spi", 8, 4), ("ip_tos", 12, 1))
_IPSEC6 = _places(("ipv6_src", 0, 16), ("ipv6_dst", 16, 16), ("spi", 32, 4), ("ip_tos", 36, 1))
_IP4 = _places(
    ("ipv4_src", 0, 4), ("ipv4_dst", 4, 4), ("l4_bytes", 8, 4), ("ip_tos", 12, 1), ("ip_proto", 14, 1)
)
_IP6 = _places(
    ("ipv6_src", 0, 16), ("ipv6_dst", 16, 16), ("l4_bytes", 32, 4), ("ip_tos", 36, 1), ("ip_proto", 37, 1)
)
_ETHER = _places(("eth_dst", 0, 6), ("eth_src", 6, 6), ("eth_type", 12, 2))
_IP_VERSION = 13

LAYOUT: Mapping[FlowType, tuple[Place, ...]] = MappingProxyType(
    {
        FlowType.TCP4: _PORTS4,
        FlowType.UDP4: _PORTS4,
        FlowType.SCTP4: _PORTS4,
        FlowType.TCP6: _PORTS6,
        FlowType.UDP6: _PORTS6,
        FlowType.SCTP6: _PORTS6,
        FlowType.AH4: _IPSEC4,
        FlowType.ESP4: _IPSEC4,
        FlowType.AH6: _IPSEC6,
        FlowType.ESP6: _IPSEC6,
        FlowType.IP4: _IP4,
        FlowType.IP6: _IP6,
        FlowType.ETHER: _ETHER,
    }
)
"""Fields of each flow type, and of `NtupleRule` itself, where they lie in its structure."""

IMPLIED: Mapping[FlowType, Mapping[str, int]] = MappingProxyType(
    {
        FlowType.TCP4: MappingProxyType({"eth_type": 0x0800, "ip_proto": 6}),
        FlowType.UDP4: MappingProxyType({"eth_type": 0x0800, "ip_proto": 17}),
        FlowType.SCTP4: MappingProxyType({"eth_type": 0x0800, "ip_proto": 132}),
        FlowType.TCP6: MappingProxyType({"eth_type": 0x86DD, "ip_proto": 6}),
        FlowType.UDP6: MappingProxyType({"eth_type": 0x86DD, "ip_proto": 17}),
        FlowType.SCTP6: MappingProxyType({"eth_type": 0x86DD, "ip_proto": 132}),
        FlowType.AH4: MappingProxyType({"eth_type": 0x0800, "ip_proto": 51}),
        FlowType.ESP4: MappingProxyType({"eth_type": 0x0800, "ip_proto": 50}),
        FlowType.AH6: MappingProxyType({"eth_type": 0x86DD, "ip_proto": 51}),
        FlowType.ESP6: MappingProxyType({"eth_type": 0x86DD, "ip_proto": 50}),
        FlowType.IP4: MappingProxyType({"eth_type": 0x0800}),
        FlowType.IP6: MappingProxyType({"eth_type": 0x86DD}),
        FlowType.ETHER: MappingProxyType({}),
    }
)
"""What a flow type says by itself, and so has no place for."""

IPSEC = frozenset({FlowType.AH4, FlowType.ESP4, FlowType.AH6, FlowType.ESP6})
OWN_FIELDS = frozenset({"l4_bytes", "spi"})
"""What lies in a flow type's structure and is no field of the model, but of `NtupleRule`."""

VLAN_BITS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"vlan_pcp": (13, 7), "vlan_dei": (12, 1), "vlan_vid": (0, 0xFFF)}
)
"""Shift and mask of each field within a VLAN tag."""

_MAC_EXT = Place(field="eth_dst", start=2, size=6)
_VLAN_PROTOCOL = Place(field="vlan_protocol", start=8, size=2)
_VLAN = Place(field="vlan", start=10, size=2)
_USER_DEFINED = Place(field="user_defined", start=12, size=8)

NtupleFate = ToQueue | ToVf | Drop


@dataclass(frozen=True, slots=True, kw_only=True)
class NtupleRule:
    """One rule of a NIC's receive classifier.

    Args:
        flow: Which packets; implies their Ethernet type and, but for plain IP, their protocol.
        match: What is compared; has what `flow` implies.
        fate: Where they go. A queue is counted from the RSS context's first where there is one.
        location: Slot, 0 to 0xfffffffc; None lets `NtupleTable` or the driver choose.
        rss_context: RSS context that spreads them, 1 or more; None for one queue.
        vlan_protocol: Ethernet type of the VLAN tag, 16 bits.
        l4_bytes: First four bytes behind the IP header, of plain IP only, 32 bits.
        spi: Security parameters index, of IPsec's AH and ESP only, 32 bits.
        user_defined: 64 bits that mean something to the driver alone.

    Raises:
        InvalidRequestError: The match has a field that the flow type has no place for, or a number is out of range.
    """

    flow: FlowType
    match: Match
    fate: NtupleFate
    location: int | None = None
    rss_context: int | None = None
    vlan_protocol: Masked | None = None
    l4_bytes: Masked | None = None
    spi: Masked | None = None
    user_defined: Masked | None = None

    def __post_init__(self) -> None:
        if self.location is not None and not 0 <= self.location < LOCATION_ANY - 2:
            raise InvalidRequestError(f"{self.location} is no slot", path="/location")
        if self.rss_context is not None and not 1 <= self.rss_context <= 0xFFFF_FFFF:
            raise InvalidRequestError(f"{self.rss_context} is no RSS context", path="/rss_context")
        if isinstance(self.fate, ToVf) and self.fate.vf > _MAX_VF:
            raise InvalidRequestError(
                f"a rule's eight bits name VFs up to {_MAX_VF}, not {self.fate.vf}", path="/actions"
            )
        for name, bits in (("vlan_protocol", 16), ("l4_bytes", 32), ("spi", 32), ("user_defined", 64)):
            value = getattr(self, name)
            if value is not None and value.mask >> bits:
                raise InvalidRequestError(f"does not fit {bits} bits", path=f"/{name}")
        if self.l4_bytes is not None and self.flow not in {FlowType.IP4, FlowType.IP6}:
            raise InvalidRequestError("only rules on plain IP have it", path="/l4_bytes")
        if self.spi is not None and self.flow not in IPSEC:
            raise InvalidRequestError("only rules on AH and ESP have it", path="/spi")
        if wrong := misfits(self.flow, self.match):
            raise InvalidRequestError(
                f"a rule of type {self.flow.name.lower()} can't hold it", path=f"/match/{wrong[0]}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class NtupleState:
    """One rule, as read.

    Args:
        location: Its slot.
        rule: The rule; None where it has something that `NtupleRule` has no words for.
        foreign: What that is; empty where there is a rule.
    """

    location: int
    rule: NtupleRule | None
    foreign: str = ""


def misfits(flow: FlowType, match: Match) -> list[str]:
    """Return the fields of a match that a flow type has no place for, or where it implies another value."""
    fits = {place.field for place in LAYOUT[flow]} | set(VLAN_BITS) | {"eth_dst"}
    wrong = []
    for name, value in match.items():
        implied = IMPLIED[flow].get(name)
        if not isinstance(value, Masked):
            wrong.append(name)
        elif implied is not None:
            if value != Masked(implied, _FULL[name]):
                wrong.append(name)
        elif name not in fits:
            wrong.append(name)
    return wrong + [name for name in IMPLIED[flow] if getattr(match, name) is None]


_FULL: Mapping[str, int] = MappingProxyType({"eth_type": 0xFFFF, "ip_proto": 0xFF})


@dataclass(slots=True)
class _Layer:
    """A structure's values and masks."""

    value: bytearray
    mask: bytearray

    def put(self, place: Place, given: Masked) -> None:
        span = slice(place.start, place.start + place.size)
        self.value[span] = given.value.to_bytes(place.size, "big")
        self.mask[span] = given.mask.to_bytes(place.size, "big")

    def take(self, place: Place) -> Masked | None:
        """Return what is at a place, and clear its mask; None where nothing is compared."""
        span = slice(place.start, place.start + place.size)
        mask = int.from_bytes(self.mask[span], "big")
        value = int.from_bytes(self.value[span], "big") & mask
        self.mask[span] = bytes(place.size)
        return Masked(value, mask) if mask else None


def encode_rule(command: int, rule: NtupleRule) -> bytes:
    """Return the structure that installs a rule.

    Args:
        command: ``ETHTOOL_SRXCLSRLINS``.
        rule: The rule.
    """
    header = _Layer(bytearray(_UNION_BYTES), bytearray(_UNION_BYTES))
    extra = _Layer(bytearray(_EXT_BYTES), bytearray(_EXT_BYTES))
    flags = 0
    for place in LAYOUT[rule.flow]:
        given = getattr(rule if place.field in OWN_FIELDS else rule.match, place.field)
        if given is not None:
            header.put(place, given)
    if rule.flow is FlowType.IP4:
        header.value[_IP_VERSION] = _IP4_ONLY
    for place, given in (
        (_VLAN_PROTOCOL, rule.vlan_protocol),
        (_VLAN, vlan_tag(rule.match)),
        (_USER_DEFINED, rule.user_defined),
    ):
        if given is not None:
            extra.put(place, given)
            flags |= _FLOW_EXT
    mac = rule.match.eth_dst
    if isinstance(mac, Masked) and rule.flow is not FlowType.ETHER:
        extra.put(_MAC_EXT, mac)
        flags |= _FLOW_MAC_EXT
    if rule.rss_context is not None:
        flags |= _FLOW_RSS
    return _RXNFC.pack(
        command,
        0,
        0,
        rule.flow.value | flags,
        bytes(header.value),
        bytes(extra.value),
        bytes(header.mask),
        bytes(extra.mask),
        _cookie(rule.fate),
        LOCATION_ANY if rule.location is None else rule.location,
        rule.rss_context or 0,
    )


def encode_request(command: int, *, location: int = 0, count: int = 0) -> bytes:
    """Return the structure of a command that carries no rule: count, get, delete, list.

    Args:
        command: Number of the command.
        location: Slot, where the command takes one.
        count: How many slots the list that follows has place for.
    """
    return _RXNFC.pack(command, 0, 0, 0, b"", b"", b"", b"", 0, location, count)


def location_of(data: bytes) -> int:
    """Return the slot of the rule in a structure."""
    location: int = _unpack(data)[9]
    return location


def table_of(data: bytes) -> tuple[int, int]:
    """Return ``data`` and ``rule_cnt`` of a structure: the table's size with its flag, and the number of rules."""
    found = _unpack(data)
    return found[2], found[10]


def decode_rule(data: bytes) -> NtupleState:
    """Return the rule that a structure holds.

    Raises:
        MalformedError: It is cut short.
    """
    found = _unpack(data)
    flow_type, cookie, location, context = found[3], found[8], found[9], found[10]
    header = _Layer(bytearray(found[4]), bytearray(found[6]))
    extra = _Layer(bytearray(found[5]), bytearray(found[7]))
    number = flow_type & ~(_FLOW_EXT | _FLOW_MAC_EXT | _FLOW_RSS)
    if number not in {flow.value for flow in FlowType}:
        return NtupleState(location=location, rule=None, foreign=f"flow type {number:#x}")
    flow = FlowType(number)
    fate = _fate(cookie)
    if fate is None:
        return NtupleState(location=location, rule=None, foreign=f"ring cookie {cookie:#x}")
    if not flow_type & _FLOW_EXT:
        extra.mask[_VLAN_PROTOCOL.start :] = bytes(_EXT_BYTES - _VLAN_PROTOCOL.start)
    if not flow_type & _FLOW_MAC_EXT:
        extra.mask[: _VLAN_PROTOCOL.start] = bytes(_VLAN_PROTOCOL.start)
    fields, own = _fields(flow, header, extra)
    vlan_protocol, user_defined = extra.take(_VLAN_PROTOCOL), extra.take(_USER_DEFINED)
    if any(header.mask) or any(extra.mask):
        return NtupleState(location=location, rule=None, foreign="a mask on bits that no field has")
    try:
        rule = NtupleRule(
            flow=flow,
            match=Match(**fields),
            fate=fate,
            location=location,
            rss_context=context if flow_type & _FLOW_RSS else None,
            vlan_protocol=vlan_protocol,
            l4_bytes=own.get("l4_bytes"),
            spi=own.get("spi"),
            user_defined=user_defined,
        )
    except InvalidRequestError as cause:  # a driver may answer what nobody could have asked for
        return NtupleState(location=location, rule=None, foreign=str(cause))
    return NtupleState(location=location, rule=rule)


def _fields(flow: FlowType, header: _Layer, extra: _Layer) -> tuple[dict[str, FieldValue], dict[str, Masked]]:
    fields: dict[str, FieldValue] = {
        name: Masked(value, _FULL[name]) for name, value in IMPLIED[flow].items()
    }
    own: dict[str, Masked] = {}
    if flow is FlowType.IP4:  # drivers differ in whether they answer with a mask of the version
        header.mask[_IP_VERSION] = 0
    for place in LAYOUT[flow]:
        given = header.take(place)
        if given is None:
            continue
        if place.field in OWN_FIELDS:
            own[place.field] = given
        else:
            fields[place.field] = given
    if flow is not FlowType.ETHER and (mac := extra.take(_MAC_EXT)) is not None:
        fields["eth_dst"] = mac
    tag = extra.take(_VLAN)
    if tag is not None:
        for name, (shift, bits) in VLAN_BITS.items():
            if mask := tag.mask >> shift & bits:
                fields[name] = Masked(tag.value >> shift & mask, mask)
    return fields, own


def vlan_tag(match: Match) -> Masked | None:
    """Return id, drop-eligible bit and priority of a match as the 16 bits of a tag; None where it has none."""
    value = mask = 0
    for name, (shift, _) in VLAN_BITS.items():
        given = getattr(match, name)
        if given is not None:
            value |= given.value << shift
            mask |= given.mask << shift
    return Masked(value, mask) if mask else None


def _cookie(fate: NtupleFate) -> int:
    if isinstance(fate, Drop):
        return _DROP
    if isinstance(fate, ToVf):
        return fate.vf + 1 << _VF_SHIFT | fate.queue
    return fate.queue


def _fate(cookie: int) -> NtupleFate | None:
    if cookie == _DROP:
        return Drop()
    vf, ring = cookie >> _VF_SHIFT, cookie & _RING_MASK
    if vf > _MAX_VF + 1 or ring > 0xFFFF:
        return None
    return ToVf(vf=vf - 1, queue=ring) if vf else ToQueue(queue=ring)


def _unpack(data: bytes) -> tuple[int, int, int, int, bytes, bytes, bytes, bytes, int, int, int]:
    if len(data) < RXNFC_BYTES:
        raise MalformedError(f"a rule has {len(data)} of {RXNFC_BYTES} bytes")
    found: tuple[int, int, int, int, bytes, bytes, bytes, bytes, int, int, int] = _RXNFC.unpack_from(data)
    return found
