"""One account of packets and bytes for both paths of a flow, whatever its counters do.

A path's count is what was closed plus what is live. Live counts belong to an epoch: a new one starts when a flow moves,
so nothing is counted twice and nothing is lost. The virtual switch and each VM's dispatcher count exactly. The NIC's
rule counters wrap, freeze, reset and lie; they are brought to the same basis, compared, and believed only where they
agree.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nicoffload.model import ByteBasis, CounterFacts

Ints = npt.NDArray[np.int64]


class Path(enum.IntEnum):
    """The two ways to a VM."""

    VSWITCH = 0
    NIC = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Packets and bytes; bytes are those of the frame without FCS."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(packets=self.packets + other.packets, bytes=self.bytes + other.bytes)


class Ledger:
    """The account of many flows, in columns; row N is flow N of the flow table.

    Args:
        rows: How many rows to start with.
    """

    def __init__(self, rows: int) -> None:
        # [path][row]; live belongs to the running epoch of that path.
        self.closed_packets = np.zeros((2, rows), np.int64)
        self.closed_bytes = np.zeros((2, rows), np.int64)
        self.live_packets = np.zeros((2, rows), np.int64)
        self.live_bytes = np.zeros((2, rows), np.int64)
        self.dropped_packets = np.zeros(rows, np.int64)
        self.dropped_bytes = np.zeros(rows, np.int64)
        self.epoch = np.zeros((2, rows), np.int32)

    def grow(self, rows: int) -> None:
        """Make room for more rows."""
        for name in ("closed_packets", "closed_bytes", "live_packets", "live_bytes", "epoch"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros((2, rows - old.shape[1]), old.dtype)], axis=1))
        for name in ("dropped_packets", "dropped_bytes"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros(rows - len(old), old.dtype)]))

    def count(self, path: Path, rows: Ints, packets: Ints, size: Ints) -> None:
        """Add what a path carried; each row at most once."""
        self.live_packets[path, rows] += packets
        self.live_bytes[path, rows] += size

    def count_dropped(self, rows: Ints, packets: Ints, size: Ints) -> None:
        """Note how much of what the NIC path took was dropped there; each row at most once."""
        self.dropped_packets[rows] += packets
        self.dropped_bytes[rows] += size

    def close(self, path: Path, rows: Ints) -> None:
        """End the running epoch of a path: its counts are final, and a counter that starts anew can't touch them."""
        self.closed_packets[path, rows] += self.live_packets[path, rows]
        self.closed_bytes[path, rows] += self.live_bytes[path, rows]
        self.live_packets[path, rows] = 0
        self.live_bytes[path, rows] = 0
        self.epoch[path, rows] += 1

    def clear(self, rows: Ints) -> None:
        """Forget rows, whose counts the caller has kept elsewhere."""
        for table in (self.closed_packets, self.closed_bytes, self.live_packets, self.live_bytes):
            table[:, rows] = 0
        self.dropped_packets[rows] = 0
        self.dropped_bytes[rows] = 0

    def packets(self, path: Path) -> Ints:
        """Return the packets of a path, a row a flow."""
        total: Ints = self.closed_packets[path] + self.live_packets[path]
        return total

    def bytes(self, path: Path) -> Ints:
        """Return the bytes of a path, a row a flow."""
        total: Ints = self.closed_bytes[path] + self.live_bytes[path]
        return total

    def flow(self, path: Path, row: int) -> Count:
        """Return the count of one flow on one path."""
        return Count(
            packets=int(self.closed_packets[path, row] + self.live_packets[path, row]),
            bytes=int(self.closed_bytes[path, row] + self.live_bytes[path, row]),
        )


def counter_delta(old: int, new: int, bits: int) -> int:
    """Return by how much a counter of some width went up, at most one wrap assumed.

    >>> counter_delta(250, 4, 8)
    10
    """
    return (new - old) % (1 << bits)


def full_frame_bytes(size: int, packets: int, l2_bytes: int, basis: ByteBasis) -> int | None:
    """Return a byte count with L2 headers included; None where nobody knows what was counted.

    >>> full_frame_bytes(330, 10, 14, ByteBasis.L3)
    470
    """
    if basis is ByteBasis.UNKNOWN:
        return None
    return size + packets * l2_bytes if basis is ByteBasis.L3 else size


class Verdict(enum.Enum):
    """What a comparison of a NIC's rule counter with the dispatcher's count says."""

    AGREES = "agrees"
    FROZEN = "frozen"
    RESET = "reset"
    BEHIND = "behind"
    AHEAD = "ahead"
    BYTES = "bytes"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the NIC says of one rule.

    Args:
        packets: Raw packet counter; None where there is none.
        bytes: Raw byte counter; None where there is none.
        epoch: Changes when the NIC's counters start anew.
        facts: How they count; None where there are none.
    """

    packets: int | None
    bytes: int | None
    epoch: int
    facts: CounterFacts | None


class RuleCounter:
    """Follows the NIC's counter of one rule from its installation on, across wraps and epochs.

    Args:
        l2_bytes: Length of the L2 header of the flow's packets.
    """

    __slots__ = ("_epoch", "_history", "_raw", "l2_bytes", "total")

    def __init__(self, l2_bytes: int) -> None:
        self.l2_bytes = l2_bytes
        self.total = Count()
        self._raw = (0, 0)
        self._epoch: int | None = None
        # What was true when, as far back as the NIC's counters may lag.
        self._history: list[tuple[int, Count]] = []

    def observe(self, reading: Reading, truth: Count, time_ns: int) -> Verdict:
        """Take a reading, hold it against what the dispatcher counted since the installation, and go on from there.

        Args:
            reading: The NIC's.
            truth: The dispatcher's.
            time_ns: Now, on the clock of the capture.
        """
        facts = reading.facts
        if reading.packets is None or facts is None:
            return Verdict.MISSING
        was_reset = self._is_reset(reading)
        went_back = reading.packets < self._raw[0]
        least = self._least(truth, time_ns, facts)
        before = self.total.packets
        self.advance(reading)
        gained = self.total.packets - before
        verdict = self._compare(least, truth, gained, facts, has_bytes=reading.bytes is not None)
        if verdict in (Verdict.FROZEN, Verdict.BEHIND, Verdict.AHEAD) and (was_reset or went_back):
            verdict = Verdict.RESET
        if verdict is not Verdict.AGREES:
            self.total = truth
        return verdict

    def advance(self, reading: Reading) -> bool:
        """Go on from a reading that nothing contradicts; False where the NIC told no counter.

        A counter that starts anew with a new epoch counts from zero; one that wraps goes on.
        """
        facts = reading.facts
        if reading.packets is None or facts is None:
            return False
        old = (0, 0) if self._is_reset(reading) else self._raw
        gained = counter_delta(old[0], reading.packets, facts.packet_bits)
        self.total = Count(
            packets=self.total.packets + gained,
            bytes=self.total.bytes + self._gained_bytes(old[1], reading, gained, facts),
        )
        self._epoch, self._raw = reading.epoch, (reading.packets, reading.bytes or 0)
        return True

    def _is_reset(self, reading: Reading) -> bool:
        return self._epoch is not None and reading.epoch != self._epoch

    def _least(self, truth: Count, time_ns: int, facts: CounterFacts) -> Count:
        """Return what even a counter that lags must have seen."""
        if not facts.refresh_s:
            return truth
        horizon_ns = time_ns - int(facts.refresh_s * 1e9)
        known = [count for when, count in self._history if when <= horizon_ns]
        self._history = [entry for entry in self._history if entry[0] > horizon_ns]
        if known:
            self._history.insert(0, (horizon_ns, known[-1]))
        self._history.append((time_ns, truth))
        return known[-1] if known else Count()

    def _gained_bytes(self, old: int, reading: Reading, packets: int, facts: CounterFacts) -> int:
        if reading.bytes is None:
            return 0
        raw = counter_delta(old, reading.bytes, facts.byte_bits)
        whole = full_frame_bytes(raw, packets, self.l2_bytes, facts.byte_basis)
        return raw if whole is None else whole

    def _compare(
        self, least: Count, truth: Count, gained: int, facts: CounterFacts, *, has_bytes: bool
    ) -> Verdict:
        if self.total.packets < least.packets:
            return Verdict.BEHIND if gained else Verdict.FROZEN
        if self.total.packets > truth.packets:
            return Verdict.AHEAD
        if has_bytes and facts.byte_basis is not ByteBasis.UNKNOWN and self.total.packets == truth.packets:
            return Verdict.AGREES if self.total.bytes == truth.bytes else Verdict.BYTES
        return Verdict.AGREES
