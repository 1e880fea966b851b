"""The NICs of this machine, whoever made them: network devices with hardware behind them, on PCI or on another bus."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nicoffload.kernel.devlink import Handle
from nicoffload.kernel.discovery import discover
from nicoffload.kernel.seam import Kernel
from nicoffload.linux import Place

_IFNAME = re.compile(r"[^/\s\x00]{1,15}")
_ABOVE = "../../"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A NIC.

    Args:
        name: What it is called: a PCI address, else the name of its device on its bus.
        ifname: Present name of its network device.
        place: Where it is.
        pci_address: Its PCI function; empty for none.
        driver: Its kernel driver.
        total_vfs: How many VFs it can have.
    """

    name: str
    ifname: str
    place: Place
    pci_address: str = ""
    driver: str = ""
    total_vfs: int = 0


def devices(kernel: Kernel) -> Sequence[Device]:
    """Return every NIC that has a network device in this namespace; VFs, and ports of simulated NICs, are left out."""
    functions = {one.pci_address: one for one in discover(kernel)}
    found: dict[str, Device] = {}
    for ifname in _ifnames(kernel):
        folder = _folder(kernel, ifname)
        if not folder or "/netdevsim" in folder:
            continue
        function = next((functions[part] for part in reversed(folder.split("/")) if part in functions), None)
        if function is not None and function.physfn:
            continue
        bus, name = _bus(kernel, folder), folder.rpartition("/")[2]
        address = function.pci_address if function is not None else ""
        one = Device(
            name=address or name,
            ifname=ifname,
            place=Place(
                folder=folder,
                handle=Handle(bus="pci", name=address) if address else Handle(bus=bus or "none", name=name),
            ),
            pci_address=address,
            driver=_link(kernel, f"{folder}/driver"),
            total_vfs=function.total_vfs if function is not None else 0,
        )
        found.setdefault(one.name, one)
    return list(found.values())


def find(kernel: Kernel, name: str) -> tuple[Device | None, str]:
    """Return the NIC that a user names, and the network device that he named it by; None for none."""
    wanted = name.lower()
    for one in devices(kernel):
        if wanted in (one.name, one.pci_address):
            return one, ""
        if _IFNAME.fullmatch(name) and _folder(kernel, name) == one.place.folder:
            return one, name
    return None, ""


def _ifnames(kernel: Kernel) -> Sequence[str]:
    try:
        return kernel.list_sysfs("class/net")
    except OSError:
        return ()


def _folder(kernel: Kernel, ifname: str) -> str:
    """Return the folder of the device that a network device hangs on; empty where it hangs on none."""
    try:
        if not kernel.readlink_sysfs(f"class/net/{ifname}/device"):
            return ""
        target = kernel.readlink_sysfs(f"class/net/{ifname}")
    except OSError:
        return ""
    folder, mark, _ = target.removeprefix(_ABOVE).rpartition("/net/")
    return folder if mark else ""


def _bus(kernel: Kernel, folder: str) -> str:
    return _link(kernel, f"{folder}/subsystem")


def _link(kernel: Kernel, path: str) -> str:
    try:
        return kernel.readlink_sysfs(path).rpartition("/")[2]
    except OSError:
        return ""
