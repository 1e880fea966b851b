"""Records of a classic pcap file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nicoffload.errors import CaptureError
from nicoffload.flexivoffload.capture._source import Window
from nicoffload.flexivoffload.capture._tally import CORRUPT_RECORD, RECORD_CUT, Tally
from nicoffload.packets import RawFrames, read_structs

MAX_CAPTURED_BYTES = 1 << 18
"""The longest record that is believed, as in libpcap; behind a longer one there is no footing."""

_HEADER_BYTES = 24
# The upper bits of the link type say how long the FCS is.
_LINK_TYPE_MASK = 0x03FFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variant:
    """What the magic number tells.

    Args:
        order: Byte order, as in `struct`.
        record_header_bytes: Length of the header of each record.
        ns_per_fraction: What the second half of a time stamp counts, in nanoseconds.
    """

    order: str
    record_header_bytes: int
    ns_per_fraction: int


def _variants() -> Iterator[tuple[bytes, _Variant]]:
    for order in "<>":
        # Micro- and nanoseconds; then Alexey Kuznetzov's patched libpcap, whose records tell the interface too.
        for magic, record_header_bytes, ns in (
            (0xA1B2C3D4, 16, 1000),
            (0xA1B23C4D, 16, 1),
            (0xA1B2CD34, 24, 1000),
        ):
            yield (
                struct.pack(f"{order}I", magic),
                _Variant(order=order, record_header_bytes=record_header_bytes, ns_per_fraction=ns),
            )


_VARIANTS = dict(_variants())

PCAP_MAGICS: frozenset[bytes] = frozenset(_VARIANTS)
"""The first four bytes of the files that `read_pcap` reads."""


def read_pcap(window: Window, tally: Tally, piece_bytes: int, max_packets: int) -> Iterator[RawFrames]:
    """Yield the records of a pcap file.

    Args:
        window: The file, at its start; its first bytes are one of `PCAP_MAGICS`.
        tally: Where the skipped records are counted.
        piece_bytes: How much of the file to hold at a time.
        max_packets: The most records to yield at a time.

    Raises:
        CaptureError: The file ends within its header.
    """
    if not window.fill(_HEADER_BYTES):
        raise CaptureError(f"a pcap file that ends within its header of {_HEADER_BYTES} bytes")
    variant = _VARIANTS[window.data[:4]]
    (network,) = struct.unpack_from(f"{variant.order}I", window.data, 20)
    window.position = _HEADER_BYTES
    return _read_records(window, tally, variant, network & _LINK_TYPE_MASK, piece_bytes, max_packets)


def _read_records(
    window: Window, tally: Tally, variant: _Variant, link_type: int, piece_bytes: int, max_packets: int
) -> Iterator[RawFrames]:
    while True:
        more = window.fill(piece_bytes)
        starts, position, corrupt = _walk(window.data, window.position, variant, max_packets)
        if starts:
            yield _frames(window.data, np.array(starts, np.int64), variant, link_type)
        window.position = position
        if corrupt:
            tally.end(CORRUPT_RECORD, 1, f"at byte {window.file_offset}")
            return
        if not more and len(starts) < max_packets:
            damage = window.source.damage
            if damage or window.available:
                cut = 1 if window.available else 0
                tally.end(damage or RECORD_CUT, cut, f"at byte {window.file_offset}")
            return


def _walk(data: bytes, position: int, variant: _Variant, max_packets: int) -> tuple[list[int], int, bool]:
    # Each record says where the next one starts, so this is the one loop over packets.
    header_bytes = variant.record_header_bytes
    captured_at = struct.Struct(f"{variant.order}I").unpack_from
    end = len(data)
    last_header = end - header_bytes
    starts: list[int] = []
    append = starts.append
    while position <= last_header and len(starts) < max_packets:
        (captured,) = captured_at(data, position + 8)
        if captured > MAX_CAPTURED_BYTES:
            return starts, position, True
        following = position + header_bytes + captured
        if following > end:
            break
        append(position)
        position = following
    return starts, position, False


def _frames(data: bytes, starts: npt.NDArray[np.int64], variant: _Variant, link_type: int) -> RawFrames:
    u4 = f"{variant.order}u4"
    layout = np.dtype([("seconds", u4), ("fraction", u4), ("captured", u4), ("wire", u4)])
    record = read_structs(data, starts, layout)
    return RawFrames(
        data=data,
        offset=starts + variant.record_header_bytes,
        captured_bytes=record["captured"].astype(np.int64),
        wire_bytes=record["wire"].astype(np.int64),
        time_ns=record["seconds"].astype(np.int64) * 1_000_000_000
        + record["fraction"].astype(np.int64) * variant.ns_per_fraction,
        link_type=np.full(len(starts), link_type, np.int64),
    )
