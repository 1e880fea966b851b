"""Rates and sizes as people write them: ``100M``, ``1.5Gbit``, ``none``; ``64k``, ``64KiB``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType

from nicoffload.errors import InvalidRequestError

_FACTORS: Mapping[str, int] = MappingProxyType(
    {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
)
_BINARY: Mapping[str, int] = MappingProxyType({"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30})
_RATE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,12})?) ?([kKMGT]?)(?:bit|bps|bit/s|bits/s|b/s)?")
_BYTE_RATE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,12})?) ?([kKMGT]?)(?:B|Byte|byte|bytes)(?:ps|/s)?")
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,12})?) ?([KMG]i|[kKMG]?)B?")


def parse_rate(text: str, path: str = "") -> int | None:
    """Return a rate in bit/s; None for ``none``, which means no limit or no guarantee.

    Args:
        text: ``100M``, ``1.5Gbit``, ``2500kbps`` (thousand bits per second, never bytes), ``1000000``, ``none``.
        path: What the rate is for, for the error.

    Raises:
        InvalidRequestError: The text is no rate, is negative, or is no whole number of bits.
    """
    plain = text.strip()
    if plain.lower() == "none":
        return None
    found = _RATE.fullmatch(plain)
    if not found:
        raise InvalidRequestError(f"{text!r} is no rate", path=path, hint=_rate_hint(plain))
    return _whole(found, _FACTORS[found[2]], "bits per second", path)


def format_rate(rate_bps: int | None) -> str:
    """Return the shortest exact text of a rate: ``100M``, ``1500k``, ``none``; the inverse of `parse_rate`."""
    if rate_bps is None:
        return "none"
    for suffix in ("T", "G", "M", "k"):
        if rate_bps and rate_bps % _FACTORS[suffix] == 0:
            return f"{rate_bps // _FACTORS[suffix]}{suffix}"
    return str(rate_bps)


def parse_size(text: str, path: str = "") -> int:
    """Return a number of bytes from ``65536``, ``64k`` (64,000) or ``64KiB`` (65,536).

    Raises:
        InvalidRequestError: The text is no size, or no whole number of bytes.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise InvalidRequestError(f"{text!r} is no size", path=path, hint="write 65536, 64k or 64KiB")
    return _whole(found, {**_FACTORS, **_BINARY}[found[2]], "bytes", path)


def _whole(found: re.Match[str], factor: int, what: str, path: str) -> int:
    value = Decimal(found[1]) * factor
    if value != value.to_integral_value():
        raise InvalidRequestError(f"{found[0]!r} is no whole number of {what}", path=path)
    return int(value)


def _rate_hint(text: str) -> str:
    if text.startswith("-"):
        return "a rate is not negative; write none for no limit"
    if found := _BYTE_RATE.fullmatch(text):
        bits = Decimal(found[1]) * 8
        return f"rates are in bits, not bytes: write {bits.normalize():f}{found[2]}"
    if re.search(r"[0-9] ?[mgt]", text):
        return "write the prefix as k, M, G or T: m would be a thousandth"
    return "write 100M, 1.5Gbit, 2500kbps, 1000000 or none"
