"""Which NICs the system has: PCI functions, known by their address, with their network devices, known by number.

Names of network devices are for showing: udev, an administrator or a second NIC may change them at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nicoffload.errors import DeviceGoneError, NicOffloadError, NotFoundError, NotSupportedError
from nicoffload.kernel.attributes import MalformedError
from nicoffload.kernel.pci import PciFunction
from nicoffload.kernel.seam import Kernel

_NETWORK_CLASS = 0x02
_CAPABILITY = "discovery"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class FoundNetdev:
    """A network device of a function: its own, or a representor.

    Args:
        ifindex: Its number in this namespace.
        ifname: Its name when it was looked at.
    """

    ifindex: int
    ifname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFunction:
    """A PCI function that is a NIC, physical or virtual.

    Args:
        pci_address: What it is known by.
        vendor_id: PCI vendor.
        device_id: PCI device of that vendor.
        driver: Name of its driver; empty for none.
        physfn: PCI address of a VF's PF; empty for a PF, and for a VF that was passed into this VM.
        total_vfs: Most VFs that it can have; 0 where it can have none.
        numa_node: NUMA node that it is near to; None where the system has none, or does not tell.
        netdevs: Its network devices in this namespace, by their number.
    """

    pci_address: str
    vendor_id: int
    device_id: int
    driver: str = ""
    physfn: str = ""
    total_vfs: int = 0
    numa_node: int | None = None
    netdevs: tuple[FoundNetdev, ...] = ()


def _log(error: NicOffloadError) -> None:
    _LOG.warning("left out: %s", error)


def discover(kernel: Kernel, *, report: Callable[[NicOffloadError], None] = _log) -> list[FoundFunction]:
    """Return every NIC, in the order of PCI addresses. What goes while it looks is left out.

    Args:
        kernel: The kernel.
        report: Told of each function that is left out because sysfs says nonsense of it; without it, the log is.

    Raises:
        NicOffloadError: sysfs can't be read.
    """
    seen = kernel.sightings()
    found = []
    for address in sorted({one.pci_address for one in seen if not one.ifname}):
        names = [one.ifname for one in seen if one.ifname and one.pci_address == address]
        try:
            one = _function(kernel, PciFunction(kernel, address), names)
        except DeviceGoneError:
            continue
        except MalformedError as odd:
            report(odd)
            continue
        if one is not None:
            found.append(one)
    return found


def find(functions: Sequence[FoundFunction], name: str) -> FoundFunction:
    """Return the NIC that a user names.

    Args:
        functions: From `discover`.
        name: A PCI address, or the present name of a network device.

    Raises:
        NotFoundError: None has that address or name.
    """
    for one in functions:
        if one.pci_address == name.lower():
            return one
    for one in functions:
        if any(netdev.ifname == name for netdev in one.netdevs):
            return one
    raise NotFoundError(
        "no NIC has that PCI address or network device",
        device=name,
        hint="it may be in another network namespace, or have another name now",
    )


def _function(kernel: Kernel, function: PciFunction, names: Iterable[str]) -> FoundFunction | None:
    """Return what sysfs says of a function; None where it is no NIC."""
    if _hexadecimal(function, "class") >> 16 != _NETWORK_CLASS:
        return None
    netdevs = (_netdev(kernel, function.address, name) for name in names)
    node = _optional(function, "numa_node")
    return FoundFunction(
        pci_address=function.address,
        vendor_id=_hexadecimal(function, "vendor"),
        device_id=_hexadecimal(function, "device"),
        driver=function.driver(),
        physfn=function.link("physfn"),
        total_vfs=_optional(function, "sriov_totalvfs") or 0,
        numa_node=node if node is not None and node >= 0 else None,
        netdevs=tuple(sorted(one for one in netdevs if one is not None)),
    )


def _netdev(kernel: Kernel, address: str, name: str) -> FoundNetdev | None:
    """Return a network device; None where it went, or where its name is another device's by now."""
    try:
        ifindex = kernel.read_sysfs(f"class/net/{name}/ifindex").strip()
        if f"/{address}/" not in kernel.readlink_sysfs(f"class/net/{name}"):
            return None
    except OSError:
        return None
    return FoundNetdev(ifindex=int(ifindex), ifname=name) if ifindex.isdigit() else None


def _hexadecimal(function: PciFunction, name: str) -> int:
    text = function.read(name, capability=_CAPABILITY)
    try:
        return int(text, 16)
    except ValueError as cause:
        raise MalformedError(f"{name} holds {text!r}, no number", device=function.address) from cause


def _optional(function: PciFunction, name: str) -> int | None:
    try:
        return function.read_number(name, capability=_CAPABILITY)
    except NotSupportedError:
        return None
