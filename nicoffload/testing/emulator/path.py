"""Packets through the emulated NIC: one verdict a header, kept until a change concerns it; then bulk counting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nicoffload.model import FIRST_VF_PORT
from nicoffload.packets import PacketBatch
from nicoffload.testing.emulator import counters as column
from nicoffload.testing.emulator.actions import DROPPED, UPLINK
from nicoffload.testing.emulator.bucket import TokenBucket
from nicoffload.testing.emulator.entry import Entry
from nicoffload.testing.emulator.switch import LOST_AT_SOURCE, Verdict, decide
from nicoffload.testing.emulator.view import BatchView

if TYPE_CHECKING:
    from nicoffload.testing.emulator.device import Device

_KEPT_VIEWS = 2
_BULK_CHANGES = 1024
"""So many changes between two packets are not worth following one by one."""

Ints = npt.NDArray[np.int64]


class Lane:
    """The verdicts on the headers of one batch that enter one switch port; one row a header."""

    __slots__ = ("added", "counter", "cut", "lost_at", "port", "seen", "special", "specials", "valid")

    def __init__(self, count: int) -> None:
        self.valid = np.zeros(count, np.bool_)
        self.port = np.full(count, DROPPED, np.int32)
        self.counter = np.full(count, -1, np.int64)
        # Bytes that the rule's counter leaves out, and that the frame gains on its way.
        self.cut = np.zeros(count, np.int64)
        self.added = np.zeros(count, np.int64)
        # Port whose rx_dropped counts a packet that is dropped at its target; -1 for none.
        self.lost_at = np.full(count, -1, np.int64)
        # A number into `specials`, 0 for none: packets that need more than a lookup.
        self.special = np.zeros(count, np.int32)
        self.specials: list[Entry | None] = [None]
        self.seen = 0


class Path:
    """The data path of one device.

    Args:
        device: Whose rules, VFs and counters it uses.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._views: list[tuple[BatchView, dict[int, Lane]]] = []
        self._police: dict[int, TokenBucket] = {}

    def receive(self, batch: PacketBatch, start: int, stop: int, in_port: int) -> npt.NDArray[np.int32]:
        """Send packets in and count them; return the switch port of each (-1 dropped)."""
        view, lanes = self._view(batch)
        lane = lanes.get(in_port)
        if lane is None:
            lane = lanes[in_port] = Lane(view.count)
            lane.seen = self._device.changes.end
        index = batch.header_index[start:stop]
        self._follow_changes(view, lane, in_port)
        valid = lane.valid[index]
        if not valid.all():
            self._decide(view, lane, np.unique(index[~valid]).tolist(), in_port)
        ports = lane.port[index]
        sizes = batch.wire_bytes[start:stop]
        times = batch.time_ns[start:stop]
        return self._count(lane, index, ports, sizes, times, in_port)

    def _view(self, batch: PacketBatch) -> tuple[BatchView, dict[int, Lane]]:
        for at, kept in enumerate(self._views):
            if kept[0].batch is batch:
                if at:
                    self._views.insert(0, self._views.pop(at))
                return kept
        made: tuple[BatchView, dict[int, Lane]] = (BatchView(batch), {})
        self._views = [made, *self._views[: _KEPT_VIEWS - 1]]
        return made

    def _follow_changes(self, view: BatchView, lane: Lane, in_port: int) -> None:
        changes = self._device.changes
        if lane.seen == changes.end:
            return
        since = changes.since(lane.seen)
        lane.seen = changes.end
        if since is None or len(since) > _BULK_CHANGES:
            lane.valid[:] = False
            lane.specials = [None]
            return
        for shape, values in since:
            if rows := view.rows(shape, in_port, values):
                lane.valid[rows] = False

    def _decide(self, view: BatchView, lane: Lane, rows: list[int], in_port: int) -> None:
        verdicts = decide(self._device, view, rows, in_port)
        lane.valid[rows] = True
        lane.port[rows] = [v.port for v in verdicts]
        lane.added[rows] = [v.added_bytes for v in verdicts]
        lane.lost_at[rows] = [v.lost_at for v in verdicts]
        lane.counter[rows] = [v.entry.counter if v.entry else -1 for v in verdicts]
        without_l2 = [v.entry is not None and self._device.counts_l3(v.entry) for v in verdicts]
        lane.cut[rows] = np.where(without_l2, view.l2_bytes[rows], 0)
        lane.special[rows] = self._specials(lane, verdicts)

    def _specials(self, lane: Lane, verdicts: Sequence[Verdict]) -> list[int]:
        numbers = []
        for verdict in verdicts:
            entry = verdict.entry
            number = 0
            if entry is not None and (entry.plan.mirrors or entry.plan.police):
                number = len(lane.specials)
                lane.specials.append(entry)
            numbers.append(number)
        return numbers

    def _count(
        self,
        lane: Lane,
        index: npt.NDArray[np.int32],
        ports: npt.NDArray[np.int32],
        sizes: Ints,
        times: Ints,
        in_port: int,
    ) -> npt.NDArray[np.int32]:
        device = self._device
        if in_port >= FIRST_VF_PORT:
            bucket = device.sriov.bucket(in_port - FIRST_VF_PORT)
            if bucket is not None:
                passed = bucket.admit(times, sizes)
                if not passed.all():
                    device.ports.add(in_port, column.TX_DROPPED, int(len(passed) - passed.sum()))
                    delivered = np.full(len(ports), DROPPED, np.int32)
                    kept = self._count_passed(
                        lane, index[passed], ports[passed], sizes[passed], times[passed], in_port
                    )
                    delivered[passed] = kept
                    return delivered
        return self._count_passed(lane, index, ports, sizes, times, in_port)

    def _count_passed(
        self,
        lane: Lane,
        index: npt.NDArray[np.int32],
        ports: npt.NDArray[np.int32],
        sizes: Ints,
        times: Ints,
        in_port: int,
    ) -> npt.NDArray[np.int32]:
        device = self._device
        if len(lane.specials) > 1:
            ports = self._apply_specials(lane, index, ports, sizes, times)
        rows = lane.counter[index]
        hit = rows >= 0
        if hit.any():
            device.rules.count(rows[hit], (sizes - lane.cut[index])[hit], times[hit])
        lost = lane.lost_at[index]
        if (lost >= 0).any():
            device.ports.count_packets(np.maximum(lost, DROPPED), column.RX_DROPPED)
        blocked = lost == LOST_AT_SOURCE
        refused = int(blocked.sum())
        entered = len(index) - refused
        came_in = (
            (column.RX_PACKETS, column.RX_BYTES)
            if in_port == UPLINK
            else (column.TX_PACKETS, column.TX_BYTES)
        )
        device.ports.add(in_port, came_in[0], entered)
        device.ports.add(in_port, came_in[1], int(sizes.sum() - (sizes[blocked].sum() if refused else 0)))
        if refused:
            device.ports.add(in_port, column.TX_DROPPED, refused)
        self._count_delivered(ports, sizes + lane.added[index])
        return ports

    def _count_delivered(self, ports: npt.NDArray[np.int32], sizes: Ints) -> None:
        counters = self._device.ports
        out = ports.astype(np.int64)
        to_uplink = out == UPLINK
        if to_uplink.any():
            counters.add(UPLINK, column.TX_PACKETS, int(to_uplink.sum()))
            counters.add(UPLINK, column.TX_BYTES, int(sizes[to_uplink].sum()))
            out[to_uplink] = DROPPED
        counters.count(out, sizes, column.RX_PACKETS, column.RX_BYTES)

    def _apply_specials(
        self,
        lane: Lane,
        index: npt.NDArray[np.int32],
        ports: npt.NDArray[np.int32],
        sizes: Ints,
        times: Ints,
    ) -> npt.NDArray[np.int32]:
        numbers = lane.special[index]
        by_entry: dict[int, tuple[Entry, list[int]]] = {}
        for at in np.flatnonzero(numbers).tolist():
            entry = lane.specials[numbers[at]]
            assert entry is not None
            by_entry.setdefault(entry.entry_id, (entry, []))[1].append(at)
        ports = ports.copy()
        for entry, places in by_entry.values():
            for port in entry.plan.mirrors:
                self._count_delivered(np.full(len(places), port, np.int32), sizes[places])
            if entry.plan.police is None:
                continue
            bucket = self._police_bucket(entry, int(times[places[0]]))
            over = ~bucket.admit(times[places], sizes[places])
            ports[np.asarray(places)[over]] = DROPPED
        return ports

    def _police_bucket(self, entry: Entry, time_ns: int) -> TokenBucket:
        assert entry.plan.police is not None
        bucket = self._police.get(entry.entry_id)
        if bucket is None:
            rate, burst = entry.plan.police
            bucket = self._police[entry.entry_id] = TokenBucket(rate, burst, time_ns)
        return bucket

    def drop_police(self, entry: Entry) -> None:
        """Forget the token bucket of a rule that is gone."""
        self._police.pop(entry.entry_id, None)
