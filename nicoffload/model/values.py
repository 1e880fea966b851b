"""Text forms of field values: addresses, numbers, switch ports, each with an optional mask."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from types import MappingProxyType

from nicoffload.errors import InvalidRequestError
from nicoffload.model.fields import Field, Kind

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_VF = re.compile(r"vf:([0-9]{1,5})")
_NUMBER = re.compile(r"[0-9]{1,39}|0[xX][0-9a-fA-F]{1,32}")
_PREFIX_LENGTH = re.compile(r"[0-9]{1,3}")

FIRST_VF_PORT = 2
"""Number of the switch port of VF 0; the uplink is 0 and the PF is 1."""

PORT_HINT = "write uplink, pf or vf:0"
"""How a switch port is named in text and JSON; its number is of no use outside this package."""

_FRAGMENTS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"no": (0, 3), "yes": (1, 1), "first": (1, 3), "later": (3, 3), "not_later": (0, 2)}
)


def parse_mac(text: str, path: str = "") -> int:
    """Return the 48-bit number of a MAC address such as ``02:00:00:00:00:01``.

    Raises:
        InvalidRequestError: The text is no MAC address.
    """
    if not _MAC.fullmatch(text):
        raise InvalidRequestError(f"{text!r} is no MAC address", path=path, hint="write 02:00:00:00:00:01")
    return int(text.replace(":", ""), 16)


def format_mac(value: int) -> str:
    """Return the text of a 48-bit MAC address."""
    digits = f"{value:012x}"
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def parse_switch_port(text: str, path: str = "") -> int:
    """Return the number of a switch port: ``uplink``, ``pf`` or ``vf:N``.

    Raises:
        InvalidRequestError: The text names no port.
    """
    if text in ("uplink", "pf"):
        return 0 if text == "uplink" else 1
    found = _VF.fullmatch(text)
    if not found or int(found[1]) > 0xFFFF - FIRST_VF_PORT:
        raise InvalidRequestError(f"{text!r} is no port of a NIC", path=path, hint=PORT_HINT)
    return FIRST_VF_PORT + int(found[1])


def format_switch_port(port: int) -> str:
    """Return the text of a switch port's number."""
    return ("uplink", "pf")[port] if port < FIRST_VF_PORT else f"vf:{port - FIRST_VF_PORT}"


def parse_value(spec: Field, text: str) -> tuple[int, int]:
    """Return value and mask of a field's text; without a mask in the text, every bit counts.

    Raises:
        InvalidRequestError: The text does not fit the field.
    """
    path = f"/match/{spec.name}"
    if spec.kind is Kind.FRAGMENT and text in _FRAGMENTS:
        return _FRAGMENTS[text]
    plain, slash, mask_text = text.partition("/")
    value = _parse_plain(spec, plain, path)
    mask = _parse_mask(spec, mask_text, path) if slash else spec.full_mask
    if value > spec.full_mask or mask > spec.full_mask:
        raise InvalidRequestError(f"{text!r} does not fit {spec.bits} bits", path=path)
    if spec.kind is Kind.SWITCH_PORT and mask == spec.full_mask and plain[:1].isdigit():
        # 1 is the PF to this package and any port at all to Open vSwitch. Bits under a mask are nobody's port number.
        raise InvalidRequestError(f"{text!r} is a number, and no port of a NIC", path=path, hint=PORT_HINT)
    return value & mask, mask


def format_value(spec: Field, value: int, mask: int) -> str:
    """Return the text of a field's value, with its mask unless every bit counts; the inverse of `parse_value`."""
    if spec.kind is Kind.FRAGMENT:
        for name, pair in _FRAGMENTS.items():
            if pair == (value, mask):
                return name
    plain = _format_plain(spec, value)
    if mask == spec.full_mask:
        return plain
    if spec.kind in (Kind.IPV4, Kind.IPV6):
        length = mask.bit_count()
        prefix = spec.full_mask ^ (spec.full_mask >> length)
        return f"{plain}/{length}" if mask == prefix else f"{plain}/{_format_plain(spec, mask)}"
    if spec.kind is Kind.MAC:
        return f"{plain}/{format_mac(mask)}"
    return f"{value:#x}/{mask:#x}"


def _parse_plain(spec: Field, text: str, path: str) -> int:
    if spec.kind is Kind.MAC:
        return parse_mac(text, path)
    if spec.kind is Kind.SWITCH_PORT and not text[:1].isdigit():
        return parse_switch_port(text, path)
    if spec.kind in (Kind.IPV4, Kind.IPV6):
        return _parse_address(spec, text, path)
    return _parse_number(text, path)


def _parse_address(spec: Field, text: str, path: str) -> int:
    address = ipaddress.IPv4Address if spec.kind is Kind.IPV4 else ipaddress.IPv6Address
    name = "IPv4" if spec.kind is Kind.IPV4 else "IPv6"
    if "%" in text:  # ipaddress would take a scope and lose it
        raise InvalidRequestError(f"{text!r} has a scope; an address in a packet has none", path=path)
    try:
        return int(address(text))
    except ValueError as cause:
        raise InvalidRequestError(f"{text!r} is no {name} address", path=path) from cause


def _parse_number(text: str, path: str) -> int:
    if not _NUMBER.fullmatch(text):
        wrong = "is negative" if text.startswith("-") else "is no number"
        raise InvalidRequestError(f"{text!r} {wrong}", path=path, hint="write 80 or 0x50")
    return int(text, 16 if text[:2] in ("0x", "0X") else 10)


def _parse_mask(spec: Field, text: str, path: str) -> int:
    if spec.kind in (Kind.IPV4, Kind.IPV6) and _PREFIX_LENGTH.fullmatch(text):
        length = int(text)
        if length > spec.bits:
            raise InvalidRequestError(f"/{text} is longer than {spec.bits} bits", path=path)
        return spec.full_mask ^ (spec.full_mask >> length)
    return _parse_plain(spec, text, path)


def _format_plain(spec: Field, value: int) -> str:
    if spec.kind is Kind.MAC:
        return format_mac(value)
    if spec.kind is Kind.IPV4:
        return str(ipaddress.IPv4Address(value))
    if spec.kind is Kind.IPV6:
        return str(ipaddress.IPv6Address(value))
    if spec.kind is Kind.SWITCH_PORT:
        return format_switch_port(value)
    return f"{value:#x}" if spec.kind is Kind.HEX else str(value)
