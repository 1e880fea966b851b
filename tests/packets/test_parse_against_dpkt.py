"""Header columns against dpkt, which wrote the frames and reads them back."""

from __future__ import annotations

import socket
import struct

import dpkt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import InvalidRequestError
from nicoffload.packets import (
    HAS_CVLAN,
    HAS_ETH,
    HAS_ICMP,
    HAS_IPV4,
    HAS_IPV6,
    HAS_PORTS,
    HAS_TCP_FLAGS,
    HAS_VLAN,
    HEADER_DTYPE,
    TRUNCATED,
    RawFrames,
    parse_frames,
)

GUARD = b"\xff" * 64
MAC = st.binary(min_size=6, max_size=6)
BYTE = st.integers(0, 255)
PORT = st.integers(0, 65535)
VLAN_TPIDS = (0x8100, 0x88A8, 0x9100)


def raw_frames(frames, link_type=1, wire=None):
    """Frames between guard bytes, so that reading past a frame would change the result."""
    data, offset = GUARD, []
    for frame in frames:
        offset.append(len(data))
        data += frame + GUARD
    lengths = np.array([len(frame) for frame in frames], np.int64)
    return RawFrames(
        data=data,
        offset=np.array(offset, np.int64),
        captured_bytes=lengths,
        wire_bytes=lengths if wire is None else np.array(wire, np.int64),
        time_ns=np.arange(len(frames), dtype=np.int64),
        link_type=np.full(len(frames), link_type, np.int64),
    )


def parse(frames, link_type=1):
    batch = parse_frames(raw_frames(frames, link_type))
    assert len(batch) == len(frames)
    return [
        dict(zip(HEADER_DTYPE.names, row, strict=True)) for row in batch.headers[batch.header_index].tolist()
    ]


def parse_one(frame, link_type=1):
    return parse([frame], link_type)[0]


@st.composite
def transports(draw, version):
    kind = draw(st.sampled_from(["tcp", "udp", "sctp", "icmp", "other"]))
    payload = draw(st.binary(max_size=20))
    if kind == "tcp":
        flags = draw(st.integers(0, 511))
        body = dpkt.tcp.TCP(sport=draw(PORT), dport=draw(PORT), flags=flags, data=payload)
        return dpkt.ip.IP_PROTO_TCP, body
    if kind == "udp":
        body = dpkt.udp.UDP(sport=draw(PORT), dport=draw(PORT), data=payload)
        body.ulen = len(body)
        return dpkt.ip.IP_PROTO_UDP, body
    if kind == "sctp":
        cookie_ack = struct.pack(">HHIIBBH", draw(PORT), draw(PORT), 0, 0, 11, 0, 4)
        return dpkt.ip.IP_PROTO_SCTP, dpkt.sctp.SCTP(cookie_ack)
    if kind == "icmp":
        if version == 4:
            return dpkt.ip.IP_PROTO_ICMP, dpkt.icmp.ICMP(type=draw(BYTE), code=draw(BYTE), data=b"\0" * 4)
        return dpkt.ip.IP_PROTO_ICMP6, dpkt.icmp6.ICMP6(type=draw(BYTE), code=draw(BYTE), data=b"\0" * 4)
    return 89, payload


@st.composite
def ipv4_packets(draw):
    proto, body = draw(transports(4))
    options = draw(st.sampled_from([b"", b"\x01" * 4, b"\x94\x04\0\0", b"\x01" * 40]))
    packet = dpkt.ip.IP(
        src=draw(st.binary(min_size=4, max_size=4)),
        dst=draw(st.binary(min_size=4, max_size=4)),
        p=proto,
        tos=draw(BYTE),
        ttl=draw(BYTE),
        id=draw(PORT),
        opts=options,
        data=bytes(body),
    )
    packet.hl = 5 + len(options) // 4
    packet.len = 20 + len(options) + len(bytes(body))
    more, offset = draw(st.sampled_from([(0, 0), (0, 0), (1, 0), (1, 185), (0, 8191)]))
    packet.mf, packet.offset = more, offset
    frag = 3 if offset else 1 if more else 0
    expected = {
        "ipv4_src": int.from_bytes(packet.src, "big"),
        "ipv4_dst": int.from_bytes(packet.dst, "big"),
        "ip_proto": proto,
        "ip_tos": packet.tos,
        "ip_ttl": packet.ttl,
        "ip_frag": frag,
    }
    # bytes() of a dpkt packet fills checksums in; the bytes themselves are what both sides read.
    return 0x0800, bytes(packet), expected, HAS_IPV4, proto, bytes(body), frag


@st.composite
def ipv6_packets(draw):
    proto, body = draw(transports(6))
    frag = 0
    chain = []
    for kind in draw(st.lists(st.sampled_from([0, 43, 60, 51]), max_size=4)):
        units = draw(st.integers(0, 3))
        chain.append((kind, units, bytes((units + 2) * 4 - 2 if kind == 51 else (units + 1) * 8 - 2)))
    if draw(st.booleans()):
        offset, more = draw(st.sampled_from([(0, 0), (0, 1), (100, 1), (100, 0)]))
        frag = 3 if offset else 1 if more else 0
        chain.append((44, 0, struct.pack(">HI", offset << 3 | more, 7)))
    data, following = bytes(body), proto
    for kind, units, rest in reversed(chain):
        data = bytes([following, units]) + rest + data
        following = kind
    source, target = draw(st.binary(min_size=16, max_size=16)), draw(st.binary(min_size=16, max_size=16))
    tos, ttl = draw(BYTE), draw(BYTE)
    packet = struct.pack(">IHBB", 6 << 28 | tos << 20 | 5, len(data), following, ttl) + source + target + data
    expected = {
        "ipv6_src_hi": int.from_bytes(source[:8], "big"),
        "ipv6_src_lo": int.from_bytes(source[8:], "big"),
        "ipv6_dst_hi": int.from_bytes(target[:8], "big"),
        "ipv6_dst_lo": int.from_bytes(target[8:], "big"),
        "ip_proto": proto,
        "ip_tos": tos,
        "ip_ttl": ttl,
        "ip_frag": frag,
    }
    return 0x86DD, packet, expected, HAS_IPV6, proto, bytes(body), frag


def transport_columns(version, proto, body):
    """What dpkt reads in a transport header."""
    if proto == dpkt.ip.IP_PROTO_TCP:
        tcp = dpkt.tcp.TCP(body)
        flags = tcp.flags | (tcp._off_flags & 0x0F00)
        return {"tp_src": tcp.sport, "tp_dst": tcp.dport, "tcp_flags": flags}, HAS_PORTS | HAS_TCP_FLAGS
    if proto in {dpkt.ip.IP_PROTO_UDP, dpkt.ip.IP_PROTO_SCTP}:
        kind = dpkt.udp.UDP if proto == dpkt.ip.IP_PROTO_UDP else dpkt.sctp.SCTP
        header = kind(body)
        return {"tp_src": header.sport, "tp_dst": header.dport}, HAS_PORTS
    if proto == (dpkt.ip.IP_PROTO_ICMP if version == 4 else dpkt.ip.IP_PROTO_ICMP6):
        return {"icmp_type": body[0], "icmp_code": body[1]}, HAS_ICMP
    return {}, 0


@st.composite
def ethernet_frames(draw):
    """A frame and the columns that it must give."""
    eth_type, packet, expected, present, proto, body, frag = draw(st.one_of(ipv4_packets(), ipv6_packets()))
    tags = draw(st.lists(st.tuples(st.sampled_from(VLAN_TPIDS), PORT), max_size=4))
    source, target = draw(MAC), draw(MAC)
    frame = target + source
    frame += b"".join(struct.pack(">HH", tpid, tci) for tpid, tci in tags)
    frame += struct.pack(">H", eth_type) + packet
    columns = dict.fromkeys(HEADER_DTYPE.names, 0) | expected
    present |= HAS_ETH | (HAS_VLAN if tags else 0) | (HAS_CVLAN if len(tags) > 1 else 0)
    if frag != 3:
        transport, bits = transport_columns(4 if eth_type == 0x0800 else 6, proto, body)
        columns |= transport
        present |= bits
    columns |= {
        "present": present,
        "l2_bytes": 14 + 4 * len(tags),
        "eth_src": int.from_bytes(source, "big"),
        "eth_dst": int.from_bytes(target, "big"),
        "eth_type": eth_type,
        "vlan_depth": len(tags),
        "vlan_tci": tags[0][1] if tags else 0,
        "cvlan_tci": tags[1][1] if len(tags) > 1 else 0,
    }
    return frame, columns


@given(st.lists(ethernet_frames(), max_size=12))
def test_columns_of_frames(pairs):
    assert parse([frame for frame, _ in pairs]) == [columns for _, columns in pairs]


@given(ethernet_frames(), st.data())
def test_a_cut_frame_is_still_a_packet_and_never_wrong(pair, data):
    frame, columns = pair
    size = data.draw(st.integers(0, len(frame)))
    got = parse_one(frame[:size])
    assert got["present"] & ~(columns["present"] | TRUNCATED) == 0
    if not got["present"] & TRUNCATED:
        # Nothing that is read was cut away.
        assert got == columns
    for bit, names in {
        HAS_ETH: ("eth_src", "eth_dst"),
        HAS_VLAN: ("vlan_tci",),
        HAS_CVLAN: ("cvlan_tci",),
        HAS_IPV4: ("ipv4_src", "ipv4_dst", "ip_tos", "ip_ttl"),
        HAS_IPV6: ("ipv6_src_hi", "ipv6_src_lo", "ipv6_dst_hi", "ipv6_dst_lo", "ip_tos", "ip_ttl"),
        HAS_PORTS: ("tp_src", "tp_dst"),
        HAS_TCP_FLAGS: ("tcp_flags",),
        HAS_ICMP: ("icmp_type", "icmp_code"),
    }.items():
        for name in names:
            if got["present"] & bit:
                assert got[name] == columns[name], name
            elif name.startswith("ip_") and got["present"] & (HAS_IPV4 | HAS_IPV6):
                continue
            else:
                assert got[name] == 0, name


@given(
    st.lists(st.binary(max_size=120), max_size=30),
    st.sampled_from([0, 1, 12, 14, 101, 108, 113, 228, 229, 276]),
)
def test_any_bytes_are_packets(frames, link_type):
    alone = [parse_one(frame, link_type) for frame in frames]
    assert parse(frames, link_type) == alone


@given(st.lists(st.binary(min_size=14, max_size=60), max_size=5), st.integers(0, 2**32))
def test_bytes_outside_a_frame_do_not_matter(frames, seed):
    raw = raw_frames(frames)
    noise = bytearray(np.random.default_rng(seed).bytes(len(raw.data)))
    for start, frame in zip(raw.offset.tolist(), frames, strict=True):
        noise[start : start + len(frame)] = frame
    other = RawFrames(
        data=bytes(noise),
        offset=raw.offset,
        captured_bytes=raw.captured_bytes,
        wire_bytes=raw.wire_bytes,
        time_ns=raw.time_ns,
        link_type=raw.link_type,
    )
    one, two = parse_frames(raw), parse_frames(other)
    assert np.array_equal(one.headers, two.headers)
    assert np.array_equal(one.header_index, two.header_index)


def udp_packet():
    udp = dpkt.udp.UDP(sport=1000, dport=53)
    packet = dpkt.ip.IP(src=b"\x0a\0\0\1", dst=b"\x0a\0\0\2", p=17, ttl=64, data=udp)
    packet.len = 28
    return bytes(packet)


def udp6_packet():
    udp = dpkt.udp.UDP(sport=1000, dport=53)
    packet = dpkt.ip6.IP6(src=b"\xfd" + bytes(15), dst=b"\xfd" + bytes(14) + b"\1", nxt=17, hlim=64, data=udp)
    packet.plen = 8
    return bytes(packet)


@pytest.mark.parametrize("link_type", [12, 14, 101, 228])
def test_raw_ipv4(link_type):
    got = parse_one(udp_packet(), link_type)
    assert (got["present"], got["l2_bytes"], got["tp_dst"]) == (HAS_IPV4 | HAS_PORTS, 0, 53)


@pytest.mark.parametrize("link_type", [12, 14, 101, 229])
def test_raw_ipv6(link_type):
    got = parse_one(udp6_packet(), link_type)
    assert (got["present"], got["l2_bytes"], got["tp_dst"]) == (HAS_IPV6 | HAS_PORTS, 0, 53)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("family", "packet"), [(2, udp_packet()), *((af, udp6_packet()) for af in (10, 24, 28, 30))]
)
@pytest.mark.parametrize("link_type", [0, 108])
def test_bsd_loopback(order, family, packet, link_type):
    got = parse_one(struct.pack(f"{order}I", family) + packet, link_type)
    assert (got["present"] & HAS_PORTS, got["l2_bytes"], got["tp_dst"]) == (HAS_PORTS, 4, 53)


def test_linux_cooked():
    frame = bytes(dpkt.sll.SLL(type=0, hrd=1, hlen=6, hdr=b"\2" * 8, ethtype=0x0800, data=udp_packet()))
    got = parse_one(frame, 113)
    assert (got["present"], got["l2_bytes"], got["tp_dst"]) == (HAS_IPV4 | HAS_PORTS, 16, 53)


def test_linux_cooked_2():
    sll2 = dpkt.sll2.SLL2(ethtype=0x86DD, mbz=0, intindex=3, hrd=1, type=4, hlen=6, hdr=b"\2" * 8)
    got = parse_one(bytes(sll2) + udp6_packet(), 276)
    assert (got["present"], got["l2_bytes"], got["tp_dst"]) == (HAS_IPV6 | HAS_PORTS, 20, 53)


def test_frame_without_a_type_has_that_of_open_vswitch():
    got = parse_one(bytes(12) + b"\0\x26" + b"\x42\x42\3" + bytes(35))
    assert got["eth_type"] == 0x05FF


def test_deep_vlan_stack_ends():
    deep = parse_one(bytes(12) + b"\x81\0\0\1" * 200 + b"\x08\0" + udp_packet())
    assert (deep["vlan_depth"], deep["l2_bytes"], deep["tp_dst"]) == (200, 814, 53)
    deeper = parse_one(bytes(12) + b"\x81\0\0\1" * 300 + b"\x08\0" + udp_packet())
    assert (deeper["vlan_depth"], deeper["eth_type"], deeper["tp_dst"]) == (255, 0x8100, 0)


def test_long_chain_of_extensions_is_not_followed_for_ever():
    chain = bytes([60, 0]) + bytes(6)
    head = struct.pack(">IHBB", 6 << 28, 8 * 1000, 60, 64) + bytes(32)
    got = parse_one(head + chain * 1000, 101)
    assert (got["ip_proto"], got["present"]) == (60, HAS_IPV6)


def test_padding_is_not_read_as_ports():
    packet = bytearray(udp_packet()[:20])
    packet[2:4] = struct.pack(">H", 20)
    got = parse_one(bytes(12) + b"\x08\0" + bytes(packet) + b"\x99" * 26)
    assert got["present"] == HAS_ETH | HAS_IPV4 | TRUNCATED


@pytest.mark.parametrize("first", [0x65, 0x44])
def test_contradicting_ipv4_header_is_absent(first):
    got = parse_one(bytes(12) + b"\x08\0" + bytes([first]) + udp_packet()[1:])
    assert got["present"] == HAS_ETH


def test_before_segmentation_the_length_is_zero():
    packet = bytearray(udp_packet())
    packet[2:4] = b"\0\0"
    assert parse_one(bytes(packet), 101)["tp_dst"] == 53


def test_l2_never_exceeds_the_wire():
    frame = bytes(12) + b"\x08\0" + udp_packet()
    batch = parse_frames(raw_frames([frame], wire=[9]))
    assert batch.headers["l2_bytes"].tolist() == [9]


def test_distinct_headers_are_grouped_in_order_of_appearance():
    frames = [bytes([kind]) * 20 for kind in (9, 3, 9, 7, 3)]
    batch = parse_frames(raw_frames(frames))
    assert batch.header_index.tolist() == [0, 1, 0, 2, 1]
    assert batch.headers.dtype == HEADER_DTYPE
    assert batch.header_index.dtype == np.int32
    assert batch.headers["eth_dst"].tolist() == [
        int.from_bytes(bytes([kind]) * 6, "big") for kind in (9, 3, 7)
    ]


def test_headers_that_share_a_hash_stay_apart(monkeypatch):
    monkeypatch.setattr("nicoffload.packets._columns._hash", lambda words: np.zeros(len(words), np.uint64))
    frames = [bytes([kind]) * 20 for kind in (9, 3, 9, 7, 3)]
    assert parse_frames(raw_frames(frames)).header_index.tolist() == [0, 1, 0, 2, 1]


def test_no_frames():
    batch = parse_frames(raw_frames([]))
    assert (len(batch), len(batch.headers)) == (0, 0)


def test_unknown_link_type_is_refused():
    with pytest.raises(InvalidRequestError, match="link type 105"):
        parse_frames(raw_frames([b"x"], 105))


@pytest.mark.parametrize(("offset", "size"), [(0, 200), (-1, 1), (0, -1), (2**62, 2**62)])
def test_frame_outside_the_buffer_is_refused(offset, size):
    one = np.array([offset], np.int64)
    frames = RawFrames(
        data=bytes(100),
        offset=one,
        captured_bytes=np.array([size], np.int64),
        wire_bytes=one,
        time_ns=one,
        link_type=np.ones(1, np.int64),
    )
    with pytest.raises(InvalidRequestError, match="outside the buffer"):
        parse_frames(frames)


def test_addresses_read_as_people_write_them():
    got = parse_one(udp_packet(), 101)
    assert socket.inet_ntoa(got["ipv4_src"].to_bytes(4, "big")) == "10.0.0.1"
