"""A kernel that answers from a script and keeps the bytes that it is sent."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from nicoffload.kernel.seam import Kernel, NetlinkChannel

Answer = Callable[[bytes], Iterable[bytes]]


class ScriptedChannel(NetlinkChannel):
    """Answers each datagram with those that the script returns."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._waiting: list[bytes] = []
        self.sent: list[bytes] = []

    def send(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))
        self._waiting += self._answer(bytes(data))

    def receive(self, timeout_s: float | None = None) -> bytes:
        if not self._waiting:
            raise TimeoutError(110, "no answer from the kernel")
        return self._waiting.pop(0)

    def join(self, group: int) -> None:
        pass  # nothing happens but what the test asks for

    def fileno(self) -> int:
        raise NotImplementedError

    def close(self) -> None:
        pass


class ScriptedKernel(Kernel):
    """A kernel with one netlink channel and nothing else."""

    def __init__(self, answer: Answer) -> None:
        self.channel = ScriptedChannel(answer)

    def open_netlink(self, family: int) -> NetlinkChannel:
        return self.channel

    def ethtool(self, ifname: str, buffer: bytes) -> bytes:
        raise NotImplementedError

    def read_sysfs(self, path: str) -> bytes:
        raise NotImplementedError

    def write_sysfs(self, path: str, data: bytes) -> None:
        raise NotImplementedError

    def list_sysfs(self, path: str) -> list[str]:
        raise NotImplementedError

    def readlink_sysfs(self, path: str) -> str:
        raise NotImplementedError

    def sightings(self):
        raise NotImplementedError

    def open_files(self):
        raise NotImplementedError

    def is_busy(self, device_file: str) -> bool:
        raise NotImplementedError

    def namespace(self, path: str):
        raise NotImplementedError


def acknowledge(data: bytes) -> list[bytes]:
    """Return an acknowledgement for each message that asks for one."""
    out, start = [], 0
    while start < len(data):
        length, _, flags, sequence, _ = struct.unpack_from("=IHHII", data, start)
        if flags & 0x4:
            out.append(error(0, sequence))
        start += length + 3 & ~3
    return out


def error(errno: int, sequence: int, text: str = "") -> bytes:
    """Return an NLMSG_ERROR, with the kernel's words where there are some."""
    words = text.encode() + b"\0"
    tlv = struct.pack("=HH", 4 + len(words), 1) + words + bytes(-len(words) % 4) if text else b""
    body = struct.pack("=i", -errno) + struct.pack("=IHHII", 16, 44, 0, sequence, 0) + tlv
    return message(2, 0x100 | (0x200 if text else 0), sequence, body)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """Return one message."""
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body
