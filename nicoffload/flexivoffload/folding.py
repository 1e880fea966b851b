"""Flows that have been idle for long leave the table; their counts go to aggregates, so that totals stay whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from nicoffload.flexivoffload.flows import FlowState, FlowTable
from nicoffload.flexivoffload.ledger import Count, Path
from nicoffload.flexivoffload.manager import FlowManager
from nicoffload.flexivoffload.placement import NS_PER_S

Ints = npt.NDArray[np.int64]

FOLD_ABOVE = 16_384
"""Below so many flows every one keeps its own line."""

IDLE_S = 60
CROWDED_IDLE_S = 5
MAX_LINES = 10_000
"""Folded flows that keep a line of their own: the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedFlow:
    """What is kept of a flow that left the table; `PathCounts` in short.

    Args:
        key: The flow.
        counts: By path.
        dropped: Of what the NIC's path took.
        kind: See `vms`.
        is_local: Both ends are VMs.
        vm: Index of its VM.
        first_ns: First packet.
        last_ns: Last packet.
        moves: Between the paths.
        disagreements: Readings of the NIC that were wrong.
        state: When it left.
        code: Last entry of its decision record.
        policy_rule: Rule of the policy in that entry.
    """

    key: bytes
    counts: tuple[Count, Count]
    dropped: Count
    kind: int
    is_local: bool
    vm: int
    first_ns: int
    last_ns: int
    moves: int
    disagreements: int
    state: FlowState
    code: str
    policy_rule: str

    def merged(self, later: FoldedFlow) -> FoldedFlow:
        """Return this flow with what it did when it came again."""
        return replace(
            later,
            counts=(self.counts[0] + later.counts[0], self.counts[1] + later.counts[1]),
            dropped=self.dropped + later.dropped,
            first_ns=min(self.first_ns, later.first_ns),
            moves=self.moves + later.moves,
            disagreements=self.disagreements + later.disagreements,
        )

    @property
    def bytes(self) -> int:
        """Bytes on both paths."""
        return self.counts[0].bytes + self.counts[1].bytes


@dataclass(slots=True)
class Folded:
    """All that left the table.

    Args:
        flows: How many.
        counts: By VM and path.
        dropped: By VM, of what the NIC's path took.
        lines: The largest flows, by key.
    """

    flows: int = 0
    counts: dict[tuple[int, Path], Count] = field(default_factory=dict)
    dropped: dict[int, Count] = field(default_factory=dict)
    lines: dict[bytes, FoldedFlow] = field(default_factory=dict)

    def add(self, table: FlowTable, rows: Ints) -> None:
        """Take over the counts of flows that are about to leave."""
        ledger = table.ledger
        self.flows += len(rows)
        for vm in np.unique(table.vm[rows]).tolist():
            its = rows[table.vm[rows] == vm]
            for path in Path:
                now = Count(
                    packets=int(ledger.packets(path)[its].sum()), bytes=int(ledger.bytes(path)[its].sum())
                )
                self.counts[(vm, path)] = self.counts.get((vm, path), Count()) + now
            lost = Count(
                packets=int(ledger.dropped_packets[its].sum()), bytes=int(ledger.dropped_bytes[its].sum())
            )
            self.dropped[vm] = self.dropped.get(vm, Count()) + lost
        for row in self._worth_a_line(table, rows):
            line = flow_line(table, row)
            before = self.lines.get(line.key)
            self.lines[line.key] = before.merged(line) if before else line
        if len(self.lines) > 2 * MAX_LINES:
            largest = sorted(self.lines.values(), key=lambda line: -line.bytes)[:MAX_LINES]
            self.lines = {line.key: line for line in largest}

    def _worth_a_line(self, table: FlowTable, rows: Ints) -> list[int]:
        """Return the rows that can be among the largest; a scan folds far more than that."""
        if len(rows) <= 2 * MAX_LINES:
            return [int(row) for row in rows]
        came_back = np.array([table.keys[row] in self.lines for row in rows.tolist()])
        fresh = np.flatnonzero(~came_back)
        largest = fresh[np.argsort(-table.bytes()[rows[fresh]], kind="stable")[:MAX_LINES]]
        kept = rows[np.sort(np.concatenate([np.flatnonzero(came_back), largest]))]
        return [int(row) for row in kept]


def flow_line(table: FlowTable, row: int) -> FoldedFlow:
    """Return what is known of a flow as a value."""
    ledger = table.ledger
    record = table.records.get(row)
    last = record.entries[-1] if record and record.entries else None
    return FoldedFlow(
        key=table.keys[row],
        counts=(ledger.flow(Path.VSWITCH, row), ledger.flow(Path.NIC, row)),
        dropped=Count(packets=int(ledger.dropped_packets[row]), bytes=int(ledger.dropped_bytes[row])),
        kind=int(table.kind[row]),
        is_local=bool(table.is_local[row]),
        vm=int(table.vm[row]),
        first_ns=int(table.first_ns[row]),
        last_ns=int(table.last_ns[row]),
        moves=int(table.moves[row]),
        disagreements=int(table.disagreements[row]),
        state=FlowState(int(table.state[row])),
        code=last.code if last else "",
        policy_rule=last.policy_rule if last else "",
    )


def fold_idle(table: FlowTable, manager: FlowManager, folded: Folded, now_ns: int) -> None:
    """Let idle flows go when there are many; those that the NIC has a rule for stay."""
    if len(table) <= FOLD_ABOVE:
        return
    idle_s = CROWDED_IDLE_S if len(table) > table.cap // 2 else IDLE_S
    high = table.high
    settled = (table.state[:high] == FlowState.ONLOAD) | (table.state[:high] == FlowState.PINNED)
    is_old = (
        table.in_use[:high]
        & (table.last_ns[:high] >= 0)
        & (table.last_ns[:high] < now_ns - idle_s * NS_PER_S)
    )
    rows = np.flatnonzero(is_old & (table.unit[:high] < 0) & settled)
    rows = np.array([row for row in rows.tolist() if not table.keys[row].startswith(b"overflow:")], np.int64)
    if not len(rows):
        return
    folded.add(table, rows)
    for row in rows.tolist():
        manager.forget(row)
    table.remove(rows)


Lines = Mapping[bytes, FoldedFlow]
