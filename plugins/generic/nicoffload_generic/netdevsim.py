"""Linux's simulated NIC: no PCI device, VFs by a file of its own bus."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence

from nicoffload.driver import OpenContext
from nicoffload.errors import (
    DeviceBusyError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    Reason,
    VerificationError,
    from_errno,
)
from nicoffload.kernel.devlink import Handle
from nicoffload.linux import LinuxNic, Place, VfMaker
from nicoffload.model import DeviceInfo
from nicoffload.profiles.types import NicProfile

FAMILY = "netdevsim"
_BUS = "bus/netdevsim/devices"
_NAME = re.compile(r"(?:netdevsim/)?(netdevsim[0-9]{1,10})")


class NetdevsimMaker(VfMaker):
    """VFs of a simulated NIC: they have no PCI function, and no driver but the switch's."""

    def limit(self) -> int:
        """Return the profile's limit, which Linux tells in debugfs only."""
        facts = self.nic.profile.sriov
        limit = facts.max_vfs if facts is not None else None
        assert limit is not None, "the profile of netdevsim has one"
        return limit

    def addresses(self) -> Sequence[str]:
        """Return an empty address for each VF."""
        return [""] * self._read()

    def make(self, count: int) -> None:
        """Write the number, by way of 0."""
        if self._read():
            self._write(0)
        if count:
            self._write(count)
        found = self._read()
        if found != count:
            raise VerificationError(
                "the write succeeded and the number of VFs is another",
                expected=str(count),
                actual=str(found),
                path="/count",
                device=self.nic.device,
            )

    def commands(self, count: int) -> Sequence[str]:
        """Return the writes to sysfs."""
        file = f"/sys/{self.nic.place.folder}/sriov_numvfs"
        first = [f"echo 0 > {file}"] if self._read() else []
        return [*first, f"echo {count} > {file}"] if count or not first else first

    def driver(self, vf: int) -> str:  # noqa: ARG002 - no VF has one
        """Return nothing: a simulated VF has no driver."""
        return ""

    def reset(self, vf: int) -> None:
        """Refuse: there is no function to reset."""
        self._check(vf)
        raise self._cannot("a simulated VF has no function that could be reset", "vf.reset")

    def bind(self, vf: int, driver: str) -> None:
        """Refuse a driver: there is no function to bind."""
        self._check(vf)
        if driver:
            raise self._cannot(f"a simulated VF can't be bound to {driver}", "vf.bind")

    def _check(self, vf: int) -> None:
        there = self._read()
        if not 0 <= vf < there:
            raise NotFoundError(f"there is no VF {vf}; there are {there}", path="/vf", device=self.nic.device)

    def _cannot(self, message: str, capability: str) -> NotSupportedError:
        reason = Reason(
            code="netdevsim.no_function",
            path="/vf",
            message="VFs of netdevsim are no PCI functions",
            source="drivers/net/netdevsim/bus.c",
        )
        return NotSupportedError(message, capability=capability, reasons=[reason], device=self.nic.device)

    def _read(self) -> int:
        return int(self.nic.kernel.read_sysfs(f"{self.nic.place.folder}/sriov_numvfs"))

    def _write(self, count: int) -> None:
        try:
            self.nic.kernel.write_sysfs(f"{self.nic.place.folder}/sriov_numvfs", str(count).encode())
        except OSError as cause:
            meaning: type[NicOffloadError] | None = DeviceBusyError if cause.errno == errno.EBUSY else None
            raise from_errno(
                cause.errno or errno.EIO,
                f"writing {count} to sriov_numvfs",
                capability="vf.create",
                device=self.nic.device,
                path="/count",
                meaning=meaning,
            ) from cause


def names(context: OpenContext) -> Sequence[str]:
    """Return the simulated NICs of this machine, as devlink calls them."""
    try:
        return [f"netdevsim/{name}" for name in context.kernel.list_sysfs(_BUS) if _NAME.fullmatch(name)]
    except OSError:
        return ()


def is_name(name: str) -> bool:
    """Tell whether a name is that of a simulated NIC."""
    return _NAME.fullmatch(name) is not None


def find(name: str, context: OpenContext) -> str:
    """Return the simulated NIC of a name, its own or that of a network device of it; empty for none."""
    found = _NAME.fullmatch(name)
    if found is not None:
        full = f"netdevsim/{found[1]}"
        return full if full in names(context) else ""
    try:
        target = context.kernel.readlink_sysfs(f"class/net/{name}/device")
    except OSError:
        return ""
    full = f"netdevsim/{target.rpartition('/')[2]}"
    return full if full in names(context) else ""


def info(name: str, profile: NicProfile) -> DeviceInfo:
    """Return what is known of a simulated NIC without touching it."""
    return DeviceInfo(
        name=name, family=profile.family, title=profile.title, plugin="generic", driver=profile.driver
    )


def attach(name: str, context: OpenContext, profile: NicProfile, *, ifname: str = "") -> LinuxNic:
    """Return a simulated NIC.

    Args:
        name: Its name in devlink.
        context: What the plugin was given.
        profile: That of netdevsim.
        ifname: The network device of the port to use; empty for the first.
    """
    place = Place(folder=f"{_BUS}/{name.partition('/')[2]}", handle=Handle.of(name))
    return LinuxNic(context, profile, info(name, profile), place=place, ifname=ifname)
