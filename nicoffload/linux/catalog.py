"""Which NIC is of which family, by the PCI ids of all profiles, and how a vendor's plugin finds and opens its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nicoffload.driver.contract import Driver, DriverFactory, OpenContext, ProfileCatalog
from nicoffload.errors import NicOffloadError, NotFoundError, NotSupportedError, Reason
from nicoffload.kernel.discovery import FoundFunction, discover, find
from nicoffload.kernel.representors import Role, identify
from nicoffload.kernel.seam import Kernel
from nicoffload.model.device import DeviceInfo
from nicoffload.profiles.types import NicProfile

_PCI_ADDRESS = re.compile(r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
_IFNAME = re.compile(r"[^/:\s]{1,15}")


class PciFamilies:
    """PCI ids of all installed profiles.

    An id of a VF, and one whose parts have none of what a profile says, is of no family. A part that only its subsystem
    tells apart (an SFN5122F is an SFC9020) is of the family of its chip.

    Args:
        profiles: The profiles.
    """

    def __init__(self, profiles: ProfileCatalog) -> None:
        self._physical: dict[str, list[NicProfile]] = {}
        self._virtual: set[str] = set()
        for family in profiles.families():
            profile = profiles.get(family)
            self._virtual.update(profile.pci_ids.vf)
            for pci_id in profile.pci_ids.pf:
                self._physical.setdefault(pci_id, []).append(profile)

    def profile_of(self, found: FoundFunction) -> NicProfile | None:
        """Return the profile of a NIC; None where no plugin brings one, or where it is a VF.

        Where two plugins bring one for the same id, that of the kernel driver which is bound decides, then the order of
        the names of the families.
        """
        name = pci_id(found)
        if found.physfn or name in self._virtual:
            return None
        candidates = self._physical.get(name, [])
        fitting = [profile for profile in candidates if is_driver(found.driver, profile)]
        return next(iter(fitting or candidates), None)

    def is_virtual(self, found: FoundFunction) -> bool:
        """Return whether a function is a VF, also one that was passed into this machine."""
        return bool(found.physfn) or pci_id(found) in self._virtual


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a vendor's plugin makes a driver of.

    Args:
        context: What the plugin was given.
        profile: The profile of the NIC's family.
        info: The NIC.
        ifname: The network device that the user named, where a NIC has several; empty for the first.
    """

    context: OpenContext
    profile: NicProfile
    info: DeviceInfo
    ifname: str = ""


class PciFactory(DriverFactory):
    """Finds and opens the NICs of one vendor, by PCI address or by the present name of a network device.

    Args:
        plugin: Name of the plugin.
        vendor: As its profiles say.
        make: Makes the driver of a NIC.
    """

    def __init__(self, *, plugin: str, vendor: str, make: Callable[[Opening], Driver]) -> None:
        self._plugin = plugin
        self._vendor = vendor
        self._make = make

    def discover(self, context: OpenContext) -> Sequence[DeviceInfo]:
        """Return the vendor's NICs whose kernel driver is bound."""
        families = PciFamilies(context.profiles)
        return [
            self._info(context.kernel, found, profile)
            for found in discover(context.kernel)
            if (profile := families.profile_of(found)) is not None
            and profile.vendor == self._vendor
            and is_driver(found.driver, profile)
        ]

    def claims(self, name: str) -> bool:
        """Tell whether a name may be a PCI address or a network device; whose it is shows when it is opened."""
        return bool(_PCI_ADDRESS.fullmatch(name) or _IFNAME.fullmatch(name))

    def open(self, name: str, context: OpenContext) -> Driver:
        """Open a NIC.

        Raises:
            NotFoundError: There is no such NIC of this vendor.
            NotSupportedError: Its kernel driver is not bound.
        """
        families = PciFamilies(context.profiles)
        found = _find(context.kernel, name)
        profile = families.profile_of(found)
        if profile is None or profile.vendor != self._vendor:
            raise _not_ours(name, found, families, self._vendor)
        if not is_driver(found.driver, profile):
            bound = f"{found.driver} is" if found.driver else "no driver is"
            reason = Reason(
                code="device.driver",
                path="",
                message=f"{bound} bound to it",
                accepted=profile.driver,
            )
            raise NotSupportedError(
                f"a {profile.title} is driven through its kernel driver",
                capability="device",
                reasons=[reason],
                device=name,
                hint=f"bind {profile.driver}",
            )
        ifname = "" if name.lower() == found.pci_address else name
        info = self._info(context.kernel, found, profile)
        return self._make(Opening(context=context, profile=profile, info=info, ifname=ifname))

    def _info(self, kernel: Kernel, found: FoundFunction, profile: NicProfile) -> DeviceInfo:
        return DeviceInfo(
            name=found.pci_address,
            family=profile.family,
            title=profile.title,
            plugin=self._plugin,
            driver=found.driver,
            pci_address=found.pci_address,
            ifname=own_ifname(kernel, found),
        )


def pci_id(found: FoundFunction) -> str:
    """Return a function's id as profiles write it."""
    return f"{found.vendor_id:04x}:{found.device_id:04x}"


def is_driver(bound: str, profile: NicProfile) -> bool:
    """Return whether the driver that is bound is the profile's; sysfs writes ``_`` where a module's file has ``-``."""
    return bound.replace("-", "_") == profile.driver.replace("-", "_")


def own_ifname(kernel: Kernel, found: FoundFunction) -> str:
    """Return the present name of a NIC's own network device, which a representor is not; empty for none here."""
    for netdev in found.netdevs:
        try:
            if identify(kernel, netdev.ifname).role in (Role.PF, Role.UPLINK):
                return netdev.ifname
        except NicOffloadError:
            continue  # renamed or gone since
    return ""


def _find(kernel: Kernel, name: str) -> FoundFunction:
    try:
        return find(discover(kernel), name)
    except NotFoundError as cause:
        # Without a hint: the registry's tells of near names.
        raise NotFoundError("no NIC has that PCI address or network device", device=name) from cause


def _not_ours(name: str, found: FoundFunction, families: PciFamilies, vendor: str) -> NotFoundError:
    if families.is_virtual(found):
        hint = (
            f"it is a VF of {found.physfn}; open that" if found.physfn else "it is a VF; its PF is elsewhere"
        )
        return NotFoundError("is a virtual function", device=name, hint=hint)
    return NotFoundError(f"{pci_id(found)} is no NIC that the profiles of {vendor} know", device=name)
