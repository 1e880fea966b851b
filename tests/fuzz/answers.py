"""A kernel that answers as it is told: what a decoder is fed through."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Mapping, Sequence

from nicoffload.kernel.attributes import Buffer
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.seam import NetlinkChannel, Sighting

ADDRESS = "0000:01:00.0"


class Channel(NetlinkChannel):
    """A socket on which one datagram comes, whatever was asked."""

    def __init__(self, datagrams: Iterable[bytes]) -> None:
        self.waiting = list(datagrams)[::-1]
        self._pipe = os.eventfd(1)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def receive(self, timeout_s: float | None = None) -> bytes:
        if not self.waiting:
            raise TimeoutError(errno.ETIMEDOUT, "no more")
        return self.waiting.pop()

    def join(self, group: int) -> None:
        pass

    def fileno(self) -> int:
        return self._pipe

    def close(self) -> None:
        os.close(self._pipe)


class Answers(LinuxKernel):
    """A kernel that answers as it is told.

    Args:
        netlink: Datagrams, to whatever is asked.
        ioctl: Command to what stands in the buffer afterwards, cut or filled to its length.
        files: Contents below sysfs.
        links: Links below sysfs.
    """

    def __init__(
        self,
        *,
        netlink: Iterable[bytes] = (),
        ioctl: Mapping[int, bytes] | None = None,
        files: Mapping[str, bytes] | None = None,
        links: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__("/nonexistent")
        self._datagrams = netlink
        self._ioctl = ioctl or {}
        self._files = files or {}
        self._links = links or {}

    def open_netlink(self, family: int) -> NetlinkChannel:
        return Channel(self._datagrams)

    def ethtool(self, ifname: str, buffer: bytes) -> bytes:
        answer = self._ioctl[struct.unpack_from("=I", buffer)[0]]
        return answer[: len(buffer)].ljust(len(buffer), b"\0")

    def read_sysfs(self, path: str) -> bytes:
        return _found(self._files, path)

    def list_sysfs(self, path: str) -> Sequence[str]:
        names = [name for name in (*self._files, *self._links) if name.startswith(f"{path}/")]
        return sorted({name[len(path) + 1 :].split("/")[0] for name in names})

    def readlink_sysfs(self, path: str) -> str:
        return _found(self._links, path)

    def sightings(self) -> Sequence[Sighting]:
        return [Sighting(pci_address=ADDRESS), Sighting(pci_address=ADDRESS, ifname="nic0")]


def _found(files: Mapping[str, Buffer], path: str) -> Buffer:
    if path not in files:
        raise FileNotFoundError(errno.ENOENT, path)
    return files[path]


def answered(message: bytes) -> bytes:
    """Return the message as the answer to a socket's first request."""
    return message[:8] + struct.pack("=I", 1) + message[12:]


def done() -> bytes:
    """Return the end of a dump that is a socket's first request."""
    return struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)


def acknowledgement() -> bytes:
    """Return the kernel's yes to a socket's first request."""
    return struct.pack("=IHHIIi", 36, 2, 0x100, 1, 0, 0) + bytes(16)
