"""Generic netlink of the fake kernel: the controller that gives out the numbers of families, and the families."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from nicoffload.testing.fake_kernel import netlink
from nicoffload.testing.fake_kernel.netlink import RejectedError, Reply, Request

HEADER = struct.Struct("=BBH")
CONTROLLER = 0x10
_NEW_FAMILY, _GET_FAMILY = 1, 3
_ID, _NAME, _VERSION, _HEADER_SIZE, _MAX, _GROUPS = 1, 2, 3, 4, 5, 7
_GROUP_NAME, _GROUP_ID = 1, 2
_LARGEST = 10
_NOTIFY_GROUP = 0x10


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyInfo:
    """A family.

    Args:
        name: By which it is found.
        number: Type of its messages.
        version: Of its messages.
        largest: Its greatest attribute.
        groups: Numbers of its multicast groups, by name.
    """

    name: str
    number: int
    version: int
    largest: int
    groups: Mapping[str, int]


class Family(Protocol):
    """A family that answers."""

    @property
    def info(self) -> FamilyInfo:
        """What the controller tells of it."""

    def handle(self, command: int, request: Request, attributes: bytes) -> Reply:
        """Answer a request.

        Raises:
            RejectedError: As Linux refuses it.
        """


_CONTROLLER = FamilyInfo(
    name="nlctrl", number=CONTROLLER, version=2, largest=_LARGEST, groups={"notify": _NOTIFY_GROUP}
)


class GenericNetlink:
    """All families.

    Args:
        families: Those beside the controller.
    """

    def __init__(self, *families: Family) -> None:
        self._families = {family.info.number: family for family in families}

    def handle(self, datagram: bytes) -> list[bytes]:
        """Return the datagrams that answer one."""
        return netlink.serve(datagram, self._answer)

    def _answer(self, request: Request) -> Reply:
        if len(request.payload) < HEADER.size:
            raise RejectedError(errno.EINVAL)
        command = HEADER.unpack_from(request.payload)[0]
        attributes = request.payload[HEADER.size :]
        if request.kind == CONTROLLER:
            return self._control(command, request, attributes)
        family = self._families.get(request.kind)
        if family is None:
            raise RejectedError(errno.ENOENT)
        return family.handle(command, request, attributes)

    def _control(self, command: int, request: Request, attributes: bytes) -> Reply:
        if command != _GET_FAMILY:
            raise RejectedError(errno.EOPNOTSUPP)
        known = [_CONTROLLER, *(family.info for family in self._families.values())]
        if request.is_dump:
            return Reply(tuple((CONTROLLER, _describe(one)) for one in known))
        found = netlink.parse(attributes, {_ID: 2, _NAME: netlink.TEXT})
        if not found:
            raise RejectedError(errno.EINVAL)
        for one in known:
            wanted_id, wanted_name = found.get(_ID), found.get(_NAME)
            if wanted_id is not None and netlink.number_of(wanted_id) != one.number:
                continue
            if wanted_name is not None and netlink.text_of(wanted_name) != one.name:
                continue
            return Reply(((CONTROLLER, _describe(one)),))
        raise RejectedError(errno.ENOENT)


def _describe(one: FamilyInfo) -> bytes:
    groups = [
        netlink.nest(place + 1, netlink.number(_GROUP_ID, number, 4), netlink.string(_GROUP_NAME, name))
        for place, (name, number) in enumerate(one.groups.items())
    ]
    return (
        HEADER.pack(_NEW_FAMILY, 2, 0)
        + netlink.string(_NAME, one.name)
        + netlink.number(_ID, one.number, 2)
        + netlink.number(_VERSION, one.version, 4)
        + netlink.number(_HEADER_SIZE, 0, 4)
        + netlink.number(_MAX, one.largest, 4)
        + netlink.nest(_GROUPS, *groups)
    )
