"""The ports of VFs: their pairs of devices, made and removed while packets flow."""

from __future__ import annotations

import os

from nicoffload.kernel import veth
from nicoffload.kernel.bpf import attach_ingress
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import Kernel
from nicoffload.kernel.tc import Hook, bpf_filter, qdisc
from nicoffload_softnic import layout, names
from nicoffload_softnic.device import SoftDevice
from nicoffload_softnic.links import whole_packets
from nicoffload_softnic.path import inside

_SHAPER_HANDLE = 1 << 16
_FIRST_MINOR = 0x10
SPOOF_CHECK_SET, TRUSTED = 1, 2
"""Bits of a port's `settings`: as they were asked for, whether or not they are in force."""


def class_id_of(vf: int) -> int:
    """Return the class of the shaper for what a VF sends."""
    return _SHAPER_HANDLE | _FIRST_MINOR + vf


def add_vf(device: SoftDevice, index: int, home: int) -> None:
    """Make a VF and its representor, with the settings of a new one.

    Args:
        device: The NIC.
        index: Of the VF.
        home: Descriptor of the namespace where its devices appear.
    """
    number = layout.FIRST_VF + index
    port = device.port(number)
    port["role"] = layout.ROLE_NONE
    port["number"] = number
    port["miss"] = layout.representor_of(number)
    port["mac"] = 0
    port["tci"] = 0
    port["vlan_proto"] = 0x8100
    port["link_state"] = 0
    port["settings"] = SPOOF_CHECK_SET
    port["flags"] = layout.PORT_SPOOF_CHECK | layout.PORT_MAC_FILTER
    port["class_id"] = class_id_of(index)
    port["min_tx_bps"] = port["max_tx_bps"] = 0
    port["spare"][0] += 1
    device.traffic[:, number] = 0
    add_pair(device, number, representor=False, home=home)
    add_pair(device, number, representor=True, home=home)
    port["role"] = layout.ROLE_VF
    device.config["vfs"] = index + 1


def remove_vf(device: SoftDevice, index: int) -> None:
    """Remove the last VF and its representor, wherever their devices are."""
    number = layout.FIRST_VF + index
    device.config["vfs"] = index
    device.port(number)["role"] = layout.ROLE_NONE
    for ifindex in (layout.ifindex_of(number), layout.representor_of(number)):
        if veth.find_link(device.netlink, ifindex) is not None:
            veth.delete_link(device.netlink, ifindex)


def complete(device: SoftDevice, index: int, home: int) -> bool:
    """Make the pairs of a VF anew that are gone or have no program, for their maker was killed.

    Args:
        device: The NIC.
        index: Of the VF.
        home: Descriptor of the namespace where its devices appear.

    Returns:
        Whether the VF's own device is a new one.
    """
    number = layout.FIRST_VF + index
    is_down = bool(device.port(number)["flags"] & layout.PORT_DOWN)
    is_new = False
    for representor in (False, True):
        ifindex = layout.representor_of(number) if representor else layout.ifindex_of(number)
        found = veth.find_link(device.netlink, ifindex)
        if found is None or bpf_filter.attached(device.netlink, Hook.ingress(ifindex)) is None:
            if found is not None:
                veth.delete_link(device.netlink, ifindex)
            add_pair(device, number, representor=representor, home=home)
            is_new |= not representor
        if not representor and is_down:
            veth.set_up(device.netlink, ifindex, up=False)
    return is_new


def add_pair(device: SoftDevice, number: int, *, representor: bool, home: int) -> None:
    """Make the pair of a VF or of its representor, with its program."""
    index = number - layout.FIRST_VF
    ifindex = layout.representor_of(number) if representor else layout.ifindex_of(number)
    inner = f"r{index}" if representor else f"v{index}"
    outer = names.representor(device.name, index) if representor else names.vf(device.name, index)
    netlink = device.netlink
    veth.add_veth(
        netlink, veth.VethEnd(ifname=inner, ifindex=ifindex), veth.VethEnd(ifname=outer, namespace=home)
    )
    veth.keep_silent(netlink, ifindex)
    qdisc.ensure(netlink, ifindex)
    parked = layout.SHAPER_IN if representor else layout.ifindex_of(layout.UPLINK)
    program = device.program(parked)
    try:
        with inside(device.kernel, device.name) as within:
            hang(within, netlink, ifindex, program, "tap" if representor else "nic")
            if representor:
                whole_packets(within, inner)
    finally:
        os.close(program)
    veth.set_up(netlink, ifindex)


def hang(within: Kernel, netlink: Netlink, ifindex: int, program: int, name: str) -> None:
    """Put a program on the ingress of an inner end: as a filter of tc, by which it is found again, and before tc.

    Where the kernel has TCX, packets never come to the filter: the program decides about each.

    Args:
        within: In the NIC's namespace.
        netlink: A socket there.
        ifindex: Of the inner end; it has a clsact.
        program: Its descriptor.
        name: Shown by tc.
    """
    bpf_filter.attach(netlink, Hook.ingress(ifindex), program, name)
    attach_ingress(within, ifindex, program)
