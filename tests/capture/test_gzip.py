"""Gzipped captures: found by content, counted up to the damage."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import CaptureError
from tests.capture import writers


def noisy_pcap(count: int) -> bytes:
    """A pcap whose payloads don't compress, so that the damage of a byte is near its place."""
    chance = random.Random(4)
    return writers.pcap([(k, 0, writers.frame(k, 42) + chance.randbytes(200), 1514) for k in range(count)])


PCAP = noisy_pcap(300)
PCAPNG = (
    writers.section() + writers.interface() + b"".join(writers.enhanced(writers.frame(k)) for k in range(300))
)


@pytest.mark.parametrize("content", [PCAP, PCAPNG])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_whole(read, content, level):
    got = read(gzip.compress(content, level))
    assert (got.ports, got.skipped, got.ended_early, got.progress) == (list(range(300)), (), "", 1.0)


def test_several_members_and_padding(read):
    data = gzip.compress(PCAP[:1000]) + gzip.compress(b"") + gzip.compress(PCAP[1000:]) + bytes(700)
    got = read(data)
    assert (got.ports, got.skipped) == (list(range(300)), ())


def test_bytes_behind_the_data_are_told(read):
    got = read(gzip.compress(PCAP) + b"garbage")
    assert (got.packets, got.reasons) == (300, {"bytes behind the gzip data": 0})
    assert got.ended_early.startswith("bytes behind the gzip data at byte ")


@given(st.integers(18, len(gzip.compress(PCAP, mtime=0)) - 1))
def test_cut_anywhere(read, cut):
    data = gzip.compress(PCAP)[:cut]
    stream = zlib.decompressobj(31)
    there = len(stream.decompress(data))
    if there < 24:
        with pytest.raises(CaptureError):
            read(data)
        return
    got = read(data)
    complete, rest = divmod(there - 24, 16 + 242)
    assert got.ports == list(range(complete))
    assert got.reasons == {"gzip data cut by the end of the file": 1 if rest else 0}


@given(st.integers(0, len(gzip.compress(PCAP, mtime=0)) - 1), st.integers(1, 255))
def test_flipped_byte(read, place, bits):
    data = bytearray(gzip.compress(PCAP))
    data[place] ^= bits
    try:
        got = read(bytes(data))
    except CaptureError:
        assert place < 600
        return
    # zlib keeps some of what is before the damage to itself; what it let go is whole.
    assert got.packets <= len(PCAP) // 16
    near = max(place - 600, 0) // 258
    assert got.ports[:near] == list(range(near))


def test_wrong_checksum_is_told(read):
    data = bytearray(gzip.compress(PCAP))
    data[-8] ^= 1
    got = read(bytes(data))
    assert got.packets == 300
    assert "gzip data corrupt" in got.ended_early


def test_what_zlib_had_before_the_damage_is_not_lost(read):
    # Stored, not compressed: all but the last bytes are whole, and one call of zlib would drop them.
    data = bytearray(gzip.compress(PCAP[:60_000], 0))
    data[-8:] = bytes(8)
    assert read(bytes(data)).packets == (60_000 - 24) // 258


@pytest.mark.parametrize("content", [b"", b"hello, world" * 20])
def test_gzipped_something_else_is_refused(read, content):
    with pytest.raises(CaptureError, match="after decompression"):
        read(gzip.compress(content))


def test_gzip_magic_alone_is_refused(read):
    with pytest.raises(CaptureError, match="gzip data"):
        read(b"\x1f\x8b\x08")
