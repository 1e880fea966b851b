"""What a rule matches: a set of header fields, each with a value and a mask, or a range of ports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

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
            raise InvalidRequestError(f"{self.first}-{self.last} is no range of ports (0 to 65535, low to high)")


FieldValue = Masked | PortRange
FieldInput = Masked | PortRange | int | str
"""What `Match.of` takes for a field: an int or text for an exact value, ``10.0.0.0/8``, ``0x2/0x3``, ``1000-2000``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Header fields that a packet must have; a field that is None matches anything.

    `Match.of` is the convenient way to make one: it takes text and fills in what a field implies.

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
    shape: Shape = field(init=False, repr=False, compare=False, default=())
    values: tuple[int | tuple[int, int], ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        shape: list[tuple[str, int]] = []
        values: list[int | tuple[int, int]] = []
        for name in FIELDS:
            value = getattr(self, name)
            if value is None:
                continue
            self._check(name, value)
            if isinstance(value, PortRange):
                shape.append((name, RANGE_MASK))
                values.append((value.first, value.last))
            else:
                shape.append((name, value.mask))
                values.append(value.value)
        object.__setattr__(self, "shape", tuple(shape))
        object.__setattr__(self, "values", tuple(values))

    def _check(self, name: str, value: FieldValue) -> None:
        spec = FIELDS[name]
        path = f"/match/{name}"
        if isinstance(value, PortRange):
            if spec.kind is not Kind.PORT:
                raise InvalidRequestError("only ports take a range", path=path, hint="give a value and a mask")
        elif value.mask > spec.full_mask:
            raise InvalidRequestError(f"does not fit {spec.bits} bits", path=path)
        for needed, allowed in spec.needs.items():
            other = getattr(self, needed)
            exact = isinstance(other, Masked) and other.mask == FIELDS[needed].full_mask
            if not exact or other.value not in allowed:
                names = " or ".join(f"{number:#06x}" if needed == "eth_type" else str(number) for number in allowed)
                raise InvalidRequestError(
                    f"means nothing unless {needed} is {names}", path=path, hint="name the protocol: tcp, udp6, icmp"
                )

    @classmethod
    def of(cls, **fields: FieldInput | None) -> Match:
        """Return a match from plain values, with the Ethernet type filled in where an address implies it.

        Args:
            fields: Field name to value: ``Match.of(ipv4_dst="10.0.0.0/8", ip_proto=6, tp_dst="80-90")``. None and a
                mask of all zeros match anything. Bits outside a mask are cleared, as Open vSwitch does.

        Raises:
            InvalidRequestError: No such field, or a value that does not fit it.
        """
        parsed: dict[str, FieldValue | None] = {}
        for name, given in fields.items():
            if name not in FIELDS:
                known = ", ".join(FIELDS)
                raise InvalidRequestError("no such match field", path=f"/match/{name}", hint=f"one of: {known}")
            parsed[name] = None if given is None else _as_value(name, given)
        if parsed.get("eth_type") is None:
            implied = _implied_eth_type(parsed)
            if implied is not None:
                parsed["eth_type"] = Masked(implied, 0xFFFF)
        return cls(**parsed)

    def items(self) -> tuple[tuple[str, FieldValue], ...]:
        """Return the fields that are compared, in printing order."""
        return tuple((name, getattr(self, name)) for name, _ in self.shape)

    def replace(self, **fields: FieldValue | None) -> Match:
        """Return a copy with some fields changed (None: matches anything)."""
        return dataclasses.replace(self, **fields)


def _implied_eth_type(parsed: Mapping[str, FieldValue | None]) -> int | None:
    present = {name for name, value in parsed.items() if value is not None}
    if present & {"ipv4_src", "ipv4_dst"}:
        return ETH_P_IP
    if present & {"ipv6_src", "ipv6_dst"}:
        return ETH_P_IPV6
    return None


def _as_value(name: str, given: FieldInput) -> FieldValue | None:
    spec = FIELDS[name]
    if isinstance(given, Masked | PortRange):
        return given
    if isinstance(given, bool):
        raise InvalidRequestError("takes a number or text, not true or false", path=f"/match/{name}")
    if isinstance(given, str):
        if spec.kind is Kind.PORT and "-" in given:
            first, _, last = given.partition("-")
            bounds = (parse_value(spec, first.strip()), parse_value(spec, last.strip()))
            low, high = bounds[0][0], bounds[1][0]
            return Masked(low, spec.full_mask) if low == high else PortRange(low, high)
        value, mask = parse_value(spec, given)
    else:
        value, mask = given, spec.full_mask
    if value < 0 or value > spec.full_mask or mask > spec.full_mask:
        raise InvalidRequestError(f"{given} does not fit {spec.bits} bits", path=f"/match/{name}")
    return Masked(value & mask, mask) if mask else None
