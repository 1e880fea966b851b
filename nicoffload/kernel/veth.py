"""Virtual network devices: pairs (veth) with one end in another namespace, and what is set on a device by number."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from nicoffload.errors import NotFoundError
from nicoffload.kernel.attributes import (
    Buffer,
    attribute,
    fields,
    nested,
    number,
    parse,
    string,
    text,
    u8,
    u32,
)
from nicoffload.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, messages

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWNSID, _RTM_GETNSID = 88, 90
_IFINFO = struct.Struct("=BxHiII")
_UP, _LOWER_UP = 0x1, 0x1_0000
_ADDRESS, _IFNAME, _LINK, _MTU, _LINKINFO, _IFALIAS, _NETNS_FD, _LINK_NETNSID = 1, 3, 5, 4, 18, 20, 28, 37
_AF_SPEC, _AF_INET6, _ADDR_GEN_MODE, _ADDR_GEN_NONE = 26, 10, 8, 1
_KIND, _DATA = 1, 2
_PEER = 1
_NETNSA_NSID, _NETNSA_FD = 1, 3
_CAPABILITY = "links"
_ADDRESS_BYTES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class VethEnd:
    """One end of a pair that is to be made.

    Args:
        ifname: Its name, 1 to 15 bytes.
        ifindex: Its number; 0 lets the kernel choose.
        namespace: Descriptor of the namespace that it is made in; None for that of the netlink socket.
        mac: Its address; None lets the kernel choose.
        mtu: Its MTU in bytes.
    """

    ifname: str
    ifindex: int = 0
    namespace: int | None = None
    mac: int | None = None
    mtu: int = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """A network device as read.

    Args:
        ifindex: Its number.
        ifname: Its name at the time.
        up: Whether somebody set it up.
        carrier: Whether its link is up.
        mac: Its address.
        alias: What somebody wrote there (``ip link set dev X alias TEXT``); empty for none.
        peer: Number of the other end of the pair, in its namespace; 0 for none.
        peer_nsid: Number that this namespace has for that of the other end; None where both are in one.
    """

    ifindex: int
    ifname: str
    up: bool
    carrier: bool
    mac: int
    alias: str
    peer: int
    peer_nsid: int | None


def add_veth(netlink: Netlink, here: VethEnd, there: VethEnd) -> None:
    """Make a pair, both ends down.

    Equivalent to: ``ip link add HERE index N netns NS type veth peer name THERE netns NS``

    Raises:
        ConflictError: A name or a number is taken.
        NicOffloadError: The kernel refuses for another reason.
    """
    payload = _described(here) + nested(
        _LINKINFO, text(_KIND, "veth"), nested(_DATA, attribute(_PEER, _described(there)))
    )
    refused, _ = netlink.request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload)
    if refused:
        raise refused.error(f"making the pair {here.ifname} and {there.ifname}", capability=_CAPABILITY)


def set_up(netlink: Netlink, ifindex: int, *, up: bool = True) -> None:
    """Set a device up or down. Repeatable.

    Equivalent to: ``ip link set dev X up|down``
    """
    _set(netlink, _IFINFO.pack(0, 0, ifindex, _UP if up else 0, _UP), f"setting device {ifindex}")


def set_mac(netlink: Netlink, ifindex: int, mac: int) -> None:
    """Set a device's address. Repeatable.

    Equivalent to: ``ip link set dev X address MAC``
    """
    payload = _IFINFO.pack(0, 0, ifindex, 0, 0) + attribute(_ADDRESS, mac.to_bytes(_ADDRESS_BYTES, "big"))
    _set(netlink, payload, f"setting the address of device {ifindex}")


def set_alias(netlink: Netlink, ifindex: int, alias: str) -> None:
    """Write a text on a device, at most 255 bytes. Repeatable.

    Equivalent to: ``ip link set dev X alias TEXT``
    """
    payload = _IFINFO.pack(0, 0, ifindex, 0, 0) + attribute(_IFALIAS, alias.encode())
    _set(netlink, payload, f"setting the alias of device {ifindex}")


def keep_silent(netlink: Netlink, ifindex: int) -> None:
    """Let a device make no IPv6 address of its own, so that the kernel sends nothing through it unasked.

    Equivalent to: ``ip link set dev X addrgenmode none``
    """
    payload = _IFINFO.pack(0, 0, ifindex, 0, 0)
    payload += nested(_AF_SPEC, nested(_AF_INET6, u8(_ADDR_GEN_MODE, _ADDR_GEN_NONE)))
    # Where the kernel has no IPv6, it sends none.
    netlink.request(_RTM_SETLINK, 0, payload)


def delete_link(netlink: Netlink, ifindex: int) -> None:
    """Remove a device, and of a pair the other end too.

    Equivalent to: ``ip link del dev X``

    Raises:
        DeviceGoneError: There is none.
    """
    refused, _ = netlink.request(_RTM_DELLINK, 0, _IFINFO.pack(0, 0, ifindex, 0, 0))
    if refused:
        raise refused.error(f"removing device {ifindex}", capability=_CAPABILITY)


def links(netlink: Netlink) -> list[LinkState]:
    """Return the devices of the socket's namespace.

    Equivalent to: ``ip -d link show``
    """
    found: list[LinkState] = []
    for datagram in netlink.dump(_RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0), capability=_CAPABILITY):
        found += [_decode(message.payload) for message in messages(datagram) if message.kind == _RTM_NEWLINK]
    return found


def find_link(netlink: Netlink, ifindex: int) -> LinkState | None:
    """Return a device by its number; None where there is none."""
    refused, replies = netlink.request(_RTM_GETLINK, 0, _IFINFO.pack(0, 0, ifindex, 0, 0))
    if refused:
        return None
    return next((_decode(reply.payload) for reply in replies if reply.kind == _RTM_NEWLINK), None)


def nsid_of(netlink: Netlink, namespace: int) -> int | None:
    """Return the number that the socket's namespace has for another one; None where it has none.

    Args:
        netlink: A socket of `NETLINK_ROUTE`.
        namespace: Descriptor of the other namespace.
    """
    payload = bytes(4) + u32(_NETNSA_FD, namespace)
    refused, replies = netlink.request(_RTM_GETNSID, 0, payload)
    if refused:
        return None
    for reply in replies:
        if reply.kind == _RTM_NEWNSID:
            found = int.from_bytes(
                parse(reply.payload, 4).get(_NETNSA_NSID, b"\xff" * 4), "little", signed=True
            )
            return None if found < 0 else found
    return None


def _set(netlink: Netlink, payload: bytes, what: str) -> None:
    refused, _ = netlink.request(_RTM_SETLINK, 0, payload)
    if refused:
        raise refused.error(what, capability=_CAPABILITY)


def _described(end: VethEnd) -> bytes:
    return b"".join(_parts(end))


def _parts(end: VethEnd) -> Iterator[bytes]:
    yield _IFINFO.pack(0, 0, end.ifindex, 0, 0)
    yield text(_IFNAME, end.ifname)
    yield u32(_MTU, end.mtu)
    if end.namespace is not None:
        yield u32(_NETNS_FD, end.namespace)
    if end.mac is not None:
        yield attribute(_ADDRESS, end.mac.to_bytes(_ADDRESS_BYTES, "big"))


def _decode(payload: Buffer) -> LinkState:
    _, _, ifindex, flags, _ = fields(_IFINFO, payload)
    found = parse(payload, _IFINFO.size)
    nsid = found.get(_LINK_NETNSID)
    peer = found.get(_LINK)
    return LinkState(
        ifindex=ifindex,
        ifname=string(found.get(_IFNAME, b"")),
        up=bool(flags & _UP),
        carrier=bool(flags & _LOWER_UP),
        mac=int.from_bytes(bytes(found.get(_ADDRESS, b"")), "big"),
        alias=string(found.get(_IFALIAS, b"")),
        peer=0 if peer is None else number(peer, 4),
        peer_nsid=None if nsid is None else number(nsid, 4),
    )


def find_by_name(netlink: Netlink, ifname: str) -> LinkState:
    """Return a device by its name.

    Raises:
        NotFoundError: There is none.
    """
    for one in links(netlink):
        if one.ifname == ifname:
            return one
    raise NotFoundError(f"there is no network device {ifname}")
