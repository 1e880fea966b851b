"""Capture files written by dpkt, or block by block where dpkt has no writer for them."""

from __future__ import annotations

import io
import struct

import dpkt

FRAME = bytes.fromhex("020000000102020000000101") + b"\x08\0"


def frame(number: int, size: int = 60) -> bytes:
    """An Ethernet frame with an IPv4/UDP header whose source port is `number`."""
    udp = dpkt.udp.UDP(sport=number & 0xFFFF, dport=53, data=bytes(max(size - 42, 0)))
    udp.ulen = len(udp)
    packet = dpkt.ip.IP(src=b"\x0a\0\0\1", dst=b"\x0a\0\0\2", p=17, data=udp)
    packet.len = len(packet)
    return FRAME + bytes(packet)


def pcap_by_dpkt(frames, *, nano: bool = False, link_type: int = 1) -> bytes:
    """A pcap in this machine's byte order; packet k is captured k microseconds after second k."""
    file = io.BytesIO()
    writer = dpkt.pcap.Writer(file, linktype=link_type, nano=nano)
    for index, data in enumerate(frames):
        writer.writepkt_time(data, index + index / 1e6)
    return file.getvalue()


def pcap(records, *, order="<", magic=0xA1B2C3D4, link_type=1, extra=b"") -> bytes:
    """A pcap of (seconds, fraction, frame, wire length)."""
    pieces = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)]
    for seconds, fraction, data, wire in records:
        pieces += (struct.pack(f"{order}IIII", seconds, fraction, len(data), wire), extra, data)
    return b"".join(pieces)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) % 4)
    size = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + size + body + size


def section(order: str = "<") -> bytes:
    """A section header block."""
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    """An option of a block."""
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def interface(link_type: int = 1, snap: int = 0, options: bytes = b"", order: str = "<") -> bytes:
    """An interface description block."""
    end = option(0, b"", order) if options else b""
    return block(1, struct.pack(f"{order}HHI", link_type, 0, snap) + options + end, order)


def enhanced(data: bytes, *, stamp=0, wire=None, number=0, order="<", options=b"") -> bytes:
    """An enhanced packet block."""
    wire = len(data) if wire is None else wire
    head = struct.pack(f"{order}IIIII", number, stamp >> 32, stamp & 0xFFFFFFFF, len(data), wire)
    return block(6, head + data + bytes(-len(data) % 4) + options, order)


def simple(data: bytes, *, wire=None, order="<") -> bytes:
    """A simple packet block."""
    return block(3, struct.pack(f"{order}I", len(data) if wire is None else wire) + data, order)


def obsolete(data: bytes, *, stamp=0, number=0, drops=0, order="<") -> bytes:
    """An obsolete packet block."""
    head = struct.pack(f"{order}HHIIII", number, drops, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data))
    return block(2, head + data, order)
