"""What sysfs tells of one network device (net/core/net-sysfs.c)."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from nicoffload.testing.fake_kernel.errnos import refusal
from nicoffload.testing.fake_kernel.netdevs import queue_count
from nicoffload.testing.fake_kernel.tree import File, Folder, Link, Node, fixed
from nicoffload.testing.fake_kernel.world import FakeNetdev, NetdevKind

_MBPS = 1_000_000
_UNKNOWN_SPEED = "-1"


def show_netdev(netdev: FakeNetdev, parent: str) -> Folder:
    """Return the folder of a network device.

    Args:
        netdev: The device.
        parent: Name of the function that it hangs on; empty for none.
    """
    nodes: dict[str, Node] = {
        "ifindex": fixed(str(netdev.ifindex)),
        "address": fixed(netdev.mac.to_bytes(6, "big").hex(":")),
        "mtu": fixed(str(netdev.mtu)),
        "operstate": fixed(_operstate(netdev)),
        "carrier": File(read=lambda: str(int(_running(netdev) and _link_bps(netdev) > 0))),
        "carrier_changes": File(read=lambda: str(_carrier_changes(netdev))),
        "speed": File(read=lambda: _speed(netdev)),
        "type": fixed("772" if netdev.kind is NetdevKind.OTHER and netdev.ifname == "lo" else "1"),
        "phys_switch_id": _perhaps(netdev.switch_id.hex()),
        "phys_port_name": _perhaps(netdev.port_name),
        "dev_port": fixed(str(netdev.dev_port)),
        "phys_port_id": _perhaps(""),
        "queues": Folder(lambda: _queues(netdev)),
        "subsystem": Link("../../../../../class/net"),
    }
    if parent:
        nodes["device"] = Link(f"../../../{parent}")
    return Folder(lambda: nodes)


def _queues(netdev: FakeNetdev) -> Mapping[str, Node]:
    count = queue_count(netdev)
    received: dict[str, Node] = {f"rx-{number}": Folder(dict) for number in range(count)}
    sent: dict[str, Node] = {f"tx-{number}": _sending(netdev, number, count) for number in range(count)}
    return received | sent


def _sending(netdev: FakeNetdev, queue: int, queues: int) -> Folder:
    return Folder(lambda: {"traffic_class": fixed(_traffic_class(netdev, queue, queues))})


def _traffic_class(netdev: FakeNetdev, queue: int, queues: int) -> str:
    """Return the class of a queue: 0 for all without classes; with them, the emulated NIC has two."""
    has_classes = netdev.nic is not None and netdev.nic.device.features.get("mqprio", False)
    return str(int(has_classes and netdev.kind is NetdevKind.PF and queue >= queues // 2))


def _operstate(netdev: FakeNetdev) -> str:
    if netdev.nic is None:
        return "unknown"
    return "up" if netdev.up and _link_bps(netdev) else "down"


def _link_bps(netdev: FakeNetdev) -> int:
    return netdev.nic.device.link_bps if netdev.nic is not None else 1


def _carrier_changes(netdev: FakeNetdev) -> int:
    return netdev.nic.device.carrier_changes if netdev.nic is not None else 0


def _running(netdev: FakeNetdev) -> bool:
    if not netdev.up:
        raise refusal(errno.EINVAL)
    return True


def _speed(netdev: FakeNetdev) -> str:
    """Return the speed in Mbit/s; netdevsim's driver, and what is no NIC, has none to tell."""
    if netdev.nic is None or netdev.nic.bus != "pci":
        raise refusal(errno.EINVAL)
    _running(netdev)
    bps = _link_bps(netdev)
    return str(bps // _MBPS) if bps else _UNKNOWN_SPEED


def _perhaps(text: str) -> File:
    def show() -> str:
        if not text:
            raise refusal(errno.EOPNOTSUPP)
        return text

    return File(read=show)
