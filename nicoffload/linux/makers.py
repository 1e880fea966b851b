"""How VFs are made, reset and handed out, on the bus that they are on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from nicoffload.errors import (
    DeviceBusyError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    Reason,
    VerificationError,
)
from nicoffload.kernel.binding import Binding
from nicoffload.kernel.link import read_link, set_up
from nicoffload.kernel.pci import PciFunction
from nicoffload.kernel.sriov import Sriov
from nicoffload.linux.nic import LinuxNic

APPEAR_TIMEOUT_S = 5.0
"""How long the next VF may take to appear, or to get its driver: drivers probe one after the other."""


class VfMaker(ABC):
    """Makes and removes VFs, and hands them to drivers.

    Args:
        nic: The NIC.
    """

    def __init__(self, nic: LinuxNic) -> None:
        self.nic = nic

    @abstractmethod
    def limit(self) -> int:
        """Return how many VFs there can be."""

    @abstractmethod
    def addresses(self) -> Sequence[str]:
        """Return the address of each VF that exists, by index; empty for one that is no PCI function."""

    @abstractmethod
    def make(self, count: int) -> None:
        """Make as many VFs, all anew, and wait for them."""

    def wait(self) -> None:  # noqa: B027 - a bus that makes them within the call has nothing to wait for
        """Wait until the VFs that were made are there. Repeatable.

        Raises:
            DeviceBusyError: Some are not, and none came for seconds.
        """

    @abstractmethod
    def commands(self, count: int) -> Sequence[str]:
        """Return the shell commands that make as many VFs."""

    @abstractmethod
    def driver(self, vf: int) -> str:
        """Return the driver of a VF; empty for none."""

    @abstractmethod
    def reset(self, vf: int) -> None:
        """Reset a VF, as `VirtualFunctions.reset`."""

    @abstractmethod
    def bind(self, vf: int, driver: str) -> None:
        """Give a VF to a driver, as `VirtualFunctions.bind`."""


class PciMaker(VfMaker):
    """VFs of a PCI function.

    Args:
        nic: The NIC.
        pf_up_first: Whether the PF has to be up before VFs come: their drivers find it in a reset otherwise.
    """

    def __init__(self, nic: LinuxNic, *, pf_up_first: bool = False) -> None:
        super().__init__(nic)
        self._pf_up_first = pf_up_first
        self._address = nic.place.handle.name
        self._sriov = Sriov(nic.kernel, self._address)

    def limit(self) -> int:
        """Return the least of what the PCI function and the profile allow."""
        facts = self.nic.profile.sriov
        try:
            total = self._sriov.state().total
        except NotSupportedError:
            return 0
        return min(total, facts.max_vfs) if facts is not None and facts.max_vfs else total

    def addresses(self) -> Sequence[str]:
        """Return the PCI addresses of the VFs."""
        return self.nic.vf_addresses()

    def make(self, count: int) -> None:
        """Write the number into sysfs, by way of 0, and wait for the functions and their drivers."""
        if count and self._pf_up_first:
            self._set_pf_up()
        try:
            self._sriov.set_vfs(count)
        except VerificationError as error:
            error.hint = self._how_made() or error.hint
            raise
        except NotSupportedError as refusal:
            raise self._not_made_here(refusal) from refusal
        self.wait()
        if self._gets_driver():  # without one they exist all the same, and can be given out
            self._grow(lambda one: bool(one.driver()))

    def wait(self) -> None:
        """Wait for the functions. Their number does not limit the time: as long as they come it goes on."""
        addresses = self.addresses()
        there = self._grow(lambda one: bool(one.physical_function()))
        if there < len(addresses):
            raise DeviceBusyError(
                f"{len(addresses)} VFs were made, {there} are there, and no further one came in "
                f"{APPEAR_TIMEOUT_S:.0f} s",
                device=self.nic.device,
            )

    def commands(self, count: int) -> Sequence[str]:
        """Return the writes to sysfs."""
        facts = self.nic.profile.sriov
        if facts is None or facts.method != "sysfs":
            return ()
        file = f"/sys/{self.nic.place.folder}/sriov_numvfs"
        words = []
        if self.addresses() and self.nic.ahead.vf_count != 0:
            words.append(f"echo 0 > {file}")
        if count and self._pf_up_first:
            words.append(f"ip link set dev {self.nic.pf().ifname} up")
        if count or not words:
            words.append(f"echo {count} > {file}")
        return words

    def driver(self, vf: int) -> str:
        """Return the driver that is bound."""
        return PciFunction(self.nic.kernel, self._vf(vf)).driver()

    def reset(self, vf: int) -> None:
        """Reset the function; a driver of this host is taken off first and put back after."""
        address = self._vf(vf)
        function, binding = PciFunction(self.nic.kernel, address), Binding(self.nic.kernel, address)
        driver = binding.driver()
        if not driver or driver.startswith("vfio"):
            function.reset()
            return
        binding.unbind()
        try:
            function.reset()
        finally:
            binding.bind(driver)

    def bind(self, vf: int, driver: str) -> None:
        """Bind a driver, or none. One that knows the VF by itself is bound without an override."""
        binding = Binding(self.nic.kernel, self._vf(vf))
        if driver and not self._has_driver(driver):
            # Before the old one is let go.
            raise NotFoundError(
                f"there is no driver {driver!r}",
                path="/driver",
                device=self.nic.device,
                hint=f"modprobe {driver}",
            )
        if not driver:
            binding.unbind()
        elif driver.startswith("vfio"):
            binding.give_to(driver)
        else:
            found = binding.give_back()
            if found and found != driver:
                binding.unbind()
            binding.bind(driver)

    def _vf(self, vf: int) -> str:
        addresses = self.addresses()
        if not 0 <= vf < len(addresses):
            raise NotFoundError(
                f"there is no VF {vf}; there are {len(addresses)}", device=self.nic.device, path="/vf"
            )
        return addresses[vf]

    def _set_pf_up(self) -> None:
        pf = self.nic.pf()
        if not read_link(self.nic.kernel, pf.ifindex, device=self.nic.device).up:
            set_up(self.nic.kernel, pf.ifindex, device=self.nic.device)

    def _grow(self, so: Callable[[PciFunction], bool]) -> int:
        """Wait until something is so of every VF, or of no more of them for a while; return of how many it is."""
        functions = [PciFunction(self.nic.kernel, address) for address in self.addresses()]
        there = 0

        def more() -> bool:
            return sum(map(so, functions)) > there

        while there < len(functions) and self.nic.wait_until(more, APPEAR_TIMEOUT_S):
            there = sum(map(so, functions))
        return there

    def _has_driver(self, name: str) -> bool:
        try:
            self.nic.kernel.list_sysfs(f"bus/pci/drivers/{name}")
        except OSError:
            return False
        return True

    def _gets_driver(self) -> bool:
        name = self.nic.profile.vf_driver
        try:
            if not name or not self._sriov.state().autoprobe:
                return False
            self.nic.kernel.list_sysfs(f"bus/pci/drivers/{name}")
        except (OSError, NicOffloadError):
            return False
        return True

    def _how_made(self) -> str:
        facts = self.nic.profile.sriov
        if facts is None or facts.method == "sysfs":
            return ""
        how = {
            "module_param": "VFs are made by a parameter of the PF's driver when it loads",
            "vendor": "VFs are made by the vendor's own driver",
            "links": "VFs are network devices that the NIC's plugin makes",
        }
        return facts.note or how[facts.method]

    def _not_made_here(self, refusal: NotSupportedError) -> NotSupportedError:
        facts = self.nic.profile.sriov
        how = self._how_made()
        if facts is None or not how:
            return refusal
        reason = Reason(
            code=f"vf.{facts.method}",
            path="/count",
            message=f"VFs are not made at run time here: {how}",
            source=facts.source,
            errno=facts.sysfs_write if facts.sysfs_write not in ("works", "no_effect") else "",
        )
        return NotSupportedError(
            "the number of VFs was not changed",
            capability="vf.create",
            reasons=[reason],
            device=self.nic.device,
            path="/count",
            errno=refusal.errno,
            hint=how,
        )
