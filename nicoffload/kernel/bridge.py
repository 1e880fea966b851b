"""How a NIC's own switch forwards between VFs: itself (VEB), or through the switch outside (VEPA)."""

from __future__ import annotations

import enum
import struct

from nicoffload.errors import InvalidRequestError
from nicoffload.kernel.attributes import Buffer, fields, nested, number, parse, u16
from nicoffload.kernel.netlink import Netlink, messages

_RTM_NEWLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 18, 19
_AF_BRIDGE = 7
IFINFO = struct.Struct("=BxHiII")
_AF_SPEC = 26
_FLAGS, _MODE = 0, 1
_SELF = 2
_CAPABILITY = "bridge.hwmode"


class HwMode(enum.Enum):
    """Who forwards from VF to VF."""

    VEB = "veb"
    """The NIC."""
    VEPA = "vepa"
    """The switch at the other end of the wire."""


_NUMBERS = {0: HwMode.VEB, 1: HwMode.VEPA}


def read_hwmode(netlink: Netlink, ifindex: int) -> HwMode | None:
    """Return the mode; None where the driver does not report one, or one of another name.

    Equivalent to: ``bridge -d link show dev NIC``

    Args:
        netlink: A socket of `NETLINK_ROUTE`.
        ifindex: The PF's network device.

    Raises:
        NicOffloadError: The kernel refuses.
    """
    for datagram in netlink.dump(_RTM_GETLINK, IFINFO.pack(_AF_BRIDGE, 0, 0, 0, 0), capability=_CAPABILITY):
        for message in messages(datagram):
            if message.kind == _RTM_NEWLINK and fields(IFINFO, message.payload)[2] == ifindex:
                mode = _mode(message.payload)
                if mode is not None:
                    return mode  # a port of a bridge comes twice, once from the bridge and without a mode
    return None


def set_hwmode(netlink: Netlink, ifindex: int, mode: HwMode) -> None:
    """Set the mode.

    Equivalent to: ``bridge link set dev NIC hwmode veb|vepa``

    Args:
        netlink: A socket of `NETLINK_ROUTE`.
        ifindex: The PF's network device.
        mode: The mode.

    Raises:
        NotSupportedError: The driver has no modes.
        DeviceGoneError: There is no such device.
        NicOffloadError: The kernel refuses for another reason.
    """
    if not 0 < ifindex < 1 << 31:
        raise InvalidRequestError(f"{ifindex} is no number of a device")
    wanted = next(place for place, one in _NUMBERS.items() if one is mode)
    payload = IFINFO.pack(_AF_BRIDGE, 0, ifindex, 0, 0)
    refused, _ = netlink.request(
        _RTM_SETLINK, 0, payload + nested(_AF_SPEC, u16(_FLAGS, _SELF), u16(_MODE, wanted))
    )
    if refused:
        raise refused.error(f"setting the mode {mode.value} of device {ifindex}", capability=_CAPABILITY)


def hwmode_command(ifname: str, mode: HwMode) -> str:
    """Return the bridge command that does the same."""
    return f"bridge link set dev {ifname} hwmode {mode.value}"


def _mode(payload: Buffer) -> HwMode | None:
    spec = parse(payload, IFINFO.size).get(_AF_SPEC)
    found = parse(spec).get(_MODE) if spec is not None else None
    return None if found is None else _NUMBERS.get(number(found, 2))
