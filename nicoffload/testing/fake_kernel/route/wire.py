"""Attributes as Linux reads and writes them: what is wrong is refused with its errno, or overlooked, as Linux does."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping

Buffer = bytes | memoryview

NESTED = 0x8000
_KIND = 0x3FFF
_HEADER = struct.Struct("=HH")
_U16, _U32, _U64 = struct.Struct("=H"), struct.Struct("=I"), struct.Struct("=Q")
_BIG16 = struct.Struct(">H")
_U32_ATTRIBUTE = struct.Struct("=HHI")
_BITFIELD_ATTRIBUTE = struct.Struct("=HHII")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Rejected(Exception):  # noqa: N818 - it is an answer of the fake kernel, not an error of this package
    """A request that the kernel answers with an errno.

    Args:
        number: The errno, positive.
        text: The kernel's own words (extack); empty where it has none.
    """

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(f"{errno.errorcode.get(number, number)}: {text}")
        self.number = number
        self.text = text


def walk(data: Buffer, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Yield kind, start and end of each payload; stops at what is no attribute, as ``nla_for_each_attr`` does."""
    limit = len(data) if end is None else end
    while limit - start >= 4:
        length, kind = _HEADER.unpack_from(data, start)
        if length < 4 or length > limit - start:
            return
        yield kind & _KIND, start + 4, start + length
        start += length + 3 & ~3


def parse(
    data: bytes,
    start: int = 0,
    end: int | None = None,
    *,
    least: Mapping[int, int],
    words: bool = False,
) -> dict[int, bytes]:
    """Return the payload of each attribute by its kind, as ``nla_parse_deprecated`` does: of two of one kind the last.

    Args:
        data: What holds them.
        start: Where the first one begins.
        end: Where the last one ends; None: at the end of `data`.
        least: The kinds that the kernel has a policy for, each with its least length in bytes.
        words: Whether the kernel says in words what is wrong: whether its parser was given an extack.

    Raises:
        Rejected: An attribute is shorter than its policy says.
    """
    limit = len(data) if end is None else end
    found: dict[int, bytes] = {}
    unpack = _HEADER.unpack_from
    while limit - start >= 4:
        length, kind = unpack(data, start)
        if length < 4 or length > limit - start:
            break
        kind &= _KIND
        if length - 4 < least.get(kind, 0):
            raise Rejected(errno.ERANGE, "Attribute failed policy validation" if words else "")
        found[kind] = data[start + 4 : start + length]
        start += length + 3 & ~3
    return found


def u8_of(payload: bytes) -> int:
    """Return the first byte; 0 of nothing."""
    return payload[0] if payload else 0


def u16_of(payload: bytes) -> int:
    """Return two bytes in host order."""
    value: int = _U16.unpack_from(payload)[0]
    return value


def be16_of(payload: bytes) -> int:
    """Return two bytes in network order."""
    value: int = _BIG16.unpack_from(payload)[0]
    return value


def u32_of(payload: bytes) -> int:
    """Return four bytes in host order."""
    value: int = _U32.unpack_from(payload)[0]
    return value


def u64_of(payload: bytes) -> int:
    """Return eight bytes in host order."""
    value: int = _U64.unpack_from(payload)[0]
    return value


def text_of(payload: bytes) -> str:
    """Return text up to its first zero byte."""
    return payload.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def put(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded to 4 bytes."""
    size = len(payload)
    return _HEADER.pack(4 + size, kind) + payload + _PADDING[size & 3]


def put_u8(kind: int, value: int) -> bytes:
    """Return an attribute of one byte."""
    return put(kind, bytes((value,)))


def put_u16(kind: int, value: int) -> bytes:
    """Return an attribute of two bytes in host order."""
    return put(kind, _U16.pack(value))


def put_be16(kind: int, value: int) -> bytes:
    """Return an attribute of two bytes in network order."""
    return put(kind, _BIG16.pack(value))


def put_u32(kind: int, value: int) -> bytes:
    """Return an attribute of four bytes in host order."""
    return _U32_ATTRIBUTE.pack(8, kind, value)


def put_u64(kind: int, value: int) -> bytes:
    """Return an attribute of eight bytes in host order, without the padding that other machines need before it."""
    return put(kind, _U64.pack(value))


def put_bits(kind: int, value: int, chosen: int) -> bytes:
    """Return an attribute of some bits and which of them are meant (``nla_bitfield32``)."""
    return _BITFIELD_ATTRIBUTE.pack(12, kind, value, chosen)


def put_text(kind: int, value: str) -> bytes:
    """Return an attribute of text with its zero byte."""
    return put(kind, value.encode() + b"\0")


def bits_of(payload: bytes, valid: int, *, words: bool = True) -> tuple[int, int]:
    """Return value and selector of a ``nla_bitfield32``.

    Raises:
        Rejected: It is of another length, has bits that nobody knows, or bits that it does not choose.
    """
    if len(payload) != 8:
        raise Rejected(errno.ERANGE, "Attribute failed policy validation" if words else "")
    value, chosen = _U32.unpack_from(payload)[0], _U32.unpack_from(payload, 4)[0]
    if chosen & ~valid or value & ~valid or value & ~chosen:
        raise Rejected(errno.EINVAL, "Attribute failed policy validation" if words else "")
    return value, chosen
