"""A kernel, real or fake, with devices of known roles, that is sent bytes; what it answers becomes lines of text.

The same lines from both kernels are the proof that the fake answers as Linux does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from nicoffload.errors import errno_name
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel
from tests.fake_kernel import tlv

REQUEST, ACK, ECHO, DUMP = 0x1, 0x4, 0x8, 0x300
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
NEW = CREATE | EXCL
NEWQDISC, DELQDISC, GETQDISC = 36, 37, 38
NEWTFILTER, DELTFILTER, GETTFILTER = 44, 45, 46
INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
IP, IPV6, ALL = 0x0800, 0x86DD, 3
_ERROR, _DONE = 2, 3
_TIMEOUT_S = 20.0


def number(value: int) -> bytes:
    return struct.pack("=I", value)


def be16(value: int) -> bytes:
    return struct.pack(">H", value)


class Stage:
    """One kernel, and what came of each request to it.

    Args:
        kernel: Real or fake.
        devices: Role to number of the device.
    """

    def __init__(self, kernel: Kernel, devices: Mapping[str, int]) -> None:
        self._channel = kernel.open_netlink(NETLINK_ROUTE)
        self._roles = {ifindex: place for place, ifindex in enumerate(devices.values(), 1)}
        self._sequence = 0
        self.devices = devices
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def ask(self, label: str, kind: int, flags: int, payload: bytes) -> str:
        """Send one request, note the answer, and return it: ``ok``, or an errno with the kernel's words."""
        replies, answer = self.exchange(kind, flags | ACK, payload)
        self.lines.append(f"{label}: {answer}")
        self.lines += [f"{label} > {self.neutral(reply)}" for reply in replies]
        return answer

    def dump(self, label: str, kind: int, payload: bytes) -> None:
        """Ask for a dump, and note what came and how it ended."""
        replies, answer = self.exchange(kind, DUMP, payload)
        self.lines += [f"{label} > {self.neutral(reply)}" for reply in replies]
        self.lines.append(f"{label}: {answer}")

    def qdisc(
        self,
        device: str,
        kind: str = "clsact",
        handle: int = 0xFFFF0000,
        parent: int = 0xFFFFFFF1,
        extra: bytes = b"",
    ) -> bytes:
        head = struct.pack("=BxxxiIII", 0, self.devices[device], handle, parent, 0)
        return head + (tlv.join([(1, kind.encode() + b"\0")]) if kind else b"") + extra

    def filter(
        self,
        device: str,
        kind: str = "flower",
        options: bytes | None = None,
        *,
        pref: int = 1,
        handle: int = 0,
        protocol: int = IP,
        parent: int = INGRESS,
        chain: int | None = None,
    ) -> bytes:
        info = pref << 16 | int.from_bytes(protocol.to_bytes(2, "big"), "little")
        parts = [(1, kind.encode() + b"\0")] if kind else []
        if chain is not None:
            parts.append((11, number(chain)))
        if options is not None:
            parts.append((2, options))
        head = struct.pack("=BxxxiIII", 0, self.devices.get(device, -1), handle, parent, info)
        return head + tlv.join(parts)

    def neutral(self, payload: bytes) -> str:
        """Return what a message says that is the same on every machine, in hexadecimal; nothing of a foreign device."""
        return tlv.named(payload, self._roles).hex()

    def exchange(self, kind: int, flags: int, payload: bytes) -> tuple[list[bytes], str]:
        """Send one request; return what came back, and how it ended."""
        self._sequence += 1
        head = struct.pack("=IHHII", 16 + len(payload), kind, flags | REQUEST, self._sequence, 0)
        self._channel.send(head + payload)
        replies: list[bytes] = []
        while True:
            for its_kind, its_flags, body in _messages(self._channel.receive(_TIMEOUT_S)):
                if its_kind in {_ERROR, _DONE}:
                    return replies, _said(its_kind, its_flags, body)
                if struct.unpack_from("=i", body, 4)[0] in {*self._roles, -1}:
                    replies.append(body)


def _messages(datagram: bytes) -> Iterable[tuple[int, int, bytes]]:
    start = 0
    while start < len(datagram):
        length, kind, flags = struct.unpack_from("=IHH", datagram, start)
        yield kind, flags, datagram[start + 16 : start + length]
        start += length + 3 & ~3


def _said(kind: int, flags: int, body: bytes) -> str:
    code = -struct.unpack_from("=i", body)[0]
    words = ""
    if flags & 0x200:
        found = dict(tlv.split(body[20 if kind == _ERROR else 4 :]))
        words = tlv.text(found.get(1, b""))
    name = errno_name(code) if code else "ok"
    return f"{name} {words}".strip()
