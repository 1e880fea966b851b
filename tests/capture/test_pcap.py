"""Classic pcap: every variant, against files that dpkt wrote; damage against what is whole before it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import CaptureError
from tests.capture import writers


@pytest.mark.parametrize("nano", [False, True])
def test_file_of_dpkt(read, nano):
    frames = [writers.frame(number, 42 + number) for number in range(50)]
    got = read(writers.pcap_by_dpkt(frames, nano=nano))
    assert (got.packets, got.skipped, got.ended_early, got.progress) == (50, (), "", 1.0)
    assert got.lengths == [len(data) for data in frames]
    assert got.ports == list(range(50))
    # dpkt rounds a float: a microsecond is as close as it gets.
    assert all(abs(t - k * 1_000_001_000) <= 1000 for k, t in enumerate(got.times))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("magic", "extra", "ns"), [(0xA1B2C3D4, b"", 1000), (0xA1B23C4D, b"", 1), (0xA1B2CD34, b"\xee" * 8, 1000)]
)
def test_variants(read, order, magic, extra, ns):
    records = [(1_700_000_000 + k, k, writers.frame(k), 1514) for k in range(5)]
    got = read(writers.pcap(records, order=order, magic=magic, extra=extra))
    assert got.times == [(1_700_000_000 + k) * 10**9 + k * ns for k in range(5)]
    assert got.lengths == [1514] * 5
    assert got.ports == list(range(5))


def test_header_only_has_no_packets(read):
    got = read(writers.pcap([]))
    assert (got.packets, got.skipped, got.ended_early) == (0, (), "")


def test_records_of_no_bytes_are_packets(read):
    got = read(writers.pcap([(0, 0, b"", 0), (1, 0, b"", 60), (2, 0, writers.frame(7), 60)]))
    assert (got.packets, got.lengths, got.ports) == (3, [0, 60, 60], [0, 0, 7])


def test_snaplen_cut_records_keep_their_wire_length(read):
    records = [(k, 0, writers.frame(k, 1400)[:size], 1400) for k, size in enumerate((10, 20, 36, 38, 96))]
    got = read(writers.pcap(records))
    assert got.lengths == [1400] * 5
    assert got.ports == [0, 0, 0, 3, 4]


def test_unknown_link_type_is_counted(read):
    got = read(writers.pcap([(0, 0, b"x" * 20, 30)] * 3, link_type=105))
    assert (got.packets, got.reasons) == (0, {"unknown link type 105": 3})
    assert got.skipped[0].wire_bytes == 90


def test_length_of_the_fcs_is_no_part_of_the_link_type(read):
    assert read(writers.pcap([(0, 0, writers.frame(9), 60)], link_type=0x54000001)).ports == [9]


@pytest.mark.parametrize("captured", [0x40001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_absurd_length_ends_the_reading(read, captured):
    data = writers.pcap([(k, 0, writers.frame(k), 60) for k in range(3)])
    data += struct.pack("<IIII", 9, 0, captured, captured) + bytes(100)
    got = read(data)
    assert (got.packets, got.reasons) == (3, {"corrupt record": 1})
    assert got.ended_early == f"corrupt record at byte {24 + 3 * 76}"


def test_batches_are_bounded(read):
    got = read(writers.pcap([(0, 0, b"", 60)] * 150_000))
    assert (got.packets, got.largest_batch) == (150_000, 1 << 16)


def test_records_across_pieces_of_the_file(read):
    records = [(k, 0, writers.frame(k) + bytes(60_000 + k), 70_000) for k in range(200)]
    got = read(writers.pcap(records))
    assert (got.packets, got.ports) == (200, list(range(200)))


@given(st.lists(st.integers(0, 120), max_size=8), st.data())
def test_cut_anywhere(read, sizes, data):
    records = [(k, 0, writers.frame(k, 42 + size), 1514) for k, size in enumerate(sizes)]
    whole = writers.pcap(records)
    cut = data.draw(st.integers(0, len(whole) - 1))
    if cut < 24:
        with pytest.raises(CaptureError):
            read(whole[:cut])
        return
    ends = [24]
    for record in records:
        ends.append(ends[-1] + 16 + len(record[2]))
    complete = sum(end <= cut for end in ends[1:])
    got = read(whole[:cut])
    assert got.ports == list(range(complete))
    is_between = cut in ends
    assert got.reasons == ({} if is_between else {"record cut by the end of the file": 1})
    assert bool(got.ended_early) != is_between


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=5),
)
def test_flipped_bytes(read, sizes, flips):
    records = [(k, 0, writers.frame(k, 42 + size), 1514) for k, size in enumerate(sizes)]
    data = bytearray(writers.pcap(records))
    places = {place % len(data) for place, _ in flips}
    for place, bits in flips:
        data[place % len(data)] ^= bits
    try:
        got = read(bytes(data))
    except CaptureError:
        assert min(places) < 24
        return
    if min(places) < 24:
        return
    end, before = 24, 0
    for record in records:
        end += 16 + len(record[2])
        before += end <= min(places)
    assert got.ports[:before] == list(range(before))
    # Behind a wrong length nothing has a footing; yet each record takes its 16 bytes.
    assert got.packets <= (len(data) - 24) // 16
    headers = [24 + sum(16 + len(earlier[2]) for earlier in records[:k]) for k in range(len(records))]
    if not any(start + 8 <= place < start + 12 for place in places for start in headers):
        assert got.packets == len(records)
