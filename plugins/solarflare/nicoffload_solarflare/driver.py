"""Opens Solarflare and Xilinx NICs, each as its kernel driver wants it."""

from __future__ import annotations

from nicoffload.driver import Driver
from nicoffload.linux import LinuxNic, compose
from nicoffload.linux.catalog import Opening, PciFactory


def _make(opening: Opening) -> Driver:
    return compose(LinuxNic(opening.context, opening.profile, opening.info, ifname=opening.ifname))


FACTORY = PciFactory(plugin="solarflare", vendor="solarflare", make=_make)
