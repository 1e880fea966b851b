"""What a rule matches: a set of header fields, each with a value and a mask, or a range of ports."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nicoffload.errors import InvalidRequestError
from nicoffload.model.fields import ETH_P_IP, ETH_P_IPV6, FIELDS, Kind
from nicoffload.model.values import parse_value

RANGE_MASK = -1
"""Stands in a shape where the rule has a range and so no mask yet."""

Shape = tuple[tuple[str, int], ...]
"""Which fields a match compares, each with its mask (`RANGE_MASK` for a range), in the order of `FIELDS`."""


@dataclass(frozen=True, slots=True)
class Masked:
    """A value and the bits of it that count; bits outside the mask are zero.

    Args:
        value: Unsigned, in host order.
        mask: A set bit is compared.
    """

    value: int
    mask: int

    def __post_init__(self) -> None:
        if self.mask <= 0 or self.value < 0 or self.value & ~self.mask:
            raise InvalidRequestError(
                f"value {self.value:#x} has bits outside its mask {self.mask:#x}, or the mask is empty",
                hint="leave a field out to match anything",
            )


@dataclass(frozen=True, slots=True)
class PortRange:
    """An inclusive range of ports.

    Args:
        first: 0 to 65535.
        last: `first` to 65535.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= 0xFFFF:
            raise InvalidRequestError(
                f"{self.first}-{self.last} is no range of ports (0 to 65535, low to high)"
            )


FieldValue = Masked | PortRange
FieldInput = Masked | PortRange | int | str
"""What `Match.of` takes for a field: an int or text for an exact value, ``10.0.0.0/8``, ``0x2/0x3``, ``1000-2000``."""


# Not the generated __eq__ and __hash__: they look at 28 fields, and shape and values say all.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Match:
    """Header fields that a packet must have; a field that is None matches anything.

    `Match.of` is the convenient way to make one: it takes text and fills in what a field implies. A range of one port
    becomes that port, so that equal matches are equal.

    Raises:
        InvalidRequestError: A value does not fit its field, or a field lacks what it needs (a port without a
            protocol, an address without its Ethernet type).
    """

    in_port: FieldValue | None = None
    eth_src: FieldValue | None = None
    eth_dst: FieldValue | None = None
    eth_type: FieldValue | None = None
    vlan_vid: FieldValue | None = None
    vlan_dei: FieldValue | None = None
    vlan_pcp: FieldValue | None = None
    cvlan_vid: FieldValue | None = None
    cvlan_pcp: FieldValue | None = None
    ipv4_src: FieldValue | None = None
    ipv4_dst: FieldValue | None = None
    ipv6_src: FieldValue | None = None
    ipv6_dst: FieldValue | None = None
    ip_proto: FieldValue | None = None
    ip_tos: FieldValue | None = None
    ip_ttl: FieldValue | None = None
    ip_frag: FieldValue | None = None
    tp_src: FieldValue | None = None
    tp_dst: FieldValue | None = None
    tcp_flags: FieldValue | None = None
    icmp_type: FieldValue | None = None
    icmp_code: FieldValue | None = None
    tun_id: FieldValue | None = None
    tun_ipv4_src: FieldValue | None = None
    tun_ipv4_dst: FieldValue | None = None
    tun_ipv6_src: FieldValue | None = None
    tun_ipv6_dst: FieldValue | None = None
    tun_tp_dst: FieldValue | None = None
    # Kept so that compiling 100,000 rules does not look at 28 fields each.
    shape: Shape = field(init=False, repr=False, default=())
    values: tuple[int | tuple[int, int], ...] = field(init=False, repr=False, default=())

    # The generated __init__ is what a type checker sees. This one, in its place, costs half: it looks at the fields
    # that are given, and checks each combination of fields and masks once.
    if not TYPE_CHECKING:

        def __init__(self, **fields: FieldValue | None) -> None:
            layout = _layout(tuple(fields))
            for clear in layout.clear:
                clear(self, None)
            shape: list[tuple[str, int]] = []
            values: list[int | tuple[int, int]] = []
            eth_type = ip_proto = -1
            for name, exact, put in layout.given:
                value = fields[name]
                if type(value) is Masked:
                    number, mask = value.value, value.mask
                elif value is None:
                    put(self, None)
                    continue
                else:
                    value, number, mask = _range(name, value)
                put(self, value)
                values.append(number)
                if mask != exact[1]:
                    shape.append((name, mask))
                    continue
                shape.append(exact)
                if name == "eth_type":
                    eth_type = number
                elif name == "ip_proto":
                    ip_proto = number
            _set_shape(self, _checked_shape(tuple(shape), eth_type, ip_proto))
            _set_values(self, tuple(values))

    def __eq__(self, other: object) -> bool:
        if type(other) is not Match:
            return NotImplemented
        return self.values == other.values and self.shape == other.shape

    def __hash__(self) -> int:
        return hash((self.shape, self.values))

    @classmethod
    def of(cls, **fields: FieldInput | None) -> Match:
        """Return a match from plain values, with the Ethernet type filled in where an address implies it.

        Args:
            fields: Field name to value: ``Match.of(ipv4_dst="10.0.0.0/8", ip_proto=6, tp_dst="80-90")``. None and a
                mask of all zeros match anything. Bits outside a mask are cleared, as Open vSwitch does.

        Raises:
            InvalidRequestError: No such field, or a value that does not fit it.
        """
        parsed: dict[str, Any] = {}
        for name, given in fields.items():
            if type(given) is int and 0 <= given <= _FULL_MASK.get(name, -1):
                value = _new(Masked)
                _set_value(value, given)
                _set_mask(value, _FULL_MASK[name])
                parsed[name] = value
            elif given is not None and (parsed_value := field_value(name, given)) is not None:
                parsed[name] = parsed_value
            elif name not in FIELDS:
                raise _no_field(name)
        if "eth_type" not in parsed:
            if "ipv4_src" in parsed or "ipv4_dst" in parsed:
                parsed["eth_type"] = _IS_IPV4
            elif "ipv6_src" in parsed or "ipv6_dst" in parsed:
                parsed["eth_type"] = _IS_IPV6
        return cls(**parsed)

    def items(self) -> tuple[tuple[str, FieldValue], ...]:
        """Return the fields that are compared, in printing order."""
        return tuple((name, getattr(self, name)) for name, _ in self.shape)

    def replace(self, **fields: FieldValue | None) -> Match:
        """Return a copy with some fields changed (None: matches anything)."""
        kept: dict[str, Any] = dict(self.items())
        return Match(**(kept | fields))


def field_value(name: str, given: FieldInput) -> FieldValue | None:
    """Return what a field is compared with, from a plain value; None where the mask is all zeros.

    Args:
        name: Field, a key of `FIELDS`.
        given: As `Match.of` takes it.

    Raises:
        InvalidRequestError: No such field, or the value does not fit it.
    """
    spec = FIELDS.get(name)
    if spec is None:
        raise _no_field(name)
    if isinstance(given, Masked | PortRange):
        return given
    if isinstance(given, str):
        if spec.kind is Kind.PORT and "-" in given[1:]:
            first, _, last = given.partition("-")
            return PortRange(_port(name, first), _port(name, last))
        value, mask = parse_value(spec, given)
    else:
        value, mask = _whole_number(name, given), spec.full_mask
        if not 0 <= value <= mask:
            raise InvalidRequestError(f"{given} does not fit {spec.bits} bits", path=f"/match/{name}")
    return Masked(value, mask) if mask else None


def _port(name: str, text: str) -> int:
    value, mask = parse_value(FIELDS[name], text.strip())
    if mask != _FULL_MASK[name]:
        raise InvalidRequestError("a range has no mask", path=f"/match/{name}", hint="write 1000-2000")
    return value


def _whole_number(name: str, given: object) -> int:
    if not isinstance(given, bool):
        try:
            return operator.index(given)  # type: ignore[arg-type]  # a number of NumPy is welcome
        except TypeError:
            pass
    raise InvalidRequestError(f"takes a whole number or text, not {given!r}", path=f"/match/{name}")


def _no_field(name: str) -> InvalidRequestError:
    return InvalidRequestError(
        "no such match field", path=f"/match/{name}", hint=f"one of: {', '.join(FIELDS)}"
    )


def _range(name: str, value: object) -> tuple[FieldValue, int | tuple[int, int], int]:
    """Return a range's field value, number and mask; one port is that port."""
    if not isinstance(value, PortRange):
        raise InvalidRequestError(
            f"{value!r} is neither Masked nor PortRange",
            path=f"/match/{name}",
            hint="Match.of takes plain values",
        )
    if FIELDS[name].kind is not Kind.PORT:
        raise InvalidRequestError(
            "only ports take a range", path=f"/match/{name}", hint="give a value and a mask"
        )
    if value.first == value.last:
        return Masked(value.first, _FULL_MASK[name]), value.first, _FULL_MASK[name]
    return value, (value.first, value.last), RANGE_MASK


@functools.lru_cache(maxsize=4096)
def _checked_shape(shape: Shape, eth_type: int, ip_proto: int) -> Shape:
    """Return the shape, one object for all equal ones, when its masks fit and each field has what it needs.

    Args:
        shape: The fields and their masks.
        eth_type: Exact value that is matched, -1 for none.
        ip_proto: Likewise.
    """
    matched = {"eth_type": eth_type, "ip_proto": ip_proto}
    for name, mask in shape:
        spec = FIELDS[name]
        if mask > spec.full_mask:
            raise InvalidRequestError(f"does not fit {spec.bits} bits", path=f"/match/{name}")
        for needed, allowed in spec.needs.items():
            if matched[needed] not in allowed:
                names = " or ".join(
                    f"{number:#06x}" if needed == "eth_type" else str(number) for number in allowed
                )
                raise InvalidRequestError(
                    f"means nothing unless {needed} is {names}",
                    path=f"/match/{name}",
                    hint="name the protocol: tcp, udp6, icmp",
                )
    outer = [name for name, _ in shape if name.startswith(_OUTER_ADDRESSES)]
    if len({name[: len(_OUTER_ADDRESSES[0])] for name in outer}) > 1:
        raise InvalidRequestError(
            "no tunnel has outer addresses of both IP versions", path=f"/match/{outer[-1]}"
        )
    return shape


_OUTER_ADDRESSES = ("tun_ipv4", "tun_ipv6")


_Put = Callable[[Match, FieldValue | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How to store the fields that a caller names; callers name the same ones again and again.

    Args:
        given: Each field in printing order: name, name with full mask, setter.
        clear: Setters of the others.
    """

    given: tuple[tuple[str, tuple[str, int], _Put], ...]
    clear: tuple[_Put, ...]


@functools.lru_cache(maxsize=1024)
def _layout(names: tuple[str, ...]) -> _Layout:
    if unknown := [name for name in names if name not in FIELDS]:
        raise _no_field(unknown[0])
    return _Layout(
        given=tuple((name, (name, _FULL_MASK[name]), _PUT[name]) for name in FIELDS if name in names),
        clear=tuple(_PUT[name] for name in FIELDS if name not in names),
    )


# Slots are set through their descriptors: the values are frozen for everybody else.
_PUT: Mapping[str, _Put] = MappingProxyType({name: getattr(Match, name).__set__ for name in FIELDS})
_FULL_MASK: Mapping[str, int] = MappingProxyType({name: spec.full_mask for name, spec in FIELDS.items()})
_set_shape = vars(Match)["shape"].__set__
_set_values = vars(Match)["values"].__set__
_set_value = vars(Masked)["value"].__set__
_set_mask = vars(Masked)["mask"].__set__
_new = object.__new__
_IS_IPV4 = Masked(ETH_P_IP, 0xFFFF)
_IS_IPV6 = Masked(ETH_P_IPV6, 0xFFFF)
