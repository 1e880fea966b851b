"""Rules of the receive classifier in bytes (struct ethtool_rxnfc, include/uapi/linux/ethtool.h), to the model and back.

Written from the header alone: it shares nothing with the encoder that it is there to check.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from nicoffload.model import Action, Drop, Masked, Match, ToQueue, ToVf

SIZE = 192
"""Bytes of the structure."""
LOCATIONS = 188
"""Where the list of locations begins: in what pads the structure."""
ANY_LOCATION = 0xFFFF_FFFF
SPECIAL = 0x8000_0000

_EXT, _MAC_EXT, _RSS = 1 << 31, 1 << 30, 1 << 29
_DROP = (1 << 64) - 1
_RULE = 16
_HEADER, _EXTRA, _HEADER_MASK, _EXTRA_MASK = 20, 72, 92, 144
_COOKIE, _LOCATION, _CONTEXT = 168, 176, 184
_TAIL_U32 = struct.Struct("=I")
_TAIL_U64 = struct.Struct("=Q")

# Flow type: name, Ethernet type, protocol, and the fields of its header with place and bytes.
_V4 = (("ipv4_src", 0, 4), ("ipv4_dst", 4, 4))
_V6 = (("ipv6_src", 0, 16), ("ipv6_dst", 16, 16))
_L4_V4 = (*_V4, ("tp_src", 8, 2), ("tp_dst", 10, 2), ("ip_tos", 12, 1))
_L4_V6 = (*_V6, ("tp_src", 32, 2), ("tp_dst", 34, 2), ("ip_tos", 36, 1))
_TYPES: dict[int, tuple[str, int | None, int | None, tuple[tuple[str, int, int], ...]]] = {
    0x01: ("tcp4", 0x0800, 6, _L4_V4),
    0x02: ("udp4", 0x0800, 17, _L4_V4),
    0x03: ("sctp4", 0x0800, 132, _L4_V4),
    0x05: ("tcp6", 0x86DD, 6, _L4_V6),
    0x06: ("udp6", 0x86DD, 17, _L4_V6),
    0x07: ("sctp6", 0x86DD, 132, _L4_V6),
    0x09: ("ah4", 0x0800, 51, (*_V4, ("spi", 8, 4), ("ip_tos", 12, 1))),
    0x0A: ("esp4", 0x0800, 50, (*_V4, ("spi", 8, 4), ("ip_tos", 12, 1))),
    0x0B: ("ah6", 0x86DD, 51, (*_V6, ("spi", 32, 4), ("ip_tos", 36, 1))),
    0x0C: ("esp6", 0x86DD, 50, (*_V6, ("spi", 32, 4), ("ip_tos", 36, 1))),
    0x0D: ("ip4", 0x0800, None, (*_V4, ("l4_bytes", 8, 4), ("ip_tos", 12, 1), ("ip_proto", 14, 1))),
    0x0E: ("ip6", 0x86DD, None, (*_V6, ("l4_bytes", 32, 4), ("ip_tos", 36, 1), ("ip_proto", 37, 1))),
    0x12: ("ether", None, None, (("eth_dst", 0, 6), ("eth_src", 6, 6), ("eth_type", 12, 2))),
}
_NUMBERS = {name: number for number, (name, *_) in _TYPES.items()}
_IP_VERSION = 13
_MAC_AT, _ETYPE_AT, _TCI_AT, _USER_AT = 2, 8, 10, 12
_TCI = (("vlan_pcp", 13, 7), ("vlan_dei", 12, 1), ("vlan_vid", 0, 0xFFF))
_BROADCAST_BIT = 0x01_00_00_00_00_00


class UnspeakableError(Exception):
    """A rule that has something no driver of this kernel takes; `condition` says which one of a profile's it is."""

    def __init__(self, condition: str, text: str) -> None:
        super().__init__(text)
        self.condition = condition


@dataclass(frozen=True, slots=True)
class Asked:
    """A rule as asked for.

    Args:
        flow_type: Its name in profiles.
        match: What it compares, what the flow type implies included.
        action: Where packets go.
        location: Slot; None lets the driver choose.
    """

    flow_type: str
    match: Match
    action: Action
    location: int | None


def location_of(buffer: bytes) -> int:
    """Return the location that a structure names."""
    found: int = _TAIL_U32.unpack_from(buffer, _LOCATION)[0]
    return found


def count_of(buffer: bytes) -> int:
    """Return for how many locations a structure has room."""
    found: int = _TAIL_U32.unpack_from(buffer, _CONTEXT)[0]
    return found


def decode(buffer: bytes) -> Asked:
    """Return the rule that a structure asks for.

    Raises:
        UnspeakableError: No driver takes it.
    """
    flow: int = _TAIL_U32.unpack_from(buffer, _RULE)[0]
    known = _TYPES.get(flow & ~(_EXT | _MAC_EXT | _RSS))
    if known is None:
        raise UnspeakableError("flow_type", f"flow type {flow:#x}")
    name, ether, protocol, places = known
    if flow & _RSS:
        raise UnspeakableError("rss_context", "there are no RSS contexts")
    if name == "ip4" and buffer[_HEADER + _IP_VERSION] != 1:
        raise UnspeakableError("field", "ip_ver is not IPv4")
    fields: dict[str, Masked] = {}
    if ether is not None:
        fields["eth_type"] = Masked(ether, 0xFFFF)
    if protocol is not None:
        fields["ip_proto"] = Masked(protocol, 0xFF)
    for field, start, size in places:
        found = _at(buffer, _HEADER + start, _HEADER_MASK + start, size)
        if found is not None and field in {"l4_bytes", "spi"}:
            raise UnspeakableError("field", "l4_4_bytes" if field == "l4_bytes" else field)
        if found is not None:
            fields[field] = found
    fields |= dict(_extra(buffer, flow))
    if name == "ether" and set(fields) == {"eth_dst"} and fields["eth_dst"].mask == _BROADCAST_BIT:
        name = "ether_group"
    location = location_of(buffer)
    return Asked(name, Match(**fields), _action(buffer), None if location == ANY_LOCATION else location)


def encode(buffer: bytes, flow_type: str, match: Match, action: Action, location: int) -> bytearray:
    """Return a structure with a rule in it.

    Args:
        buffer: The structure that asked.
        flow_type: The rule's, by a profile's name.
        match: What the NIC compares.
        action: What it does.
        location: Where it is.
    """
    answer = bytearray(buffer)
    answer[_RULE:_CONTEXT] = bytes(_CONTEXT - _RULE)
    number = _NUMBERS[flow_type.removesuffix("_group")]
    _, ether, protocol, places = _TYPES[number]
    given = {name: value for name, value in match.items() if isinstance(value, Masked)}
    if ether is not None:
        given.pop("eth_type", None)
    if protocol is not None:
        given.pop("ip_proto", None)
    for field, start, size in places:
        value = given.pop(field, None)
        if value is not None:
            _put(answer, _HEADER + start, _HEADER_MASK + start, size, value)
    if number == _NUMBERS["ip4"]:
        answer[_HEADER + _IP_VERSION] = 1
    tci = _tag(given)
    if tci is not None:
        number |= _EXT
        _put(answer, _EXTRA + _TCI_AT, _EXTRA_MASK + _TCI_AT, 2, tci)
    if "eth_dst" in given:
        number |= _MAC_EXT
        _put(answer, _EXTRA + _MAC_AT, _EXTRA_MASK + _MAC_AT, 6, given["eth_dst"])
    _TAIL_U32.pack_into(answer, _RULE, number)
    _TAIL_U64.pack_into(answer, _COOKIE, _cookie(action))
    _TAIL_U32.pack_into(answer, _LOCATION, location)
    return answer


def with_location(buffer: bytes, location: int) -> bytearray:
    """Return a structure with the location that the driver chose."""
    answer = bytearray(buffer)
    _TAIL_U32.pack_into(answer, _LOCATION, location)
    return answer


def with_table(buffer: bytes, data: int, count: int) -> bytearray:
    """Return a structure with the table's size and the number of its rules."""
    answer = bytearray(buffer)
    _TAIL_U64.pack_into(answer, 8, data)
    _TAIL_U32.pack_into(answer, _CONTEXT, count)
    return answer


def _extra(buffer: bytes, flow: int) -> Iterator[tuple[str, Masked]]:
    if flow & _EXT:
        for start, size, what in ((_ETYPE_AT, 2, "vlan_etype"), (_USER_AT, 8, "user-def")):
            if any(buffer[_EXTRA_MASK + start : _EXTRA_MASK + start + size]):
                raise UnspeakableError("field", what)
        tci = _at(buffer, _EXTRA + _TCI_AT, _EXTRA_MASK + _TCI_AT, 2)
        for name, shift, bits in _TCI:
            if tci is not None and (mask := tci.mask >> shift & bits):
                yield name, Masked(tci.value >> shift & mask, mask)
    if flow & _MAC_EXT:
        mac = _at(buffer, _EXTRA + _MAC_AT, _EXTRA_MASK + _MAC_AT, 6)
        if mac is not None:
            yield "eth_dst", mac


def _action(buffer: bytes) -> Action:
    cookie: int = _TAIL_U64.unpack_from(buffer, _COOKIE)[0]
    if cookie == _DROP:
        return Drop()
    vf, ring = cookie >> 32 & 0xFF, cookie & 0xFFFF_FFFF
    if cookie >> 40 or ring > 0xFFFF:
        raise UnspeakableError("queue_range", f"ring cookie {cookie:#x}")
    return ToVf(vf=vf - 1, queue=ring) if vf else ToQueue(queue=ring)


def _cookie(action: Action) -> int:
    if isinstance(action, Drop):
        return _DROP
    if isinstance(action, ToVf):
        return (action.vf + 1) << 32 | action.queue
    assert isinstance(action, ToQueue)
    return action.queue


def _tag(given: dict[str, Masked]) -> Masked | None:
    value = mask = 0
    for name, shift, _ in _TCI:
        if (one := given.get(name)) is not None:
            value |= one.value << shift
            mask |= one.mask << shift
    return Masked(value, mask) if mask else None


def _at(buffer: bytes, value_at: int, mask_at: int, size: int) -> Masked | None:
    mask = int.from_bytes(buffer[mask_at : mask_at + size], "big")
    value = int.from_bytes(buffer[value_at : value_at + size], "big")
    return Masked(value & mask, mask) if mask else None


def _put(answer: bytearray, value_at: int, mask_at: int, size: int, given: Masked) -> None:
    answer[value_at : value_at + size] = given.value.to_bytes(size, "big")
    answer[mask_at : mask_at + size] = given.mask.to_bytes(size, "big")
