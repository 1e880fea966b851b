"""Matches as the words that u32 compares, and back."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.kernel.tc import U32Hash, U32Key
from nicoffload.model import Masked, Match
from nicoffload.model.fields import ETH_P_IP, ETH_P_IPV6, FIELDS, IPPROTO_ICMP, IPPROTO_ICMPV6
from nicoffload.model.match import Shape

ETH_DST_HIGH, ETH_DST_LOW, ETH_SRC_HIGH, ETH_SRC_LOW = -16, -12, -8, -4
"""Words before the IP header; of the first and the last, half is an address's."""
_IPV4_PORTS, _IPV6_PORTS = 20, 40
_PORTS = frozenset({"tp_src", "tp_dst", "icmp_type", "icmp_code"})


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a field that lies within one word.

    Args:
        offset: Of the word, in bytes from the IP header.
        shift: Lowest bit of the part within the word.
        low: Lowest bit of the part within the field.
        bits: How many.
    """

    offset: int
    shift: int
    low: int
    bits: int


def _wide(offset: int) -> tuple[Piece, ...]:
    return tuple(Piece(offset + 4 * at, 0, 96 - 32 * at, 32) for at in range(4))


def _transport(offset: int) -> dict[str, tuple[Piece, ...]]:
    return {
        "tp_src": (Piece(offset, 16, 0, 16),),
        "tp_dst": (Piece(offset, 0, 0, 16),),
        "icmp_type": (Piece(offset, 24, 0, 8),),
        "icmp_code": (Piece(offset, 16, 0, 8),),
    }


_LINK: Mapping[str, tuple[Piece, ...]] = MappingProxyType(
    {
        "eth_dst": (Piece(ETH_DST_HIGH, 0, 32, 16), Piece(ETH_DST_LOW, 0, 0, 32)),
        "eth_src": (Piece(ETH_SRC_HIGH, 0, 16, 32), Piece(ETH_SRC_LOW, 16, 0, 16)),
        "eth_type": (Piece(ETH_SRC_LOW, 0, 0, 16),),
    }
)
_IPV4: Mapping[str, tuple[Piece, ...]] = MappingProxyType(
    {
        "ip_tos": (Piece(0, 16, 0, 8),),
        "ip_ttl": (Piece(8, 24, 0, 8),),
        "ip_proto": (Piece(8, 16, 0, 8),),
        "ipv4_src": (Piece(12, 0, 0, 32),),
        "ipv4_dst": (Piece(16, 0, 0, 32),),
        **_transport(_IPV4_PORTS),
    }
)
_IPV6: Mapping[str, tuple[Piece, ...]] = MappingProxyType(
    {
        "ip_tos": (Piece(0, 20, 0, 8),),
        "ip_ttl": (Piece(4, 0, 0, 8),),
        "ip_proto": (Piece(4, 8, 0, 8),),
        "ipv6_src": _wide(8),
        "ipv6_dst": _wide(24),
        **_transport(_IPV6_PORTS),
    }
)
_FAMILIES: Mapping[int, Mapping[str, tuple[Piece, ...]]] = MappingProxyType(
    {ETH_P_IP: MappingProxyType({**_LINK, **_IPV4}), ETH_P_IPV6: MappingProxyType({**_LINK, **_IPV6})}
)
NAMES = frozenset({"in_port", *_LINK, *_IPV4, *_IPV6})
"""Every field that can be compared."""

# Ports are where they are looked for only behind a header without options, and only the first fragment has them.
_FIRST_WITH_PORTS = {0: (0x0F00_0000, 0x0500_0000), 4: (0x1FFF, 0)}

_FAR_AND_NEAR: Mapping[int, tuple[tuple[int, int], ...]] = MappingProxyType(
    {
        ETH_P_IP: ((_IPV4_PORTS, 0xFF_0000), (12, 0xFF), (16, 0xFF), (_IPV4_PORTS, 0xFF)),
        ETH_P_IPV6: ((_IPV6_PORTS, 0xFF_0000), (20, 0xFF), (36, 0xFF), (_IPV6_PORTS, 0xFF)),
        0: ((ETH_SRC_LOW, 0xFF_0000), (ETH_DST_LOW, 0xFF), (ETH_SRC_LOW, 0xFF)),
    }
)
"""Which byte tells rules of a family apart best, on what comes from the wire: the far end's port, address, our own."""

Words = Mapping[int, tuple[int, int]]
"""Offset of a word to mask and value."""


def can_compare(name: str, mask: int) -> bool:
    """Tell whether a field can be compared under a mask; a range has none (`RANGE_MASK`)."""
    return name in NAMES and mask > 0 and (name != "in_port" or mask == FIELDS[name].full_mask)


@dataclass(frozen=True, slots=True)
class Form:
    """What rules of one table have in common.

    Args:
        leading: What leads to the table: the words that all rules in it compare with the same values.
        masks: Words and masks of each rule.
        hashed: By which byte a rule's bucket is found.
        named: Whether rules name the port that packets enter.
    """

    leading: tuple[U32Key, ...]
    masks: tuple[tuple[int, int], ...]
    hashed: U32Hash
    named: bool


def words_of(match: Match) -> Words:
    """Return the words of a match, of fields that `can_compare` takes, by offset."""
    found: dict[int, tuple[int, int]] = {}
    pieces = _FAMILIES.get(_kind(match), _LINK)
    for name, value in match.items():
        if name == "in_port":
            continue
        assert isinstance(value, Masked), "a range has no mask that can be compared"
        for piece in pieces[name]:
            part = ((1 << piece.bits) - 1) << piece.low
            mask = (value.mask & part) >> piece.low << piece.shift
            if mask:
                _merge(found, piece.offset, mask, (value.value & part) >> piece.low << piece.shift)
    if _kind(match) == ETH_P_IP and any(name in _PORTS for name, _ in match.shape):
        for offset, (mask, fixed) in _FIRST_WITH_PORTS.items():
            _merge(found, offset, mask, fixed)
    return dict(sorted(found.items()))


def form_of(match: Match, words: Words, *, from_wire: bool) -> Form:
    """Return which table a rule is in.

    Args:
        match: What it matches.
        words: Its words.
        from_wire: Whether it is for what comes from the wire.
    """
    kind = _kind(match)
    constant: dict[int, int] = {ETH_SRC_LOW: 0xFFFF} if kind else {}
    if kind:
        piece = _FAMILIES[kind]["ip_proto"][0]
        constant[piece.offset] = 0xFF << piece.shift
    if kind == ETH_P_IP and any(name in _PORTS for name, _ in match.shape):
        constant[0], constant[4] = (_FIRST_WITH_PORTS[offset][0] for offset in (0, 4))
    leading = tuple(
        U32Key(offset, mask & constant[offset], value & constant[offset])
        for offset, (mask, value) in words.items()
        if mask & constant.get(offset, 0)
    )
    masks = tuple((offset, mask) for offset, (mask, _) in words.items())
    return Form(leading, masks, _hash_of(masks, kind, from_wire=from_wire), match.in_port is not None)


@functools.lru_cache(maxsize=1024)
def _hash_of(masks: tuple[tuple[int, int], ...], kind: int, *, from_wire: bool) -> U32Hash:
    compared = dict(masks)
    candidates = _FAR_AND_NEAR.get(kind, ())
    candidates = (candidates if from_wire else candidates[::-1]) + _FAR_AND_NEAR[0]
    for offset, mask in candidates:
        if compared.get(offset, 0) & mask == mask:
            return U32Hash(offset, mask)
    return U32Hash(0, 0)


def bucket_of(words: Words, hashed: U32Hash) -> int:
    """Return the bucket that a rule is in."""
    if not hashed.mask:
        return 0
    low = (hashed.mask & -hashed.mask).bit_length() - 1
    return (words[hashed.offset][1] & hashed.mask) >> low & 0xFF


def keys_of(words: Words) -> tuple[U32Key, ...]:
    """Return a rule's words as a filter has them."""
    return tuple(U32Key(offset, mask, value) for offset, (mask, value) in words.items())


def decode(keys: Sequence[U32Key], in_port: int | None) -> Match:
    """Return the match of a filter of ours; the inverse of `words_of`.

    Args:
        keys: Its words.
        in_port: The port that it names; None where it names none.
    """
    words = {key.offset: (key.mask, key.value) for key in keys}
    mask, value = words.get(ETH_SRC_LOW, (0, 0))
    pieces = _FAMILIES.get(value & 0xFFFF, _LINK) if mask & 0xFFFF == 0xFFFF else _LINK
    fields: dict[str, Masked] = {}
    if in_port is not None:
        fields["in_port"] = Masked(in_port, FIELDS["in_port"].full_mask)
    for name, parts in pieces.items():
        found = _gathered(words, parts)
        if found is not None:
            fields[name] = found
    proto = fields.get("ip_proto")
    is_icmp = proto is not None and proto.value in (IPPROTO_ICMP, IPPROTO_ICMPV6)
    left_out = ("tp_src", "tp_dst") if is_icmp else ("icmp_type", "icmp_code")
    return Match(**{name: one for name, one in fields.items() if name not in left_out})


def differing(
    mac: int, high: tuple[int, int], low: tuple[int, int], also: U32Key | None = None
) -> list[tuple[U32Key, ...]]:
    """Return the words of filters that together take what has another address, one a bit: u32 knows no "not".

    Args:
        mac: The address.
        high: Offset of the word with its upper part, and how far that is shifted up there.
        low: Offset of the word with its lower part, and how many bits of the address that has.
        also: What must be so besides.
    """
    found = []
    for bit in range(48):
        inside_low = bit < low[1]
        offset = low[0] if inside_low else high[0]
        shift = bit + (32 - low[1] if inside_low else high[1] - low[1])
        words: dict[int, tuple[int, int]] = {}
        _merge(words, offset, 1 << shift, (~mac >> bit & 1) << shift)
        if also is not None:
            if words.get(also.offset, (0, 0))[0] & also.mask:
                continue  # the two contradict each other
            _merge(words, also.offset, also.mask, also.value)
        found.append(keys_of(dict(sorted(words.items()))))
    return found


def _kind(match: Match) -> int:
    """Return which IP it is about; 0 for neither."""
    kind = match.eth_type
    if isinstance(kind, Masked) and kind.mask == 0xFFFF and kind.value in _FAMILIES:
        return kind.value
    return 0


def _gathered(words: Words, parts: tuple[Piece, ...]) -> Masked | None:
    mask = value = 0
    for piece in parts:
        held_mask, held = words.get(piece.offset, (0, 0))
        whole = (1 << piece.bits) - 1
        mask |= (held_mask >> piece.shift & whole) << piece.low
        value |= (held >> piece.shift & whole) << piece.low
    return Masked(value, mask) if mask else None


def _merge(words: dict[int, tuple[int, int]], offset: int, mask: int, value: int) -> None:
    held_mask, held = words.get(offset, (0, 0))
    words[offset] = held_mask | mask, held | value


def shape_problem(shape: Shape) -> str | None:
    """Return the first field of a shape that can't be compared; None where all can."""
    return next((name for name, mask in shape if not can_compare(name, mask)), None)
