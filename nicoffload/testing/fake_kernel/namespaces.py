"""Network namespaces of the fake kernel: which devices are where, and what a move takes along (net/core/dev.c)."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from nicoffload.testing.fake_kernel.errnos import refusal
from nicoffload.testing.fake_kernel.world import FakeNetdev, Namespace, NetdevKind, World

_FOLDER = "/run/netns/"
_OWN = frozenset({"/proc/self/ns/net", "/proc/thread-self/ns/net"})


class Namespaces:
    """Those that have a name.

    Args:
        world: Whose network devices.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._named: dict[str, Namespace] = {}

    def names(self) -> Sequence[str]:
        """Return the names, sorted."""
        return sorted(self._named)

    def at(self, path: str) -> Namespace:
        """Return a namespace by its file.

        Raises:
            OSError: ENOENT: there is none.
        """
        found = self._world.here if path in _OWN else self._named.get(path.removeprefix(_FOLDER))
        if found is None or (path not in _OWN and not path.startswith(_FOLDER)):
            raise refusal(errno.ENOENT)
        return found

    def add(self, name: str) -> None:
        """Make one, with a loopback that is down.

        Raises:
            OSError: EEXIST: there is one.
        """
        if name in self._named:
            raise refusal(errno.EEXIST)
        made = self._named[name] = self._world.add_namespace()
        with self._world.within(made):
            self._world.add_loopback()

    def remove(self, name: str) -> None:
        """Take one away; devices that belong to a NIC come home, as ``default_device_exit_net`` has it.

        Raises:
            OSError: ENOENT: there is none.
        """
        gone = self._named.pop(name, None)
        if gone is None:
            raise refusal(errno.ENOENT)
        for netdev in tuple(gone.netdevs.values()):
            if netdev.nic is None:
                self._world.remove_netdev(netdev)
            else:
                self._world.move_netdev(netdev, self._world.home, netdev.ifname)

    def move(self, netdev: FakeNetdev, target: Namespace) -> None:
        """Move a device, as an administrator does (``__dev_change_net_namespace``).

        Raises:
            OSError: EINVAL: it can't leave its namespace; EEXIST: its name is taken there.
        """
        if netdev.kind is NetdevKind.OTHER and netdev.ifname == "lo":
            raise refusal(errno.EINVAL)
        if target is netdev.namespace:
            return
        if any(one.ifname == netdev.ifname for one in target.netdevs.values()):
            raise refusal(errno.EEXIST)
        self._world.move_netdev(netdev, target, netdev.ifname)
