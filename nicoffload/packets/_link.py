"""Link layers: from the start of a frame to its network layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nicoffload.packets import frames
from nicoffload.packets._columns import Rows, Table
from nicoffload.packets.batch import HAS_CVLAN, HAS_ETH, HAS_VLAN

IPV4 = 0x0800
IPV6 = 0x86DD

# Open vSwitch's dl_type of an 802.3 frame, which has a length where Ethernet II has a type.
NO_ETH_TYPE = 0x05FF
_FIRST_ETH_TYPE = 0x0600

_VLAN_TYPES = np.array([0x8100, 0x88A8, 0x9100])
# What the column vlan_depth can hold. A longer stack is left with a VLAN tag as its type.
_MAX_VLAN_DEPTH = 255

# Each address is read together with the two bytes behind it, as one 64-bit integer.
_ETHERNET = np.dtype(
    {"names": ["dst", "src", "type"], "formats": [">u8", ">u8", ">u2"], "offsets": [0, 6, 12], "itemsize": 14}
)
_VLAN = np.dtype([("tci", ">u2"), ("type", ">u2")])
_SLL = np.dtype({"names": ["type"], "formats": [">u2"], "offsets": [14], "itemsize": 16})
_SLL2 = np.dtype({"names": ["type"], "formats": [">u2"], "offsets": [0], "itemsize": 20})
_FAMILY = np.dtype([("big", ">u4")])
_FIRST_BYTE = np.dtype([("version", "u1")])

_AF_INET = 2
# AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, and Darwin.
_AF_INET6 = np.array([10, 24, 28, 30])


def parse_link(table: Table, link_type: npt.NDArray[np.int64]) -> None:
    """Fill the L2 columns, set `ethertype`, and move the cursors to the network layer."""
    for kind in np.unique(link_type).tolist():
        _PARSERS[kind](table, np.flatnonzero(link_type == kind))
    _parse_vlans(table)
    before = np.minimum(table.cursor - table.start, table.wire_bytes)
    table.columns["l2_bytes"] = np.minimum(before, 0xFFFF)


def _parse_ethernet(table: Table, rows: Rows) -> None:
    rows = table.whole(rows, _ETHERNET.itemsize)
    header = table.read(rows, _ETHERNET)
    table.columns["eth_dst"][rows] = header["dst"] >> np.uint64(16)
    table.columns["eth_src"][rows] = header["src"] >> np.uint64(16)
    table.mark(rows, HAS_ETH)
    _set_type(table, rows, header["type"])
    table.cursor[rows] += _ETHERNET.itemsize


def _set_type(table: Table, rows: Rows, value: npt.NDArray[np.uint16]) -> None:
    table.ethertype[rows] = np.where(value < _FIRST_ETH_TYPE, NO_ETH_TYPE, value)


def _parse_vlans(table: Table) -> None:
    rows = np.flatnonzero(np.isin(table.ethertype, _VLAN_TYPES))
    for depth in range(1, _MAX_VLAN_DEPTH + 1):
        rows = table.whole(rows, _VLAN.itemsize)
        if not len(rows):
            break
        tag = table.read(rows, _VLAN)
        if depth == 1:
            table.columns["vlan_tci"][rows] = tag["tci"]
            table.mark(rows, HAS_VLAN)
        elif depth == 2:
            table.columns["cvlan_tci"][rows] = tag["tci"]
            table.mark(rows, HAS_CVLAN)
        table.columns["vlan_depth"][rows] = depth
        _set_type(table, rows, tag["type"])
        table.cursor[rows] += _VLAN.itemsize
        rows = rows[np.isin(tag["type"], _VLAN_TYPES)]
    is_ethernet = table.columns["present"] & np.uint32(HAS_ETH) != 0
    table.columns["eth_type"] = np.where(is_ethernet, table.ethertype, 0)


def _parse_sll(table: Table, rows: Rows) -> None:
    rows = table.whole(rows, _SLL.itemsize)
    _set_type(table, rows, table.read(rows, _SLL)["type"])
    table.cursor[rows] += _SLL.itemsize


def _parse_sll2(table: Table, rows: Rows) -> None:
    rows = table.whole(rows, _SLL2.itemsize)
    _set_type(table, rows, table.read(rows, _SLL2)["type"])
    table.cursor[rows] += _SLL2.itemsize


def _parse_family(table: Table, rows: Rows) -> None:
    rows = table.whole(rows, _FAMILY.itemsize)
    big = table.read(rows, _FAMILY)["big"].astype(np.uint32)
    # The family is in the byte order of the machine that wrote it, which nothing tells; families are small.
    family = np.where(big > 0xFFFF, big.byteswap(), big)
    table.ethertype[rows] = np.where(family == _AF_INET, IPV4, np.where(np.isin(family, _AF_INET6), IPV6, 0))
    table.cursor[rows] += _FAMILY.itemsize


def _parse_raw(table: Table, rows: Rows) -> None:
    rows = table.whole(rows, _FIRST_BYTE.itemsize)
    version = table.read(rows, _FIRST_BYTE)["version"] >> 4
    table.ethertype[rows] = np.where(version == 4, IPV4, np.where(version == 6, IPV6, 0))


def _parse_ipv4(table: Table, rows: Rows) -> None:
    table.ethertype[rows] = IPV4


def _parse_ipv6(table: Table, rows: Rows) -> None:
    table.ethertype[rows] = IPV6


_PARSERS: dict[int, Callable[[Table, Rows], None]] = {
    frames.LINK_NULL: _parse_family,
    frames.LINK_ETHERNET: _parse_ethernet,
    frames.LINK_RAW_BSD: _parse_raw,
    frames.LINK_RAW_OPENBSD: _parse_raw,
    frames.LINK_RAW: _parse_raw,
    frames.LINK_LOOP: _parse_family,
    frames.LINK_LINUX_SLL: _parse_sll,
    frames.LINK_IPV4: _parse_ipv4,
    frames.LINK_IPV6: _parse_ipv6,
    frames.LINK_LINUX_SLL2: _parse_sll2,
}
