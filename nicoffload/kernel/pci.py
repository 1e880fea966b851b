"""PCI functions in sysfs: their attributes, with errors of the SDK's family."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nicoffload.errors import (
    DeviceBusyError,
    DeviceGoneError,
    InvalidRequestError,
    NicOffloadError,
    NotSupportedError,
    Reason,
    from_errno,
)
from nicoffload.kernel.attributes import MalformedError
from nicoffload.kernel.holders import Holder, find_holders
from nicoffload.kernel.seam import Kernel

_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_VIRTUAL = re.compile(r"virtfn([0-9]+)")
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.EINVAL})
"""What sysfs answers where something is not there; EINVAL: it is no link."""
_RESETS = ("flr", "af_flr")


def is_address(text: str) -> bool:
    """Tell whether a text is a PCI address, such as ``0000:01:00.0``."""
    return _ADDRESS.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class IommuGroup:
    """Functions that the IOMMU can't tell apart: they go to vfio together or not at all.

    Args:
        number: Its number, the name of its file below ``/dev/vfio``.
        members: PCI addresses, the function's own among them.
    """

    number: int
    members: Sequence[str]


class PciFunction:
    """One PCI function, physical or virtual.

    Args:
        kernel: The kernel.
        address: PCI address, such as ``0000:01:00.0``.

    Raises:
        InvalidRequestError: The address is none.
    """

    def __init__(self, kernel: Kernel, address: str) -> None:
        if not _ADDRESS.fullmatch(address):
            raise InvalidRequestError(
                f"{address!r} is no PCI address", path="/address", hint="write 0000:01:00.0"
            )
        self.kernel = kernel
        self.address = address
        self._folder = f"bus/pci/devices/{address}"

    def exists(self) -> bool:
        """Return whether the function is there.

        Raises:
            NicOffloadError: That can't be read: too many files are open, or the process may not.
        """
        try:
            self.kernel.list_sysfs(self._folder)
        except OSError as cause:
            if cause.errno in _ABSENT:
                return False
            raise self._unread(cause, "looking for the function") from cause
        return True

    def read(self, name: str, *, capability: str) -> str:
        """Return what an attribute holds, without the final line feed.

        Raises:
            NicOffloadError: `NotSupportedError`: the function has no such attribute; `DeviceGoneError`: it is gone.
        """
        try:
            return (
                self.kernel.read_sysfs(f"{self._folder}/{name}").decode("utf-8", "backslashreplace").strip()
            )
        except OSError as cause:
            raise self.error(cause, f"reading {name}", capability) from cause

    def read_number(self, name: str, *, capability: str) -> int:
        """Return the whole number that an attribute holds.

        Raises:
            NicOffloadError: See `read`; `KernelError`: it holds something else.
        """
        text = self.read(name, capability=capability)
        try:
            return int(text)
        except ValueError as cause:
            raise MalformedError(f"{name} holds {text!r}, no number", device=self.address) from cause

    def write(self, name: str, text: str, *, capability: str) -> None:
        """Write an attribute.

        Raises:
            NicOffloadError: As the kernel refused; see `read`.
        """
        try:
            self.kernel.write_sysfs(f"{self._folder}/{name}", text.encode())
        except OSError as cause:
            raise self.error(cause, f"writing {text.strip()!r} to {name}", capability) from cause

    def error(self, cause: OSError, doing: str, capability: str) -> NicOffloadError:
        """Return the error for what the kernel refused to do with this function."""
        if cause.errno == errno.ENOENT:
            if not self.exists():
                return DeviceGoneError(
                    f"{doing}: no such PCI function", device=self.address, errno=cause.errno
                )
            reason = Reason(
                code="pci.unsupported",
                path="",
                message="neither the function nor its driver has it",
                errno="ENOENT",
            )
            return NotSupportedError(
                doing, capability=capability, reasons=[reason], device=self.address, errno=cause.errno
            )
        return from_errno(cause.errno or errno.EIO, doing, capability=capability, device=self.address)

    def link(self, name: str) -> str:
        """Return the last part of where a link points; empty where there is no such link.

        Raises:
            NicOffloadError: See `exists`.
        """
        try:
            return self.kernel.readlink_sysfs(f"{self._folder}/{name}").rpartition("/")[2]
        except OSError as cause:
            if cause.errno in _ABSENT:
                return ""
            raise self._unread(cause, f"reading the link {name}") from cause

    def _unread(self, cause: OSError, doing: str) -> NicOffloadError:
        return from_errno(cause.errno or errno.EIO, doing, capability="pci", device=self.address)

    def driver(self) -> str:
        """Return the name of the driver that is bound; empty for none."""
        return self.link("driver")

    def virtual_functions(self) -> list[str]:
        """Return the PCI addresses of its VFs, by their index."""
        try:
            names = self.kernel.list_sysfs(self._folder)
        except OSError as cause:
            raise self.error(cause, "listing the VFs", "sriov") from cause
        found = {int(match[1]): name for name in names if (match := _VIRTUAL.fullmatch(name))}
        return [self.link(found[index]) for index in sorted(found)]

    def physical_function(self) -> str:
        """Return the PCI address of the function that this one is a VF of; empty where it is none."""
        return self.link("physfn")

    def vf_index(self) -> int | None:
        """Return which VF of its physical function it is; None where it is none."""
        physical = self.physical_function()
        if not physical:
            return None
        siblings = PciFunction(self.kernel, physical).virtual_functions()
        return siblings.index(self.address) if self.address in siblings else None

    def iommu_group(self) -> IommuGroup | None:
        """Return its IOMMU group; None where there is no IOMMU."""
        number = self.link("iommu_group")
        if not number:
            return None
        try:
            members = self.kernel.list_sysfs(f"{self._folder}/iommu_group/devices")
        except OSError as cause:
            raise self.error(cause, "listing the IOMMU group", "iommu") from cause
        if not (number.isascii() and number.isdigit()):
            raise MalformedError(f"{number!r} is no number of an IOMMU group", device=self.address)
        return IommuGroup(number=int(number), members=tuple(members))

    def numa_node(self) -> int | None:
        """Return the NUMA node it is nearest to; None where the platform does not say."""
        node = self.read_number("numa_node", capability="numa")
        return None if node < 0 else node

    def holders(self) -> list[Holder]:
        """Return who holds the function or a VF of it through vfio."""
        return find_holders(self.kernel, [self.address, *self.virtual_functions()])

    def refuse_if_held(self, doing: str) -> None:
        """Raise unless nobody holds the function or a VF of it: the kernel would wait for them, and so would we.

        Args:
            doing: What is about to be done.

        Raises:
            DeviceBusyError: Somebody does; says who.
        """
        if held := self.holders():
            raise DeviceBusyError(
                f"{doing} would wait without end: {'; '.join(map(str, held))}",
                device=self.address,
                hint="shut down the VM or program that holds it",
            )

    def reset(self) -> None:
        """Reset the function by itself (FLR), which its neighbours do not notice.

        Only without a driver or with vfio's. Of the others some lose their state in a reset, and igbvf waits without
        end for an interface that is down.

        Raises:
            NicOffloadError: `NotSupportedError`: it can't be reset by itself; `DeviceBusyError`: a driver of this host
                or a process has it.
        """
        self.refuse_if_held("a reset")
        driver = self.driver()
        if driver and not driver.startswith("vfio"):
            raise DeviceBusyError(
                f"the driver {driver} has the function that is to be reset",
                device=self.address,
                hint="unbind the driver, reset, and bind it again",
            )
        methods = self.read("reset_method", capability="reset.flr").split()
        able = next((method for method in _RESETS if method in methods), "")
        if not able:
            reason = Reason(
                code="pci.no_flr",
                path="",
                message=f"only {' and '.join(methods) or 'nothing'} would reset it",
            )
            raise NotSupportedError(
                "resetting one function", capability="reset.flr", reasons=[reason], device=self.address
            )
        if methods[0] == able:
            self.write("reset", "1", capability="reset.flr")
            return
        self.write("reset_method", able, capability="reset.flr")
        try:
            self.write("reset", "1", capability="reset.flr")
        finally:
            self.write("reset_method", " ".join(methods), capability="reset.flr")
