"""Takes packets in: gives each flow its row at the first packet, and enters in the ledger which path took what."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nicoffload.flexivoffload.chunk import Chunk, group_sums
from nicoffload.flexivoffload.flows import FlowState, FlowTable
from nicoffload.flexivoffload.ledger import Path
from nicoffload.flexivoffload.manager import FlowManager
from nicoffload.flexivoffload.policy.types import Policy
from nicoffload.flexivoffload.vms import VSWITCH_ONLY, VmDirectory
from nicoffload.packets import PacketBatch

Ints = npt.NDArray[np.int64]


class Intake:
    """What a replay and a live session do alike with packets.

    Args:
        table: The flows.
        directory: Whose packets are whose.
        policy: What is wanted of new flows.
    """

    def __init__(self, table: FlowTable, directory: VmDirectory, policy: Policy) -> None:
        self.table = table
        self.directory = directory
        self.upcalls = 0
        self.overflow_flows = 0
        self._policy = policy
        self._overflow: dict[tuple[int, int], int] = {}

    @property
    def overflow_rows(self) -> frozenset[int]:
        """Rows that stand for many flows."""
        return frozenset(self._overflow.values())

    def chunk(self, batch: PacketBatch, times: Ints, start_ns: int) -> Chunk:
        """Return a batch with its flows told apart; times never decrease."""
        return Chunk(batch, times, start_ns, self.table, self.directory, self._policy)

    def take_up(self, manager: FlowManager, chunk: Chunk, place: int, time_ns: int) -> None:
        """Take up a flow: its first packet is the virtual switch's upcall.

        Args:
            manager: Who decides.
            chunk: Where it appeared.
            place: Which of the chunk's new flows it is.
            time_ns: When.
        """
        number = int(chunk.new[place])
        kind, vm = int(chunk.ends.kind[place]), int(chunk.ends.vm[place])
        if len(self.table) - len(self._overflow) >= self.table.cap:
            self.overflow_flows += 1
            chunk.row[number] = self._overflow_row(kind, vm, time_ns)
            return
        table = self.table
        row = table.add(chunk.keys[number])
        chunk.row[number] = row
        table.kind[row], table.vm[row] = kind, vm
        table.is_local[row] = chunk.ends.is_local[place]
        table.l2_bytes[row] = chunk.l2_bytes[place]
        table.first_ns[row] = table.last_ns[row] = time_ns
        self.upcalls += 1
        manager.new_flow(row, time_ns, chunk.verdicts, place)

    def _overflow_row(self, kind: int, vm: int, time_ns: int) -> int:
        """Return the row of all flows, of a VM and direction, that the table has no room to tell apart."""
        found = self._overflow.get((kind, vm))
        if found is None:
            table = self.table
            found = table.add(b"overflow:%d:%d" % (kind, vm))
            table.kind[found], table.vm[found] = VSWITCH_ONLY, vm
            table.first_ns[found] = time_ns
            table.state[found] = FlowState.PINNED
            self._overflow[(kind, vm)] = found
        return found

    def enter(self, chunk: Chunk, flow: Ints, size: Ints, path: Path) -> None:
        """Enter into the ledger what a path took.

        Args:
            chunk: Whose flows they are.
            flow: int64[N], the flow of each packet, as numbered in the chunk.
            size: Each packet's bytes on the wire.
            path: Which path.
        """
        if not len(flow):
            return
        count = len(chunk.keys)
        packets, sums = group_sums(flow, count), group_sums(flow, count, size)
        there = np.flatnonzero(packets)
        rows = chunk.row[there]
        if self._overflow:  # many flows share a row
            rows, place = np.unique(rows, return_inverse=True)
            self.table.ledger.count(
                path,
                rows,
                group_sums(place, len(rows), packets[there]),
                group_sums(place, len(rows), sums[there]),
            )
            return
        self.table.ledger.count(path, rows, packets[there], sums[there])

    def note_flags(self, chunk: Chunk, part: slice) -> None:
        """Note which flows some packets of a chunk open and end."""
        ends, opens = chunk.ends_flow[part], chunk.opens_flow[part]
        flow = chunk.flow[part]
        self.table.closing[chunk.row[flow[opens]]] = False
        self.table.closing[chunk.row[flow[ends & ~opens]]] = True
