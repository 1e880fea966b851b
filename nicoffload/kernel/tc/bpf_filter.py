"""The eBPF classifier in direct-action mode: a program that decides what becomes of each packet of a hook."""

from __future__ import annotations

from nicoffload.errors import NicOffloadError
from nicoffload.kernel.attributes import fields, nested, number, parse, string, text, u32
from nicoffload.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE, Netlink, messages
from nicoffload.kernel.tc.template import (
    RTM_GETTFILTER,
    RTM_NEWTFILTER,
    TCA_KIND,
    TCA_OPTIONS,
    TCMSG,
    info,
)
from nicoffload.kernel.tc.values import Hook

_FD, _NAME, _FLAGS, _ID = 6, 7, 8, 11
_DIRECT_ACTION = 1
_PREF = 1
_HANDLE = 1
_ETH_P_ALL = 3
_CAPABILITY = "flow_filters"


def attach(netlink: Netlink, hook: Hook, program: int, name: str) -> None:
    """Put a program on a hook, in the place of one that is there. Repeatable; packets see the old or the new one.

    Equivalent to: ``tc filter replace dev NIC ingress pref 1 handle 1 bpf da object-pinned PROGRAM``

    Args:
        netlink: A socket of the namespace that the device is in.
        hook: Where; its qdisc is there.
        program: Its descriptor.
        name: Shown by ``tc``.

    Raises:
        NicOffloadError: The kernel refuses.
    """
    payload = TCMSG.pack(0, hook.ifindex, _HANDLE, hook.parent, info(_PREF, _ETH_P_ALL)) + text(
        TCA_KIND, "bpf"
    )
    payload += nested(TCA_OPTIONS, u32(_FD, program), text(_NAME, name), u32(_FLAGS, _DIRECT_ACTION))
    refused, _ = netlink.request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, payload)
    if refused:
        raise refused.error(f"attaching program {name}", capability=_CAPABILITY)


def attached(netlink: Netlink, hook: Hook) -> tuple[int, str] | None:
    """Return the number and the name of the program on a hook; None where there is none.

    Equivalent to: ``tc filter show dev NIC ingress``

    Raises:
        NicOffloadError: The kernel refuses.
    """
    payload = TCMSG.pack(0, hook.ifindex, 0, hook.parent, 0)
    try:
        datagrams = netlink.dump(RTM_GETTFILTER, payload, capability=_CAPABILITY)
    except NicOffloadError:  # there is no such device, or no such qdisc on it
        return None
    for datagram in datagrams:
        for message in messages(datagram):
            if message.kind != RTM_NEWTFILTER or not fields(TCMSG, message.payload)[2]:
                continue
            found = parse(message.payload, TCMSG.size)
            options = parse(found.get(TCA_OPTIONS, b""))
            if string(found.get(TCA_KIND, b"")) == "bpf" and _ID in options:
                return number(options[_ID], 4), string(options.get(_NAME, b""))
    return None
