"""Netlink attributes: written into bytes, and read without trusting a length that they claim."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

from nicoffload.errors import KernelError

NLA_F_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_HEADER = struct.Struct("=HH")


class MalformedError(KernelError):
    """What came from the kernel breaks its own format."""

    code = "malformed"


Buffer = bytes | bytearray | memoryview


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded to 4 bytes.

    Args:
        kind: Its number, `NLA_F_NESTED` included where wanted.
        payload: At most 65531 bytes.
    """
    return _HEADER.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute of attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def u8(kind: int, value: int) -> bytes:
    """Return an attribute of one byte."""
    return attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    """Return an attribute of two bytes in host order."""
    return attribute(kind, struct.pack("=H", value))


def be16(kind: int, value: int) -> bytes:
    """Return an attribute of two bytes in network order."""
    return attribute(kind, struct.pack(">H", value))


def u32(kind: int, value: int) -> bytes:
    """Return an attribute of four bytes in host order."""
    return attribute(kind, struct.pack("=I", value))


def u64(kind: int, value: int) -> bytes:
    """Return an attribute of eight bytes in host order."""
    return attribute(kind, struct.pack("=Q", value))


def text(kind: int, value: str) -> bytes:
    """Return an attribute of text, with the final zero byte."""
    return attribute(kind, value.encode() + b"\0")


def walk(data: Buffer, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Yield kind, start and end of each attribute's payload, in order.

    Args:
        data: What holds them.
        start: Where the first one begins.
        end: Where the last one ends; None: at the end of `data`.

    Raises:
        MalformedError: A length is shorter than a header or longer than what is left.
    """
    limit = len(data) if end is None else end
    if not 0 <= start <= limit <= len(data):
        raise MalformedError(f"attributes from {start} to {limit} of {len(data)} bytes")
    while limit - start >= 4:
        length, kind = _HEADER.unpack_from(data, start)
        if length < 4 or length > limit - start:
            raise MalformedError(f"an attribute claims {length} of {limit - start} bytes")
        yield kind & _TYPE_MASK, start + 4, start + length
        start += length + 3 & ~3
    # What is left over is padding.


def parse(data: Buffer, start: int = 0, end: int | None = None) -> dict[int, Buffer]:
    """Return the payload of each attribute by its kind; of two of one kind, the last.

    Raises:
        MalformedError: See `walk`.
    """
    return {kind: data[first:last] for kind, first, last in walk(data, start, end)}


def number(payload: Buffer, bytes_wide: int) -> int:
    """Return an unsigned number in host order.

    Raises:
        MalformedError: The payload is shorter.
    """
    return int.from_bytes(_exactly(payload, bytes_wide), _HOST)


def network_number(payload: Buffer, bytes_wide: int) -> int:
    """Return an unsigned number in network order.

    Raises:
        MalformedError: The payload is shorter.
    """
    return int.from_bytes(_exactly(payload, bytes_wide), "big")


def string(payload: Buffer) -> str:
    """Return text up to its first zero byte; bytes that are no UTF-8 are shown as escapes."""
    return bytes(payload).split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def fields(form: struct.Struct, payload: Buffer) -> tuple[int, ...]:
    """Return the fields of a structure of numbers at the start of a payload.

    Raises:
        MalformedError: The payload is shorter.
    """
    if len(payload) < form.size:
        raise MalformedError(f"a structure has {len(payload)} of {form.size} bytes")
    return form.unpack_from(payload)


def _exactly(payload: Buffer, bytes_wide: int) -> Buffer:
    if len(payload) < bytes_wide:
        raise MalformedError(f"a number has {len(payload)} of {bytes_wide} bytes")
    return payload[:bytes_wide]


_HOST = sys.byteorder
