"""Who has a PCI function open through vfio: whatever takes it away would wait for them, without end."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nicoffload.kernel.seam import Kernel

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


FindHolders = Callable[[Kernel, Sequence[str]], Sequence[Holder]]
"""Called with the kernel and PCI addresses; returns who holds those functions."""


def find_holders(
    kernel: Kernel, addresses: Sequence[str], *, proc: str = "/proc", dev: str = "/dev"
) -> list[Holder]:
    """Return who has PCI functions open through vfio.

    A group can be opened once. So whether it is open is known for certain; by whom, where its process can be seen.

    Args:
        kernel: The kernel.
        addresses: PCI addresses.
        proc: Where procfs is mounted.
        dev: Where the device files are.
    """
    files = {address: paths for address in addresses if (paths := _device_files(kernel, address))}
    if not files:
        return []
    processes = list(_open_files(Path(proc)))

    def who(address: str, pid: int) -> Holder:
        return Holder(address=address, pid=pid, name=_name(Path(proc) / str(pid)))

    # A group stays open without its descriptor for as long as a device of it is open, which does not say its name.
    nameless = [
        pid
        for pid, targets in processes
        if _ANY_DEVICE in targets and not any(target.startswith(_GROUPS) for target in targets)
    ]
    found = []
    for address, paths in files.items():
        seen = [who(address, pid) for pid, targets in processes if paths & targets]
        if not seen and any(_is_open(Path(dev) / path.removeprefix("/dev/")) for path in paths):
            seen = [who(address, pid) for pid in nameless] or [Holder(address=address, pid=None, name="")]
        found += seen
    return found


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


def _open_files(proc: Path) -> Iterator[tuple[int, set[str]]]:
    """Yield each process that can be seen, with what its descriptors point to."""
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        targets = set()
        with contextlib.suppress(OSError):  # it ended, or is somebody else's
            for descriptor in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    targets.add(str(descriptor.readlink()))
        yield int(folder.name), targets


def _name(folder: Path) -> str:
    try:
        return (folder / "comm").read_text("utf-8", "backslashreplace").strip()
    except OSError:
        return ""


def _is_open(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as cause:
        return cause.errno == errno.EBUSY
    return False
