"""ice: E810, E82x, E830."""

from __future__ import annotations

from nicoffload.driver import Driver
from nicoffload.kernel.tc import QueueStyle
from nicoffload.linux import LinuxNic, compose, mechanisms


def compose_ice(nic: LinuxNic) -> Driver:
    """Return the driver of a NIC: flower to representors in switchdev mode, to queues and Flow Director in legacy mode.

    In legacy mode flower names a queue by ``skbedit queue_mapping`` (ice_tc_lib.c:1876 ice_tc_parse_action).
    """
    return compose(nic, serve=mechanisms(nic, queues=QueueStyle.SKBEDIT))
