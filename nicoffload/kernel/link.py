"""A network device as a link: whether it is up, how fast it is, what it counted, and how to set it up."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.errors import DeviceGoneError
from nicoffload.kernel.attributes import Buffer, MalformedError, number, parse, string
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel

_RTM_NEWLINK, _RTM_GETLINK = 16, 18
_IFNAME, _STATS64 = 3, 23
_IFINFO = struct.Struct("=BxHiII")
_UP, _LOWER_UP = 0x1, 0x1_0000
_BPS_PER_MBPS = 1_000_000
_COUNTERS: Mapping[str, int] = MappingProxyType(
    {"rx_packets": 0, "tx_packets": 1, "rx_bytes": 2, "tx_bytes": 3, "rx_dropped": 6, "tx_dropped": 7}
)
"""Place of each among the 64-bit numbers of struct rtnl_link_stats64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkReport:
    """What the kernel reports of a network device.

    Args:
        ifindex: Its number.
        ifname: Its name at the time.
        up: Whether somebody set it up.
        carrier: Whether its link is up too.
        counters: ``rx_packets`` and so on to what was counted; empty where the kernel reports none.
    """

    ifindex: int
    ifname: str
    up: bool
    carrier: bool
    counters: Mapping[str, int]


def read_link(kernel: Kernel, ifindex: int, *, device: str = "") -> LinkReport:
    """Return what the kernel reports of a network device.

    Equivalent to: ``ip -s link show dev NIC``

    Raises:
        DeviceGoneError: There is no such network device.
        NicOffloadError: The kernel refuses.
    """
    with Netlink(kernel, NETLINK_ROUTE, device=device) as netlink:
        return read_link_by(netlink, ifindex, device=device)


def read_link_by(netlink: Netlink, ifindex: int, *, device: str = "") -> LinkReport:
    """Return what `read_link` does, of a device in the namespace of a route socket.

    Raises:
        DeviceGoneError: There is no such network device.
        NicOffloadError: The kernel refuses.
    """
    refused, replies = netlink.request(_RTM_GETLINK, 0, _IFINFO.pack(0, 0, ifindex, 0, 0))
    if refused is not None:
        raise refused.error("reading the link", capability="link", device=device)
    for reply in replies:
        if reply.kind == _RTM_NEWLINK:
            return _decode(reply.payload, device)
    raise DeviceGoneError("the kernel did not describe the network device", device=device)


def set_up(kernel: Kernel, ifindex: int, *, device: str = "") -> None:
    """Set a network device up. Repeatable.

    Equivalent to: ``ip link set dev NIC up``

    Raises:
        NicOffloadError: The kernel refuses.
    """
    with Netlink(kernel, NETLINK_ROUTE, device=device) as netlink:
        refused, _ = netlink.request(_RTM_NEWLINK, 0, _IFINFO.pack(0, 0, ifindex, _UP, _UP))
    if refused is not None:
        raise refused.error("setting the link up", capability="link", device=device)


def read_carrier_changes(kernel: Kernel, ifname: str) -> int | None:
    """Return how often a device's carrier went or came since the device is there; None where Linux does not tell.

    Equivalent to: ``cat /sys/class/net/NIC/carrier_changes``
    """
    try:
        return int(kernel.read_sysfs(f"class/net/{ifname}/carrier_changes"))
    except (OSError, ValueError):
        return None


def read_speed_bps(kernel: Kernel, ifname: str) -> int | None:
    """Return the speed of a device's link; 0 while the link is down, None where it can not be read."""
    try:
        text = kernel.read_sysfs(f"class/net/{ifname}/speed").strip()
    except OSError as cause:
        return 0 if cause.errno == errno.EINVAL else None  # EINVAL: it is not up
    try:
        speed = int(text)
    except ValueError:
        return None
    return speed * _BPS_PER_MBPS if speed > 0 else None


def _decode(payload: Buffer, device: str) -> LinkReport:
    if len(payload) < _IFINFO.size:
        raise MalformedError("a link is cut short", device=device)
    _, _, ifindex, flags, _ = _IFINFO.unpack_from(payload)
    found = parse(payload, _IFINFO.size)
    stats = found.get(_STATS64)
    counters = (
        {name: number(stats[8 * place : 8 * place + 8], 8) for name, place in _COUNTERS.items()}
        if stats is not None
        else {}
    )
    return LinkReport(
        ifindex=ifindex,
        ifname=string(found.get(_IFNAME, b"")),
        up=bool(flags & _UP),
        carrier=bool(flags & _LOWER_UP),
        counters=counters,
    )
