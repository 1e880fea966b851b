"""Finds and opens software NICs: ``soft:NAME``."""

from __future__ import annotations

from collections.abc import Sequence

from nicoffload.driver import Driver, DriverFactory, OpenContext
from nicoffload.errors import AccessDeniedError
from nicoffload.model import DeviceInfo
from nicoffload.profiles.types import NicProfile
from nicoffload_softnic import build, names
from nicoffload_softnic.device import open_device
from nicoffload_softnic.driver import SoftDriver

FAMILY = "softnic"


class SoftFactory(DriverFactory):
    """Opens software NICs."""

    def discover(self, context: OpenContext) -> Sequence[DeviceInfo]:
        """Return the NICs that can be used; none where the process may not look."""
        try:
            found = build.find_all(context.kernel)
        except AccessDeniedError:
            return []
        profile = context.profiles.get(FAMILY)
        return [make_info(one.name, profile) for one in found if not one.problem]

    def claims(self, name: str) -> bool:
        """Tell whether a name is a software NIC's."""
        return name.startswith(names.PREFIX)

    def open(self, name: str, context: OpenContext) -> Driver:
        """Open a NIC, with all rules that are in it.

        Raises:
            NotFoundError: There is no such NIC.
            InvalidRequestError: The name is malformed.
            AccessDeniedError: The process may not.
        """
        short = names.checked(name.removeprefix(names.PREFIX))
        profile = context.profiles.get(FAMILY)
        device = open_device(context.kernel, short)
        return SoftDriver(device, profile, make_info(short, profile), context.monotonic_s)


def make_info(name: str, profile: NicProfile) -> DeviceInfo:
    """Return what is known of a NIC.

    Args:
        name: Without prefix.
        profile: Its profile.
    """
    return DeviceInfo(
        name=names.PREFIX + name,
        family=profile.family,
        title=profile.title,
        plugin="softnic",
        driver=profile.driver,
        ifname=names.pf(name),
    )
