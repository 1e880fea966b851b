"""What the fake kernel is made of: NICs, PCI functions and network devices, with the emulated hardware beneath."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from nicoffload.profiles.types import NicProfile
from nicoffload.testing.emulator.device import Device

_NS = 1_000_000_000
_IFNAME_MAX = 15
LOOPBACK_IFINDEX = 1


class NetdevKind(enum.Enum):
    """What a network device stands for."""

    PF = "pf"
    """The NIC's own device; in switchdev mode the uplink's representor as well."""
    VF = "vf"
    """A VF, seen by its own driver."""
    REPRESENTOR = "representor"
    """The switch's end of a VF."""
    OTHER = "other"
    """No port of a NIC: the loopback, a dummy."""


@dataclass(slots=True)
class FeatureState:
    """One feature of a network device, as `ethtool -k` has it.

    Args:
        active: Whether it is on.
        fixed: Whether nobody can change it.
    """

    active: bool
    fixed: bool = False


@dataclass(slots=True, eq=False)
class Namespace:
    """A network namespace.

    Args:
        netdevs: Its network devices, by number.
        is_home: Whether the machine began with it.
    """

    netdevs: dict[int, FakeNetdev] = field(default_factory=dict)
    is_home: bool = False


@dataclass(slots=True, eq=False)
class FakeNetdev:
    """A network device.

    Args:
        ifindex: Its number.
        ifname: Its name, which may change.
        kind: What it stands for.
        nic: The NIC that it belongs to; None for others.
        vf: Index of the VF that it is, or that it represents; None for others.
        pci_address: The function that it hangs on; empty for none.
        switch_id: The switch that it is a port of; empty for none.
        port_name: Its port name (``p0``, ``pf0vf3``); empty for none.
        dev_port: Number of its port, where its driver numbers those of one function.
        mac: Its address, 48 bits.
        mtu: Its greatest packet.
        up: Whether an administrator has set it up.
        features: By the kernel's name, such as ``hw-tc-offload``.
        namespace: Where it is; None before it is in the world.
    """

    ifindex: int
    ifname: str
    kind: NetdevKind
    nic: FakeNic | None = None
    vf: int | None = None
    pci_address: str = ""
    switch_id: bytes = b""
    port_name: str = ""
    dev_port: int = 0
    mac: int = 0
    mtu: int = 1500
    up: bool = False
    features: dict[str, FeatureState] = field(default_factory=dict)
    namespace: Namespace | None = None


@dataclass(slots=True, eq=False)
class FakeFunction:
    """A PCI function, or a device of netdevsim's bus.

    Args:
        address: Its name on the bus.
        nic: The NIC that it belongs to.
        vf: Index of the VF that it is; None for the physical function.
        vendor_id: PCI vendor.
        device_id: PCI device of that vendor.
        driver: Driver that is bound; empty for none.
        driver_override: The only driver that may be; empty for any.
        netdev: Its own network device; None while no driver of the host has it.
        ports: The network devices of its second port and further ones, each with hardware of its own.
        iommu_group: Number of its IOMMU group.
        numa_node: NUMA node that it is near to; -1 where the platform does not say.
        reset_methods: How it can be reset, best first.
    """

    address: str
    nic: FakeNic
    vf: int | None
    vendor_id: int
    device_id: int
    driver: str = ""
    driver_override: str = ""
    netdev: FakeNetdev | None = None
    ports: list[FakeNetdev] = field(default_factory=list)
    iommu_group: int = 0
    numa_node: int = -1
    reset_methods: tuple[str, ...] = ("flr", "bus")


@dataclass(slots=True, eq=False)
class FakeNic:
    """A NIC that is plugged in.

    Args:
        profile: What it can do.
        device: The emulated hardware with its driver.
        pci_address: Its physical function.
        switch_id: Its switch; empty where it has no switch that the kernel knows of.
        bus: ``pci``, or ``netdevsim``.
        function: Its physical function.
        vfs: Its VFs, by index.
        representors: By index of the VF; empty outside switchdev mode.
    """

    profile: NicProfile
    device: Device
    pci_address: str
    switch_id: bytes = b""
    bus: str = "pci"
    function: FakeFunction = field(init=False)
    vfs: list[FakeFunction] = field(default_factory=list)
    representors: dict[int, FakeNetdev] = field(default_factory=dict)

    @property
    def pf(self) -> FakeNetdev:
        """The physical function's network device.

        Raises:
            LookupError: No driver of the host has the function.
        """
        if self.function.netdev is None:
            raise LookupError(f"{self.pci_address} has no network device while its driver is unbound")
        return self.function.netdev

    def netdevs(self) -> Iterator[FakeNetdev]:
        """Yield its network devices: those of its functions, then the representors."""
        for function in (self.function, *self.vfs):
            if function.netdev is not None:
                yield function.netdev
        yield from self.representors.values()


class Channel(Protocol):
    """Who hears of a multicast group.

    Args:
        namespace: Where it was opened.
    """

    namespace: Namespace

    def deliver(self, datagram: bytes) -> None:
        """Put a datagram into the queue."""


class Watcher:
    """Is told what comes and goes; a part of the kernel overrides what it must tell on."""

    def nic_appeared(self, nic: FakeNic) -> None:
        """A NIC was plugged in; its functions and devices follow."""

    def nic_gone(self, nic: FakeNic) -> None:
        """A NIC went, after its functions and devices."""

    def function_appeared(self, function: FakeFunction) -> None:
        """A function is there."""

    def function_gone(self, function: FakeFunction) -> None:
        """A function went."""

    def vfs_made(self, nic: FakeNic) -> None:
        """All VFs of a NIC are there."""

    def driver_bound(self, function: FakeFunction) -> None:
        """A driver took a function."""

    def driver_unbound(self, function: FakeFunction) -> None:
        """A driver let a function go."""

    def netdev_appeared(self, netdev: FakeNetdev) -> None:
        """A network device is there."""

    def netdev_changed(self, netdev: FakeNetdev) -> None:
        """Name, address, MTU, features or administrative state of a network device are others."""

    def netdev_gone(self, netdev: FakeNetdev) -> None:
        """A network device went; what hung on it goes too."""

    def netdev_left(self, netdev: FakeNetdev) -> None:
        """A network device left the namespace that is served, for another one; what hung on it is gone."""

    def netdev_arrived(self, netdev: FakeNetdev) -> None:
        """A network device came from another namespace."""


class World:
    """Everything that the fake kernel knows of. Of one thread."""

    def __init__(self) -> None:
        self.nics: dict[str, FakeNic] = {}
        """By the name of the physical function."""
        self.functions: dict[tuple[str, str], FakeFunction] = {}
        """By bus and name."""
        self.home = Namespace(is_home=True)
        """The namespace that the machine began with: a driver's devices appear there, and devlink is there."""
        self.here = self.home
        """The namespace of whoever is served at present."""
        self._namespaces = [self.home]
        self._watchers: list[Watcher] = []
        self._members: dict[tuple[int, int], list[Channel]] = {}
        self._next_ifindex = LOOPBACK_IFINDEX
        self._now_ns = 0
        self.add_loopback().up = True

    # Namespaces -----------------------------------------------------------------------------------------------------

    @property
    def netdevs(self) -> dict[int, FakeNetdev]:
        """The network devices of the namespace that is served, by number."""
        return self.here.netdevs

    @contextmanager
    def within(self, namespace: Namespace) -> Iterator[None]:
        """Serve somebody of a namespace while the context lasts."""
        before, self.here = self.here, namespace
        try:
            yield
        finally:
            self.here = before

    def namespaces(self) -> tuple[Namespace, ...]:
        """Return all that were ever made: a socket may be left in one without a name."""
        return tuple(self._namespaces)

    def add_namespace(self) -> Namespace:
        """Make a namespace without devices."""
        made = Namespace()
        self._namespaces.append(made)
        return made

    def add_loopback(self) -> FakeNetdev:
        """Add the loopback of the namespace that is served."""
        lo = FakeNetdev(0, "lo", NetdevKind.OTHER, mtu=65536)
        lo.namespace = self.here
        return self.add_netdev(lo)

    def move_netdev(self, netdev: FakeNetdev, target: Namespace, ifname: str) -> None:
        """Move a network device, which is set down and loses what hung on it, and tell everybody of it."""
        before, netdev.namespace = netdev.namespace or self.home, target
        with self.within(before):
            netdev.up = False
            del self.netdevs[netdev.ifindex]
            for watcher in self._watchers:
                watcher.netdev_left(netdev)
        with self.within(target):
            netdev.ifname = self.free_name(ifname, target)
            self.netdevs[netdev.ifindex] = netdev
            for watcher in self._watchers:
                watcher.netdev_arrived(netdev)

    # Time -----------------------------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """The time; a NIC that took its time over an answer has moved it."""
        return max([self._now_ns, *(nic.device.now_ns for nic in self.nics.values())])

    def advance(self, seconds: float) -> None:
        """Let time pass, for every NIC."""
        self._now_ns = self.now_ns + round(seconds * _NS)
        for nic in self.nics.values():
            nic.device.advance(self._now_ns)

    # Telling --------------------------------------------------------------------------------------------------------

    def watch(self, watcher: Watcher) -> None:
        """Tell a part of the kernel what comes and goes from now on."""
        self._watchers.append(watcher)

    def watchers(self) -> tuple[Watcher, ...]:
        """Return those who are told."""
        return tuple(self._watchers)

    def join(self, family: int, group: int, channel: Channel) -> None:
        """Let a channel hear of a multicast group."""
        members = self._members.setdefault((family, group), [])
        if channel not in members:
            members.append(channel)

    def leave(self, channel: Channel) -> None:
        """Let a channel hear of nothing more."""
        for members in self._members.values():
            if channel in members:
                members.remove(channel)

    def heard(self, family: int, group: int) -> bool:
        """Tell whether anybody here hears of a group, so that a datagram for it is worth making."""
        return any(one.namespace is self.here for one in self._members.get((family, group), ()))

    def notify(self, family: int, group: int, datagram: bytes) -> None:
        """Send a datagram to everybody here who hears of a multicast group.

        Args:
            family: Netlink family, such as ``NETLINK_ROUTE``.
            group: Number of the group, such as 1 for ``RTNLGRP_LINK``.
            datagram: One message or several.
        """
        for channel in tuple(self._members.get((family, group), ())):
            if channel.namespace is self.here:
                channel.deliver(datagram)

    # Network devices ------------------------------------------------------------------------------------------------

    def netdev(self, ifindex: int) -> FakeNetdev | None:
        """Return a network device by number; None for none."""
        return self.netdevs.get(ifindex)

    def netdev_named(self, ifname: str) -> FakeNetdev | None:
        """Return a network device by its present name; None for none."""
        return next((one for one in self.netdevs.values() if one.ifname == ifname), None)

    def free_name(self, wanted: str, namespace: Namespace | None = None) -> str:
        """Return a name for a new network device: the one that is wanted where it is free and fits, else ``ethN``.

        Args:
            wanted: The name.
            namespace: Where the device is to be; None for home, where drivers make theirs.
        """
        taken = {one.ifname for one in (namespace or self.home).netdevs.values()}
        if len(wanted.encode()) <= _IFNAME_MAX and wanted not in taken:
            return wanted
        return next(name for name in (f"eth{n}" for n in range(1 << 16)) if name not in taken)

    def add_netdev(self, netdev: FakeNetdev) -> FakeNetdev:
        """Give a network device its number, and tell everybody of it.

        Raises:
            ValueError: Another has its name.
        """
        netdev.namespace = netdev.namespace or self.home
        with self.within(netdev.namespace):
            if self.netdev_named(netdev.ifname) is not None:
                raise ValueError(f"there is a network device {netdev.ifname} already")
            # The first of each namespace is its loopback; no other has the number of one elsewhere.
            netdev.ifindex = LOOPBACK_IFINDEX
            if self.netdevs:
                self._next_ifindex += 1
                netdev.ifindex = self._next_ifindex
            self.netdevs[netdev.ifindex] = netdev
            for watcher in self._watchers:
                watcher.netdev_appeared(netdev)
        return netdev

    def netdev_changed(self, netdev: FakeNetdev) -> None:
        """Tell everybody that a network device is not as it was."""
        with self.within(netdev.namespace or self.home):
            for watcher in self._watchers:
                watcher.netdev_changed(netdev)

    def remove_netdev(self, netdev: FakeNetdev) -> None:
        """Take a network device away, and tell everybody of it."""
        with self.within(netdev.namespace or self.home):
            del self.netdevs[netdev.ifindex]
            for watcher in self._watchers:
                watcher.netdev_gone(netdev)
