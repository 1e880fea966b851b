"""Matches as the data path's keys, in bulk and back: each field has its place in 64 bytes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from nicoffload.model import FIELDS, Masked, Match, Shape
from nicoffload.model.fields import ETH_P_IPV6, IPPROTO_ICMP, IPPROTO_ICMPV6
from nicoffload_softnic import layout

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field is in a key.

    Args:
        offset: Of its first byte.
        width: In bytes.
        shift: Bits that it is moved up within them.
        swapped: Whether it is in the order of the host (the data path's is little-endian), not of the network.
        flag: Bit of the key's flags that says that the field is there; 0 where it always is.
    """

    offset: int
    width: int
    shift: int = 0
    swapped: bool = False
    flag: int = 0


PLACES: Mapping[str, Place] = MappingProxyType(
    {
        "in_port": Place(54, 2, swapped=True),
        "eth_src": Place(40, 6),
        "eth_dst": Place(32, 6),
        "eth_type": Place(38, 2),
        "vlan_vid": Place(46, 2, flag=layout.IS_TAGGED),
        "vlan_dei": Place(46, 2, shift=12, flag=layout.IS_TAGGED),
        "vlan_pcp": Place(46, 2, shift=13, flag=layout.IS_TAGGED),
        "ipv4_src": Place(0, 4),
        "ipv4_dst": Place(16, 4),
        "ipv6_src": Place(0, 16),
        "ipv6_dst": Place(16, 16),
        "ip_proto": Place(52, 1),
        "ip_tos": Place(53, 1),
        "ip_ttl": Place(57, 1),
        "ip_frag": Place(layout.FLAGS_AT, 1, shift=layout.FRAGMENT_SHIFT),
        "tp_src": Place(48, 2, flag=layout.HAS_L4),
        "tp_dst": Place(50, 2, flag=layout.HAS_L4),
        "icmp_type": Place(48, 2, flag=layout.HAS_L4),
        "icmp_code": Place(50, 2, flag=layout.HAS_L4),
    }
)
"""Every field that can be compared."""

_NUMBERS = frozenset({1, 2, 4, 8})
"""Widths of fields that are numbers; the others are addresses."""
_IPV4_ONLY = frozenset({"ipv4_src", "ipv4_dst"})
_IPV6_ONLY = frozenset({"ipv6_src", "ipv6_dst"})
_PORTS = frozenset({"tp_src", "tp_dst"})
_ICMP = frozenset({"icmp_type", "icmp_code"})


def can_compare(name: str, mask: int) -> bool:
    """Tell whether a field can be compared under a mask; a range has none (`RANGE_MASK`)."""
    return name in PLACES and mask > 0 and (name != "in_port" or mask == FIELDS[name].full_mask)


@dataclass(frozen=True, slots=True)
class Form:
    """How matches of one shape become keys.

    Args:
        mask: The class that they are in: 64 bytes, with the class's number left out.
        blank: A key without its values.
        places: Where each value goes, in the order of the shape.
    """

    mask: bytes
    blank: bytes
    places: tuple[Place, ...]


@functools.lru_cache(maxsize=1024)
def form_of(shape: Shape) -> Form:
    """Return how matches of a shape become keys.

    A rule without in_port is one for what comes from the uplink, as its direction says; whether it named the port is
    a bit of the key, so that it reads back as it was written.

    Args:
        shape: Of fields that `can_compare` takes.
    """
    mask, blank = bytearray(layout.KEY_BYTES), bytearray(layout.KEY_BYTES)
    for name, bits in shape:
        place = PLACES[name]
        _merge(mask, place, bits)
        mask[layout.FLAGS_AT] |= place.flag
        blank[layout.FLAGS_AT] |= place.flag
    port = PLACES["in_port"]
    if any(name == "in_port" for name, _ in shape):
        blank[layout.IN_PORT_GIVEN_AT] = 1
    else:
        _merge(mask, port, 0xFFFF)
    return Form(
        mask=bytes(mask),
        blank=bytes(blank),
        places=tuple(PLACES[name] for name, _ in shape),
    )


def encode(form: Form, values: Sequence[Sequence[int]]) -> Bytes:
    """Return the keys of matches of one form, uint8[N, 64], without the number of their class.

    Args:
        form: Of their shape.
        values: One row a match, in the order of the shape.
    """
    return encode_columns(form, list(zip(*values, strict=True)), len(values))


def encode_columns(
    form: Form, columns: Sequence[int | Sequence[int] | npt.NDArray[np.uint64]], count: int
) -> Bytes:
    """Return keys as `encode` does, from one column a field.

    Args:
        form: Of their shape.
        columns: In the order of the shape; a number where all have the same.
        count: How many keys.
    """
    blank = bytearray(form.blank)
    for place, column in zip(form.places, columns, strict=True):
        if isinstance(column, int):
            _merge(blank, place, column)
    keys = np.frombuffer(blank, np.uint8).reshape(1, -1).repeat(count, 0)
    for place, column in zip(form.places, columns, strict=True):
        if isinstance(column, int):
            continue
        if place.width in _NUMBERS:  # its offset is a multiple of its width: a number, and not its bytes
            form_of_it = f"{'<' if place.swapped else '>'}u{place.width}"
            numbers = np.asarray(column, np.uint64) << np.uint64(place.shift)
            keys.view(form_of_it)[:, place.offset // place.width] |= numbers.astype(form_of_it)
        else:
            keys[:, place.offset : place.offset + place.width] |= _joined(place, column)
    return keys


def _joined(place: Place, column: Sequence[int] | npt.NDArray[np.uint64]) -> Bytes:
    """Return the addresses of a column, MAC or IPv6, as bytes."""
    if place.width < 8:  # a MAC address fits a number
        return np.asarray(column, ">u8").view(np.uint8).reshape(-1, 8)[:, 8 - place.width :]
    joined = b"".join([int(value).to_bytes(place.width, "big") for value in column])
    return np.frombuffer(joined, np.uint8).reshape(-1, place.width)


def decode(key: bytes, mask: bytes) -> Match:
    """Return the match of a key in a class; the inverse of `encode`.

    Args:
        key: 64 bytes.
        mask: Of its class.
    """
    shape, places = _shape_in(mask, _kind(key))
    fields = {
        name: Masked(_number(key, place) & bits, bits)
        for (name, bits), place in zip(shape, places, strict=True)
    }
    return Match(**fields)


def _kind(key: bytes) -> tuple[bool, bool, bool]:
    """Return what of a key says which fields its bytes are: IPv6, ICMP, and whether it named its port."""
    is_v6 = key[38:40] == ETH_P_IPV6.to_bytes(2, "big")
    return is_v6, key[52] in (IPPROTO_ICMP, IPPROTO_ICMPV6), bool(key[layout.IN_PORT_GIVEN_AT])


@functools.lru_cache(maxsize=1024)
def _shape_in(mask: bytes, kind: tuple[bool, bool, bool]) -> tuple[Shape, tuple[Place, ...]]:
    is_v6, is_icmp, named_port = kind
    left_out = _IPV4_ONLY if is_v6 else _IPV6_ONLY
    left_out = left_out | (_PORTS if is_icmp else _ICMP) | (frozenset() if named_port else {"in_port"})
    shape, places = [], []
    for name, spec in FIELDS.items():
        place = PLACES.get(name)
        bits = _number(mask, place) & spec.full_mask if place is not None and name not in left_out else 0
        if place is not None and bits and (not place.flag or mask[layout.FLAGS_AT] & place.flag):
            shape.append((name, bits))
            places.append(place)
    return tuple(shape), tuple(places)


def _number(data: bytes, place: Place) -> int:
    part = data[place.offset : place.offset + place.width]
    return int.from_bytes(part, "little" if place.swapped else "big") >> place.shift


def _merge(target: bytearray, place: Place, bits: int) -> None:
    held = int.from_bytes(target[place.offset : place.offset + place.width], "big")
    moved = bits << place.shift
    if place.swapped:
        moved = int.from_bytes(moved.to_bytes(place.width, "little"), "big")
    target[place.offset : place.offset + place.width] = (held | moved).to_bytes(place.width, "big")
