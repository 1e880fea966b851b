"""ixgbe: 82599, X540, X550."""

from __future__ import annotations

from nicoffload.driver import Driver
from nicoffload.linux import LinuxNic, compose, mechanisms


def compose_ixgbe(nic: LinuxNic) -> Driver:
    """Return the driver of a NIC."""
    return compose(nic, serve=mechanisms(nic))
