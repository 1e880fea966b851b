"""Netlink messages as the kernel frames them: acknowledgements, refusals, dumps."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nicoffload.testing.fake_kernel.route.wire import Rejected, put_text

NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_ECHO = 1, 2, 4, 8
NLM_F_DUMP = NLM_F_REPLACE = 0x100
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
_NLM_F_DUMP_BITS = 0x300
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSG_ERROR, _NLMSG_DONE, NLMSG_MIN_TYPE = 2, 3, 0x10
_ATTR_MSG = 1
HEADER = struct.Struct("=IHHII")
_DUMP_BYTES = 32 * 1024
"""Most of a dump that one datagram holds (af_netlink.c:netlink_recvmsg bounds it so)."""


@dataclass(frozen=True, slots=True)
class Request:
    """One message to the kernel.

    Args:
        kind: Its type.
        flags: Its flags.
        sequence: Its number.
        port: The sender's port.
        payload: What follows the header.
        header: The header as it was sent.
    """

    kind: int
    flags: int
    sequence: int
    port: int
    payload: bytes
    header: bytes

    @property
    def wants_dump(self) -> bool:
        """Whether it asks for all there is, if it is one that reads."""
        return bool(self.flags & _NLM_F_DUMP_BITS)

    def reply(self, kind: int, payload: bytes, flags: int = 0) -> bytes:
        """Return a message that answers it."""
        return HEADER.pack(HEADER.size + len(payload), kind, flags, self.sequence, self.port) + payload


def requests(datagram: bytes) -> Iterator[Request]:
    """Yield the messages of a datagram; stops at what is none (``netlink_rcv_skb``)."""
    start, limit = 0, len(datagram)
    while limit - start >= HEADER.size:
        length, kind, flags, sequence, port = HEADER.unpack_from(datagram, start)
        if length < HEADER.size or length > limit - start:
            return
        body = start + HEADER.size
        yield Request(kind, flags, sequence, port, datagram[body : start + length], datagram[start:body])
        start += length + 3 & ~3


def acknowledgement(request: Request, refused: Rejected | None, warning: str = "") -> bytes:
    """Return an NLMSG_ERROR, capped and with the kernel's words, as a socket with both options gets it."""
    text = warning if refused is None else refused.text
    words = put_text(_ATTR_MSG, text) if text else b""
    flags = _NLM_F_CAPPED | (_NLM_F_ACK_TLVS if words else 0)
    number = 0 if refused is None else refused.number
    return request.reply(_NLMSG_ERROR, struct.pack("=i", -number) + request.header + words, flags)


def dump(request: Request, parts: Iterable[bytes]) -> list[bytes]:
    """Return the datagrams of a dump, which begin and end between messages.

    Args:
        request: What asked for it.
        parts: The messages; a `Rejected` among them ends the dump with its errno.
    """
    datagrams: list[bytes] = []
    held: list[bytes] = []
    size = 0
    refused: Rejected | None = None
    try:
        for message in parts:
            padded = message + b"\0" * (-len(message) % 4)
            if size and size + len(padded) > _DUMP_BYTES:
                datagrams.append(b"".join(held))
                held, size = [], 0
            held.append(padded)
            size += len(padded)
    except Rejected as answer:
        refused = answer
    if held:
        datagrams.append(b"".join(held))
    words = put_text(_ATTR_MSG, refused.text) if refused is not None and refused.text else b""
    number = 0 if refused is None else refused.number
    flags = NLM_F_MULTI | (_NLM_F_ACK_TLVS if words else 0)
    datagrams.append(request.reply(_NLMSG_DONE, struct.pack("=i", -number) + words, flags))
    return datagrams


def header_too_short() -> Rejected:
    """Return the refusal of a message without its family's header."""
    return Rejected(errno.EINVAL, "Invalid header length")
