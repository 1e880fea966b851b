"""pcapng: files that dpkt wrote, every block by hand, and damage."""

from __future__ import annotations

import io
import struct

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import CaptureError
from tests.capture import writers
from tests.capture.writers import block, enhanced, interface, obsolete, option, section, simple

ORDERS = pytest.mark.parametrize("order", "<>")


def test_file_of_dpkt(read):
    file = io.BytesIO()
    writer = dpkt.pcapng.Writer(file)
    for number in range(40):
        writer.writepkt(writers.frame(number, 42 + number), number + 0.25)
    got = read(file.getvalue())
    assert (got.ports, got.skipped) == (list(range(40)), ())
    assert got.times == [number * 10**9 + 250_000_000 for number in range(40)]


@ORDERS
def test_every_packet_block(read, order):
    frames = [writers.frame(number) for number in range(4)]
    got = read(
        section(order)
        + interface(order=order)
        + interface(order=order)
        + enhanced(frames[0], stamp=5_000_001, wire=1514, order=order)
        + simple(frames[1], order=order)
        + block(0x0BAD, b"unknown", order)
        + obsolete(frames[2], stamp=6_000_000, number=1, drops=3, order=order)
        + enhanced(
            frames[3],
            stamp=7 << 32,
            order=order,
            options=option(1, b"a comment", order) + option(0, b"", order),
        )
    )
    assert (got.ports, got.skipped, got.ended_early) == ([0, 1, 2, 3], (), "")
    assert got.lengths == [1514, 60, 60, 60]
    # A simple packet block tells no time: it takes that of the packet before.
    assert got.times == [5_000_001_000, 5_000_001_000, 6_000_000_000, (7 << 32) * 1000]


def test_simple_packets_are_cut_to_the_snap_length(read):
    got = read(section() + interface(snap=40) + simple(writers.frame(8, 500)[:40], wire=500))
    assert (got.ports, got.lengths) == ([8], [500])


@ORDERS
@pytest.mark.parametrize(
    ("resolution", "stamp", "ns"),
    [
        (0, 7, 7_000_000_000),
        (3, 7, 7_000_000),
        (6, 7, 7_000),
        (9, 2**60, 2**60),
        (12, 7_999, 7),
        (30, 2**63, 0),
        (0x80 | 1, 3, 1_500_000_000),
        (0x80 | 10, 5 << 9, 2_500_000_000),
        (0x80 | 30, (1_700_000_000 << 30) + (1 << 29), 1_700_000_000_500_000_000),
        (0x80 | 40, (3 << 40) + (1 << 38), 3_250_000_000),
        (0x80 | 63, 1 << 63, 1_000_000_000),
        (0x80 | 64, 1 << 63, 500_000_000),
        (0x80 | 127, 1 << 63, 0),
    ],
)
def test_time_resolution(read, order, resolution, stamp, ns):
    options = option(9, bytes([resolution]), order)
    got = read(
        section(order) + interface(options=options, order=order) + enhanced(b"", stamp=stamp, order=order)
    )
    assert got.times == [ns]


@ORDERS
@pytest.mark.parametrize("offset_s", [-5, 1_600_000_000])
def test_time_offset(read, order, offset_s):
    options = option(2, b"eth0", order) + option(14, struct.pack(f"{order}q", offset_s), order)
    got = read(section(order) + interface(options=options, order=order) + enhanced(b"", stamp=8, order=order))
    assert got.times == [offset_s * 10**9 + 8000]


def test_interfaces_of_several_link_types(read):
    raw_ip = writers.frame(3)[14:]
    got = read(
        section()
        + interface(1)
        + interface(101)
        + interface(105)
        + enhanced(writers.frame(1))
        + enhanced(raw_ip, number=1)
        + enhanced(b"radio", number=2, wire=77)
        + enhanced(writers.frame(4))
        + enhanced(b"nobody's", number=3)
    )
    assert got.ports == [1, 3, 4]
    assert got.reasons == {
        "unknown link type 105": 1,
        "packet of an interface that the file does not describe": 1,
    }
    assert [skipped.wire_bytes for skipped in got.skipped] == [8, 77]
    assert got.ended_early == ""


def test_sections_of_both_byte_orders(read):
    got = read(
        section("<")
        + interface(options=option(9, b"\x09"))
        + enhanced(writers.frame(1), stamp=1)
        + section(">")
        + interface(order=">")
        + enhanced(writers.frame(2), stamp=1, order=">")
        + section("<")
        + enhanced(writers.frame(3))
    )
    assert (got.ports, got.times) == ([1, 2], [1, 1000])
    assert got.reasons == {"packet of an interface that the file does not describe": 1}


def test_section_only_has_no_packets(read):
    got = read(section())
    assert (got.packets, got.skipped, got.ended_early) == (0, (), "")


@pytest.mark.parametrize("size", [9 << 20, 5 << 20])
def test_long_unknown_block_is_passed_over(read, size):
    got = read(
        section()
        + interface()
        + enhanced(writers.frame(1))
        + block(0x0BAD, bytes(size))
        + enhanced(writers.frame(2))
    )
    assert (got.ports, got.ended_early) == ([1, 2], "")


def test_packet_that_is_longer_than_its_block_is_counted_and_passed_over(read):
    lying = bytearray(enhanced(writers.frame(9)))
    lying[20:24] = struct.pack("<I", 1000)
    got = read(
        section() + interface() + enhanced(writers.frame(1)) + bytes(lying) + enhanced(writers.frame(2))
    )
    assert (got.ports, got.reasons, got.ended_early) == ([1, 2], {"corrupt record": 1}, "")


def test_packet_block_without_a_whole_header_is_counted(read):
    got = read(section() + interface() + block(6, b"\0" * 8) + block(3, b"") + enhanced(writers.frame(2)))
    assert (got.ports, got.reasons) == ([2], {"corrupt record": 2})


@pytest.mark.parametrize("size", [0, 8, 13, 2 << 20, 0xFFFFFFFC])
def test_absurd_length_ends_the_reading(read, size):
    got = read(
        section() + interface() + enhanced(writers.frame(1)) + struct.pack("<II", 6, size) + bytes(500)
    )
    assert (got.ports, got.reasons) == ([1], {"corrupt record": 1})
    assert got.ended_early.startswith("corrupt record at byte ")


def test_many_packets_across_pieces_of_the_file(read):
    count = 200_000
    got = read(section() + interface() + enhanced(writers.frame(6)) * count)
    assert (got.packets, got.skipped) == (count, ())
    assert got.largest_batch <= 1 << 16


@pytest.mark.parametrize(
    "data", [section()[:20], struct.pack("<IIII", 0x0A0D0D0A, 28, 0x12345678, 0) + bytes(12)]
)
def test_broken_start_is_refused(read, data):
    with pytest.raises(CaptureError, match="pcapng"):
        read(data)


def small_file(numbers):
    """Blocks of a small file; a packet block for each number that is not None."""
    packets = (
        block(5, b"statistics") if number is None else enhanced(writers.frame(number)) for number in numbers
    )
    return [section(), interface(), *packets]


NUMBERS = st.lists(st.one_of(st.none(), st.integers(0, 65535)), max_size=8)


@given(NUMBERS, st.data())
def test_cut_anywhere(read, numbers, data):
    blocks = small_file(numbers)
    whole = b"".join(blocks)
    cut = data.draw(st.integers(0, len(whole) - 1))
    if cut < len(blocks[0]):
        with pytest.raises(CaptureError):
            read(whole[:cut])
        return
    end, ends, expected = 0, [], []
    for number, piece in zip([None, None, *numbers], blocks, strict=True):
        end += len(piece)
        ends.append(end)
        if number is not None and end <= cut:
            expected.append(number)
    got = read(whole[:cut])
    assert got.ports == expected
    assert bool(got.ended_early) == (cut not in ends)
    assert got.packets + sum(got.reasons.values()) <= sum(number is not None for number in numbers)


@given(NUMBERS, st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=5))
def test_flipped_bytes(read, numbers, flips):
    blocks = small_file(numbers)
    data = bytearray(b"".join(blocks))
    places = {place % len(data) for place, _ in flips}
    for place, bits in flips:
        data[place % len(data)] ^= bits
    try:
        got = read(bytes(data))
    except CaptureError:
        assert min(places) < len(blocks[0])
        return
    end, before = 0, []
    for number, piece in zip([None, None, *numbers], blocks, strict=True):
        end += len(piece)
        if number is not None and end <= min(places):
            before.append(number)
    assert got.ports[: len(before)] == before
    # A length at each end of a block keeps the footing: damage makes no packets up. A block of statistics may turn
    # into one of packets, though.
    assert got.packets + sum(got.reasons.values()) <= len(numbers) + 1


@given(st.binary(max_size=400))
def test_any_bytes_behind_a_section(read, data):
    assert read(section() + data).packets <= len(data) // 12
