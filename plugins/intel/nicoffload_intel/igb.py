"""igb: 82576, i350, i210."""

from __future__ import annotations

from nicoffload.driver import Driver
from nicoffload.kernel.tc import QueueStyle
from nicoffload.linux import LinuxNic, PciMaker, compose, mechanisms


def compose_igb(nic: LinuxNic) -> Driver:
    """Return the driver of a NIC.

    flower names a queue by the number of a traffic class (igb_main.c:2671 igb_configure_clsflower). A VF's driver finds
    the PF in a reset unless the PF is up first (igb_main.c:3733 igb_enable_sriov closes and opens it).
    """
    return compose(nic, serve=mechanisms(nic, queues=QueueStyle.HW_TC), maker=PciMaker(nic, pf_up_first=True))
