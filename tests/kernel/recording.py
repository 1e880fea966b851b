"""A kernel that answers netlink, the ioctl and sysfs as a test says, and records every byte it was sent."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.seam import Kernel, NetlinkChannel, OpenFiles, Sighting

EthtoolAnswer = Callable[[bytes], bytes]


class RecordingChannel(NetlinkChannel):
    """A netlink socket that answers each datagram by script.

    Args:
        answers: Called with each datagram that is sent; returns the datagrams to receive.
        sent: Where what is sent is recorded.
    """

    def __init__(self, answers: Callable[[bytes], Iterable[bytes]], sent: list[bytes]) -> None:
        self._answers = answers
        self._sent = sent
        self._waiting: deque[bytes] = deque()
        self.closed = False

    def send(self, data: bytes | bytearray | memoryview) -> None:
        self._sent.append(bytes(data))
        self._waiting.extend(self._answers(bytes(data)))

    def receive(self, timeout_s: float | None = None) -> bytes:
        if not self._waiting:
            raise TimeoutError(errno.ETIMEDOUT, "the script has no answer")
        return self._waiting.popleft()

    def join(self, group: int) -> None:
        pass  # nothing happens but what the test asks for

    def fileno(self) -> int:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def _silent(_: bytes) -> Sequence[bytes]:
    return ()


def _no_driver(_: bytes) -> bytes:
    raise refusal(errno.EOPNOTSUPP)


def refusal(number: int) -> OSError:
    """Return what the operating system raises for an errno."""
    return OSError(number, os.strerror(number))


class RecordingKernel(Kernel):
    """A kernel whose answers a test gives.

    Args:
        netlink: Called with each datagram; returns the datagrams that answer it.
        ethtool: Called with each buffer; returns the buffer that comes back, or raises OSError.
        sysfs: A folder that stands for sysfs.
    """

    def __init__(
        self,
        *,
        netlink: Callable[[bytes], Iterable[bytes]] = _silent,
        ethtool: EthtoolAnswer = _no_driver,
        sysfs: str = "/nonexistent",
    ) -> None:
        self._netlink = netlink
        self._ethtool = ethtool
        self._files = LinuxKernel(sysfs)
        self.sent: list[bytes] = []
        """What went through netlink sockets."""
        self.ioctls: list[bytes] = []
        """What went through the ioctl."""
        self.written: list[tuple[str, bytes]] = []
        """What was written below sysfs."""
        self.processes: list[OpenFiles] = []
        """Who has what open."""
        self.busy_files: set[str] = set()
        """Device files that are open, by whomever."""

    def open_netlink(self, family: int) -> NetlinkChannel:
        return RecordingChannel(self._netlink, self.sent)

    def ethtool(self, ifname: str, buffer: bytes) -> bytes:
        self.ioctls.append(buffer)
        answer = self._ethtool(buffer)
        assert len(answer) == len(buffer)
        return answer

    def read_sysfs(self, path: str) -> bytes:
        return self._files.read_sysfs(path)

    def write_sysfs(self, path: str, data: bytes) -> None:
        self.written.append((path, data))
        self._files.write_sysfs(path, data)

    def list_sysfs(self, path: str) -> Sequence[str]:
        return self._files.list_sysfs(path)

    def readlink_sysfs(self, path: str) -> str:
        return self._files.readlink_sysfs(path)

    def sightings(self) -> Sequence[Sighting]:
        return []

    def open_files(self) -> Sequence[OpenFiles]:
        return self.processes

    def is_busy(self, device_file: str) -> bool:
        return device_file in self.busy_files

    def namespace(self, path: str) -> AbstractContextManager[Kernel]:
        return nullcontext(self)
