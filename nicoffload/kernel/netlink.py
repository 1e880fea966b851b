"""Netlink messages: requests, dumps, and batches of thousands that still say which message failed and why."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from nicoffload.errors import DeviceBusyError, KernelError, NicOffloadError, from_errno
from nicoffload.kernel.attributes import Buffer, MalformedError, parse, string
from nicoffload.kernel.seam import Kernel, NetlinkChannel

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_ECHO = 0x8
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3
_NLMSG_OVERRUN = 4
_NLMSGERR_ATTR_MSG = 1

HEADER = struct.Struct("=IHHII")
"""Length, type, flags, sequence number, port."""
_ERRNO = struct.Struct("=i")

ANSWER_TIMEOUT_S = 30.0
"""The kernel answers a request before ``send`` returns; a longer wait means that the answer is lost."""
MAX_DUMP_BYTES = 2 << 30
_DUMP_ATTEMPTS = 16
_MAX_SEQUENCE = 0xFFFF_FFFF
_MAX_DRAINED = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRefusal:
    """How the kernel refused one message.

    Args:
        errno: Positive; 0 where it only gave a warning.
        text: The kernel's own words (extack); empty where it had none.
    """

    errno: int
    text: str = ""

    def error(self, message: str, *, capability: str, device: str = "", path: str = "") -> NicOffloadError:
        """Return the SDK's error for it; see `nicoffload.errors.from_errno`."""
        return from_errno(
            self.errno, message, capability=capability, device=device, path=path, kernel_message=self.text
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message from the kernel.

    Args:
        kind: Its type.
        flags: Its flags.
        sequence: Number of the request that it answers.
        payload: What follows the header.
    """

    kind: int
    flags: int
    sequence: int
    payload: Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAnswer:
    """What the kernel answered to a batch.

    Args:
        refusals: Sequence number to refusal; a message that is not here succeeded.
        replies: Messages that came back (with `NLM_F_ECHO`).
        warnings: Sequence number to what the kernel said (extack) of a message that it took all the same. It says so
            only in an acknowledgement, so of a batch at most the last message has one.
    """

    refusals: dict[int, KernelRefusal]
    replies: Sequence[Message]
    warnings: dict[int, str] = field(default_factory=dict)


def encode(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Return one message."""
    return HEADER.pack(HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def messages(datagram: Buffer) -> Iterator[Message]:
    """Yield the messages of a datagram.

    Raises:
        MalformedError: A length is shorter than a header or longer than what is left.
    """
    start, limit = 0, len(datagram)
    while limit - start >= HEADER.size:
        length, kind, flags, sequence, _ = HEADER.unpack_from(datagram, start)
        if length < HEADER.size or length > limit - start:
            raise MalformedError(f"a message claims {length} of {limit - start} bytes")
        payload = datagram[start + HEADER.size : start + length]
        yield Message(kind=kind, flags=flags, sequence=sequence, payload=payload)
        start += length + 3 & ~3


def refusal(message: Message) -> KernelRefusal:
    """Return what an NLMSG_ERROR (errno 0: an acknowledgement) or an NLMSG_DONE says.

    Raises:
        MalformedError: It is cut short.
    """
    if len(message.payload) < _ERRNO.size:
        raise MalformedError("an acknowledgement without an errno")
    number = _ERRNO.unpack_from(message.payload)[0]
    if not -4095 <= number <= 0:
        raise MalformedError(f"{number} is no errno")
    text = ""
    if message.flags & _NLM_F_ACK_TLVS:
        start = _ERRNO.size
        if message.kind == NLMSG_ERROR:
            start += HEADER.size
            if not message.flags & _NLM_F_CAPPED and number:  # the request follows
                start = _ERRNO.size + _echoed_bytes(message.payload)
        if start > len(message.payload):
            raise MalformedError("an acknowledgement is cut short")
        found = parse(message.payload, start).get(_NLMSGERR_ATTR_MSG)
        text = string(found) if found is not None else ""
    return KernelRefusal(errno=-number, text=text)


def _echoed_bytes(payload: Buffer) -> int:
    if len(payload) < _ERRNO.size + HEADER.size:
        raise MalformedError("an acknowledgement is cut short")
    length: int = HEADER.unpack_from(payload, _ERRNO.size)[0]
    return length + 3 & ~3


class Netlink:
    """A netlink socket with numbered requests. Of one thread.

    Args:
        kernel: Where to open it.
        family: `NETLINK_ROUTE` or `NETLINK_GENERIC`.
        device: Named in errors.
    """

    def __init__(self, kernel: Kernel, family: int, *, device: str = "") -> None:
        self._kernel, self._family = kernel, family
        self._channel = kernel.open_netlink(family)
        self._sequence = 0
        self._device = device

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket. Repeatable."""
        self._channel.close()

    def listen(self, group: int) -> NetlinkChannel:
        """Return another socket of the same family that hears a multicast group; the caller closes it.

        It is of the namespace that this thread is in now.

        Raises:
            OSError: It can't be had.
        """
        channel = self._kernel.open_netlink(self._family)
        try:
            channel.join(group)
        except BaseException:
            channel.close()
            raise
        return channel

    def reserve(self, count: int) -> int:
        """Return the first of `count` sequence numbers in a row, none of them 0."""
        if self._sequence + count > _MAX_SEQUENCE:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += count
        return first

    def request(self, kind: int, flags: int, payload: bytes) -> tuple[KernelRefusal | None, list[Message]]:
        """Send one message and wait for its acknowledgement.

        Returns:
            The refusal, or None; and the messages that came before the acknowledgement.

        Raises:
            KernelError: The answer is lost or malformed.
        """
        sequence = self.reserve(1)
        answer = self.batch(encode(kind, flags | NLM_F_REQUEST | NLM_F_ACK, sequence, payload), sequence)
        return answer.refusals.get(sequence), list(answer.replies)

    def batch(self, data: bytes | memoryview, last: int) -> BatchAnswer:
        """Send many messages at once, of which only the last asks for an acknowledgement.

        The kernel works on all of them, one after the other, and answers each that fails, asked or not. So every
        refusal ends at its own message, and the acknowledgement of the last one says that there are no more.

        What is left of the answer to an earlier request is passed over.

        Args:
            data: The messages, with sequence numbers of `reserve` in a row, each a multiple of 4 bytes long.
            last: Sequence number of the last one, which has `NLM_F_ACK`.

        Raises:
            KernelError: The answer is lost or malformed; what succeeded has to be read back.
        """
        refusals: dict[int, KernelRefusal] = {}
        replies: list[Message] = []
        warnings: dict[int, str] = {}
        first: int = HEADER.unpack_from(data)[3]
        try:
            self._channel.send(data)
            while True:
                for message in messages(self._channel.receive(ANSWER_TIMEOUT_S)):
                    if not first <= message.sequence <= last:
                        continue
                    if message.kind == NLMSG_ERROR:
                        found = refusal(message)
                        if found.errno:
                            refusals[message.sequence] = found
                        elif found.text:
                            warnings[message.sequence] = found.text
                        if message.sequence == last:
                            return BatchAnswer(refusals=refusals, replies=replies, warnings=warnings)
                    else:
                        replies.append(message)
        except NicOffloadError:
            raise
        except OSError as cause:
            self._drain()
            raise self._lost(cause) from cause

    def dump(self, kind: int, payload: bytes, *, capability: str) -> list[bytes]:
        """Return the datagrams of a dump, which begin and end between messages.

        A dump that a change interrupts is begun anew, so that nothing is missing and nothing twice.

        Args:
            kind: Type of the request.
            payload: What follows the header.
            capability: For `NotSupportedError`.

        Raises:
            NicOffloadError: The kernel refuses, or `DeviceBusyError`: it was interrupted again and again.
        """
        for _ in range(_DUMP_ATTEMPTS):
            sequence = self.reserve(1)
            found = self._dump_once(
                encode(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, payload), sequence, capability
            )
            if found is not None:
                return found
        raise DeviceBusyError(f"a dump was interrupted {_DUMP_ATTEMPTS} times", device=self._device)

    def _dump_once(self, request: bytes, sequence: int, capability: str) -> list[bytes] | None:
        """Return the datagrams; None when the dump was interrupted."""
        datagrams: list[bytes] = []
        size = 0
        interrupted = False
        try:
            self._channel.send(request)
            while True:
                datagram = self._channel.receive(ANSWER_TIMEOUT_S)
                first, flags, end = _look(datagram, sequence)
                if not first:
                    continue  # what is left of a dump that was given up
                interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                size += len(datagram)
                if size > MAX_DUMP_BYTES:
                    raise MalformedError(f"a dump is longer than {MAX_DUMP_BYTES} bytes")
                if end is not None:
                    if end.errno:
                        raise end.error("a dump failed", capability=capability, device=self._device)
                    datagrams.append(datagram)
                    return None if interrupted else datagrams
                datagrams.append(datagram)
        except NicOffloadError:
            raise
        except OSError as cause:
            self._drain()
            raise self._lost(cause) from cause

    def _drain(self) -> None:
        """Read what waits, and forget it.

        A socket that overflowed takes no message more until it is empty (af_netlink.c:netlink_rcv_wake), so the next
        answer would be lost as well.
        """
        for _ in range(_MAX_DRAINED):
            try:
                self._channel.receive(0)
            except TimeoutError:
                return
            except OSError:  # the overflow is told once more
                continue

    def _lost(self, cause: OSError) -> KernelError:
        return KernelError(
            f"the kernel's answer is lost: {cause.strerror or cause}",
            device=self._device,
            errno=cause.errno,
            hint="read back what is there, and repeat what is missing",
        )


def _look(datagram: bytes, sequence: int) -> tuple[bool, int, KernelRefusal | None]:
    """Return whether a datagram belongs to a dump, the flags of its messages, and its end where it has one."""
    flags = 0
    start, limit = 0, len(datagram)
    while limit - start >= HEADER.size:
        length, kind, its_flags, its_sequence, _ = HEADER.unpack_from(datagram, start)
        if length < HEADER.size or length > limit - start:
            raise MalformedError(f"a message claims {length} of {limit - start} bytes")
        if its_sequence != sequence:
            return False, 0, None
        flags |= its_flags & NLM_F_DUMP_INTR
        if kind in {NLMSG_ERROR, NLMSG_DONE}:
            end = Message(
                kind=kind,
                flags=its_flags,
                sequence=its_sequence,
                payload=datagram[start + HEADER.size : start + length],
            )
            return True, flags, refusal(end)
        if kind == _NLMSG_OVERRUN:
            flags |= NLM_F_DUMP_INTR
        start += length + 3 & ~3
    return True, flags, None
