"""Opens Intel NICs, each as its kernel driver wants it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nicoffload.driver import Driver
from nicoffload.linux import LinuxNic
from nicoffload.linux.catalog import Opening, PciFactory
from nicoffload_intel import i40e, ice, igb, ixgbe

_COMPOSERS: Mapping[str, Callable[[LinuxNic], Driver]] = MappingProxyType(
    {"igb": igb.compose_igb, "ixgbe": ixgbe.compose_ixgbe, "i40e": i40e.compose_i40e, "ice": ice.compose_ice}
)


def _make(opening: Opening) -> Driver:
    nic = LinuxNic(opening.context, opening.profile, opening.info, ifname=opening.ifname)
    return _COMPOSERS[opening.profile.driver](nic)


FACTORY = PciFactory(plugin="intel", vendor="intel", make=_make)
