"""Network and transport layers: IPv4, IPv6 with its extension headers, TCP, UDP, SCTP, ICMP, ICMPv6."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nicoffload.packets._columns import Rows, Table
from nicoffload.packets._link import IPV4, IPV6
from nicoffload.packets.batch import HAS_ICMP, HAS_IPV4, HAS_IPV6, HAS_PORTS, HAS_TCP_FLAGS, TRUNCATED

_FIRST_FRAGMENT = 1
_LATER_FRAGMENT = 3

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION = 0, 43, 44, 51, 60
_EXTENSIONS = np.array([_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION])
# RFC 8200 names at most seven in a packet. A longer chain is an attack; ip_proto is the header left unread.
_MAX_EXTENSIONS = 16

_ICMP, _TCP, _UDP, _ICMPV6, _SCTP = 1, 6, 17, 58, 132
# Bytes of the fixed part of each header; shorter is truncated.
_FIXED_BYTES = {_TCP: 20, _UDP: 8, _SCTP: 12}
_PORT_PROTOCOLS = np.array(sorted(_FIXED_BYTES))

_IPV4_HEADER = np.dtype(
    {
        "names": ["version_ihl", "tos", "length", "fragment", "ttl", "proto", "src", "dst"],
        "formats": ["u1", "u1", ">u2", ">u2", "u1", "u1", ">u4", ">u4"],
        "offsets": [0, 1, 2, 6, 8, 9, 12, 16],
        "itemsize": 20,
    }
)
_IPV6_HEADER = np.dtype(
    {
        "names": ["first", "length", "proto", "ttl", "src_hi", "src_lo", "dst_hi", "dst_lo"],
        "formats": [">u4", ">u2", "u1", "u1", ">u8", ">u8", ">u8", ">u8"],
        "offsets": [0, 4, 6, 7, 8, 16, 24, 32],
        "itemsize": 40,
    }
)
_EXTENSION = np.dtype(
    {
        "names": ["next", "length", "fragment"],
        "formats": ["u1", "u1", ">u2"],
        "offsets": [0, 1, 2],
        "itemsize": 8,
    }
)
_PORTS = np.dtype([("src", ">u2"), ("dst", ">u2")])
_TCP_FLAGS = np.dtype({"names": ["flags"], "formats": [">u2"], "offsets": [12], "itemsize": 14})
_TYPE_CODE = np.dtype([("type", "u1"), ("code", "u1"), ("checksum", ">u2")])


def parse_network(table: Table) -> None:
    """Fill the L3 columns, set `protocol` where a transport header follows, and move the cursors there."""
    _parse_ipv4(table, np.flatnonzero(table.ethertype == IPV4))
    _parse_ipv6(table, np.flatnonzero(table.ethertype == IPV6))
    # Options or extension headers of which only the start is there.
    table.mark(np.flatnonzero(table.cursor > table.end), TRUNCATED)


def _parse_ipv4(table: Table, rows: Rows) -> None:
    rows = table.whole(rows, _IPV4_HEADER.itemsize)
    header = table.read(rows, _IPV4_HEADER)
    header_bytes = (header["version_ihl"] & 0xF).astype(np.int64) * 4
    sound = (header["version_ihl"] >> 4 == 4) & (header_bytes >= _IPV4_HEADER.itemsize)
    if not sound.all():
        rows, header, header_bytes = rows[sound], header[sound], header_bytes[sound]
    columns = table.columns
    columns["ipv4_src"][rows] = header["src"]
    columns["ipv4_dst"][rows] = header["dst"]
    columns["ip_proto"][rows] = header["proto"]
    columns["ip_tos"][rows] = header["tos"]
    columns["ip_ttl"][rows] = header["ttl"]
    table.mark(rows, HAS_IPV4)
    fragment = header["fragment"].astype(np.int64)
    later = fragment & 0x1FFF != 0
    columns["ip_frag"][rows] = _frag(later, fragment & 0x2000 != 0)
    _stop_at(table, rows, header["length"].astype(np.int64))
    table.cursor[rows] += header_bytes
    table.protocol[rows] = np.where(later, -1, header["proto"])


def _parse_ipv6(table: Table, rows: Rows) -> None:
    rows = table.whole(rows, _IPV6_HEADER.itemsize)
    header = table.read(rows, _IPV6_HEADER)
    sound = header["first"] >> 28 == 6
    if not sound.all():
        rows, header = rows[sound], header[sound]
    columns = table.columns
    for column, field in (
        ("ipv6_src_hi", "src_hi"),
        ("ipv6_src_lo", "src_lo"),
        ("ipv6_dst_hi", "dst_hi"),
        ("ipv6_dst_lo", "dst_lo"),
        ("ip_ttl", "ttl"),
    ):
        columns[column][rows] = header[field]
    columns["ip_tos"][rows] = header["first"] >> 20 & 0xFF
    table.mark(rows, HAS_IPV6)
    length = header["length"].astype(np.int64)
    _stop_at(table, rows, np.where(length > 0, length + _IPV6_HEADER.itemsize, 0))
    table.cursor[rows] += _IPV6_HEADER.itemsize
    table.protocol[rows] = header["proto"]
    columns["ip_proto"][rows] = header["proto"]
    _parse_extensions(table, rows)


def _parse_extensions(table: Table, rows: Rows) -> None:
    for _ in range(_MAX_EXTENSIONS):
        rows = rows[np.isin(table.protocol[rows], _EXTENSIONS)]
        if not len(rows):
            return
        readable = table.whole(rows, _EXTENSION.itemsize)
        if len(readable) < len(rows):
            table.protocol[np.setdiff1d(rows, readable)] = -1
            rows = readable
        header = table.read(rows, _EXTENSION)
        kind = table.protocol[rows]
        units = header["length"].astype(np.int64)
        size = np.where(kind == _AUTHENTICATION, (units + 2) * 4, (units + 1) * 8)
        is_fragment = kind == _FRAGMENT
        size[is_fragment] = _EXTENSION.itemsize
        later = is_fragment & (header["fragment"] >> 3 != 0)
        more = is_fragment & (header["fragment"] & 1 != 0)
        frag = table.columns["ip_frag"][rows]
        table.columns["ip_frag"][rows] = np.maximum(frag, _frag(later, more))
        table.cursor[rows] += size
        table.columns["ip_proto"][rows] = header["next"]
        table.protocol[rows] = np.where(later, -1, header["next"])


def _frag(later: npt.NDArray[np.bool_], more: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    return np.where(later, _LATER_FRAGMENT, np.where(more, _FIRST_FRAGMENT, 0)).astype(np.uint8)


def _stop_at(table: Table, rows: Rows, ip_bytes: npt.NDArray[np.int64]) -> None:
    # Behind the IP packet lies Ethernet padding. 0 is a jumbogram, or a frame captured before segmentation.
    end = table.cursor[rows] + np.where(ip_bytes > 0, ip_bytes, np.iinfo(np.int32).max)
    table.end[rows] = np.minimum(table.end[rows], end)


def parse_transport(table: Table) -> None:
    """Fill the L4 columns."""
    for protocol, fixed_bytes in _FIXED_BYTES.items():
        table.whole(np.flatnonzero(table.protocol == protocol), fixed_bytes)
    _parse_ports(table, np.flatnonzero(np.isin(table.protocol, _PORT_PROTOCOLS)))
    _parse_tcp_flags(table, np.flatnonzero(table.protocol == _TCP))
    is_ipv6 = table.columns["present"] & np.uint32(HAS_IPV6) != 0
    _parse_icmp(table, np.flatnonzero(table.protocol == np.where(is_ipv6, _ICMPV6, _ICMP)))


def _parse_ports(table: Table, rows: Rows) -> None:
    rows = table.whole(rows, _PORTS.itemsize)
    header = table.read(rows, _PORTS)
    table.columns["tp_src"][rows] = header["src"]
    table.columns["tp_dst"][rows] = header["dst"]
    table.mark(rows, HAS_PORTS)


def _parse_tcp_flags(table: Table, rows: Rows) -> None:
    rows = table.whole(rows, _TCP_FLAGS.itemsize)
    table.columns["tcp_flags"][rows] = table.read(rows, _TCP_FLAGS)["flags"] & 0x0FFF
    table.mark(rows, HAS_TCP_FLAGS)


def _parse_icmp(table: Table, rows: Rows) -> None:
    rows = table.whole(rows, _TYPE_CODE.itemsize)
    header = table.read(rows, _TYPE_CODE)
    table.columns["icmp_type"][rows] = header["type"]
    table.columns["icmp_code"][rows] = header["code"]
    table.mark(rows, HAS_ICMP)
