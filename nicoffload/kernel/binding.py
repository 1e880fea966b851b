"""Which driver has a PCI function: the host's own, or vfio-pci for a VM."""

from __future__ import annotations

import errno

from nicoffload.errors import (
    ConflictError,
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    VerificationError,
)
from nicoffload.kernel.pci import PciFunction, is_address
from nicoffload.kernel.seam import Kernel

_CAPABILITY = "driver_binding"
_DRIVERS = "bus/pci/drivers"
_NO_OVERRIDE = "(null)"
_KEEP_NO_DMA = frozenset({"pcieport", "pci-stub"})
"""Drivers that use no DMA and may share a group with vfio (struct pci_driver.driver_managed_dma)."""


class Binding:
    """The driver of one PCI function.

    Args:
        kernel: The kernel.
        address: PCI address.

    Raises:
        InvalidRequestError: The address is none.
    """

    def __init__(self, kernel: Kernel, address: str) -> None:
        self._function = PciFunction(kernel, address)
        self._kernel = kernel

    def driver(self) -> str:
        """Return the name of the driver that is bound; empty for none."""
        return self._function.driver()

    def override(self) -> str:
        """Return the only driver that may be bound; empty where any that knows the function may.

        Raises:
            NicOffloadError: `DeviceGoneError`: the function is gone.
        """
        found = self._function.read("driver_override", capability=_CAPABILITY)
        return "" if found == _NO_OVERRIDE else found

    def unbind(self) -> None:
        """Take the function from its driver; nothing happens where it has none.

        Raises:
            NicOffloadError: `DeviceBusyError`: somebody holds it or a VF of it; or as the kernel refused.
        """
        driver = self.driver()
        if not driver:
            return
        self._function.refuse_if_held(f"unbinding {driver}")
        self._tell(f"{_DRIVERS}/{driver}/unbind", f"unbinding {driver}")

    def bind(self, driver: str) -> None:
        """Bind a driver that knows the function by itself; see `give_to` for vfio-pci.

        Raises:
            NicOffloadError: `NotFoundError`: no such driver is loaded; `InvalidRequestError`: the driver does not
                take the function; or as the driver refused.
        """
        self._check_driver(driver)
        if self.driver() == driver:
            return
        self._tell(f"{_DRIVERS}/{driver}/bind", f"binding {driver}")
        self._verify(driver)

    def give_to(self, driver: str) -> None:
        """Hand the function to a driver that need not know it, such as vfio-pci, until `give_back`.

        When that fails the override is taken back and the driver that had the function is asked to take it again.

        Args:
            driver: Name of a driver that is loaded.

        Raises:
            NicOffloadError: `NotFoundError`: no such driver is loaded; `DeviceBusyError`: somebody holds the
                function; `ConflictError`: a driver of this host has another function of its IOMMU group;
                `VerificationError`: the driver did not take it.
        """
        self._check_driver(driver)
        if driver.startswith("vfio"):
            self._check_group()
        if self.driver() == driver and self.override() == driver:
            return
        before, before_override = self.driver(), self.override()
        if before == driver:
            self._set_override(driver)
            return
        self.unbind()
        try:
            self._set_override(driver)
            self._probe()
            self._verify(driver)
        except BaseException as first:
            self._restore(before, before_override, first)
            raise

    def _restore(self, driver: str, override: str, first: BaseException) -> None:
        """Undo what `give_to` began; what of that fails is a note of the first error, and hides it not."""
        try:
            self._set_override(override)
        except NicOffloadError as second:
            first.add_note(f"and then, when the override was taken back: {second}")
        try:
            if driver and not self.driver():
                self._probe()
        except NicOffloadError as second:
            first.add_note(f"and then, when {driver} was asked to take it again: {second}")

    def _check_group(self) -> None:
        """Raise where the IOMMU can't tell the function from one that a driver of this host has.

        The kernel would refuse the VM (drivers/iommu/iommu.c:iommu_group_claim_dma_owner), when the function's own
        driver is gone already.
        """
        group = self._function.iommu_group()
        for address in group.members if group is not None else ():
            if address == self._function.address or not is_address(address):
                continue
            driver = PciFunction(self._kernel, address).driver()
            if driver and not driver.startswith("vfio") and driver not in _KEEP_NO_DMA:
                raise ConflictError(
                    f"{driver} has {address}, which is in the same IOMMU group",
                    existing=f"{address} ({driver})",
                    path="/driver",
                    device=self._function.address,
                    hint="give all functions of the group to vfio, or put the NIC into a slot with ACS",
                )

    def give_back(self) -> str:
        """Let the host's own driver have the function, and return its name; empty where the host has none for it.

        Raises:
            NicOffloadError: `DeviceBusyError`: somebody holds it; or as the kernel refused.
        """
        if self.override():
            self.unbind()
            self._set_override("")
        if not self.driver():
            self._probe()
        return self.driver()

    def _set_override(self, driver: str) -> None:
        self._function.write(
            "driver_override", f"{driver}\n", capability=_CAPABILITY
        )  # an empty line clears it
        found = self.override()
        if found != driver:
            raise VerificationError(
                f"driver_override is {found!r} after {driver!r} was written",
                expected=driver,
                actual=found,
                device=self._function.address,
            )

    def _probe(self) -> None:
        self._tell("bus/pci/drivers_probe", "looking for a driver")

    def _tell(self, path: str, doing: str) -> None:
        """Write the function's address into a file of a driver or of the bus."""
        address = self._function.address
        try:
            self._kernel.write_sysfs(path, address.encode())
        except OSError as cause:
            if cause.errno == errno.ENODEV and self._function.exists():
                raise InvalidRequestError(
                    f"{doing}: the driver does not take, or have, this function",
                    path="/driver",
                    device=address,
                    errno=cause.errno,
                ) from cause
            raise self._function.error(cause, doing, _CAPABILITY) from cause

    def _check_driver(self, driver: str) -> None:
        if not driver or "/" in driver or driver in {".", ".."}:
            raise InvalidRequestError(f"{driver!r} is no name of a driver", path="/driver")
        try:
            self._kernel.list_sysfs(f"{_DRIVERS}/{driver}")
        except OSError as cause:
            raise NotFoundError(
                f"no driver {driver} is loaded",
                path="/driver",
                device=self._function.address,
                errno=cause.errno,
                hint=f"modprobe {driver}",
            ) from cause

    def _verify(self, driver: str) -> None:
        if (found := self.driver()) != driver:
            raise VerificationError(
                f"{found or 'no driver'} has the function, not {driver}",
                expected=driver,
                actual=found,
                device=self._function.address,
                hint="the kernel's log says why a driver gave up",
            )
