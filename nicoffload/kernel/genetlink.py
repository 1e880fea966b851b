"""Generic netlink: families found by name, because the kernel gives their numbers out as they load."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.errors import KernelError, NotSupportedError, Reason
from nicoffload.kernel.attributes import Buffer, MalformedError, fields, number, parse, string, text, walk
from nicoffload.kernel.netlink import KernelRefusal, Message, Netlink, messages

GENERIC_HEADER = struct.Struct("=BBH")
"""Command, version, reserved."""

_ID_CTRL = 0x10
_CTRL_CMD_GETFAMILY = 3
_FAMILY_ID, _FAMILY_NAME, _VERSION, _MCAST_GROUPS = 1, 2, 3, 7
_GROUP_NAME, _GROUP_ID = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of the running kernel.

    Args:
        name: What it was looked up by.
        number: Type of its messages, until its module goes.
        version: What its messages carry.
        groups: Numbers of its multicast groups by name.
    """

    name: str
    number: int
    version: int
    groups: Mapping[str, int]


def resolve(netlink: Netlink, name: str) -> Family:
    """Return a family.

    Args:
        netlink: A socket of `NETLINK_GENERIC`.
        name: Such as ``devlink``.

    Raises:
        NotSupportedError: The kernel has no such family (ENOENT).
        KernelError: The answer is lost or malformed.
    """
    payload = GENERIC_HEADER.pack(_CTRL_CMD_GETFAMILY, 1, 0) + text(_FAMILY_NAME, name)
    refused, replies = netlink.request(_ID_CTRL, 0, payload)
    if refused and refused.errno == errno.ENOENT:
        why = Reason(code="kernel.no_family", path="", message=f"this kernel has no {name}", errno="ENOENT")
        raise NotSupportedError(
            f"looking for the netlink family {name}", capability=name, reasons=[why], errno=errno.ENOENT
        )
    if refused:
        raise refused.error(f"looking for the netlink family {name}", capability=name)
    if not replies:
        raise KernelError(f"the kernel says nothing of the netlink family {name}")
    found = body(replies[0])[1]
    try:
        return Family(
            name=name,
            number=number(found[_FAMILY_ID], 2),
            version=number(found[_VERSION], 4),
            groups=MappingProxyType(_groups(found.get(_MCAST_GROUPS, b""))),
        )
    except KeyError as cause:
        raise MalformedError(f"the family {name} comes without attribute {cause}") from cause


def _groups(payload: Buffer) -> dict[str, int]:
    groups: dict[str, int] = {}
    for _, start, end in walk(payload):
        one = parse(payload, start, end)
        if _GROUP_NAME in one and _GROUP_ID in one:
            groups[string(one[_GROUP_NAME])] = number(one[_GROUP_ID], 4)
    return groups


def body(message: Message) -> tuple[int, dict[int, Buffer]]:
    """Return a message's command and its attributes; of two of one kind, the last.

    Raises:
        MalformedError: It is cut short.
    """
    command = fields(GENERIC_HEADER, message.payload)[0]
    return command, parse(message.payload, GENERIC_HEADER.size)


class GenericSocket:
    """One family, spoken over one socket. Of one thread.

    Args:
        netlink: A socket of `NETLINK_GENERIC`, which the caller closes.
        name: Of the family.

    Raises:
        NotSupportedError: The kernel has no such family.
    """

    def __init__(self, netlink: Netlink, name: str) -> None:
        self._netlink = netlink
        self.family = resolve(netlink, name)

    def request(
        self, command: int, payload: bytes, flags: int = 0
    ) -> tuple[KernelRefusal | None, list[Message]]:
        """Send one command and wait for its acknowledgement; see `Netlink.request`."""
        return self._netlink.request(self.family.number, flags, self._head(command) + payload)

    def dump(self, command: int, payload: bytes, *, capability: str) -> list[Message]:
        """Return the messages of a dump, without the one that ends it.

        Raises:
            NicOffloadError: See `Netlink.dump`.
        """
        datagrams = self._netlink.dump(
            self.family.number, self._head(command) + payload, capability=capability
        )
        return [
            message
            for datagram in datagrams
            for message in messages(datagram)
            if message.kind == self.family.number
        ]

    def _head(self, command: int) -> bytes:
        return GENERIC_HEADER.pack(command, self.family.version, 0)
