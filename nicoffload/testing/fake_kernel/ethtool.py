"""The ioctl SIOCETHTOOL of the fake kernel: which command goes where."""

from __future__ import annotations

import enum
import errno
import struct
from collections.abc import Callable

from nicoffload.testing.fake_kernel import classifier
from nicoffload.testing.fake_kernel.errnos import refusal
from nicoffload.testing.fake_kernel.features import Features
from nicoffload.testing.fake_kernel.netdevs import queue_count
from nicoffload.testing.fake_kernel.world import FakeNetdev, NetdevKind, Watcher, World


class Command(enum.IntEnum):
    """Commands, by the names of linux/ethtool.h."""

    GDRVINFO = 0x03
    GLINK = 0x0A
    GSTRINGS = 0x1B
    GSSET_INFO = 0x37
    GFEATURES = 0x3A
    SFEATURES = 0x3B
    GCHANNELS = 0x3C


_CLASSIFIER = range(classifier.GRXRINGS, classifier.SRXCLSRLINS + 1)
_SET_OF_FEATURES = 4
_COMMAND = struct.Struct("=I")
_INFO = struct.Struct("=IIQ")
_STRINGS = struct.Struct("=III")
_NAMES = struct.Struct("=I32s32s32s32s")
_CHANNELS = struct.Struct("=9I")


class Ethtool(Watcher):
    """The commands.

    Args:
        world: Whose network devices.
        offloaded: Returns how many filters of tc a device has in hardware.
    """

    def __init__(self, world: World, offloaded: Callable[[FakeNetdev], int]) -> None:
        self._world = world
        self._features = Features(world, offloaded)
        self._commands: dict[int, Callable[[FakeNetdev, bytes], bytes]] = {
            Command.GDRVINFO: _driver,
            Command.GLINK: _link,
            Command.GSTRINGS: self._strings,
            Command.GSSET_INFO: self._sets,
            Command.GFEATURES: self._features.get,
            Command.SFEATURES: self._features.set,
            Command.GCHANNELS: _channels,
        }
        world.watch(self)

    def netdev_gone(self, netdev: FakeNetdev) -> None:
        """Forget what was wished of it."""
        self._features.forget(netdev)

    def answer(self, ifname: str, buffer: bytes) -> bytes:
        """Return the buffer as the command leaves it.

        Raises:
            OSError: ENODEV: no such device; EOPNOTSUPP: no such command; or as the driver refuses.
        """
        netdev = self._world.netdev_named(ifname)
        if netdev is None:
            raise refusal(errno.ENODEV)
        if len(buffer) < _COMMAND.size:
            raise refusal(errno.EFAULT)
        command = _COMMAND.unpack_from(buffer)[0]
        if command in _CLASSIFIER:
            return classifier.answer(netdev, command, buffer)
        if command not in self._commands:
            raise refusal(errno.EOPNOTSUPP)
        try:
            return _over(buffer, self._commands[command](netdev, buffer))
        except struct.error as cause:  # the command's structure is longer than what was given
            raise refusal(errno.EFAULT) from cause

    def _sets(self, _: FakeNetdev, buffer: bytes) -> bytes:
        command, reserved, asked = _INFO.unpack_from(buffer)
        known = asked & 1 << _SET_OF_FEATURES
        head = _INFO.pack(command, reserved, known)
        return head + (struct.pack("=I", self._features.count) if known else b"")

    def _strings(self, _: FakeNetdev, buffer: bytes) -> bytes:
        command, which, _ = _STRINGS.unpack_from(buffer)
        if which != _SET_OF_FEATURES:
            raise refusal(errno.EOPNOTSUPP)
        return _STRINGS.pack(command, which, self._features.count) + self._features.names()


def _link(netdev: FakeNetdev, _: bytes) -> bytes:
    return struct.pack("=II", Command.GLINK, int(netdev.up))


def _driver(netdev: FakeNetdev, _: bytes) -> bytes:
    if netdev.nic is None:
        raise refusal(errno.EOPNOTSUPP)
    profile = netdev.nic.profile
    name = profile.vf_driver if netdev.kind is NetdevKind.VF else profile.driver
    return _NAMES.pack(Command.GDRVINFO, (name or "").encode(), b"6.12.0", b"", netdev.pci_address.encode())


def _channels(netdev: FakeNetdev, _: bytes) -> bytes:
    if netdev.nic is None or netdev.kind is NetdevKind.REPRESENTOR:
        raise refusal(errno.EOPNOTSUPP)
    queues = queue_count(netdev)
    return _CHANNELS.pack(Command.GCHANNELS, 0, 0, 0, queues, 0, 0, 0, queues)


def _over(buffer: bytes, answer: bytes) -> bytes:
    """Return an answer laid over the buffer that asked; what has no room in it is lost, as user memory would be."""
    return answer[: len(buffer)] + buffer[len(answer) :]
