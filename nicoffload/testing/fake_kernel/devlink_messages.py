"""Messages of devlink, as the kernel fills them (net/devlink, include/uapi/linux/devlink.h)."""

from __future__ import annotations

import enum

from nicoffload.testing.fake_kernel.devlink_rates import (
    NODE_NAME,
    PARENT,
    TX_MAX,
    TX_PRIORITY,
    TX_SHARE,
    TX_WEIGHT,
    RateObject,
)
from nicoffload.testing.fake_kernel.drivers import facts
from nicoffload.testing.fake_kernel.netdevs import port_number
from nicoffload.testing.fake_kernel.netlink import (
    NEST,
    TEXT,
    Policy,
    attribute,
    nest,
    number,
    string,
)
from nicoffload.testing.fake_kernel.world import FakeNetdev, FakeNic

BUS, DEVICE, PORT_INDEX, PORT_TYPE = 1, 2, 3, 4
_NETDEV_IFINDEX, _NETDEV_NAME = 6, 7
MODE, INLINE, ENCAP = 25, 26, 62
_FLAVOUR, _PORT_NUMBER = 77, 78
_DRIVER, _SERIAL, _RUNNING, _VERSION_NAME, _VERSION_VALUE = 98, 99, 101, 103, 104
_PF_NUMBER, _VF_NUMBER, PORT_FUNCTION, _SPLITTABLE, _EXTERNAL, _CONTROLLER = 127, 128, 145, 148, 149, 150
_RATE_TYPE = 165
_RELOAD_FAILED = 136
_HW_ADDR = 1
_ETHERNET = 2
_PHYSICAL, _PCI_VF = 0, 4
_LEAF, _NODE = 0, 1


class Command(enum.IntEnum):
    """Commands, by the names of linux/devlink.h."""

    GET = 1
    NEW = 3
    DEL = 4
    PORT_GET = 5
    PORT_SET = 6
    PORT_NEW = 7
    PORT_DEL = 8
    ESWITCH_GET = 29
    ESWITCH_SET = 30
    INFO_GET = 51
    RATE_GET = 74
    RATE_SET = 75
    RATE_NEW = 76
    RATE_DEL = 77


_DEVICE_POLICY: Policy = {BUS: TEXT, DEVICE: TEXT}
_RATES: Policy = {TX_SHARE: 8, TX_MAX: 8, TX_PRIORITY: 4, TX_WEIGHT: 4, PARENT: TEXT}
_POLICIES: dict[int, Policy] = {
    Command.GET: _DEVICE_POLICY,
    Command.PORT_GET: {**_DEVICE_POLICY, PORT_INDEX: 4},
    Command.PORT_SET: {**_DEVICE_POLICY, PORT_INDEX: 4, PORT_TYPE: 2, PORT_FUNCTION: NEST},
    Command.ESWITCH_GET: _DEVICE_POLICY,
    Command.ESWITCH_SET: {**_DEVICE_POLICY, MODE: 2, INLINE: 1, ENCAP: 1},
    Command.INFO_GET: _DEVICE_POLICY,
    Command.RATE_GET: {**_DEVICE_POLICY, PORT_INDEX: 4, NODE_NAME: TEXT},
    Command.RATE_SET: {**_DEVICE_POLICY, PORT_INDEX: 4, NODE_NAME: TEXT, **_RATES},
    Command.RATE_NEW: {**_DEVICE_POLICY, NODE_NAME: TEXT, **_RATES},
    Command.RATE_DEL: {**_DEVICE_POLICY, NODE_NAME: TEXT},
}
_DUMPS = frozenset({Command.GET, Command.PORT_GET, Command.INFO_GET, Command.RATE_GET})


def policy(command: int, *, dump: bool) -> Policy | None:
    """Return what a command takes (net/devlink/netlink_gen.c); None for one that there is not."""
    if dump:
        return _DEVICE_POLICY if command in _DUMPS else None
    return _POLICIES.get(command)


def handle(nic: FakeNic) -> bytes:
    """Return the attributes that name a device."""
    return string(BUS, nic.bus) + string(DEVICE, nic.pci_address)


def describe_device(nic: FakeNic) -> bytes:
    """Return what is told of a device."""
    return handle(nic) + number(_RELOAD_FAILED, 0, 1)


def describe_info(nic: FakeNic) -> bytes:
    """Return the driver's name; with it a serial number and a version, which an emulated NIC has for show."""
    out = handle(nic) + string(_DRIVER, nic.profile.driver)
    if not facts(nic.profile).devlink_info:
        return out
    version = nest(_RUNNING, string(_VERSION_NAME, "fw"), string(_VERSION_VALUE, "emulated"))
    return out + string(_SERIAL, nic.switch_id.hex("-")) + version


def describe_eswitch(nic: FakeNic, mode: int | None, modes: tuple[int, int] | None) -> bytes:
    """Return the modes of a switch.

    Args:
        nic: Whose.
        mode: Its mode; None where the driver has none.
        modes: Inline and encapsulation mode; None where the driver has none.
    """
    out = handle(nic)
    if mode is not None:
        out += number(MODE, mode, 2)
    if modes is not None:
        out += number(INLINE, modes[0], 1) + number(ENCAP, modes[1], 1)
    return out


def describe_port(netdev: FakeNetdev, index: int, hw_addr: int | None) -> bytes:
    """Return what is told of a port.

    Args:
        netdev: Its network device.
        index: Its number.
        hw_addr: Address of the function behind it; None where the driver tells none.
    """
    nic = netdev.nic
    assert nic is not None
    out = handle(nic) + number(PORT_INDEX, index, 4) + number(PORT_TYPE, _ETHERNET, 2)
    if (
        netdev.namespace is not None and netdev.namespace.is_home
    ):  # devlink_nl_port_fill: of one namespace only
        out += number(_NETDEV_IFINDEX, netdev.ifindex, 4) + string(_NETDEV_NAME, netdev.ifname)
    if not facts(nic.profile).port_flavours:
        return out
    out += number(_SPLITTABLE, 0, 1)
    port = port_number(nic)
    if netdev.vf is None:
        shown = port + facts(nic.profile).first_port_number
        return out + number(_FLAVOUR, _PHYSICAL, 2) + number(_PORT_NUMBER, shown, 4)
    out += number(_FLAVOUR, _PCI_VF, 2) + number(_CONTROLLER, 0, 4)
    out += number(_PF_NUMBER, port, 2) + number(_VF_NUMBER, netdev.vf, 2) + number(_EXTERNAL, 0, 1)
    if hw_addr is not None:
        out += nest(PORT_FUNCTION, attribute(_HW_ADDR, hw_addr.to_bytes(6, "big")))
    return out


def describe_rate(one: RateObject, port: int | None) -> bytes:
    """Return what is told of a rate object.

    Args:
        one: The object.
        port: Number of a leaf's port; None for a node.
    """
    out = handle(one.nic) + number(_RATE_TYPE, _LEAF if port is not None else _NODE, 2)
    out += number(PORT_INDEX, port, 4) if port is not None else string(NODE_NAME, one.name)
    out += number(TX_SHARE, one.tx_share, 8) + number(TX_MAX, one.tx_max, 8)
    out += number(TX_PRIORITY, one.tx_priority, 4) + number(TX_WEIGHT, one.tx_weight, 4)
    return out + (string(PARENT, one.parent.name) if one.parent is not None else b"")
