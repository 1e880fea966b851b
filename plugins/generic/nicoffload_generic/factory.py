"""Finds and opens what no vendor's plugin opens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from nicoffload.driver import Driver, DriverFactory, OpenContext
from nicoffload.errors import NotFoundError
from nicoffload.linux import LinuxNic, compose
from nicoffload.linux.catalog import is_driver
from nicoffload.model import DeviceInfo
from nicoffload_generic import devices, netdevsim
from nicoffload_generic.driver import GenericDriver
from nicoffload_generic.probe import FAMILY, probe, profile_of

_NAME = re.compile(r"[^/\s]{1,64}")


class GenericFactory(DriverFactory):
    """Opens any NIC of this machine that no other plugin opens: it is asked last."""

    last: ClassVar[bool] = True

    def discover(self, context: OpenContext) -> Sequence[DeviceInfo]:
        """Return the NICs of this machine, those of vendors' plugins too: the registry shows each once."""
        profile = context.profiles.get(netdevsim.FAMILY)
        simulated = [
            replace(
                netdevsim.info(name, profile), ifname=netdevsim.attach(name, context, profile).info.ifname
            )
            for name in netdevsim.names(context)
        ]
        return [*(_info(one) for one in devices.devices(context.kernel)), *simulated]

    def claims(self, name: str) -> bool:
        """Tell whether a name could be that of a NIC here, which shows when it is opened."""
        return netdevsim.is_name(name) or bool(_NAME.fullmatch(name))

    def open(self, name: str, context: OpenContext) -> Driver:
        """Open a NIC.

        Raises:
            NotFoundError: There is no such NIC.
        """
        simulated = netdevsim.find(name, context)
        if simulated:
            profile = context.profiles.get(netdevsim.FAMILY)
            ifname = "" if netdevsim.is_name(name) else name
            nic = netdevsim.attach(simulated, context, profile, ifname=ifname)
            return compose(nic, maker=netdevsim.NetdevsimMaker(nic))
        device, ifname = devices.find(context.kernel, name)
        if device is None:
            raise NotFoundError(
                "there is no such NIC, or it is a VF, or no hardware is behind it",
                device=name,
                hint="`nicoffload devices` lists the NICs; open a VF's PF",
            )
        findings = probe(
            context.kernel,
            ifname or device.ifname,
            device.place.handle,
            driver=device.driver,
            total_vfs=device.total_vfs,
        )
        alike = tuple(
            family
            for family in context.profiles.families()
            if is_driver(device.driver, context.profiles.get(family)) and family != netdevsim.FAMILY
        )
        findings = replace(findings, alike=alike)
        info = replace(_info(device), title=findings.title)
        nic = LinuxNic(context, profile_of(findings), info, place=device.place, ifname=ifname)
        return GenericDriver.of(nic)


def _info(device: devices.Device) -> DeviceInfo:
    return DeviceInfo(
        name=device.name,
        family=FAMILY,
        title=f"NIC of the Linux driver {device.driver or 'of no name'}",
        plugin="generic",
        driver=device.driver,
        pci_address=device.pci_address,
        ifname=device.ifname,
    )
