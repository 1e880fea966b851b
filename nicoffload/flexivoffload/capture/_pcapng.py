"""Sections and blocks of a pcapng file, as a stream."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from nicoffload.errors import CaptureError
from nicoffload.flexivoffload.capture._pcapng_blocks import (
    INTERFACE,
    PACKETS,
    SECTION,
    SMALLEST_BLOCK_BYTES,
    Interface,
    PacketBlocks,
    decode_packets,
    parse_interface,
)
from nicoffload.flexivoffload.capture._source import Window
from nicoffload.flexivoffload.capture._tally import CORRUPT_RECORD, RECORD_CUT, Tally
from nicoffload.packets import RawFrames

PCAPNG_MAGIC = struct.pack("<I", SECTION)
"""The first four bytes of a pcapng file; they read the same in both byte orders."""

_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_SMALLEST_SECTION_BYTES = 28

# The longest block that is held in memory: 256 KiB of packet and ample options. Other blocks are passed over.
_MAX_HELD_BYTES = 1 << 20
# 16 bits number the interfaces of the obsolete packet block; nobody has more, and the table has to have a bound.
_MAX_INTERFACES = 1 << 16

_CORRUPT_BLOCK = "corrupt block"


def read_pcapng(window: Window, tally: Tally, piece_bytes: int, max_packets: int) -> Iterator[RawFrames]:
    """Yield the packets of a pcapng file.

    Args:
        window: The file, at its start; its first bytes are `PCAPNG_MAGIC`.
        tally: Where the skipped packets are counted.
        piece_bytes: How much of the file to hold at a time; at least the longest block held, 1 MiB.
        max_packets: The most packets to yield at a time.

    Raises:
        CaptureError: The file ends within its first header, or that header has no byte order.
    """
    if not window.fill(_SMALLEST_SECTION_BYTES):
        raise CaptureError(f"a pcapng file that ends within its header of {_SMALLEST_SECTION_BYTES} bytes")
    if window.data[8:12] not in _ORDERS:
        raise CaptureError("a pcapng file whose header tells no byte order")
    return _Reader(window, tally, piece_bytes, max_packets).read()


class _Reader:
    """State of a reading: the section, its interfaces, and the packet blocks found but not yet decoded."""

    def __init__(self, window: Window, tally: Tally, piece_bytes: int, max_packets: int) -> None:
        self._window = window
        self._tally = tally
        self._piece_bytes = piece_bytes
        self._max_packets = max_packets
        self._order = "<"
        self._interfaces: list[Interface] = []
        self._last_time_ns = 0
        self._starts: list[int] = []
        self._kinds: list[int] = []
        self._sizes: list[int] = []

    def read(self) -> Iterator[RawFrames]:
        """Yield the packets until the file ends or can't be read any further."""
        while True:
            more = self._window.fill(self._piece_bytes)
            is_full = self._walk()
            frames = self._decode()
            if frames is not None and len(frames):
                yield frames
            if self._tally.ended_early:
                return
            if not is_full and not more and not self._pass_block(at_end=True):
                return
            if not is_full and more and not self._pass_block(at_end=False):
                return

    def _walk(self) -> bool:
        """Go over the whole blocks in memory; True where there may be more of them in memory."""
        window = self._window
        data = window.data
        position = window.position
        end = len(data)
        head = struct.Struct(f"{self._order}II").unpack_from
        trailer = struct.Struct(f"{self._order}I").unpack_from
        while position + SMALLEST_BLOCK_BYTES <= end and len(self._starts) < self._max_packets:
            kind, size = head(data, position)
            if kind == SECTION:
                window.position = position
                # Packets found so far belong to the section before: they are decoded first.
                if self._starts:
                    return True
                if not self._start_section():
                    return False
                position = window.position
                head = struct.Struct(f"{self._order}II").unpack_from
                trailer = struct.Struct(f"{self._order}I").unpack_from
                continue
            following = position + size
            if size < SMALLEST_BLOCK_BYTES or size % 4 or following > end:
                break
            if trailer(data, following - 4)[0] != size:
                break
            if kind in PACKETS:
                self._starts.append(position)
                self._kinds.append(kind)
                self._sizes.append(size)
            elif kind == INTERFACE and not self._add_interface(data[position + 8 : following - 4]):
                break
            position = following
        window.position = position
        return len(self._starts) >= self._max_packets

    def _start_section(self) -> bool:
        """Read a section header; False where it is not whole, or corrupt (which ends the reading)."""
        window = self._window
        header = window.data[window.position : window.position + _SMALLEST_SECTION_BYTES]
        if len(header) < _SMALLEST_SECTION_BYTES:
            return False
        order = _ORDERS.get(header[8:12])
        if order is None:
            self._end(_CORRUPT_BLOCK, 0)
            return False
        (size,) = struct.unpack_from(f"{order}I", header, 4)
        if size < _SMALLEST_SECTION_BYTES or size % 4 or size > _MAX_HELD_BYTES:
            self._end(_CORRUPT_BLOCK, 0)
            return False
        if window.available < size:
            return False
        if struct.unpack_from(f"{order}I", window.data, window.position + size - 4) != (size,):
            self._end(_CORRUPT_BLOCK, 0)
            return False
        self._order = order
        self._interfaces = []
        window.position += size
        return True

    def _add_interface(self, body: bytes) -> bool:
        interface = parse_interface(body, self._order)
        if interface is None or len(self._interfaces) >= _MAX_INTERFACES:
            return False
        self._interfaces.append(interface)
        return True

    def _decode(self) -> RawFrames | None:
        if not self._starts:
            return None
        blocks = PacketBlocks(
            start=np.array(self._starts, np.int64),
            kind=np.array(self._kinds, np.int64),
            block_bytes=np.array(self._sizes, np.int64),
        )
        self._starts, self._kinds, self._sizes = [], [], []
        data = self._window.data
        frames = decode_packets(data, blocks, self._order, self._interfaces, self._last_time_ns, self._tally)
        if len(frames):
            self._last_time_ns = int(frames.time_ns[-1])
        return frames

    def _pass_block(self, *, at_end: bool) -> bool:
        """Deal with the block at which the walk stopped; False where the reading ends."""
        window = self._window
        if at_end and not window.available and not window.source.damage:
            return False
        if window.available < SMALLEST_BLOCK_BYTES:
            return not at_end or self._end_of_file(0)
        kind, size = struct.unpack_from(f"{self._order}II", window.data, window.position)
        packets = 1 if kind in PACKETS else 0
        if kind == SECTION:
            return not at_end or self._end_of_file(0)
        held = kind in PACKETS or kind == INTERFACE
        is_absurd = size < SMALLEST_BLOCK_BYTES or size % 4 or (held and size > _MAX_HELD_BYTES)
        if is_absurd or size <= window.available:
            return self._end(CORRUPT_RECORD if packets else _CORRUPT_BLOCK, packets)
        if held:
            return not at_end or self._end_of_file(packets)
        if not window.skip(size - 4) or not window.fill(4):
            return self._end_of_file(0)
        if struct.unpack_from(f"{self._order}I", window.data, window.position) != (size,):
            return self._end(_CORRUPT_BLOCK, 0)
        window.position += 4
        return True

    def _end_of_file(self, packets: int) -> bool:
        damage = self._window.source.damage
        return self._end(damage or RECORD_CUT, packets)

    def _end(self, reason: str, packets: int) -> bool:
        self._tally.end(reason, packets, f"at byte {self._window.file_offset}")
        return False
