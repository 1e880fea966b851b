"""i40e: X710, XL710, XXV710, X722."""

from __future__ import annotations

from nicoffload.driver import Driver
from nicoffload.kernel.tc import QueueStyle
from nicoffload.linux import LinuxNic, compose, mechanisms


def compose_i40e(nic: LinuxNic) -> Driver:
    """Return the driver of a NIC: Flow Director rules to VFs and queues, flower to the queue groups of ADQ.

    flower names a queue group by its traffic class (i40e_main.c:8842 i40e_handle_tclass).
    """
    return compose(nic, serve=mechanisms(nic, queues=QueueStyle.HW_TC))
