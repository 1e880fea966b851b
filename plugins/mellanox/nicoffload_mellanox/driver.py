"""Opens NVIDIA Mellanox NICs, each as its kernel driver wants it."""

from __future__ import annotations

from nicoffload.driver import Driver
from nicoffload.linux import LinuxNic, compose
from nicoffload.linux.catalog import Opening, PciFactory


def _make(opening: Opening) -> Driver:
    """Return the driver of a NIC.

    mlx4: the Ethernet steering of the device, where the location of a rule is its priority; VFs come with a parameter
    of its module. mlx5: flower to representors in switchdev mode, the classifier of ethtool beside it.
    """
    return compose(LinuxNic(opening.context, opening.profile, opening.info, ifname=opening.ifname))


FACTORY = PciFactory(plugin="mellanox", vendor="mellanox", make=_make)
