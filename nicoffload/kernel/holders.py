"""Who has a PCI function open through vfio: whatever takes it away would wait for them, without end."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from nicoffload.kernel.seam import Kernel, OpenFiles

_ANY_DEVICE = "anon_inode:[vfio-device]"
_GROUPS = "/dev/vfio/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a function.

    Args:
        address: PCI address of the function.
        pid: The process; None where it is of another PID namespace, or may not be seen.
        name: Its name; empty where that is unknown.
    """

    address: str
    pid: int | None
    name: str

    def __str__(self) -> str:
        who = (
            f"{self.name} ({self.pid})" if self.pid is not None else "a process that can't be seen from here"
        )
        return f"{self.address} is held by {who}"


def find_holders(kernel: Kernel, addresses: Sequence[str]) -> list[Holder]:
    """Return who has PCI functions open through vfio.

    A group can be opened once. So whether it is open is known for certain; by whom, where its process can be seen.

    Args:
        kernel: The kernel.
        addresses: PCI addresses.
    """
    files = {address: paths for address in addresses if (paths := _device_files(kernel, address))}
    if not files:
        return []
    processes = kernel.open_files()
    # A group stays open without its descriptor for as long as a device of it is open, which does not say its name.
    nameless = [
        one
        for one in processes
        if _ANY_DEVICE in one.files and not any(file.startswith(_GROUPS) for file in one.files)
    ]
    found = []
    for address, paths in files.items():
        seen = [_holder(address, one) for one in processes if paths & one.files]
        if not seen and any(kernel.is_busy(path) for path in paths):
            seen = [_holder(address, one) for one in nameless]
            seen = seen or [Holder(address=address, pid=None, name="")]
        found += seen
    return found


def _holder(address: str, process: OpenFiles) -> Holder:
    return Holder(address=address, pid=process.pid, name=process.name)


def _device_files(kernel: Kernel, address: str) -> set[str]:
    """Return the device files through which a function can be opened, by their usual names."""
    function = f"bus/pci/devices/{address}"
    found = set()
    with contextlib.suppress(OSError):
        found |= {f"/dev/vfio/devices/{name}" for name in kernel.list_sysfs(f"{function}/vfio-dev")}
    with contextlib.suppress(OSError):
        if kernel.readlink_sysfs(f"{function}/driver").rpartition("/")[2].startswith("vfio"):
            found.add(_GROUPS + kernel.readlink_sysfs(f"{function}/iommu_group").rpartition("/")[2])
    return found
