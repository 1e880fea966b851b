"""`open_capture`: a capture file as a stream of packet batches."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from nicoffload.errors import CaptureError
from nicoffload.flexivoffload.capture._identify import describe
from nicoffload.flexivoffload.capture._pcap import PCAP_MAGICS, read_pcap
from nicoffload.flexivoffload.capture._pcapng import PCAPNG_MAGIC, read_pcapng
from nicoffload.flexivoffload.capture._source import GZIP_MAGIC, GzipSource, PlainSource, Source, Window
from nicoffload.flexivoffload.capture._tally import SkippedPackets, Tally, unknown_link_type
from nicoffload.packets import LINK_TYPES, PacketBatch, RawFrames, parse_frames

__all__ = ["CaptureReader", "SkippedPackets", "open_capture"]

MAX_BATCH_PACKETS = 1 << 16
"""The most packets in one batch."""

_PIECE_BYTES = 1 << 22
_SIGNATURE_BYTES = 64
_HINT = "read are pcap and pcapng, plain or gzipped"
_KNOWN_LINK_TYPES = np.array(sorted(LINK_TYPES))


@dataclass(slots=True)
class _Totals:
    packets: int = 0
    wire_bytes: int = 0


class CaptureReader:
    """The packets of a capture file, once, in the order of the file; `open_capture` makes it.

    Memory stays bounded however long the file is. Iterate over it inside ``with``.
    """

    def __init__(
        self, path: Path, file: io.BufferedReader, chunks: Iterator[RawFrames], tally: Tally
    ) -> None:
        self.path = path
        self._file = file
        self._file_bytes = os.fstat(file.fileno()).st_size
        self._chunks = chunks
        self._tally = tally
        self._totals = _Totals()
        self._is_finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[PacketBatch]:
        """Yield batches of 1 to `MAX_BATCH_PACKETS` packets.

        Raises:
            CaptureError: The file can't be read (the disk fails, or the reader is closed).
        """
        try:
            for frames in self._chunks:
                known = self._known(frames)
                if len(known):
                    batch = parse_frames(known)
                    self._totals.packets += len(batch)
                    self._totals.wire_bytes += int(batch.wire_bytes.sum())
                    yield batch
        except (OSError, ValueError) as error:
            # A closed file answers with ValueError; any other one is a fault of ours and stays what it is.
            if isinstance(error, OSError) or self._file.closed:
                raise CaptureError(f"can't be read: {error}", path=str(self.path)) from error
            raise
        self._is_finished = True

    def close(self) -> None:
        """Close the file; what was counted stays readable."""
        self._file.close()

    @property
    def packets_read(self) -> int:
        """Packets in the batches so far."""
        return self._totals.packets

    @property
    def bytes_read(self) -> int:
        """Their length on the wire, as the file tells it."""
        return self._totals.wire_bytes

    @property
    def skipped(self) -> tuple[SkippedPackets, ...]:
        """What is in the file and in no batch, by reason, so far."""
        return self._tally.skipped()

    @property
    def ended_early(self) -> str:
        """Why and where the rest of the file could not be read; empty where there is no such rest."""
        return self._tally.ended_early

    @property
    def progress(self) -> float:
        """Part of the file's bytes that has been consumed, 0 to 1; 0 for a pipe until it ends."""
        if self._is_finished:
            return 1.0
        if self._file.closed or not self._file_bytes:
            return 0.0
        return min(self._file.tell() / self._file_bytes, 1.0)

    def _known(self, frames: RawFrames) -> RawFrames:
        is_known = np.isin(frames.link_type, _KNOWN_LINK_TYPES)
        if is_known.all():
            return frames
        for link_type in np.unique(frames.link_type[~is_known]).tolist():
            rows = frames.link_type == link_type
            self._tally.add(unknown_link_type(link_type), int(rows.sum()), int(frames.wire_bytes[rows].sum()))
        return _select(frames, is_known)


def _select(frames: RawFrames, rows: npt.NDArray[np.bool_]) -> RawFrames:
    columns = {
        field.name: getattr(frames, field.name)[rows] for field in fields(frames) if field.name != "data"
    }
    return RawFrames(data=frames.data, **columns)


def open_capture(path: str | os.PathLike[str]) -> CaptureReader:
    """Open a packet capture: pcap or pcapng, plain or gzipped, told apart by content and not by name.

    Args:
        path: The file.

    Returns:
        A reader to iterate over inside ``with``.

    Raises:
        CaptureError: The file can't be opened, is empty, ends within its header, or is something else.
    """
    where = Path(path)
    try:
        file = where.open("rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CaptureError(f"can't be opened: {reason}", path=str(where), hint=_HINT) from error
    try:
        chunks, tally = _open_chunks(file)
        return CaptureReader(where, file, chunks, tally)
    except CaptureError as error:
        file.close()
        raise CaptureError(error.message, path=str(where), hint=_HINT) from error
    except OSError as error:
        file.close()
        raise CaptureError(f"can't be read: {error.strerror}", path=str(where), hint=_HINT) from error


def _open_chunks(file: io.BufferedReader) -> tuple[Iterator[RawFrames], Tally]:
    is_gzip = file.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
    source: Source = GzipSource(file) if is_gzip else PlainSource(file)
    window = Window(source, _PIECE_BYTES)
    window.fill(_SIGNATURE_BYTES)
    start = window.data[:_SIGNATURE_BYTES]
    tally = Tally()
    if start[:4] in PCAP_MAGICS:
        return read_pcap(window, tally, _PIECE_BYTES, MAX_BATCH_PACKETS), tally
    if start[:4] == PCAPNG_MAGIC:
        return read_pcapng(window, tally, _PIECE_BYTES, MAX_BATCH_PACKETS), tally
    content = " after decompression" if is_gzip else ""
    if source.damage and not start:
        raise CaptureError(source.damage)
    if not start:
        raise CaptureError(f"an empty file{content}")
    raise CaptureError(f"not a packet capture: {describe(start)}{content}")
