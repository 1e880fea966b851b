"""Bytes of a capture file, gzipped or not, a bounded piece at a time."""

from __future__ import annotations

import io
import zlib
from typing import Protocol

GZIP_MAGIC = b"\x1f\x8b"

_COMPRESSED_PIECE_BYTES = 1 << 16
_GZIP_FORMAT = 16 + zlib.MAX_WBITS


class Source(Protocol):
    """Where the bytes come from."""

    damage: str
    """Why the bytes ended before the file's content did; empty where they did not."""

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or none at the end."""


class PlainSource:
    """The bytes of the file as they are."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.damage = ""
        self._file = file

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or none at the end."""
        return self._file.read(size)


class GzipSource:
    """The content of a gzip file of one or several members.

    A damaged stream ends with the last byte that could be decompressed; `damage` then says what is wrong.
    """

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.damage = ""
        self._file = file
        self._input = b""
        self._stream = zlib.decompressobj(_GZIP_FORMAT)
        self._ended = False

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or none at the end."""
        while not self._ended:
            if self._stream.eof:
                self._next_member()
                continue
            if not self._input:
                self._input = self._file.read(_COMPRESSED_PIECE_BYTES)
                if not self._input:
                    self._end("gzip data cut by the end of the file")
                    break
            content = self._decompress(size)
            if content:
                return content
        return b""

    def _end(self, damage: str = "") -> None:
        self._ended = True
        self.damage = damage

    def _next_member(self) -> None:
        rest = self._stream.unused_data + self._file.read(_COMPRESSED_PIECE_BYTES)
        # Files on tape or in blocks are padded with zeros, which gunzip ignores too.
        rest = rest.lstrip(b"\0")
        if not rest:
            self._end()
        elif not rest.startswith(GZIP_MAGIC):
            self._end("bytes behind the gzip data")
        else:
            self._input = rest
            self._stream = zlib.decompressobj(_GZIP_FORMAT)

    def _decompress(self, size: int) -> bytes:
        before = self._stream.copy()
        try:
            content = self._stream.decompress(self._input, size)
            self._input = self._stream.unconsumed_tail
        except zlib.error as error:
            content = _decompress_to_damage(before, self._input, size)
            self._end(f"gzip data corrupt ({error})")
        return content


def _decompress_to_damage(stream: zlib._Decompress, data: bytes, size: int) -> bytes:
    # zlib drops what it had decompressed in the call that fails, so give it the bytes one by one.
    content = bytearray()
    try:
        for index in range(len(data)):
            content += stream.decompress(data[index : index + 1], size)
            if len(content) >= size:
                break
    except zlib.error:
        pass
    return bytes(content)


class Window:
    """The part of a source that is in memory: `data`, from `position` on not yet read."""

    def __init__(self, source: Source, piece_bytes: int) -> None:
        self.source = source
        self.data = b""
        self.position = 0
        self.offset = 0
        self._piece_bytes = piece_bytes

    @property
    def file_offset(self) -> int:
        """Offset of `position` from the start of the content, in bytes."""
        return self.offset + self.position

    @property
    def available(self) -> int:
        """Bytes in memory that are not yet read."""
        return len(self.data) - self.position

    def fill(self, size: int) -> bool:
        """Have at least `size` bytes available; False where the source ends before."""
        if self.available >= size:
            return True
        pieces = [self.data[self.position :]]
        have = len(pieces[0])
        while have < size:
            piece = self.source.read(self._piece_bytes)
            if not piece:
                break
            pieces.append(piece)
            have += len(piece)
        self.offset += self.position
        self.position = 0
        self.data = b"".join(pieces)
        return have >= size

    def skip(self, size: int) -> bool:
        """Pass over `size` bytes without holding them; False where the source ends before."""
        while size > self.available:
            size -= self.available
            self.position = len(self.data)
            if not self.fill(1):
                return False
        self.position += size
        return True
