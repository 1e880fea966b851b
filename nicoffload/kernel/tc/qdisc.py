"""The qdiscs that filters hang on."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from nicoffload.errors import NicOffloadError, NotFoundError
from nicoffload.kernel.attributes import Buffer, attribute, fields, number, parse, string, text, u32
from nicoffload.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Netlink, messages
from nicoffload.kernel.tc.template import TCA_KIND, TCA_OPTIONS, TCMSG

_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_HANDLE = 0xFFFF_0000
_PARENT = 0xFFFF_FFF1
_ROOT = 0xFFFF_FFFF
_FIFO_LIMIT = struct.Struct("=I")
_INGRESS_BLOCK, _EGRESS_BLOCK = 13, 14
_CAPABILITY = "flow_filters"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressQdisc:
    """What lets filters hang on a device.

    Args:
        ifindex: The device.
        kind: ``clsact`` (both directions) or ``ingress`` (Open vSwitch's choice, without egress).
        ingress_block: Number of the block that its ingress shares with other devices; None where it shares none.
        egress_block: Likewise of its egress.
    """

    ifindex: int
    kind: str = "clsact"
    ingress_block: int | None = None
    egress_block: int | None = None


def add(netlink: Netlink, qdisc: IngressQdisc) -> None:
    """Add it.

    Equivalent to: ``tc qdisc add dev NIC [ingress_block N] [egress_block N] clsact``

    Raises:
        ConflictError: The device has one.
        NicOffloadError: The kernel refuses for another reason.
    """
    payload = TCMSG.pack(0, qdisc.ifindex, _HANDLE, _PARENT, 0) + text(TCA_KIND, qdisc.kind)
    for kind, block in ((_INGRESS_BLOCK, qdisc.ingress_block), (_EGRESS_BLOCK, qdisc.egress_block)):
        if block is not None:
            payload += u32(kind, block)
    refused, _ = netlink.request(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, payload)
    if refused:
        raise refused.error(f"adding a qdisc {qdisc.kind}", capability=_CAPABILITY)


def add_drop_all(netlink: Netlink, ifindex: int) -> None:
    """Let a device send nothing: its queue, of no length, drops all that it is given.

    Equivalent to: ``tc qdisc replace dev NIC root pfifo limit 0``

    Raises:
        NicOffloadError: The kernel refuses.
    """
    payload = TCMSG.pack(0, ifindex, 0, _ROOT, 0) + text(TCA_KIND, "pfifo")
    payload += attribute(TCA_OPTIONS, _FIFO_LIMIT.pack(0))
    refused, _ = netlink.request(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, payload)
    if refused:
        raise refused.error("adding a qdisc pfifo", capability=_CAPABILITY)


def delete(netlink: Netlink, ifindex: int) -> None:
    """Remove it, and with it every filter that hangs on it, whoever's it is.

    Equivalent to: ``tc qdisc del dev NIC clsact``

    Raises:
        NotFoundError: The device has none.
        NicOffloadError: The kernel refuses for another reason.
    """
    if find(netlink, ifindex) is None:
        raise NotFoundError(f"device {ifindex} has no qdisc clsact or ingress")
    payload = TCMSG.pack(0, ifindex, _HANDLE, _PARENT, 0)
    refused, _ = netlink.request(_RTM_DELQDISC, 0, payload)
    if refused:
        raise refused.error("removing a qdisc", capability=_CAPABILITY)


def find(netlink: Netlink, ifindex: int) -> IngressQdisc | None:
    """Return the device's qdisc clsact or ingress; None where it has neither.

    Equivalent to: ``tc qdisc show dev NIC``
    """
    payload = TCMSG.pack(0, ifindex, 0, 0, 0)
    for datagram in netlink.dump(_RTM_GETQDISC, payload, capability=_CAPABILITY):
        for message in messages(datagram):
            found = _decode(message.payload) if message.kind == _RTM_NEWQDISC else None
            if found is not None and found.ifindex == ifindex:
                return found
    return None


def ensure(netlink: Netlink, ifindex: int) -> IngressQdisc:
    """Return the device's qdisc, and add a clsact where it has none; one that others put there is left as it is.

    Raises:
        NicOffloadError: The kernel refuses.
    """
    found = find(netlink, ifindex)
    if found is not None:
        return found
    wanted = IngressQdisc(ifindex=ifindex)
    try:
        add(netlink, wanted)
    except NicOffloadError:
        found = find(netlink, ifindex)  # somebody was faster
        if found is None:
            raise
        return found
    return wanted


def _decode(payload: Buffer) -> IngressQdisc | None:
    ifindex, handle = fields(TCMSG, payload)[1:3]
    attributes = parse(payload, TCMSG.size)
    kind = string(attributes.get(TCA_KIND, b""))
    if handle != _HANDLE or kind not in {"clsact", "ingress"}:
        return None
    ingress, egress = (attributes.get(place) for place in (_INGRESS_BLOCK, _EGRESS_BLOCK))
    return IngressQdisc(
        ifindex=ifindex,
        kind=kind,
        ingress_block=None if ingress is None else number(ingress, 4),
        egress_block=None if egress is None else number(egress, 4),
    )
