"""Kernel uevents: what comes, goes and changes its driver, as udev hears it (lib/kobject_uevent.c)."""

from __future__ import annotations

from nicoffload.kernel.seam import NETLINK_KOBJECT_UEVENT
from nicoffload.testing.fake_kernel.world import FakeFunction, FakeNetdev, FakeNic, Namespace, Watcher, World

_KERNEL_GROUP = 1


class Uevents(Watcher):
    """Tells the group of the kernel's uevents.

    Args:
        world: Where it is heard.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._sequence = 0
        self._names: dict[int, str] = {one.ifindex: one.ifname for one in world.netdevs.values()}
        world.watch(self)

    def function_appeared(self, function: FakeFunction) -> None:
        """Tell ``add``, and of a VF ``change`` once its links are there (drivers/pci/iov.c, pci_iov_sysfs_link)."""
        self._tell("add", _path(function), function.nic.bus, *_about(function))
        if function.vf is not None:
            self._tell("change", _path(function), function.nic.bus, *_about(function))

    def vfs_made(self, nic: FakeNic) -> None:
        """Tell ``change`` of the PF (drivers/pci/iov.c, sriov_enable)."""
        self._tell("change", _path(nic.function), nic.bus, *_about(nic.function))

    def function_gone(self, function: FakeFunction) -> None:
        """Tell ``remove``."""
        self._tell("remove", _path(function), function.nic.bus, *_about(function))

    def driver_bound(self, function: FakeFunction) -> None:
        """Tell ``bind``, with the driver."""
        driver = f"DRIVER={function.driver}"
        self._tell("bind", _path(function), function.nic.bus, driver, *_about(function))

    def driver_unbound(self, function: FakeFunction) -> None:
        """Tell ``unbind``, without the driver, which is gone by then."""
        self._tell("unbind", _path(function), function.nic.bus)

    def netdev_appeared(self, netdev: FakeNetdev) -> None:
        """Tell ``add``."""
        self._names[netdev.ifindex] = netdev.ifname
        self._tell("add", _net_path(netdev), "net", *_net(netdev))

    def netdev_changed(self, netdev: FakeNetdev) -> None:
        """Tell ``move`` of a new name."""
        before = self._names.get(netdev.ifindex, netdev.ifname)
        if before != netdev.ifname:
            self._names[netdev.ifindex] = netdev.ifname
            old = _net_path(netdev).rpartition("/")[0] + f"/{before}"
            self._tell("move", _net_path(netdev), "net", f"DEVPATH_OLD={old}", *_net(netdev))

    def netdev_left(self, netdev: FakeNetdev) -> None:
        """Tell ``remove``, to those who are where it was."""
        self.netdev_gone(netdev)

    def netdev_arrived(self, netdev: FakeNetdev) -> None:
        """Tell ``add``, to those who are where it is now."""
        self.netdev_appeared(netdev)

    def netdev_gone(self, netdev: FakeNetdev) -> None:
        """Tell ``remove``."""
        self._names.pop(netdev.ifindex, None)
        self._tell("remove", _net_path(netdev), "net", *_net(netdev))

    def _tell(self, action: str, path: str, subsystem: str, *more: str) -> None:
        self._sequence += 1
        # What is of no namespace is told to all of them (lib/kobject_uevent.c, uevent_net_broadcast_untagged).
        places = (self._world.here,) if subsystem == "net" else self._world.namespaces()
        if not any(self._is_heard(place) for place in places):
            return
        lines = (
            f"{action}@{path}",
            f"ACTION={action}",
            f"DEVPATH={path}",
            f"SUBSYSTEM={subsystem}",
            *more,
            f"SEQNUM={self._sequence}",
        )
        datagram = b"".join(line.encode() + b"\0" for line in lines)
        for place in places:
            with self._world.within(place):
                self._world.notify(NETLINK_KOBJECT_UEVENT, _KERNEL_GROUP, datagram)

    def _is_heard(self, place: Namespace) -> bool:
        with self._world.within(place):
            return self._world.heard(NETLINK_KOBJECT_UEVENT, _KERNEL_GROUP)


def _path(function: FakeFunction) -> str:
    if function.nic.bus == "pci":
        return f"/devices/pci0000:00/{function.address}"
    return f"/devices/{function.address}"


def _net_path(netdev: FakeNetdev) -> str:
    if netdev.nic is None:
        return f"/devices/virtual/net/{netdev.ifname}"
    parent = f"pci0000:00/{netdev.pci_address}" if netdev.nic.bus == "pci" else netdev.pci_address
    return f"/devices/{parent}/net/{netdev.ifname}"


def _about(function: FakeFunction) -> tuple[str, ...]:
    if function.nic.bus != "pci":
        return ()
    return (
        "PCI_CLASS=20000",
        f"PCI_ID={function.vendor_id:04X}:{function.device_id:04X}",
        f"PCI_SLOT_NAME={function.address}",
    )


def _net(netdev: FakeNetdev) -> tuple[str, ...]:
    return (f"INTERFACE={netdev.ifname}", f"IFINDEX={netdev.ifindex}")
