"""Rewriting header fields: the model's set_field into the words of pedit and the checksums behind it, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.errors import Reason
from nicoffload.kernel.tc.values import Checksum, Csum, Header, Pedit, PeditKey, TcAction
from nicoffload.model import FIELDS, Action, Masked, Match, SetField
from nicoffload.model.fields import ETH_P_IP, ETH_P_IPV6, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a field is in a packet: its header, and its first bit counted from the header's start."""

    header: Header
    first_bit: int


_IP4: Mapping[str, _Place] = MappingProxyType(
    {
        "ip_tos": _Place(Header.IP4, 8),
        "ip_ttl": _Place(Header.IP4, 64),
        "ipv4_src": _Place(Header.IP4, 96),
        "ipv4_dst": _Place(Header.IP4, 128),
    }
)
_IP6: Mapping[str, _Place] = MappingProxyType(
    {
        "ip_tos": _Place(Header.IP6, 4),
        "ip_ttl": _Place(Header.IP6, 56),
        "ipv6_src": _Place(Header.IP6, 64),
        "ipv6_dst": _Place(Header.IP6, 192),
    }
)
_ETH: Mapping[str, _Place] = MappingProxyType(
    {"eth_dst": _Place(Header.ETH, 0), "eth_src": _Place(Header.ETH, 48)}
)
_PORT_HEADERS: Mapping[int, Header] = MappingProxyType({IPPROTO_TCP: Header.TCP, IPPROTO_UDP: Header.UDP})
_PORT_BITS: Mapping[str, int] = MappingProxyType({"tp_src": 0, "tp_dst": 16})


def _places(match: Match) -> dict[str, _Place]:
    """Return where fields are in the packets of a match."""
    eth_type = match.eth_type.value if isinstance(match.eth_type, Masked) else 0
    ip_proto = match.ip_proto.value if isinstance(match.ip_proto, Masked) else 0
    found = dict(_ETH)
    found |= _IP4 if eth_type == ETH_P_IP else _IP6 if eth_type == ETH_P_IPV6 else {}
    if ip_proto in _PORT_HEADERS:
        found |= {name: _Place(_PORT_HEADERS[ip_proto], bit) for name, bit in _PORT_BITS.items()}
    return found


def rewrite(changes: Sequence[SetField], match: Match, reasons: list[Reason]) -> list[TcAction]:
    """Return one pedit for all changes in a row, and the checksums that they break; nothing for no change.

    Args:
        changes: The fields to set, in order; of two on the same bits, the later wins.
        match: Of what protocol the packets are.
        reasons: Gets why a change is not possible.
    """
    places = _places(match)
    keys: list[PeditKey] = []
    for change in changes:
        place = places.get(change.field)
        if place is None:
            reasons.append(
                Reason(
                    code="set_field.unknown",
                    path=f"/actions/{change.field}",
                    message="tc can't rewrite it in the packets of this match",
                    accepted=", ".join(places),
                )
            )
            continue
        # Field by field, as tc does: a word that two fields share is written twice.
        keys += [
            PeditKey(header=place.header, offset=offset, mask=mask, value=value)
            for offset, mask, value in _words(place, FIELDS[change.field].bits, change.value)
        ]
    if not keys:
        return []
    broken = _broken({change.field for change in changes}, match)
    return [Pedit(keys=tuple(keys)), *([Csum(update=broken)] if broken else [])]


def _words(place: _Place, bits: int, value: Masked) -> Iterator[tuple[int, int, int]]:
    """Yield offset, mask and value of each 32-bit word that a field's bits are in."""
    start = place.first_bit // 32 * 32
    end = -(-(place.first_bit + bits) // 32) * 32
    shift = end - place.first_bit - bits
    mask, number = value.mask << shift, value.value << shift
    for first in range(start, end, 32):
        low = end - first - 32
        word = mask >> low & 0xFFFF_FFFF
        if word:
            yield first // 8, word, number >> low & 0xFFFF_FFFF


def _broken(names: set[str], match: Match) -> Checksum:
    """Return the checksums that have to be made anew."""
    broken = Checksum(0)
    ip_proto = match.ip_proto.value if isinstance(match.ip_proto, Masked) else -1
    if (
        isinstance(match.eth_type, Masked)
        and match.eth_type.value == ETH_P_IP
        and names - {*_ETH, *_PORT_BITS}
    ):
        broken |= Checksum.IPV4
    if names & {"ipv4_src", "ipv4_dst", "ipv6_src", "ipv6_dst", *_PORT_BITS}:
        upper = {IPPROTO_TCP: Checksum.TCP, IPPROTO_UDP: Checksum.UDP, IPPROTO_ICMPV6: Checksum.ICMP}
        # Addresses are part of the checksum above them, whichever protocol that is.
        broken |= upper.get(ip_proto, Checksum(0)) if ip_proto >= 0 else Checksum.TCP | Checksum.UDP
        if ip_proto < 0 and names & {"ipv6_src", "ipv6_dst"}:
            broken |= Checksum.ICMP
    return broken


def fields_of(action: Pedit, match: Match) -> list[Action] | None:
    """Return the fields that a pedit sets; None where it does more than set fields.

    Args:
        action: The pedit.
        match: Of what protocol the packets are.
    """
    left: dict[tuple[Header, int], tuple[int, int]] = {}
    for key in action.keys:
        if key.add:
            return None
        mask, value = left.get((key.header, key.offset), (0, 0))
        left[key.header, key.offset] = mask | key.mask, (value & ~key.mask) | key.value
    found: list[Action] = []
    for name, place in _places(match).items():
        bits = FIELDS[name].bits
        mask, value = _collect(left, place, bits)
        if mask:
            found.append(SetField(field=name, value=Masked(value, mask)))
    return None if any(mask for mask, _ in left.values()) else found


def _collect(left: dict[tuple[Header, int], tuple[int, int]], place: _Place, bits: int) -> tuple[int, int]:
    """Take a field's mask and value out of the words."""
    full = Masked((1 << bits) - 1, (1 << bits) - 1)
    end = -(-(place.first_bit + bits) // 32) * 32
    shift = end - place.first_bit - bits
    mask = value = 0
    for offset, word, _ in _words(place, bits, full):
        its_mask, its_value = left.get((place.header, offset), (0, 0))
        low = end - offset * 8 - 32
        mask |= (its_mask & word) << low
        value |= (its_value & word) << low
        if (place.header, offset) in left:
            left[place.header, offset] = its_mask & ~word, its_value & ~word
    return mask >> shift, value >> shift
