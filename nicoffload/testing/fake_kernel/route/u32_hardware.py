"""How ixgbe reads filters of u32: a graph of tables from the IP header to the ports behind it.

What its driver does not know it passes over, so that a filter can catch more than it says (ixgbe_main.c:
ixgbe_configure_clsu32, ixgbe_clsu32_build_input; ixgbe_model.h).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from nicoffload.model import Masked, Match
from nicoffload.testing.fake_kernel.route.wire import Rejected

_ROOT = 0x800
_MAX_LINK_HANDLE = 10
_ROWS = 2046
_LENGTH_MASK, _LENGTH_SHIFT = 0x0F00, 6
_IP_FIELDS = {12: "ipv4_src", 16: "ipv4_dst"}
_PROTOCOL_OFFSET, _PROTOCOL_MASK = 8, 0x00FF_0000
_JUMPS = {0x0006_0000: 6, 0x0011_0000: 17}


@dataclass(frozen=True, slots=True)
class U32Rule:
    """A filter of u32 as a driver is told of it.

    Args:
        handle: Table, bucket and node.
        link: Handle of the table that it leads to; 0 for none.
        words: Offset, value and mask of each word, in network order.
        plain_jump: Whether it goes on where the IP header ends.
    """

    handle: int
    link: int
    words: tuple[tuple[int, int, int], ...]
    plain_jump: bool


def is_plain_jump(shift: int, mask: int, offset: int) -> bool:
    """Return whether a selector goes on where the IP header ends.

    Args:
        shift: Its shift.
        mask: Its mask, in network order.
        offset: Where the length is read.
    """
    return (shift, mask, offset) == (_LENGTH_SHIFT, _LENGTH_MASK, 0)


@dataclass(slots=True)
class _Jump:
    """What leads to a table."""

    handle: int
    ip_proto: int
    fields: dict[str, Masked]
    places: set[int] = field(default_factory=set)


class U32Graph:
    """The tables of one NIC, as its driver keeps them."""

    def __init__(self) -> None:
        self._tables: set[int] = set()
        self._jumps: dict[int, _Jump] = {}

    def add(self, handle: int, divisor: int) -> None:
        """Note a hash table.

        Args:
            handle: Its handle.
            divisor: Its buckets, less one.

        Raises:
            Rejected: It has more than one bucket, or a number that the driver does not take.
        """
        table = handle >> 20
        if table >= _MAX_LINK_HANDLE or divisor:
            raise Rejected(errno.EINVAL)
        self._tables.add(table)

    def drop(self, handle: int) -> None:
        """Forget a hash table. Repeatable."""
        self._tables.discard(handle >> 20)

    def rule(self, rule: U32Rule, protocol: int) -> tuple[Match, int] | None:
        """Return what a filter matches in the hardware and its location; None for one that leads to a table.

        Args:
            rule: The filter.
            protocol: Ethernet type of its pref.

        Raises:
            Rejected: The driver does not take it.
        """
        table, place = rule.handle >> 20, rule.handle & 0xFFFFF
        if protocol != 0x0800 or place >= _ROWS:
            raise Rejected(errno.EINVAL)
        jump = self._jumps.get(table)
        if table != _ROOT and (table >= _MAX_LINK_HANDLE or jump is None):
            raise Rejected(errno.EINVAL)
        link = rule.link >> 20
        if link:
            self._link(rule, link)
            return None
        fields = {"eth_type": Masked(0x0800, 0xFFFF)}
        if table == _ROOT or jump is None:
            fields |= _ip_fields(rule)
        else:
            if any(place in other.places for other in self._jumps.values()):
                raise Rejected(errno.EINVAL)
            fields |= {**jump.fields, "ip_proto": Masked(jump.ip_proto, 0xFF), **_ports(rule)}
        return Match(**fields), place

    def filled(self, handle: int) -> None:
        """Note that a filter of a table is in the hardware."""
        jump = self._jumps.get(handle >> 20)
        if jump is not None:
            jump.places.add(handle & 0xFFFFF)

    def emptied(self, handle: int) -> None:
        """Note that it is not any more."""
        jump = self._jumps.get(handle >> 20)
        if jump is not None:
            jump.places.discard(handle & 0xFFFFF)

    def unlink(self, handle: int) -> set[int]:
        """Forget what leads to a table; return the locations that the driver frees with it."""
        for table, jump in self._jumps.items():
            if jump.handle == handle:
                del self._jumps[table]
                return jump.places
        return set()

    def _link(self, rule: U32Rule, link: int) -> None:
        if link >= _MAX_LINK_HANDLE or link not in self._tables or link in self._jumps or not rule.plain_jump:
            raise Rejected(errno.EINVAL)
        for offset, value, mask in rule.words:
            if (offset, mask) == (_PROTOCOL_OFFSET, _PROTOCOL_MASK) and value in _JUMPS:
                self._jumps[link] = _Jump(rule.handle, _JUMPS[value], _ip_fields(rule))
                return
        # One that names no protocol succeeds, and leads nowhere.


def _ip_fields(rule: U32Rule) -> dict[str, Masked]:
    return {
        _IP_FIELDS[offset]: Masked(value & mask, mask)
        for offset, value, mask in rule.words
        if offset in _IP_FIELDS and mask
    }


def _ports(rule: U32Rule) -> dict[str, Masked]:
    found: dict[str, Masked] = {}
    for offset, value, mask in rule.words:
        if offset:
            continue
        for name, shift in (("tp_src", 16), ("tp_dst", 0)):
            its_mask = mask >> shift & 0xFFFF
            if its_mask:
                found[name] = Masked(value >> shift & its_mask, its_mask)
    return found
