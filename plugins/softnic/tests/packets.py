"""Frames for the tests, made by hand."""

from __future__ import annotations

import ipaddress
import struct

PAYLOAD = b"x" * 18
MACS = {"src": 0x02_00_00_00_00_01, "dst": 0x02_00_00_00_01_01}


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(kind, payload, *, src=MACS["src"], dst=MACS["dst"], tags=()):
    head = dst.to_bytes(6, "big") + src.to_bytes(6, "big")
    for tpid, tci in tags:
        head += struct.pack(">HH", tpid, tci)
    return head + struct.pack(">H", kind) + payload


def ports_and(payload, sport, dport):
    return struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


def ip4(
    *, src="192.0.2.1", dst="10.0.0.1", proto=17, sport=1000, dport=2000, payload=PAYLOAD, frag=0, options=b"", tos=0,
    ttl=64, **link,
):  # fmt: skip
    body = ports_and(payload, sport, dport) if frag & 0x1FFF == 0 else payload
    words = 5 + len(options) // 4
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x40 | words, tos, words * 4 + len(body), 7, frag, ttl, proto, 0,
        ipaddress.IPv4Address(src).packed, ipaddress.IPv4Address(dst).packed,
    ) + options  # fmt: skip
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return ethernet(0x0800, head + body, **link)


def ip6(
    *, src="2001:db8::1", dst="2001:db8::2", proto=17, sport=1000, dport=2000, payload=PAYLOAD, extensions=(), **link
):  # fmt: skip
    body = ports_and(payload, sport, dport)
    kinds = [kind for kind, _ in extensions] + [proto]
    for (_, content), following in reversed(list(zip(extensions, kinds[1:], strict=True))):
        body = bytes([following]) + content + body
    head = struct.pack(">IHBB", 0x6000_0000, len(body), kinds[0], 64)
    head += ipaddress.IPv6Address(src).packed + ipaddress.IPv6Address(dst).packed
    return ethernet(0x86DD, head + body, **link)


def arp(**link):
    return ethernet(0x0806, bytes(46), **link)
