"""Finds and opens what no vendor's plugin opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from nicoffload.driver import Driver, DriverFactory, OpenContext
from nicoffload.errors import NotFoundError
from nicoffload.linux import compose
from nicoffload.model import DeviceInfo
from nicoffload_generic import netdevsim


class GenericFactory(DriverFactory):
    """Opens simulated NICs."""

    last: ClassVar[bool] = True

    def discover(self, context: OpenContext) -> Sequence[DeviceInfo]:
        """Return the simulated NICs of this machine."""
        profile = context.profiles.get(netdevsim.FAMILY)
        return [
            replace(
                netdevsim.info(name, profile),
                ifname=netdevsim.attach(name, context, profile).info.ifname,
            )
            for name in netdevsim.names(context)
        ]

    def claims(self, name: str) -> bool:
        """Tell whether a name could be a NIC's of this machine."""
        return bool(name) and ":" not in name.partition(":")[0]

    def open(self, name: str, context: OpenContext) -> Driver:
        """Open a NIC."""
        found = netdevsim.find(name, context)
        if found:
            profile = context.profiles.get(netdevsim.FAMILY)
            ifname = "" if netdevsim.is_name(name) else name
            nic = netdevsim.attach(found, context, profile, ifname=ifname)
            return compose(nic, maker=netdevsim.NetdevsimMaker(nic))
        raise NotFoundError("there is no such NIC", device=name)
