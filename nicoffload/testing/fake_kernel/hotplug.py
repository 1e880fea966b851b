"""NICs, functions and network devices come and go as the emulated hardware and its drivers have it."""

from __future__ import annotations

import re

from nicoffload.profiles.types import NicProfile
from nicoffload.testing.emulator.device import Device
from nicoffload.testing.emulator.vfs import Vf
from nicoffload.testing.fake_kernel.netdevs import (
    in_switchdev,
    make_pf,
    make_representor,
    make_vf,
    switch_of,
    sync_features,
)
from nicoffload.testing.fake_kernel.world import FakeFunction, FakeNetdev, FakeNic, World

_PCI = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
VF_OFFSET, VF_STRIDE = 0x80, 2
"""Routing id of the first VF above its PF's, and from one VF to the next, as an 82576 has them."""
_FIRST_GROUP = 1


class Hotplug:
    """Plugs NICs in and out, and lets the world follow what became of their VFs.

    Args:
        world: Where they are.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._names: dict[FakeNic, str] = {}
        self._known: dict[FakeNic, list[Vf]] = {}
        self._groups = _FIRST_GROUP

    def plug(self, profile: NicProfile, device: Device, address: str, ifname: str, numa_node: int) -> FakeNic:
        """Put a NIC in, whose driver takes it at once.

        Raises:
            ValueError: The address is none, or in use.
        """
        bus = "netdevsim" if profile.driver == "netdevsim" else "pci"
        if bus == "pci" and not _PCI.fullmatch(address):
            raise ValueError(f"{address!r} is no PCI address such as 0000:03:00.0")
        if (bus, address) in self._world.functions:
            raise ValueError(f"{address} is in use")
        nic = FakeNic(profile, device, address, _switch_id(profile, address), bus)
        vendor, device_id = _ids(profile.pci_ids.pf)
        nic.function = FakeFunction(address, nic, None, vendor, device_id, numa_node=numa_node)
        nic.function.iommu_group = self._next_group()
        self._world.nics[address] = nic
        self._names[nic], self._known[nic] = ifname, []
        for watcher in self._world.watchers():
            watcher.nic_appeared(nic)
        self._add_function(nic.function)
        self.bind_pf(nic, profile.driver)
        return nic

    def unplug(self, nic: FakeNic) -> None:
        """Take a NIC out, with all that belongs to it. Does nothing for one that is out."""
        if self._world.nics.get(nic.pci_address) is not nic:
            return
        self._release_pf(nic)
        self._remove_function(nic.function)
        del self._world.nics[nic.pci_address], self._names[nic], self._known[nic]
        for watcher in self._world.watchers():
            watcher.nic_gone(nic)

    def bind_pf(self, nic: FakeNic, driver: str) -> None:
        """Let a driver take the physical function."""
        function = nic.function
        function.driver = driver
        for watcher in self._world.watchers():
            watcher.driver_bound(function)
        if driver == nic.profile.driver:
            function.netdev = make_pf(self._world, nic, self._names[nic])
            self._world.add_netdev(function.netdev)
            self.follow(nic)

    def unbind_pf(self, nic: FakeNic) -> None:
        """Take the physical function from its driver, which takes the VFs with it."""
        self._release_pf(nic)

    def follow(self, nic: FakeNic) -> None:
        """Let functions, network devices and representors be those that the hardware and its drivers have now."""
        if self._world.nics.get(nic.pci_address) is not nic:
            return
        if nic.device.faults.gone:
            self.unplug(nic)
            return
        vfs = nic.device.sriov.vfs
        known = self._known[nic]
        if len(known) != len(vfs) or any(old is not new for old, new in zip(known, vfs, strict=True)):
            self._remove_vfs(nic)
            self._add_vfs(nic)
        for function, vf in zip(nic.vfs, vfs, strict=False):
            self._settle_driver(function, vf)
        self._settle_representors(nic)
        sync_features(nic)

    # VFs ------------------------------------------------------------------------------------------------------------

    def _add_vfs(self, nic: FakeNic) -> None:
        self._known[nic] = list(nic.device.sriov.vfs)
        if nic.bus != "pci":  # netdevsim's VFs are no functions
            return
        vendor, device_id = _ids(nic.profile.pci_ids.vf)
        for vf in nic.device.sriov.vfs:
            function = FakeFunction(
                vf_address(nic.pci_address, vf.index),
                nic,
                vf.index,
                vendor,
                device_id,
                numa_node=nic.function.numa_node,
                iommu_group=self._next_group(),
            )
            nic.vfs.append(function)
            self._add_function(function)
            self._settle_driver(function, vf)
        for watcher in self._world.watchers() if nic.vfs else ():
            watcher.vfs_made(nic)

    def _remove_vfs(self, nic: FakeNic) -> None:
        self._remove_representors(nic)
        while nic.vfs:
            function = nic.vfs[0]
            self._drop_netdev(function)
            self._drop_driver(function)
            nic.vfs.pop(0)
            self._remove_function(function)
        self._known[nic] = []

    def _settle_driver(self, function: FakeFunction, vf: Vf) -> None:
        if function.driver == vf.driver:
            return
        self._drop_netdev(function)
        self._drop_driver(function)
        function.driver = vf.driver
        if not vf.driver:
            return
        for watcher in self._world.watchers():
            watcher.driver_bound(function)
        nic = function.nic
        if vf.driver == nic.profile.vf_driver:
            function.netdev = self._world.add_netdev(make_vf(self._world, nic, vf.index, self._names[nic]))

    def _drop_driver(self, function: FakeFunction) -> None:
        if function.driver:
            for watcher in self._world.watchers():
                watcher.driver_unbound(function)
            function.driver = ""

    # Representors ---------------------------------------------------------------------------------------------------

    def _settle_representors(self, nic: FakeNic) -> None:
        if nic.function.netdev is None or not in_switchdev(nic):
            self._remove_representors(nic)
        else:
            for vf in nic.device.sriov.vfs:
                if vf.index not in nic.representors:
                    netdev = make_representor(self._world, nic, vf.index, self._names[nic])
                    nic.representors[vf.index] = netdev
                    self._world.add_netdev(netdev)
        if nic.function.netdev is not None:
            nic.function.netdev.switch_id = switch_of(nic)

    def _remove_representors(self, nic: FakeNic) -> None:
        while nic.representors:
            _, netdev = nic.representors.popitem()
            self._world.remove_netdev(netdev)

    # Parts ----------------------------------------------------------------------------------------------------------

    def _release_pf(self, nic: FakeNic) -> None:
        self._remove_vfs(nic)
        nic.device.unload()
        self._drop_netdev(nic.function)
        self._drop_driver(nic.function)

    def _drop_netdev(self, function: FakeFunction) -> None:
        netdev: FakeNetdev | None = function.netdev
        if netdev is not None:
            function.netdev = None
            self._world.remove_netdev(netdev)

    def _add_function(self, function: FakeFunction) -> None:
        self._world.functions[function.nic.bus, function.address] = function
        for watcher in self._world.watchers():
            watcher.function_appeared(function)

    def _remove_function(self, function: FakeFunction) -> None:
        del self._world.functions[function.nic.bus, function.address]
        for watcher in self._world.watchers():
            watcher.function_gone(function)

    def _next_group(self) -> int:
        self._groups += 1
        return self._groups - 1


def vf_address(pf_address: str, vf: int) -> str:
    """Return the PCI address of a VF."""
    match = _PCI.fullmatch(pf_address)
    assert match is not None
    domain, bus, device, function = (int(part, 16) for part in match.groups())
    routing = (bus << 8 | device << 3 | function) + VF_OFFSET + VF_STRIDE * vf
    return f"{domain:04x}:{routing >> 8:02x}:{routing >> 3 & 31:02x}.{routing & 7}"


def _ids(stated: tuple[str, ...]) -> tuple[int, int]:
    """Return the first id that a profile states; zeros where it states none."""
    if not stated:
        return 0, 0
    vendor, device = stated[0].split(":")
    return int(vendor, 16), int(device, 16)


def _switch_id(profile: NicProfile, address: str) -> bytes:
    if profile.eswitch is None and profile.statistics.representor is None:
        return b""
    digits = "".join(char for char in address if char in "0123456789abcdef")
    return bytes.fromhex(digits.rjust(16, "0")[-16:])
