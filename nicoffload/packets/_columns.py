"""The working table of a parse: one row a packet, a cursor into its bytes, and its header columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nicoffload.packets.batch import HEADER_DTYPE, TRUNCATED
from nicoffload.packets.frames import RawFrames, read_structs

Rows = npt.NDArray[np.intp]

_WORDS = -(-HEADER_DTYPE.itemsize // 8)

# HEADER_DTYPE padded to whole 64-bit words, so that a row can be hashed and compared word by word.
_PADDED = np.dtype([("header", HEADER_DTYPE), ("padding", "V1", (8 * _WORDS - HEADER_DTYPE.itemsize,))])


class Table:
    """Packets being parsed; layers read at `cursor`, never at or past `end`, and move `cursor` on.

    `ethertype` and `protocol` say what lies at the cursor; 0 and -1 mean that nothing more is read.
    """

    __slots__ = (
        "_data",
        "_words",
        "columns",
        "cursor",
        "end",
        "ethertype",
        "protocol",
        "start",
        "wire_bytes",
    )

    def __init__(self, frames: RawFrames) -> None:
        count = len(frames)
        self._data = frames.data
        self._words = np.zeros((count, _WORDS), np.uint64)
        self.columns: npt.NDArray[np.void] = self._words.view(_PADDED)[:, 0]["header"]
        self.start = frames.offset
        self.cursor = frames.offset.copy()
        self.end = frames.offset + frames.captured_bytes
        self.wire_bytes = frames.wire_bytes
        self.ethertype = np.zeros(count, np.int64)
        self.protocol = np.full(count, -1, np.int64)

    def whole(self, rows: Rows, size: int) -> Rows:
        """Return the rows that hold `size` bytes at their cursor, and mark the others as truncated."""
        enough = self.end[rows] - self.cursor[rows] >= size
        if enough.all():
            return rows
        self.mark(rows[~enough], TRUNCATED)
        return rows[enough]

    def read(self, rows: Rows, layout: np.dtype[Any]) -> npt.NDArray[np.void]:
        """Return the bytes at each row's cursor as `layout`; the caller has asked `whole` before."""
        return read_structs(self._data, self.cursor[rows], layout)

    def mark(self, rows: Rows, bits: int) -> None:
        """Set bits of the column `present`."""
        self.columns["present"][rows] |= np.uint32(bits)

    def distinct(self) -> tuple[npt.NDArray[np.void], npt.NDArray[np.int32]]:
        """Return HEADER_DTYPE[U], the distinct headers as they first appear, and int32[N], the row of each."""
        words = self._words
        first, inverse = _group(_hash(words))
        if not np.array_equal(words[first][inverse], words):
            # Two headers share a hash: group by the bytes themselves, slower and exact.
            first, inverse = _group(words.view(np.dtype(f"V{8 * _WORDS}"))[:, 0])
        order = np.argsort(first)
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        packed = words[first[order]].view(np.uint8)[:, : HEADER_DTYPE.itemsize]
        headers = np.ascontiguousarray(packed).view(HEADER_DTYPE).reshape(-1)
        return headers, rank[inverse]


def _group(keys: npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


_ODD = np.random.default_rng(0x0FF10AD).integers(0, 2**63, _WORDS, dtype=np.uint64) * np.uint64(
    2
) + np.uint64(1)


def _hash(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    mixed = words ^ (words >> np.uint64(29))
    mixed *= _ODD
    mixed ^= mixed >> np.uint64(32)
    mixed *= _ODD[::-1]
    total: npt.NDArray[np.uint64] = mixed.sum(axis=1, dtype=np.uint64)
    return total
