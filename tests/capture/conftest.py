"""Fixtures of the capture tests."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from nicoffload.flexivoffload.capture import SkippedPackets, open_capture


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that a reader said about a file."""

    packets: int
    wire_bytes: int
    skipped: tuple[SkippedPackets, ...]
    ended_early: str
    progress: float
    largest_batch: int
    times: list[int] = field(repr=False)
    lengths: list[int] = field(repr=False)
    ports: list[int] = field(repr=False)

    @property
    def reasons(self) -> dict[str, int]:
        """Skipped packets by reason."""
        return {skipped.reason: skipped.packets for skipped in self.skipped}


def read_file(path) -> Reading:
    times, lengths, ports, largest = [], [], [], 0
    with open_capture(path) as reader:
        for batch in reader:
            times += batch.time_ns.tolist()
            lengths += batch.wire_bytes.tolist()
            ports += batch.headers["tp_src"][batch.header_index].tolist()
            largest = max(largest, len(batch))
    assert len(times) == reader.packets_read
    assert sum(lengths) == reader.bytes_read
    return Reading(
        packets=reader.packets_read,
        wire_bytes=reader.bytes_read,
        skipped=reader.skipped,
        ended_early=reader.ended_early,
        progress=reader.progress,
        largest_batch=largest,
        times=times,
        lengths=lengths,
        ports=ports,
    )


@pytest.fixture(scope="session")
def read(tmp_path_factory):
    """Write bytes into a file and read it as a capture."""
    path = tmp_path_factory.mktemp("captures") / "capture"

    def read_bytes(data: bytes) -> Reading:
        path.write_bytes(data)
        return read_file(path)

    return read_bytes
