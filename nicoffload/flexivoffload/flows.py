"""The flow table: what is known of every flow, in columns, with a hard cap."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nicoffload.flexivoffload.ledger import Ledger, Path

Ints = npt.NDArray[np.int64]
NEVER_NS = -1

FIRST_ROWS = 1024
DEFAULT_CAP = 131_072
"""Most flows that are told apart; what comes on top goes to one row a VM and direction."""

OVERFLOW_ROWS = 8_200
"""Rows beyond the cap, for what is not told apart: one a VM and direction, and one for the rest."""

MAX_DECISIONS = 24
"""Longest decision record of a flow: its beginning and its end are kept."""


class FlowState(enum.IntEnum):
    """Where a flow is on its way between the paths."""

    ONLOAD = 0
    PENDING = 1
    OFFLOADED = 2
    DRAINING = 3
    PINNED = 4
    BACKOFF = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One entry of a flow's decision record.

    Args:
        time_ns: When, on the clock of the capture.
        before: State until then.
        after: State from then on.
        code: Why, as a stable name: ``first_packet.offload``, ``price.too_low``, ``nic.unsupported``.
        policy_rule: The rule of the policy that spoke; empty for none.
        detail: Why, in words: the NIC's reasons, the driver's error.
        rate_pps: The flow's rate at that time.
        row_price_pps: Price of a table row at that time.
        op_price_packets: Price of a table operation at that time.
    """

    time_ns: int
    before: FlowState
    after: FlowState
    code: str
    policy_rule: str = ""
    detail: str = ""
    rate_pps: float = 0.0
    row_price_pps: float = 0.0
    op_price_packets: float = 0.0


@dataclass(slots=True)
class DecisionRecord:
    """Decisions of one flow, bounded: the first few, the last ones, and how many in between were left out."""

    entries: list[Decision] = field(default_factory=list)
    left_out: int = 0

    def add(self, decision: Decision) -> None:
        """Append a decision; one that repeats the last is not."""
        if self.entries:
            last = self.entries[-1]
            if (last.after, last.code, last.detail) == (decision.after, decision.code, decision.detail):
                return
        if len(self.entries) >= MAX_DECISIONS:
            del self.entries[MAX_DECISIONS // 2]
            self.left_out += 1
        self.entries.append(decision)


_COLUMNS: tuple[tuple[str, type[np.generic], int], ...] = (
    ("state", np.int8, FlowState.ONLOAD),
    ("kind", np.int8, 0),
    ("vm", np.int32, -1),
    ("in_use", np.bool_, 0),
    ("first_ns", np.int64, NEVER_NS),
    ("last_ns", np.int64, NEVER_NS),
    ("l2_bytes", np.int32, 0),
    ("tier", np.int8, 6),
    ("header_rule", np.int16, -1),
    ("wants_offload", np.bool_, 0),
    ("is_local", np.bool_, 0),
    ("spoke", np.int16, -1),
    ("unit", np.int32, -1),
    ("impossible", np.bool_, 0),
    ("retry_ns", np.int64, 0),
    ("failures", np.int16, 0),
    ("installed_ns", np.int64, NEVER_NS),
    ("removed_ns", np.int64, NEVER_NS),
    ("returns", np.int16, 0),
    ("closing", np.bool_, 0),
    ("rate_pps", np.float64, 0),
    ("rate_bps", np.float64, 0),
    ("raw_pps", np.float64, 0),
    ("raw_bps", np.float64, 0),
    ("tick_packets", np.int64, 0),
    ("tick_bytes", np.int64, 0),
    ("moves", np.int32, 0),
    ("disagreements", np.int32, 0),
)


class FlowTable:
    """All flows that are told apart at present.

    Args:
        cap: Most rows.
        statistics_rules: How many rules on statistics the policy has.
        on_grow: Called with the new number of rows, for those who keep columns of their own.
    """

    state: npt.NDArray[np.int8]
    kind: npt.NDArray[np.int8]
    vm: npt.NDArray[np.int32]
    in_use: npt.NDArray[np.bool_]
    first_ns: Ints
    last_ns: Ints
    l2_bytes: npt.NDArray[np.int32]
    tier: npt.NDArray[np.int8]
    header_rule: npt.NDArray[np.int16]
    wants_offload: npt.NDArray[np.bool_]
    is_local: npt.NDArray[np.bool_]
    spoke: npt.NDArray[np.int16]
    unit: npt.NDArray[np.int32]
    impossible: npt.NDArray[np.bool_]
    retry_ns: Ints
    failures: npt.NDArray[np.int16]
    installed_ns: Ints
    removed_ns: Ints
    returns: npt.NDArray[np.int16]
    closing: npt.NDArray[np.bool_]
    rate_pps: npt.NDArray[np.float64]
    rate_bps: npt.NDArray[np.float64]
    raw_pps: npt.NDArray[np.float64]
    raw_bps: npt.NDArray[np.float64]
    tick_packets: Ints
    tick_bytes: Ints
    moves: npt.NDArray[np.int32]
    disagreements: npt.NDArray[np.int32]

    def __init__(self, *, cap: int = DEFAULT_CAP, on_grow: Sequence[Callable[[int], None]] = ()) -> None:
        self.cap = cap
        self.rows = FIRST_ROWS
        self.high = 0
        """One past the highest row in use."""
        for name, kind, empty in _COLUMNS:
            setattr(self, name, np.full(self.rows, empty, kind))
        self.ledger = Ledger(self.rows)
        self.on_grow = list(on_grow)
        self._row_of: dict[bytes, int] = {}
        self._free: list[int] = []
        self.keys: list[bytes] = []
        self.records: dict[int, DecisionRecord] = {}

    def __len__(self) -> int:
        return self.high - len(self._free)

    @property
    def is_full(self) -> bool:
        """Whether the cap is reached."""
        return len(self) >= self.cap

    def find(self, key: bytes) -> int:
        """Return the row of a flow; -1 where it is not known."""
        return self._row_of.get(key, -1)

    def add(self, key: bytes) -> int:
        """Return a new row, empty but for its key; the caller knows that there is room."""
        if self._free:
            row = self._free.pop()
            self.keys[row] = key
        else:
            row = self.high
            if row == self.rows:
                self._grow()
            self.high += 1
            self.keys.append(key)
        self._row_of[key] = row
        self.in_use[row] = True
        return row

    def remove(self, rows: Ints) -> None:
        """Forget flows, whose counts the caller has kept elsewhere."""
        for row in rows.tolist():
            del self._row_of[self.keys[row]]
            self.records.pop(row, None)
            self.keys[row] = b""
        for name, _, empty in _COLUMNS:
            getattr(self, name)[rows] = empty
        self.ledger.clear(rows)
        self._free.extend(rows.tolist())

    def packets(self) -> Ints:
        """Return the packets of every row below `high`, both paths together."""
        ledger = self.ledger
        both: Ints = (ledger.packets(Path.VSWITCH) + ledger.packets(Path.NIC))[: self.high]
        return both

    def bytes(self) -> Ints:
        """Return the bytes of every row below `high`, both paths together."""
        ledger = self.ledger
        both: Ints = (ledger.bytes(Path.VSWITCH) + ledger.bytes(Path.NIC))[: self.high]
        return both

    def record(self, row: int) -> DecisionRecord:
        """Return the decision record of a flow."""
        found = self.records.get(row)
        if found is None:
            found = self.records[row] = DecisionRecord()
        return found

    def _grow(self) -> None:
        rows = min(self.rows * 2, self.cap + OVERFLOW_ROWS)
        for name, kind, empty in _COLUMNS:
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.full(rows - self.rows, empty, kind)]))
        self.rows = rows
        self.ledger.grow(rows)
        for tell in self.on_grow:
            tell(rows)
