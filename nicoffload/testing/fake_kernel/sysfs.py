"""Sysfs of the fake kernel: PCI functions, their drivers, network devices and IOMMU groups, read and written."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping

from nicoffload.testing.fake_kernel.binding import VFIO, Binding
from nicoffload.testing.fake_kernel.errnos import as_oserror, refusal
from nicoffload.testing.fake_kernel.hotplug import VF_OFFSET, VF_STRIDE, Hotplug
from nicoffload.testing.fake_kernel.sysfs_net import show_netdev
from nicoffload.testing.fake_kernel.sysfs_values import pci_number, simulated_number, truth
from nicoffload.testing.fake_kernel.tree import File, Folder, Link, Node, fixed
from nicoffload.testing.fake_kernel.world import FakeFunction, FakeNetdev, World

_HOST = "devices/pci0000:00"
_VIRTUAL = "devices/virtual"
_RESET_METHODS = ("flr", "bus")


class Sysfs:
    """The tree.

    Args:
        world: What is in it.
        hotplug: Lets the world follow a write.
        binding: Binds drivers.
    """

    def __init__(self, world: World, hotplug: Hotplug, binding: Binding) -> None:
        self._world = world
        self._hotplug = hotplug
        self._binding = binding
        self.root = _folder(
            bus=_folder(
                pci=_folder(
                    devices=Folder(lambda: self._bus_links("pci"), lambda name: self._bus_link("pci", name)),
                    drivers=Folder(self._drivers),
                    drivers_probe=File(write=binding.probe),
                ),
                netdevsim=_folder(devices=Folder(lambda: self._bus_links("netdevsim"))),
            ),
            devices=Folder(self._devices, self._device),
            kernel=_folder(iommu_groups=Folder(self._groups)),
            **{"class": _folder(net=Folder(self._net_links, self._net_link))},
        )

    # Buses ----------------------------------------------------------------------------------------------------------

    def _bus_links(self, bus: str) -> Mapping[str, Node]:
        return {
            function.address: Link(f"../../../{_place(function)}")
            for function in self._world.functions.values()
            if function.nic.bus == bus
        }

    def _bus_link(self, bus: str, name: str) -> Node | None:
        function = self._world.functions.get((bus, name))
        return None if function is None else Link(f"../../../{_place(function)}")

    def _drivers(self) -> Mapping[str, Node]:
        return {name: Folder(lambda name=name: self._driver(name)) for name in self._binding.drivers()}  # type: ignore[misc]

    def _driver(self, name: str) -> Mapping[str, Node]:
        bound = {
            one.address: Link(f"../../../../{_place(one)}")
            for one in self._world.functions.values()
            if one.driver == name
        }
        return {
            "bind": File(write=lambda data: self._binding.bind(name, data)),
            "unbind": File(write=lambda data: self._binding.unbind(name, data)),
            **bound,
        }

    def _groups(self) -> Mapping[str, Node]:
        groups: dict[int, dict[str, Node]] = {}
        for one in self._world.functions.values():
            if one.nic.bus == "pci":
                groups.setdefault(one.iommu_group, {})[one.address] = Link(f"../../../../{_place(one)}")
        return {str(number): _folder(devices=_fixed_folder(members)) for number, members in groups.items()}

    # Devices --------------------------------------------------------------------------------------------------------

    def _devices(self) -> Mapping[str, Node]:
        names = ["pci0000:00", "virtual", *(name for bus, name in self._world.functions if bus != "pci")]
        return {name: node for name in names if (node := self._device(name)) is not None}

    def _device(self, name: str) -> Node | None:
        if name == "pci0000:00":
            return Folder(self._pci_devices, lambda address: self._at("pci", address))
        if name == "virtual":
            devices = (one for one in self._world.netdevs.values() if one.nic is None)
            return _folder(net=_fixed_folder({one.ifname: show_netdev(one, "") for one in devices}))
        return self._at("netdevsim", name)

    def _pci_devices(self) -> Mapping[str, Node]:
        found = self._world.functions.items()
        return {name: self._function(one) for (bus, name), one in found if bus == "pci"}

    def _at(self, bus: str, name: str) -> Node | None:
        function = self._world.functions.get((bus, name))
        return None if function is None else self._function(function)

    def _function(self, one: FakeFunction) -> Folder:
        """Return the folder of a function, in which one file can be found without making its hundreds of links."""
        own = self._simulated if one.nic.bus == "netdevsim" else self._pci

        def entries() -> Mapping[str, Node]:
            links = (
                {f"virtfn{vf.vf}": Link(f"../{vf.address}") for vf in one.nic.vfs} if one.vf is None else {}
            )
            nodes: dict[str, Node] = {**own(one), **links}
            if any(True for _ in self._netdevs(one)):
                nodes["net"] = self._net_folder(one)
            return nodes

        def lookup(name: str) -> Node | None:
            index = name.removeprefix("virtfn")
            if one.vf is None and index != name and index.isdecimal() and int(index) < len(one.nic.vfs):
                return Link(f"../{one.nic.vfs[int(index)].address}")
            return entries().get(name) if name == "net" else own(one).get(name)

        return Folder(entries, lookup)

    def _netdevs(self, one: FakeFunction) -> Iterator[FakeNetdev]:
        """Yield the network devices that hang on a function: its own, and of a PF the representors."""
        if one.netdev is not None:
            yield one.netdev
        yield from one.ports
        if one.vf is None:
            yield from one.nic.representors.values()

    def _net_folder(self, one: FakeFunction) -> Folder:
        def entries() -> Mapping[str, Node]:
            found = (netdev for netdev in self._netdevs(one) if netdev.namespace is self._world.here)
            return {netdev.ifname: show_netdev(netdev, one.address) for netdev in found}

        def lookup(name: str) -> Node | None:
            netdev = self._world.netdev_named(name)
            if netdev is None or netdev.pci_address != one.address:
                return None
            return show_netdev(netdev, one.address) if netdev.nic is one.nic or netdev in one.ports else None

        return Folder(entries, lookup)

    def _simulated(self, one: FakeFunction) -> dict[str, Node]:
        """Return the files of a device of netdevsim's bus (drivers/net/netdevsim/bus.c)."""
        return {"sriov_numvfs": self._numvfs(one, simulated_number)}

    def _pci(self, one: FakeFunction) -> dict[str, Node]:
        nodes: dict[str, Node] = {
            "class": fixed("0x020000"),
            "vendor": fixed(f"0x{one.vendor_id:04x}"),
            "device": fixed(f"0x{one.device_id:04x}"),
            "numa_node": fixed(str(one.numa_node)),
            "driver_override": File(
                read=lambda: one.driver_override or "(null)",
                write=lambda data: self._binding.override(one, data),
            ),
            "reset": File(write=lambda data: self._reset(one, data)),
            "reset_method": File(
                read=lambda: " ".join(one.reset_methods),
                write=lambda data: _set_reset_methods(one, data),
            ),
            "iommu_group": Link(f"../../../kernel/iommu_groups/{one.iommu_group}"),
            "subsystem": Link("../../../bus/pci"),
        }
        if one.driver:
            nodes["driver"] = Link(f"../../../bus/pci/drivers/{one.driver}")
        if one.driver == VFIO:
            nodes["vfio-dev"] = _folder(**{f"vfio{one.iommu_group}": _folder()})
        if one.vf is not None:
            nodes["physfn"] = Link(f"../{one.nic.pci_address}")
        elif one.nic.profile.sriov is not None:
            nodes |= self._sriov(one)
        return nodes

    def _sriov(self, one: FakeFunction) -> dict[str, Node]:
        """Return the SR-IOV files of a physical function (drivers/pci/iov.c)."""
        sriov = one.nic.device.sriov
        return {
            "sriov_totalvfs": fixed(str(sriov.limit)),
            "sriov_numvfs": self._numvfs(one, pci_number),
            "sriov_offset": fixed(str(VF_OFFSET)),
            "sriov_stride": fixed(str(VF_STRIDE)),
            "sriov_vf_device": fixed(_vf_device(one)),
            "sriov_drivers_autoprobe": File(
                read=lambda: str(int(sriov.autoprobe)),
                write=lambda data: setattr(sriov, "autoprobe", truth(data)),
            ),
        }

    def _numvfs(self, one: FakeFunction, parse: Callable[[bytes], int]) -> File:
        sriov = one.nic.device.sriov

        def store(data: bytes) -> None:
            count = parse(data)
            has_driver = one.driver == one.nic.profile.driver
            if one.nic.bus == "pci":
                if count > sriov.limit:
                    raise refusal(errno.ERANGE)
                if count == len(sriov.vfs):
                    return
            if not has_driver:
                raise refusal(errno.ENOENT)
            if count < len(sriov.vfs):
                self._binding.check_free(one)
            with as_oserror():
                sriov.set_count(count)
            self._hotplug.follow(one.nic)

        return File(read=lambda: str(len(sriov.vfs)), write=store)

    def _reset(self, one: FakeFunction, data: bytes) -> None:
        if pci_number(data) != 1:
            raise refusal(errno.EINVAL)
        if not one.reset_methods:
            raise refusal(errno.ENOTTY)
        if one.vf is not None:
            device = one.nic.device
            with as_oserror():
                device.check("vf_reset")
            if not device.does_nothing("vf_reset"):  # the bus does not ask whether the function still resets
                device.sriov.reset_unasked(one.vf)
            self._hotplug.follow(one.nic)

    # Network devices ------------------------------------------------------------------------------------------------

    def _net_links(self) -> Mapping[str, Node]:
        return {one.ifname: self._link_to(one) for one in self._world.netdevs.values()}

    def _net_link(self, name: str) -> Node | None:
        netdev = self._world.netdev_named(name)
        return None if netdev is None else self._link_to(netdev)

    def _link_to(self, netdev: FakeNetdev) -> Link:
        place = _VIRTUAL
        if netdev.nic is not None:
            place = _place(self._world.functions[netdev.nic.bus, netdev.pci_address])
        return Link(f"../../{place}/net/{netdev.ifname}")


def _place(one: FakeFunction) -> str:
    return f"{_HOST}/{one.address}" if one.nic.bus == "pci" else f"devices/{one.address}"


def _folder(**entries: Node) -> Folder:
    return _fixed_folder(entries)


def _fixed_folder(entries: Mapping[str, Node]) -> Folder:
    return Folder(lambda: entries)


def _vf_device(one: FakeFunction) -> str:
    stated = one.nic.profile.pci_ids.vf
    return stated[0].partition(":")[2] if stated else "0"


def _set_reset_methods(one: FakeFunction, data: bytes) -> None:
    """Write ``reset_method`` (drivers/pci/pci.c, reset_method_store)."""
    words = data.decode("ascii", "replace").split()
    if words == ["default"]:
        words = list(_RESET_METHODS)
    if len(words) != len(set(words)) or any(word not in _RESET_METHODS for word in words):
        raise refusal(errno.EINVAL)
    one.reset_methods = tuple(words)
