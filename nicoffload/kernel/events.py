"""What happens to NICs, as the kernel tells it: links, filters, devlink, devices on their bus.

The queue is the kernel's, of a bounded size: where it ran over, `Lost` says so, and what is there must be read anew.
"""

from __future__ import annotations

import enum
import errno
import selectors
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from nicoffload.errors import KernelError, NicOffloadError, from_errno
from nicoffload.kernel import genetlink
from nicoffload.kernel.attributes import Buffer, fields, number, parse, string
from nicoffload.kernel.bridge import IFINFO
from nicoffload.kernel.devlink import Handle, Port, Rate, decode
from nicoffload.kernel.devlink import numbers as n
from nicoffload.kernel.netlink import Message, Netlink, messages
from nicoffload.kernel.seam import (
    NETLINK_GENERIC,
    NETLINK_KOBJECT_UEVENT,
    NETLINK_ROUTE,
    Kernel,
    NetlinkChannel,
)
from nicoffload.kernel.tc.template import TCA_KIND, TCMSG

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWTFILTER, _RTM_DELTFILTER = 44, 45
_RTNLGRP_LINK, _RTNLGRP_TC, _UEVENT_KERNEL = 1, 4, 1
_IFLA_IFNAME, _TCA_CHAIN = 3, 11
_AF_UNSPEC = 0


class Topic(enum.Enum):
    """What events are about."""

    LINK = "link"
    FILTER = "filter"
    DEVLINK = "devlink"
    BUS = "bus"


class Change(enum.Enum):
    """What happened."""

    APPEARED = "appeared"
    CHANGED = "changed"
    RENAMED = "renamed"
    PRESENT = "present"
    """Appeared or changed: the kernel does not say which."""
    GONE = "gone"
    BOUND = "bound"
    """A driver took it."""
    UNBOUND = "unbound"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEvent:
    """A network device appeared, changed, got another name or went, out of this namespace or altogether.

    Args:
        change: What happened.
        ifindex: What it is known by.
        ifname: Its name now; of one that went, its last.
        before: Its name before, where it was renamed; else empty.
    """

    change: Change
    ifindex: int
    ifname: str
    before: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterEvent:
    """A filter of tc is there or went.

    Args:
        change: `PRESENT` or `GONE`.
        ifindex: Its device.
        parent: What it hangs on, as tc numbers it.
        chain: Its chain.
        pref: Its priority; 0 where all filters of the chain went.
        handle: Its number; 0 where a whole priority went.
        kind: ``flower`` and so on; empty where not told.
    """

    change: Change
    ifindex: int
    parent: int
    chain: int
    pref: int
    handle: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DevlinkEvent:
    """A devlink device, or a part of one, is there or went.

    Args:
        change: `PRESENT` or `GONE`.
        handle: The device.
        part: Its port or rate; None for the device itself.
    """

    change: Change
    handle: Handle
    part: Port | Rate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BusEvent:
    """A function appeared, changed hands or went: a NIC, a VF.

    Args:
        change: What happened.
        bus: Such as ``pci``.
        name: Its name on the bus: the PCI address.
        driver: Name of the driver that took it; empty where there is none.
    """

    change: Change
    bus: str
    name: str
    driver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Events of a topic were lost: read anew what is there. Links were already: what differs follows.

    Args:
        topic: What they were about.
    """

    topic: Topic


Event = LinkEvent | FilterEvent | DevlinkEvent | BusEvent | Lost
_ACTIONS = {
    "add": Change.APPEARED,
    "remove": Change.GONE,
    "change": Change.CHANGED,
    "bind": Change.BOUND,
    "unbind": Change.UNBOUND,
}


class Events:
    """Events from the moment it is opened. Of one thread.

    Args:
        kernel: Whose.
        topics: What to hear of.
        buses: Whose functions to hear of.

    Raises:
        NotSupportedError: The kernel has no devlink, and that is a topic.
        NicOffloadError: A socket can't be opened.
    """

    def __init__(
        self, kernel: Kernel, topics: Iterable[Topic] = tuple(Topic), *, buses: Iterable[str] = ("pci",)
    ) -> None:
        self._kernel = kernel
        self._buses = frozenset(buses)
        self._names: dict[int, str] = {}
        self._broken: list[NicOffloadError] = []
        """What a topic raised while others had events."""
        self._stack = ExitStack()
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        with self._stack:
            for topic in dict.fromkeys(topics):
                self._join(topic)
            self._stack = self._stack.pop_all()

    def _join(self, topic: Topic) -> None:
        family, group = {
            Topic.LINK: (NETLINK_ROUTE, _RTNLGRP_LINK),
            Topic.FILTER: (NETLINK_ROUTE, _RTNLGRP_TC),
            Topic.DEVLINK: (NETLINK_GENERIC, 0),
            Topic.BUS: (NETLINK_KOBJECT_UEVENT, _UEVENT_KERNEL),
        }[topic]
        if topic is Topic.DEVLINK:
            with Netlink(self._kernel, NETLINK_GENERIC) as netlink:
                groups = genetlink.resolve(netlink, n.FAMILY).groups
            if n.CONFIG_GROUP not in groups:
                raise KernelError("devlink of this kernel tells no events")
            group = groups[n.CONFIG_GROUP]
        try:
            channel = self._kernel.open_netlink(family)
            self._stack.callback(channel.close)
            channel.join(group)
        except OSError as cause:
            what = f"listening for events of {topic.value}"
            raise from_errno(cause.errno or errno.EIO, what, capability="events") from cause
        self._selector.register(channel.fileno(), selectors.EVENT_READ, (topic, channel))
        if (
            topic is Topic.LINK
        ):  # after joining: what changes in between comes again as an event, and is no news
            self._names = self._read_names()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets. Repeatable."""
        self._stack.close()

    def read(self, timeout_s: float | None = None) -> list[Event]:
        """Return what happened since the last call, in the kernel's order within a topic.

        Args:
            timeout_s: How long to wait where nothing did, 0 or more; None waits without end.

        Returns:
            Those of one datagram of each topic, so that a flood of one keeps no other waiting; empty after the time.

        Raises:
            NicOffloadError: A socket broke, or the kernel's words are malformed. Events that came by then are returned
                first, and it is raised by the next call.
        """
        if self._broken:
            raise self._broken.pop(0)
        found: list[Event] = []
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            for key, _ in self._selector.select(left):
                topic, channel = key.data
                try:
                    found += self._receive(topic, channel)
                except NicOffloadError as error:
                    self._broken.append(error)
            if self._broken and not found:
                raise self._broken.pop(0)
            if found or (end is not None and time.monotonic() >= end):
                return found

    def _receive(self, topic: Topic, channel: NetlinkChannel) -> Iterator[Event]:
        decoders: dict[Topic, Callable[[bytes], Iterable[Event]]] = {
            Topic.LINK: self._links,
            Topic.FILTER: _filters,
            Topic.DEVLINK: _devlink,
            Topic.BUS: self._bus,
        }
        try:
            datagram = channel.receive(0)
        except TimeoutError:
            return
        except OSError as cause:
            if cause.errno not in {errno.ENOBUFS, errno.EMSGSIZE}:
                raise from_errno(
                    cause.errno or errno.EIO, f"events of {topic.value}", capability="events"
                ) from cause
            yield Lost(topic=topic)
            if topic is Topic.LINK:
                yield from self._differences()
            return
        yield from decoders[topic](datagram)

    def _links(self, datagram: bytes) -> Iterator[Event]:
        for message in messages(datagram):
            found = _link(message)
            if found is None:
                continue
            ifindex, name = found
            before = self._names.get(ifindex, "")
            if message.kind == _RTM_DELLINK:
                self._names.pop(ifindex, None)
                yield LinkEvent(change=Change.GONE, ifindex=ifindex, ifname=name)
                continue
            self._names[ifindex] = name
            yield _link_event(ifindex, name, before)

    def _differences(self) -> Iterator[Event]:
        old, self._names = self._names, self._read_names()
        for ifindex in sorted(old.keys() - self._names.keys()):
            yield LinkEvent(change=Change.GONE, ifindex=ifindex, ifname=old[ifindex])
        for ifindex, name in sorted(self._names.items()):
            if old.get(ifindex) != name:
                yield _link_event(ifindex, name, old.get(ifindex, ""))

    def _read_names(self) -> dict[int, str]:
        with Netlink(self._kernel, NETLINK_ROUTE) as netlink:
            request = IFINFO.pack(_AF_UNSPEC, 0, 0, 0, 0)
            datagrams = netlink.dump(_RTM_GETLINK, request, capability="events")
        found = (_link(message) for datagram in datagrams for message in messages(datagram))
        return dict(one for one in found if one is not None)

    def _bus(self, datagram: bytes) -> Iterator[Event]:
        head, *lines = datagram.split(b"\0")
        values = dict(string(line).split("=", 1) for line in lines if b"=" in line)
        action, _, path = string(head).partition("@")
        if action in _ACTIONS and values.get("SUBSYSTEM") in self._buses:
            yield BusEvent(
                change=_ACTIONS[action],
                bus=values["SUBSYSTEM"],
                name=path.rpartition("/")[2],
                driver=values.get("DRIVER", "") if action == "bind" else "",
            )


def _link(message: Message) -> tuple[int, str] | None:
    """Return index and name of a device; None for another message, such as a bridge's about its port."""
    if message.kind not in {_RTM_NEWLINK, _RTM_DELLINK}:
        return None
    family, _, ifindex, *_ = fields(IFINFO, message.payload)
    if family != _AF_UNSPEC:
        return None
    return ifindex, string(parse(message.payload, IFINFO.size).get(_IFLA_IFNAME, b""))


def _link_event(ifindex: int, name: str, before: str) -> LinkEvent:
    if not before:
        return LinkEvent(change=Change.APPEARED, ifindex=ifindex, ifname=name)
    if before != name:
        return LinkEvent(change=Change.RENAMED, ifindex=ifindex, ifname=name, before=before)
    return LinkEvent(change=Change.CHANGED, ifindex=ifindex, ifname=name)


def _filters(datagram: bytes) -> Iterator[Event]:
    for message in messages(datagram):
        if message.kind not in {_RTM_NEWTFILTER, _RTM_DELTFILTER}:
            continue
        _, ifindex, handle, parent, info = fields(TCMSG, message.payload)
        found: dict[int, Buffer] = parse(message.payload, TCMSG.size)
        yield FilterEvent(
            change=Change.PRESENT if message.kind == _RTM_NEWTFILTER else Change.GONE,
            ifindex=ifindex,
            parent=parent,
            chain=number(found[_TCA_CHAIN], 4) if _TCA_CHAIN in found else 0,
            pref=info >> 16,
            handle=handle,
            kind=string(found.get(TCA_KIND, b"")),
        )


def _devlink(datagram: bytes) -> Iterator[Event]:
    for message in messages(datagram):
        command, found = genetlink.body(message)
        if command in {n.CMD_NEW, n.CMD_PORT_NEW, n.CMD_RATE_NEW}:
            change = Change.PRESENT
        elif command in {n.CMD_DEL, n.CMD_PORT_DEL, n.CMD_RATE_DEL}:
            change = Change.GONE
        else:
            continue
        part: Port | Rate | None = None
        if command in {n.CMD_PORT_NEW, n.CMD_PORT_DEL}:
            part = decode.port(found)
        elif command in {n.CMD_RATE_NEW, n.CMD_RATE_DEL}:
            part = decode.rate(found)
        yield DevlinkEvent(change=change, handle=decode.handle(found), part=part)
