"""Netlink as the kernel's side speaks it: messages taken apart, answers and acknowledgements put together.

Written from linux/netlink.h and lib/nlattr.c alone: it shares nothing with the encoder that it is there to check.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
REQUEST, MULTI, ACK, DUMP = 0x1, 0x2, 0x4, 0x300
_CAPPED, _TLVS = 0x100, 0x200
_ERROR, _DONE = 2, 3
_FIRST_KIND = 0x10
_NESTED, _KIND_BITS = 0x8000, 0x3FFF
_MESSAGE = 1
_DATAGRAM_BYTES = 16384


class RejectedError(Exception):
    """A request that the kernel answers with an errno.

    Args:
        number: The errno, positive.
        text: The kernel's own words (extack); empty where it has none.
    """

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(f"{errno.errorcode.get(number, number)} {text}")
        self.number = number
        self.text = text


@dataclass(frozen=True, slots=True)
class Request:
    """One message from a user.

    Args:
        kind: Its type.
        flags: Its flags.
        sequence: Its number.
        payload: What follows the header.
    """

    kind: int
    flags: int
    sequence: int
    payload: bytes

    @property
    def is_dump(self) -> bool:
        """Whether it asks for everything."""
        return self.flags & DUMP == DUMP


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request is answered with, beside its acknowledgement.

    Args:
        messages: Each with its type and what follows the header.
        text: Words that come with success (extack of a warning).
    """

    messages: tuple[tuple[int, bytes], ...] = ()
    text: str = ""


def serve(datagram: bytes, handle: Callable[[Request], Reply]) -> list[bytes]:
    """Return the datagrams that answer one (netlink_rcv_skb).

    Args:
        datagram: One message or several; what follows a length that is none is left alone.
        handle: Answers a message, or raises `RejectedError`.
    """
    out: list[bytes] = []
    for request, raw in _requests(datagram):
        if not request.flags & REQUEST or request.kind < _FIRST_KIND:
            if request.flags & ACK:
                out.append(_acknowledge(raw, 0, ""))
            continue
        try:
            reply = handle(request)
        except RejectedError as refused:
            out.append(_acknowledge(raw, refused.number, refused.text))
            continue
        if request.is_dump:
            out += _dump(request, reply.messages)
            continue
        out += [_message(kind, 0, request.sequence, payload) for kind, payload in reply.messages]
        if request.flags & ACK:
            out.append(_acknowledge(raw, 0, reply.text))
    return out


def _requests(datagram: bytes) -> Iterator[tuple[Request, bytes]]:
    start = 0
    while len(datagram) - start >= HEADER.size:
        length, kind, flags, sequence, _ = HEADER.unpack_from(datagram, start)
        if length < HEADER.size or length > len(datagram) - start:
            return
        raw = datagram[start : start + length]
        yield Request(kind, flags, sequence, raw[HEADER.size :]), raw
        start += length + 3 & ~3


def _dump(request: Request, messages: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    batch = b""
    for kind, payload in messages:
        one = _message(kind, MULTI, request.sequence, payload)
        if batch and len(batch) + len(one) > _DATAGRAM_BYTES:
            yield batch
            batch = b""
        batch += one
    if batch:
        yield batch
    yield _message(_DONE, MULTI, request.sequence, bytes(4))


def _acknowledge(raw: bytes, number: int, text: str) -> bytes:
    """Return an acknowledgement as a socket with NETLINK_CAP_ACK and NETLINK_EXT_ACK gets it (netlink_ack)."""
    words = string(_MESSAGE, text) if text else b""
    flags = _CAPPED | (_TLVS if words else 0)
    sequence = HEADER.unpack_from(raw)[3]
    return _message(_ERROR, flags, sequence, struct.pack("=i", -number) + raw[: HEADER.size] + words)


def _message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    size = HEADER.size + len(payload)
    return HEADER.pack(size, kind, flags, sequence, 0) + payload + bytes(-size % 4)


def notification(kind: int, payload: bytes) -> bytes:
    """Return a datagram of one message that nobody asked for."""
    return _message(kind, 0, 0, payload)


# Attributes -----------------------------------------------------------------------------------------------------------


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nest(kind: int, *inner: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(inner))


def string(kind: int, text: str) -> bytes:
    """Return an attribute with a text."""
    return attribute(kind, text.encode() + b"\0")


def number(kind: int, value: int, size: int) -> bytes:
    """Return an attribute with a number of so many bytes."""
    return attribute(kind, value.to_bytes(size, sys.byteorder))


TEXT, NEST, BINARY = "text", "nest", "binary"
Policy = Mapping[int, int | str]
"""What a command takes: kind to bytes of a number, or `TEXT`, `NEST`, `BINARY`."""


def parse(data: bytes, policy: Policy) -> dict[int, bytes]:
    """Return attributes by kind, as a family reads them that does not validate strictly (nla_parse_deprecated).

    What the policy does not name is passed over, and of two of one kind the last counts.

    Args:
        data: What holds them.
        policy: What is taken.

    Raises:
        RejectedError: ERANGE: one is too short; EINVAL: a text has no end.
    """
    found: dict[int, bytes] = {}
    start = 0
    while len(data) - start >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size or length > len(data) - start:
            break
        kind &= _KIND_BITS
        form = policy.get(kind)
        if form is not None:
            found[kind] = _checked(form, data[start + _ATTRIBUTE.size : start + length])
        start += length + 3 & ~3
    return found


def _checked(form: int | str, payload: bytes) -> bytes:
    if isinstance(form, int):
        if len(payload) < form:
            raise RejectedError(errno.ERANGE, "Attribute failed policy validation")
        return payload[:form]
    if form == TEXT and b"\0" not in payload:
        raise RejectedError(errno.EINVAL, "Attribute failed policy validation")
    return payload


def text_of(payload: bytes) -> str:
    """Return the text of an attribute."""
    return payload.split(b"\0", 1)[0].decode("utf-8", "replace")


def number_of(payload: bytes) -> int:
    """Return the number of an attribute."""
    return int.from_bytes(payload, sys.byteorder)
