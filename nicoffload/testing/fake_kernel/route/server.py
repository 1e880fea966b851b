"""The fake kernel's end of NETLINK_ROUTE: bytes in, bytes out."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from nicoffload.kernel.seam import NETLINK_ROUTE
from nicoffload.testing.fake_kernel.route import messages
from nicoffload.testing.fake_kernel.route.filters import (
    RTM_DELTFILTER,
    RTM_GETTFILTER,
    RTM_NEWTFILTER,
    Filters,
)
from nicoffload.testing.fake_kernel.route.hardware import Hardware
from nicoffload.testing.fake_kernel.route.links import (
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
    Links,
)
from nicoffload.testing.fake_kernel.route.messages import NLM_F_ACK, NLM_F_ECHO, NLMSG_MIN_TYPE, Request
from nicoffload.testing.fake_kernel.route.qdiscs import RTM_DELQDISC, RTM_GETQDISC, RTM_NEWQDISC, Qdiscs
from nicoffload.testing.fake_kernel.route.simulated import SimulatedTable
from nicoffload.testing.fake_kernel.route.wire import Rejected
from nicoffload.testing.fake_kernel.world import FakeNetdev, Watcher, World

RTNLGRP_LINK, RTNLGRP_TC = 1, 4
_KIND_MASK, _KIND_GET = 3, 2


class RouteServer(Watcher):
    """Answers messages about links, qdiscs and filters, and tells who listens of what changes.

    Args:
        world: What there is.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._hardware = Hardware(world)
        self._qdiscs = Qdiscs(world, self._hardware)
        self._filters = Filters(world, self._qdiscs, self._hardware, self._tell_of_filter, self._is_heard)
        self._links = Links(world, self._tell_of_link)
        self._echoes: list[bytes] = []
        self._doing: dict[int, Callable[[Request], bytes | None]] = {
            RTM_NEWLINK: self._links.set,
            RTM_SETLINK: self._links.set,
            RTM_GETLINK: self._links.get,
            RTM_NEWQDISC: self._new_qdisc,
            RTM_DELQDISC: self._delete_qdisc,
            RTM_GETQDISC: self._get_qdisc,
            RTM_NEWTFILTER: self._filters.change,
            RTM_DELTFILTER: self._filters.remove,
            RTM_GETTFILTER: self._filters.get,
        }
        self._dumps: dict[int, Callable[[Request], Iterator[bytes]]] = {
            RTM_GETLINK: self._links.dump,
            RTM_GETQDISC: self._qdiscs.dump,
            RTM_GETTFILTER: self._filters.dump,
        }
        world.watch(self)

    def handle(self, request: bytes) -> list[bytes]:
        """Work on one datagram, and return those that the sender gets back.

        Args:
            request: One message or many, each as it would be sent to Linux.
        """
        answers: list[bytes] = []
        for one in messages.requests(request):
            answers += self._answer(one)
        return answers

    def flow_table(self, netdev: FakeNetdev) -> SimulatedTable:
        """Return the flow table of a netdevsim port, whose attributes are the files that debugfs has of it.

        Raises:
            LookupError: It is no port of a netdevsim.
        """
        if netdev.nic is None or netdev.nic.bus != "netdevsim":
            raise LookupError(f"{netdev.ifname} is no port of a netdevsim")
        found = self._hardware.driver(netdev)
        assert isinstance(found, SimulatedTable)
        return found

    def offloaded(self, netdev: FakeNetdev) -> int:
        """Return how many filters of a device the hardware has, which drivers look at before they turn tc off."""
        qdisc = self._qdiscs.of(netdev)
        if qdisc is None:
            return 0
        return sum(
            any(placed.netdev is netdev for placed in item.placed)
            for proto in qdisc.ingress.protos()
            for item in proto.walk()
        )

    # Watching -------------------------------------------------------------------------------------------------------

    def netdev_appeared(self, netdev: FakeNetdev) -> None:
        """Tell of a new link."""
        self._tell_of_link(netdev)

    def netdev_changed(self, netdev: FakeNetdev) -> None:
        """Tell of a link that is not as it was."""
        self._tell_of_link(netdev)

    def netdev_gone(self, netdev: FakeNetdev) -> None:
        """Remove what hung on a link, and tell that it went."""
        self._qdiscs.forget(netdev)
        self._hardware.forget(netdev)
        if self._world.heard(NETLINK_ROUTE, RTNLGRP_LINK):
            self._notify(RTNLGRP_LINK, RTM_DELLINK, self._links.write(netdev, 0))
        self._links.forget(netdev)

    def netdev_left(self, netdev: FakeNetdev) -> None:
        """Remove what hung on a link, and tell that it went from here."""
        self._qdiscs.forget(netdev)
        if self._world.heard(NETLINK_ROUTE, RTNLGRP_LINK):
            self._notify(RTNLGRP_LINK, RTM_DELLINK, self._links.write(netdev, 0))

    def netdev_arrived(self, netdev: FakeNetdev) -> None:
        """Tell of a link that is new here."""
        self._tell_of_link(netdev)

    # Requests -------------------------------------------------------------------------------------------------------

    def _answer(self, request: Request) -> list[bytes]:
        """Return what one message brings back (``netlink_rcv_skb``, ``rtnetlink_rcv_msg``)."""
        answers: list[bytes] = []
        refused: Rejected | None = None
        if request.flags & messages.NLM_F_REQUEST and request.kind >= NLMSG_MIN_TYPE:
            if request.kind & _KIND_MASK == _KIND_GET and request.wants_dump and request.payload:
                dumps = self._dumps.get(request.kind)
                if dumps is not None:
                    return messages.dump(request, dumps(request))
                refused = Rejected(errno.EOPNOTSUPP)
            else:
                try:
                    reply = self._do(request)
                    answers += [] if reply is None else [reply]
                except Rejected as answer:
                    refused = answer
        warning = self._filters.warning()
        answers += self._echoes
        self._echoes = []
        if refused is not None or request.flags & NLM_F_ACK:
            answers.append(messages.acknowledgement(request, refused, warning))
        return answers

    def _do(self, request: Request) -> bytes | None:
        if not request.payload:
            return None
        doing = self._doing.get(request.kind)
        if doing is None:
            raise Rejected(errno.EOPNOTSUPP)
        return doing(request)

    def _new_qdisc(self, request: Request) -> None:
        made = self._qdiscs.change(request)
        if made is not None:
            self._tell(request, request.reply(RTM_NEWQDISC, self._qdiscs.write(made)))

    def _delete_qdisc(self, request: Request) -> None:
        found = self._qdiscs.get(request)
        message = request.reply(RTM_DELQDISC, self._qdiscs.write(found))
        self._qdiscs.remove(found.netdev)
        self._tell(request, message)

    def _get_qdisc(self, request: Request) -> None:
        """Tell everybody of a qdisc: who asks for one hears it only as an echo (sch_api.c:qdisc_get_notify)."""
        found = self._qdiscs.get(request)
        self._tell(request, request.reply(RTM_NEWQDISC, self._qdiscs.write(found)))

    # Telling --------------------------------------------------------------------------------------------------------

    def _is_heard(self, request: Request) -> bool:
        return bool(request.flags & NLM_F_ECHO) or self._world.heard(NETLINK_ROUTE, RTNLGRP_TC)

    def _tell_of_filter(self, request: Request, kind: int, body: bytes) -> None:
        self._tell(request, request.reply(kind, body, request.flags))

    def _tell(self, request: Request, message: bytes) -> None:
        """Send a message to who listens, and to the sender who wants an echo."""
        self._world.notify(NETLINK_ROUTE, RTNLGRP_TC, message)
        if request.flags & NLM_F_ECHO:
            self._echoes.append(message)

    def _tell_of_link(self, netdev: FakeNetdev) -> None:
        if self._world.heard(NETLINK_ROUTE, RTNLGRP_LINK):
            self._notify(RTNLGRP_LINK, RTM_NEWLINK, self._links.write(netdev, 0))

    def _notify(self, group: int, kind: int, body: bytes) -> None:
        head = messages.HEADER.pack(messages.HEADER.size + len(body), kind, 0, 0, 0)
        self._world.notify(NETLINK_ROUTE, group, head + body)
