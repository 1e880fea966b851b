"""The shaper: HTB on a pair of devices in the NIC's namespace, through which goes all that a limited VF sends."""

from __future__ import annotations

from collections.abc import Mapping

from nicoffload.errors import NicOffloadError
from nicoffload.kernel.tc import htb
from nicoffload_softnic import layout
from nicoffload_softnic.device import SoftDevice
from nicoffload_softnic.path import DEFAULT_LINK_BPS

_HANDLE = 1 << 16
_ROOT_CLASS = _HANDLE | 1
_GSO_BYTES = 65_536
_CEIL_TURNS_PER_S, _GUARANTEE_TURNS_PER_S = 250, 50
"""What a class may send at once is what it gets in this part of a second, and at least one large packet.

A sender that waits for a core waits for a tick of the kernel's clock, 4 ms, or for some; what it did not send then,
it may send afterwards. Of what it is sure of it may catch up with more: it stays within what it may have at most.
"""
_LARGEST_SHARE = 16
_SMALLEST_BPS = 8_000


def link_bps(device: SoftDevice) -> int:
    """Return the speed of the port that VFs share."""
    return device.link_bps or DEFAULT_LINK_BPS


def is_needed(device: SoftDevice) -> bool:
    """Tell whether anything limits what VFs send: a speed of the port that was asked for, or a rate of a VF."""
    ports = [device.port(layout.FIRST_VF + index) for index in range(device.vfs)]
    return bool(device.link_bps) or any(port["min_tx_bps"] or port["max_tx_bps"] for port in ports)


def apply(device: SoftDevice) -> None:
    """Make classes as the ports' rates say, and lead VFs through the shaper or past it. Repeatable.

    A VF that has no rate has a class all the same while another has one: it takes part in sharing the port.

    Raises:
        NicOffloadError: The kernel refuses, or has no HTB.
    """
    ports = [device.port(layout.FIRST_VF + index) for index in range(device.vfs)]
    if not is_needed(device):
        for port in ports:
            port["flags"] &= 0xFF ^ layout.PORT_SHAPED
        return
    if not _has_root(device):
        htb.add_htb(device.netlink, layout.SHAPER_IN, _HANDLE, 0)
    whole = link_bps(device)
    _set(device, _ROOT_CLASS, _HANDLE, whole, whole)
    smallest = min((int(port["min_tx_bps"]) for port in ports if port["min_tx_bps"]), default=_SMALLEST_BPS)
    for port in ports:
        guaranteed = int(port["min_tx_bps"]) or _SMALLEST_BPS
        most = int(port["max_tx_bps"]) or whole
        # What others leave is shared as the guarantees are: equal parts would be much to who has the smallest one.
        share = min(max(guaranteed / smallest, 1), _LARGEST_SHARE)
        _set(device, int(port["class_id"]), _ROOT_CLASS, min(guaranteed, most), min(most, whole), share)
        port["flags"] |= layout.PORT_SHAPED


def dropped(device: SoftDevice) -> Mapping[int, int]:
    """Return class to packets that found its queue full."""
    try:
        return {one.class_id: one.dropped for one in htb.counters(device.netlink, layout.SHAPER_IN)}
    except NicOffloadError:  # a kernel without HTB has no classes
        return {}


def forget(device: SoftDevice, vf: int) -> None:
    """Remove the class of a VF that is removed: the next one of that number counts from nothing. Repeatable."""
    class_id = int(device.port(layout.FIRST_VF + vf)["class_id"])
    if class_id in dropped(device):
        htb.delete_class(device.netlink, layout.SHAPER_IN, class_id)


def _has_root(device: SoftDevice) -> bool:
    return any(one.class_id == _ROOT_CLASS for one in htb.counters(device.netlink, layout.SHAPER_IN))


def _set(
    device: SoftDevice, class_id: int, parent: int, rate_bps: int, ceil_bps: int, share: float = 1.0
) -> None:
    htb.set_class(
        device.netlink,
        layout.SHAPER_IN,
        htb.HtbClass(
            class_id=class_id,
            parent=parent,
            rate_bps=rate_bps,
            ceil_bps=ceil_bps,
            burst_bytes=max(_GSO_BYTES, rate_bps // 8 // _GUARANTEE_TURNS_PER_S),
            ceil_burst_bytes=max(_GSO_BYTES, ceil_bps // 8 // _CEIL_TURNS_PER_S),
            quantum_bytes=int(_GSO_BYTES * share),
        ),
    )
