"""Finds and opens software NICs: ``soft:NAME``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nicoffload.driver import Driver, DriverFactory, OpenContext
from nicoffload.errors import AccessDeniedError
from nicoffload.model import DeviceInfo
from nicoffload.profiles.types import NicProfile
from nicoffload_softnic import build, names
from nicoffload_softnic.driver import SoftDriver
from nicoffload_softnic.finding import open_path
from nicoffload_softnic.path import DataPath
from nicoffload_softnic.wire import raise_links


class SoftFactory(DriverFactory):
    """Opens software NICs."""

    def discover(self, context: OpenContext) -> Sequence[DeviceInfo]:
        """Return the NICs that can be used; none where the process may not look."""
        try:
            found = build.find_all(context.kernel)
        except AccessDeniedError:
            return []
        return [make_info(one.name, context.profiles.get(one.family)) for one in found if not one.problem]

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
        device = open_path(context.kernel, short)
        try:
            profile = context.profiles.get(device.family)
            _complete(device)
            raise_links(device)
            return SoftDriver(device, profile, make_info(short, profile), context.monotonic_s)
        except BaseException:
            device.close()
            raise


def _complete(device: DataPath) -> None:
    home = device.kernel.open_namespace()
    try:
        device.complete(home)
    finally:
        os.close(home)


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
