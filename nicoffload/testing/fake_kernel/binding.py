"""The driver core of the fake kernel: which driver takes which function (drivers/base/bus.c, dd.c, drivers/pci)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from nicoffload.kernel.seam import OpenFiles
from nicoffload.testing.fake_kernel.errnos import WouldWaitForeverError, as_oserror, refusal
from nicoffload.testing.fake_kernel.hotplug import Hotplug
from nicoffload.testing.fake_kernel.world import FakeFunction, World

VFIO = "vfio-pci"
_PAGE_BYTES = 4096


class Binding:
    """Binds functions of the PCI bus to drivers.

    Args:
        world: Where the functions are.
        hotplug: Lets the world follow.
        processes: Returns who has what open.
    """

    def __init__(self, world: World, hotplug: Hotplug, processes: Callable[[], Sequence[OpenFiles]]) -> None:
        self._world = world
        self._hotplug = hotplug
        self._processes = processes

    def drivers(self) -> list[str]:
        """Return the drivers that are loaded: those of the NICs that are there, and vfio-pci."""
        profiles = [nic.profile for nic in self._world.nics.values() if nic.bus == "pci"]
        names = {VFIO, *(one.driver for one in profiles), *(one.vf_driver or VFIO for one in profiles)}
        return sorted(names)

    def bind(self, driver: str, data: bytes) -> None:
        """Write the driver's file ``bind`` (bind_store)."""
        function = self._named(data)
        if function is None or not self._matches(function, driver):
            raise refusal(errno.ENODEV)
        if function.driver:
            raise refusal(errno.EBUSY)
        if not _takes(function, driver):
            raise refusal(errno.EINVAL)
        self._attach(function, driver)

    def unbind(self, driver: str, data: bytes) -> None:
        """Write the driver's file ``unbind`` (unbind_store)."""
        function = self._named(data)
        if function is None or function.driver != driver:
            raise refusal(errno.ENODEV)
        self.check_free(function)
        if function.vf is None:
            self._hotplug.unbind_pf(function.nic)
            return
        with as_oserror():
            function.nic.device.sriov.bind(function.vf, "")
        self._hotplug.follow(function.nic)

    def probe(self, data: bytes) -> None:
        """Write the bus' file ``drivers_probe`` (drivers_probe_store); no driver that matches is no error."""
        function = self._named(data)
        if function is None:
            raise refusal(errno.ENODEV)
        if function.driver:
            return
        driver = next((name for name in self.drivers() if self._matches(function, name)), "")
        if driver and _takes(function, driver):
            self._attach(function, driver)

    def override(self, function: FakeFunction, data: bytes) -> None:
        """Write ``driver_override`` (driver_set_override)."""
        if len(data) >= _PAGE_BYTES - 1:
            raise refusal(errno.EINVAL)
        text = data.split(b"\0", 1)[0].decode("utf-8", "replace")
        function.driver_override = text.split("\n", 1)[0]

    def check_free(self, function: FakeFunction) -> None:
        """Check that nobody has a function, or a VF of it, open through vfio.

        Raises:
            WouldWaitForeverError: Somebody has (vfio_unregister_group_dev waits for them).
        """
        functions = [function, *(function.nic.vfs if function.vf is None else ())]
        for one in functions:
            file = f"/dev/vfio/{one.iommu_group}"
            for process in self._processes():
                if one.driver == VFIO and file in process.files:
                    raise WouldWaitForeverError(f"{process.name} ({process.pid}) has {one.address} open")

    def _attach(self, function: FakeFunction, driver: str) -> None:
        if function.vf is None:
            self._hotplug.bind_pf(function.nic, driver)
            return
        with as_oserror():
            function.nic.device.sriov.bind(function.vf, driver)
        self._hotplug.follow(function.nic)

    def _matches(self, function: FakeFunction, driver: str) -> bool:
        if function.driver_override:
            return function.driver_override == driver
        profile = function.nic.profile
        return driver == (profile.driver if function.vf is None else profile.vf_driver)

    def _named(self, data: bytes) -> FakeFunction | None:
        name = data.decode("utf-8", "replace").removesuffix("\n")
        return self._world.functions.get(("pci", name))


def _takes(function: FakeFunction, driver: str) -> bool:
    """Tell whether a driver's probe succeeds; an override makes it try what it does not know (igb_probe: EINVAL)."""
    profile = function.nic.profile
    return driver in {VFIO, profile.driver if function.vf is None else profile.vf_driver}
