"""What a network device stands for: the wire, a PF, a VF, or the switch's end of one of them (a representor).

A VF and its representor are two devices of alike names. What tells them apart is never a name: a representor has a
switch id and a port name, a VF is a PCI function with a link to its PF.
"""

from __future__ import annotations

import enum
import errno
import re
from dataclasses import dataclass

from nicoffload.errors import DeviceBusyError, InvalidRequestError, NicOffloadError, NotFoundError, from_errno
from nicoffload.kernel.devlink import Port, PortFlavour
from nicoffload.kernel.seam import Kernel

_NAME = re.compile(r"[^/\s\x00]{1,15}")
_DIGITS = r"(\d{1,10})"
_PORT = re.compile("(?:c{0})?(?:p{0})?pf{0}(?:vf{0}|sf{0})?".replace("{0}", _DIGITS), re.ASCII)
"""Controller, port, PF, VF, SF."""
_PHYSICAL = re.compile("(?:l{0})?p{0}(?:s{0})?".replace("{0}", _DIGITS), re.ASCII)
"""Line card, port, part."""
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_CAPABILITY = "representors"
_LOOKS = 5
_ABSENT = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL})
"""How sysfs says that a device has none of something: no such file, no driver that fills it, no such link."""


class Role(enum.Enum):
    """What a network device is."""

    PF = "pf"
    """A physical function, the NIC's own device; in switchdev mode often the uplink's representor too.

    A VF that was passed into a VM has no link to its PF there, and looks like one.
    """
    VF = "vf"
    """A virtual function, seen by its own driver."""
    UPLINK = "uplink"
    """The switch's end of the wire, as a device that is no PCI function's first."""
    PF_REPRESENTOR = "pf_representor"
    VF_REPRESENTOR = "vf_representor"
    SF_REPRESENTOR = "sf_representor"
    OTHER = "other"
    """A bridge, a veth, or what else is no port of a NIC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortName:
    """A port name that the kernel gives, taken apart; None where the name does not say.

    Args:
        controller: Host that the function belongs to.
        port: Physical port.
        pf: PF.
        vf: VF.
        sf: Scalable function.
        split: Part of a port that is split.
        line_card: Line card that the port is on.
    """

    controller: int | None = None
    port: int | None = None
    pf: int | None = None
    vf: int | None = None
    sf: int | None = None
    split: int | None = None
    line_card: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetdevIdentity:
    """What a network device stands for.

    Args:
        ifindex: Its number, by which it is known.
        ifname: Its name at the time.
        role: What it is.
        pci_address: The function that it hangs on: its own for PF and VF, that of the NIC for a representor, empty
            for what hangs on none.
        physfn: PCI address of a VF's PF; empty for all others.
        switch_id: Switch that it is a port of; empty: of none.
        port_name: Its port name as the kernel tells it; empty: none.
        port: The same taken apart; None where there is none, or one of another form.
    """

    ifindex: int
    ifname: str
    role: Role
    pci_address: str = ""
    physfn: str = ""
    switch_id: str = ""
    port_name: str = ""
    port: PortName | None = None


def parse_port_name(name: str) -> PortName | None:
    """Return a port name taken apart; None for another form.

    The kernel's own forms are ``p0``, ``p0s1``, ``l1p0``, ``pf0``, ``pf0vf3``, ``pf0sf7`` and, for other hosts,
    ``c1pf0vf3``; EF100's driver has ``p0pf0vf3``.
    """
    found = _PHYSICAL.fullmatch(name)
    if found:
        card, port, split = map(_int, found.groups())
        return PortName(port=port, split=split, line_card=card)
    found = _PORT.fullmatch(name)
    if not found:
        return None
    controller, port, pf, vf, sf = map(_int, found.groups())
    return PortName(controller=controller, port=port, pf=pf, vf=vf, sf=sf)


def identify(kernel: Kernel, ifname: str) -> NetdevIdentity:
    """Return what a network device stands for.

    Args:
        kernel: Whose.
        ifname: Its present name.

    Raises:
        NotFoundError: There is no such device.
        DeviceBusyError: The name goes from device to device.
        InvalidRequestError: It is no name of a device.
        NicOffloadError: sysfs can't be read.
    """
    if not _NAME.fullmatch(ifname) or ifname in {".", ".."}:
        raise InvalidRequestError(f"{ifname!r} is no name of a network device")
    for _ in range(_LOOKS):
        found = _identify(kernel, ifname)
        # Each file was found by the name: all are of one device if it has that name before and after.
        if _read(kernel, ifname, "ifindex") == str(found.ifindex):
            return found
    raise DeviceBusyError("the name goes from device to device", device=ifname)


def _identify(kernel: Kernel, ifname: str) -> NetdevIdentity:
    index = _read(kernel, ifname, "ifindex")
    if not index.isdecimal():
        raise NotFoundError("there is no such network device", device=ifname)
    switch_id, port_name = _read(kernel, ifname, "phys_switch_id"), _read(kernel, ifname, "phys_port_name")
    port = parse_port_name(port_name)
    address = _link(kernel, ifname, "device")
    pci_address = address if _PCI.fullmatch(address) else ""
    physfn = _link(kernel, ifname, "device/physfn")
    return NetdevIdentity(
        ifindex=int(index),
        ifname=ifname,
        role=_role(switch_id, port, pci_address, physfn),
        pci_address=pci_address,
        physfn=physfn,
        switch_id=switch_id,
        port_name=port_name,
        port=port,
    )


def _role(switch_id: str, port: PortName | None, pci_address: str, physfn: str) -> Role:
    if physfn:
        return Role.VF  # before all else: a VF has a PF, and no representor hangs on a VF
    if switch_id and port is not None and port.pf is not None:
        if port.vf is not None:
            return Role.VF_REPRESENTOR
        return Role.SF_REPRESENTOR if port.sf is not None else Role.PF_REPRESENTOR
    if pci_address:
        return Role.PF
    return Role.UPLINK if switch_id and port is not None else Role.OTHER


def representors(kernel: Kernel, switch_id: str) -> list[NetdevIdentity]:
    """Return the network devices of one switch, in the order of their numbers: uplinks and representors.

    Args:
        kernel: Whose.
        switch_id: As `NetdevIdentity` has it, not empty.

    Raises:
        InvalidRequestError: The switch id is empty: all devices without a switch would be one switch.
        NicOffloadError: sysfs can't be read.
    """
    if not switch_id:
        raise InvalidRequestError("an empty switch id names no switch")
    found = []
    try:
        names = kernel.list_sysfs("class/net")
    except OSError as cause:
        raise _error(cause, "listing network devices", "") from cause
    for name in names:
        try:
            one = identify(kernel, name)
        except (NotFoundError, InvalidRequestError):
            continue  # gone between the list and the look, or a file that is no device (bonding_masters)
        if one.switch_id == switch_id:
            found.append(one)
    return sorted(found, key=lambda one: one.ifindex)


def vf_representor(
    kernel: Kernel, switch_id: str, vf: int, *, pf: int, controller: int = 0
) -> NetdevIdentity:
    """Return the representor of a VF.

    Args:
        kernel: Whose.
        switch_id: The NIC's switch.
        vf: Index of the VF.
        pf: Number of the PF.
        controller: Host that the PF belongs to; 0: the NIC's own.

    Raises:
        NotFoundError: The switch has no representor of that VF in this namespace.
        NicOffloadError: See `representors`.
    """
    for one in representors(kernel, switch_id):
        port = one.port
        if (
            one.role is Role.VF_REPRESENTOR
            and port is not None
            and (port.vf, port.pf, port.controller or 0) == (vf, pf, controller)
        ):
            return one
    raise NotFoundError(
        f"switch {switch_id} has no representor of VF {vf} of PF {pf} here",
        hint="set the switch to switchdev, make the VF, or look in the namespace that the representor was moved to",
    )


def agrees(identity: NetdevIdentity, port: Port) -> bool:
    """Tell whether a port of devlink and a network device are one and the same.

    Args:
        identity: As sysfs has it.
        port: As devlink has it, of the same namespace.
    """
    if port.ifindex != identity.ifindex:
        return False
    if port.flavour is PortFlavour.PHYSICAL:
        return identity.role in {Role.PF, Role.UPLINK}
    roles = {
        PortFlavour.PCI_PF: Role.PF_REPRESENTOR,
        PortFlavour.PCI_VF: Role.VF_REPRESENTOR,
        PortFlavour.PCI_SF: Role.SF_REPRESENTOR,
    }
    name = identity.port
    return (
        name is not None
        and identity.role is roles.get(port.flavour)
        and (name.pf, name.vf, name.sf) == (port.pf, port.vf, port.sf)
    )


def _read(kernel: Kernel, ifname: str, file: str) -> str:
    try:
        return kernel.read_sysfs(f"class/net/{ifname}/{file}").decode("utf-8", "backslashreplace").strip()
    except NotADirectoryError:
        return ""
    except OSError as cause:
        if cause.errno in _ABSENT:
            return ""
        raise _error(cause, f"reading {file}", ifname) from cause


def _link(kernel: Kernel, ifname: str, link: str) -> str:
    """Return the last part of where a link points; empty where there is no link."""
    try:
        return kernel.readlink_sysfs(f"class/net/{ifname}/{link}").rsplit("/", 1)[-1]
    except NotADirectoryError:
        return ""
    except OSError as cause:
        if cause.errno in _ABSENT:
            return ""
        raise _error(cause, f"reading {link}", ifname) from cause


def _error(cause: OSError, what: str, ifname: str) -> NicOffloadError:
    return from_errno(cause.errno or errno.EIO, what, capability=_CAPABILITY, device=ifname)


def _int(digits: str | None) -> int | None:
    return None if digits is None else int(digits)
