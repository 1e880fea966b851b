"""What is set on the devices of a NIC, whichever data path is behind them."""

from __future__ import annotations

import os
import struct

from nicoffload.errors import NicOffloadError
from nicoffload.kernel import veth
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel
from nicoffload_softnic import layout
from nicoffload_softnic.path import DataPath

_ETHTOOL_OFF = (0x17, 0x19, 0x1F, 0x24)
"""ETHTOOL_STXCSUM, _SSG, _STSO, _SGSO: what is off, the kernel does before a packet leaves the device."""


def whole_packets(within: Kernel, ifname: str) -> None:
    """Let what leaves a device be segmented and have its checksum, as what a real NIC hands to the host."""
    for command in _ETHTOOL_OFF:
        within.ethtool(ifname, struct.pack("=II", command, 0))


def set_own_mac(device: DataPath, index: int, mac: int) -> bool:
    """Give the VF's own device an address, where it is in this namespace or in one that has a name.

    Returns:
        Whether it could be reached. A guest that took it away sets it by itself, as with any VF.
    """
    link = veth.find_link(device.netlink, layout.ifindex_of(layout.FIRST_VF + index))
    if link is None:
        return False
    for path in ("", *(f"/run/netns/{name}" for name in device.kernel.namespaces())):
        try:
            descriptor = device.kernel.open_namespace(path)
        except OSError:
            continue
        try:
            if link.peer_nsid is None or veth.nsid_of(device.netlink, descriptor) != link.peer_nsid:
                continue
        finally:
            os.close(descriptor)
        return _set_mac_in(device, path, link.peer, mac)
    return False


def _set_mac_in(device: DataPath, path: str, ifindex: int, mac: int) -> bool:
    try:
        if not path:
            with Netlink(device.kernel, NETLINK_ROUTE) as netlink:
                veth.set_mac(netlink, ifindex, mac)
        else:
            with device.kernel.namespace(path) as there, Netlink(there, NETLINK_ROUTE) as netlink:
                veth.set_mac(netlink, ifindex, mac)
    except (NicOffloadError, OSError):
        return False
    return True
