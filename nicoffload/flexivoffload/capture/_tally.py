"""What a reading left out, and why."""

from __future__ import annotations

from dataclasses import dataclass

CORRUPT_RECORD = "corrupt record"
RECORD_CUT = "record cut by the end of the file"
UNKNOWN_INTERFACE = "packet of an interface that the file does not describe"


def unknown_link_type(link_type: int) -> str:
    """Return the reason for packets of a link type that is not read."""
    return f"unknown link type {link_type}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedPackets:
    """Packets that are in the file and in no batch.

    Args:
        reason: Why, such as ``unknown link type 105``.
        packets: How many are known to be missing; 0 where the reading ended between two records.
        wire_bytes: Their length on the wire, as far as the file tells it.
    """

    reason: str
    packets: int
    wire_bytes: int


class Tally:
    """Counts skipped packets by reason while a capture is being read."""

    def __init__(self) -> None:
        self.ended_early = ""
        self._counts: dict[str, tuple[int, int]] = {}

    def add(self, reason: str, packets: int, wire_bytes: int = 0) -> None:
        """Count packets that are left out."""
        before = self._counts.get(reason, (0, 0))
        self._counts[reason] = (before[0] + packets, before[1] + wire_bytes)

    def end(self, reason: str, packets: int, where: str, wire_bytes: int = 0) -> None:
        """Count packets that are left out, and record that the rest of the file can't be read."""
        self.add(reason, packets, wire_bytes)
        self.ended_early = f"{reason} {where}"

    def skipped(self) -> tuple[SkippedPackets, ...]:
        """Return the counts in the order in which the reasons turned up."""
        return tuple(
            SkippedPackets(reason=reason, packets=packets, wire_bytes=wire_bytes)
            for reason, (packets, wire_bytes) in self._counts.items()
        )
