"""A kernel in memory behind the seam, with emulated NICs beneath: what a driver says to Linux, byte by byte."""

from __future__ import annotations

import copy
import errno
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nicoffload.errors import InvalidRequestError
from nicoffload.kernel.seam import (
    NETLINK_GENERIC,
    NETLINK_KOBJECT_UEVENT,
    NETLINK_ROUTE,
    Kernel,
    NetlinkChannel,
    OpenFiles,
    Sighting,
)
from nicoffload.profiles.types import NicProfile
from nicoffload.testing.emulator.config import Config
from nicoffload.testing.emulator.device import Device
from nicoffload.testing.emulator.faults import Faults
from nicoffload.testing.fake_kernel import tree
from nicoffload.testing.fake_kernel.binding import Binding
from nicoffload.testing.fake_kernel.channel import FakeChannel
from nicoffload.testing.fake_kernel.devlink import DevlinkServer
from nicoffload.testing.fake_kernel.errnos import refusal
from nicoffload.testing.fake_kernel.ethtool import Ethtool
from nicoffload.testing.fake_kernel.genetlink import GenericNetlink
from nicoffload.testing.fake_kernel.hotplug import Hotplug
from nicoffload.testing.fake_kernel.namespaces import Namespaces
from nicoffload.testing.fake_kernel.route import RouteServer
from nicoffload.testing.fake_kernel.sysfs import Sysfs
from nicoffload.testing.fake_kernel.uevents import Uevents
from nicoffload.testing.fake_kernel.world import FakeNetdev, FakeNic, NetdevKind, World

_REQUESTS = 100_000
_UNPREPARED = Config(prepared=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing that was asked of the fake kernel.

    Args:
        kind: ``netlink``, ``ethtool``, ``read``, ``write``, ``list`` or ``readlink``.
        target: The family's number, the network device, or the path.
        data: What was sent or written.
    """

    kind: str
    target: str
    data: bytes = b""


class FakeKernel(Kernel):
    """A kernel with emulated NICs. Of one thread.

    Nothing is in it at first but a loopback; `plug` puts a NIC in. Time stands still but for `advance` and `sleep_s`.
    """

    def __init__(self) -> None:
        self.world = World()
        self.requests: deque[Request] = deque(maxlen=_REQUESTS)
        """What was asked, oldest first; no more than the last 100,000."""
        self.processes: list[OpenFiles] = []
        """What processes have open: a test puts a VM here."""
        self._namespaces = Namespaces(self.world)
        self._shown = self.world.home
        """The namespace whose network devices sysfs shows."""
        self._hotplug = Hotplug(self.world)
        Uevents(self.world)
        self.route = RouteServer(self.world)
        """Links, qdiscs and filters."""
        self._ethtool = Ethtool(self.world, self.route.offloaded)
        self._genetlink = GenericNetlink(DevlinkServer(self.world))
        self._sysfs = Sysfs(
            self.world, self._hotplug, Binding(self.world, self._hotplug, lambda: self.processes)
        )

    # For tests ------------------------------------------------------------------------------------------------------

    def plug(
        self,
        profile: NicProfile,
        *,
        pci_address: str = "0000:03:00.0",
        ifname: str = "enp3s0f0",
        config: Config = _UNPREPARED,
        faults: Sequence[Mapping[str, Any]] = (),
        numa_node: int = -1,
        up: bool = True,
    ) -> FakeNic:
        """Put a NIC in, whose driver takes it at once.

        Args:
            profile: What it is.
            pci_address: Where; for family netdevsim its name on that bus, such as ``netdevsim1``.
            ifname: Name of the PF's network device; those of VFs and representors begin with it.
            config: How it is at first: no VFs, every feature as its driver has it, unless asked otherwise.
            faults: What goes wrong, as in a fault script's list ``faults``.
            numa_node: NUMA node that it is near to; -1 where the platform does not say.
            up: Whether an administrator sets the PF's network device up, as on a machine in use.

        Raises:
            ValueError: The address is none, or in use.
        """
        device = Device(profile.document, config, Faults(faults))
        device.advance(self.world.now_ns)
        nic = self._hotplug.plug(profile, device, pci_address, ifname, numa_node)
        if up and nic.function.netdev is not None:
            nic.function.netdev.up = True
            self.world.netdev_changed(nic.function.netdev)
        return nic

    def unplug(self, nic: FakeNic) -> None:
        """Take a NIC out, as a hot-unplug or a fall from the bus does. Repeatable."""
        self._hotplug.unplug(nic)

    def add_netdev(self, ifname: str) -> FakeNetdev:
        """Add a network device that is no NIC's.

        Raises:
            ValueError: Another has its name.
        """
        return self.world.add_netdev(FakeNetdev(0, ifname, NetdevKind.OTHER))

    def move(self, netdev: FakeNetdev, path: str) -> None:
        """Move a network device into another namespace, as ``ip link set X netns N`` does.

        Args:
            netdev: The device.
            path: As of `namespace`; that of the present one for bringing it there.

        Raises:
            OSError: ENOENT: no such namespace; EINVAL: it can't leave its own; EEXIST: its name is taken there.
        """
        self._namespaces.move(netdev, self._namespaces.at(path))

    def follow(self, nic: FakeNic) -> None:
        """Let the kernel see what became of a NIC that a test changed through `FakeNic.device`."""
        self._hotplug.follow(nic)

    def advance(self, seconds: float) -> None:
        """Let time pass: resets end, faults begin, counters grow old."""
        self.world.advance(seconds)
        self._follow_all()

    def monotonic_s(self) -> float:
        """Return the fake time, for `OpenContext.monotonic_s`."""
        return self.world.now_ns / 1e9

    def sleep_s(self, seconds: float) -> None:
        """Let time pass instead of waiting, for `OpenContext.sleep_s`."""
        self.advance(seconds)

    # The seam -------------------------------------------------------------------------------------------------------

    def open_netlink(self, family: int) -> NetlinkChannel:
        """Open a netlink socket."""
        handlers = {NETLINK_ROUTE: self._route, NETLINK_GENERIC: self._generic, NETLINK_KOBJECT_UEVENT: None}
        if family not in handlers:
            raise refusal(errno.EPROTONOSUPPORT)
        return FakeChannel(self.world, family, handlers[family])

    def ethtool(self, ifname: str, buffer: bytes) -> bytes:
        """Run the ioctl SIOCETHTOOL."""
        self.requests.append(Request(kind="ethtool", target=ifname, data=buffer))
        answer = self._ethtool.answer(ifname, buffer)
        self._follow_all()
        return answer

    def read_sysfs(self, path: str) -> bytes:
        """Return what a file holds."""
        self.requests.append(Request(kind="read", target=path))
        with self.world.within(self._shown):
            return tree.read(self._find(path))

    def write_sysfs(self, path: str, data: bytes) -> None:
        """Write a file in one call."""
        self.requests.append(Request(kind="write", target=path, data=data))
        with self.world.within(self._shown):
            tree.write(self._find(path), data)

    def list_sysfs(self, path: str) -> Sequence[str]:
        """Return the names in a folder."""
        self.requests.append(Request(kind="list", target=path))
        with self.world.within(self._shown):
            return tree.names(self._find(path))

    def readlink_sysfs(self, path: str) -> str:
        """Return where a link points."""
        self.requests.append(Request(kind="readlink", target=path))
        with self.world.within(self._shown):
            found = self._find(path, follow=False)
        if not isinstance(found, tree.Link):
            raise refusal(errno.EINVAL)
        return found.target

    def sightings(self) -> Sequence[Sighting]:
        """Return all PCI functions and the network devices below one."""
        seen = [
            Sighting(pci_address=function.address)
            for function in self.world.functions.values()
            if function.nic.bus == "pci"
        ]
        seen += [
            Sighting(pci_address=netdev.pci_address, ifname=netdev.ifname)
            for netdev in self._shown.netdevs.values()
            if netdev.nic is not None and netdev.nic.bus == "pci"
        ]
        return seen

    def open_files(self) -> Sequence[OpenFiles]:
        """Return what each process has open."""
        return tuple(self.processes)

    def is_busy(self, device_file: str) -> bool:
        """Tell whether a process has a device file open."""
        return any(device_file in process.files for process in self.processes)

    @contextmanager
    def namespace(self, path: str) -> Iterator[Kernel]:
        """Be in another network namespace; what is returned shows that one's network devices in sysfs."""
        target = self._namespaces.at(path)
        inside = copy.copy(self)
        inside._shown = target  # noqa: SLF001  (of this class)
        with self.world.within(target):
            yield inside

    def add_namespace(self, name: str) -> None:
        """Make a network namespace with a name."""
        self._namespaces.add(name)

    def remove_namespace(self, name: str) -> None:
        """Take a namespace away; the devices of NICs in it come home."""
        self._namespaces.remove(name)

    def namespaces(self) -> Sequence[str]:
        """Return the names of the network namespaces."""
        return self._namespaces.names()

    # Parts ----------------------------------------------------------------------------------------------------------

    def _find(self, path: str, *, follow: bool = True) -> tree.Node:
        if path.startswith("/") or ".." in path.split("/"):
            raise InvalidRequestError(f"{path!r} is no path below sysfs")
        return tree.find(self._sysfs.root, path, follow=follow)

    def _route(self, datagram: bytes) -> list[bytes]:
        self.requests.append(Request(kind="netlink", target=str(NETLINK_ROUTE), data=datagram))
        answers = self.route.handle(datagram)
        if any(nic.device.faults.active for nic in self.world.nics.values()):
            self._follow_all()  # a fault may have taken the NIC away
        return answers

    def _generic(self, datagram: bytes) -> list[bytes]:
        self.requests.append(Request(kind="netlink", target=str(NETLINK_GENERIC), data=datagram))
        answer = self._genetlink.handle(datagram)
        self._follow_all()
        return answer

    def _follow_all(self) -> None:
        with self.world.within(self.world.home):
            for nic in tuple(self.world.nics.values()):
                self._hotplug.follow(nic)
