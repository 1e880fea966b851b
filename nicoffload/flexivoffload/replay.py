"""Replays a capture on an emulated NIC and virtual switch, in capture time.

The outcome is that of handling packet by packet: before each packet, what is due by its time is done (a tick of the
manager, a bulk call to the NIC); then the packet takes the path that the NIC, or the dispatcher of its VM, has for it.
Between two such points nothing changes, so the packets between them are handled at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from nicoffload import Nic
from nicoffload.errors import DeviceGoneError, InvalidRequestError, NicOffloadError
from nicoffload.flexivoffload.chunk import Chunk, group_sums
from nicoffload.flexivoffload.flows import DEFAULT_CAP, FlowState, FlowTable
from nicoffload.flexivoffload.folding import Folded, fold_idle
from nicoffload.flexivoffload.intake import Intake
from nicoffload.flexivoffload.ledger import Count, Path
from nicoffload.flexivoffload.manager import FlowManager, ManagerConfig
from nicoffload.flexivoffload.placement import NS_PER_S
from nicoffload.flexivoffload.policy.types import Policy
from nicoffload.flexivoffload.series import Series
from nicoffload.flexivoffload.setup import prepare
from nicoffload.flexivoffload.vms import Vm, VmDirectory
from nicoffload.model import FIRST_VF_PORT
from nicoffload.packets import PacketBatch

Ints = npt.NDArray[np.int64]

VSWITCH, NIC, DROPPED = 0, 1, 2
"""What became of a packet; what the NIC dropped had taken the NIC's path."""

DENSE_GAP_NS: Final = 12 * NS_PER_S
"""After so long without a packet ticks become rarer, each gap twice the one before: nothing is left to decide."""

UPLINK_PORT, PF_PORT = 0, 1


class Replay:
    """One replay, fed batch by batch.

    Args:
        nic: An emulated NIC.
        policy: Which flows are to go where.
        vms: The VMs; None guesses them from the packets.
        config: Periods of the manager.
        flow_cap: Most flows that are told apart.

    Raises:
        InvalidRequestError: The NIC has no data path that packets could be put into by hand, or a VM's VF can't be.
        PolicyError: The policy names a VM that is not there.
    """

    def __init__(
        self,
        nic: Nic,
        policy: Policy,
        vms: Sequence[Vm] | None,
        *,
        config: ManagerConfig | None = None,
        flow_cap: int = DEFAULT_CAP,
    ) -> None:
        if nic.packet_path is None:
            raise InvalidRequestError(
                "packets can be replayed on an emulated NIC only",
                device=nic.name,
                hint="name one: mock:sfn5122f",
            )
        self.nic = nic
        self.policy = policy
        self.config = config or ManagerConfig()
        self.prepared = prepare(nic, vms or ())
        limit = self.prepared.vf_count if vms is None else 0
        self.directory = VmDirectory(vms or (), infer_limit=limit)
        self.vms_are_guessed = vms is None
        self.table = FlowTable(cap=flow_cap)
        self.folded = Folded()
        self.astray = Count()
        self.intake = Intake(self.table, self.directory, policy)
        self.start_ns = 0
        self.end_ns = 0
        self.series: Series | None = None
        self.manager: FlowManager | None = None
        self._path = nic.packet_path
        self._next_tick_ns = 0
        self._change_ns: int | None = None
        self._tx: dict[int, tuple[Ints, PacketBatch]] = {}
        self._counted = 0

    # ----------------------------------------------------------------------------------------- packets

    def feed(self, batch: PacketBatch) -> None:
        """Handle a batch of packets, which follow those of the last one."""
        if not len(batch):
            return
        times = np.maximum.accumulate(
            np.maximum(batch.time_ns, self.end_ns if self.manager else batch.time_ns[0])
        )
        manager = self.manager or self._start(int(times[0]))
        fold_idle(self.table, manager, self.folded, self.end_ns)
        chunk = self.intake.chunk(batch, times, self.start_ns)
        self._tx.clear()
        self._counted = 0
        position, next_new = 0, 0
        while position < len(chunk):
            self._run_events(int(times[position]), chunk, position)
            self._advance(int(times[position]))
            horizon_ns = self._horizon()
            stop = self._until(horizon_ns, times, position)
            while next_new < len(chunk.new) and chunk.first_packet[chunk.new[next_new]] < stop:
                packet = int(chunk.first_packet[chunk.new[next_new]])
                self.intake.take_up(manager, chunk, next_new, int(times[packet]))
                next_new += 1
                if self._horizon() != horizon_ns:  # seldom: the flow is the first of a bulk call
                    horizon_ns = self._horizon()
                    stop = min(stop, max(self._until(horizon_ns, times, position), packet + 1))
            self._handle(chunk, position, stop)
            self.end_ns = int(times[stop - 1])
            position = stop
        self._count(chunk, len(chunk))

    def finish(self) -> None:
        """End the replay: read the counters once more, and take our rules out of the NIC."""
        if self.manager is None:
            return
        mover = self.manager.mover
        mover.poll(self.end_ns)
        rules = [unit.rule_id for unit in mover.units]
        if rules and mover.executor.alive:
            try:
                self.nic.remove_flows(rules, missing_ok=True)
            except NicOffloadError as error:
                mover.executor.operations.refused[error.code] += 1

    def _start(self, now_ns: int) -> FlowManager:
        tick_ns = int(self.config.tick_s * NS_PER_S)
        self.start_ns = self.end_ns = now_ns
        self._next_tick_ns = now_ns + tick_ns
        self.series = Series(now_ns, tick_ns)
        self.manager = FlowManager(
            policy=self.policy,
            nic=self.nic,
            directory=self.directory,
            table=self.table,
            now_ns=now_ns,
            config=self.config,
            unusable=self.prepared.unusable,
        )
        return self.manager

    # ------------------------------------------------------------------------------------------ events

    def _horizon(self) -> int:
        assert self.manager is not None
        times = [self._next_tick_ns]
        others = (self.manager.mover.flush_ns, self._change_ns)
        times += [other for other in others if other is not None]
        return min(times)

    @staticmethod
    def _until(horizon_ns: int, times: Ints, position: int) -> int:
        """Return one past the last packet before a point in time; at least one packet."""
        return max(position + int(np.searchsorted(times[position:], horizon_ns, side="left")), position + 1)

    def _run_events(self, now_ns: int, chunk: Chunk, position: int) -> None:
        """Do what is due before a packet that comes at `now_ns`."""
        assert self.manager is not None
        mover = self.manager.mover
        while True:
            flush_ns = mover.flush_ns
            due_ns = self._next_tick_ns if flush_ns is None else min(flush_ns, self._next_tick_ns)
            if due_ns > now_ns:
                break
            self._count(chunk, position)
            self._advance(due_ns)
            if flush_ns is not None and flush_ns == due_ns:
                before = mover.executor.operations.adds
                mover.flush(due_ns)
                self._sample("installs", due_ns, mover.executor.operations.adds - before)
                self._note_rules(due_ns)
            else:
                self._tick(due_ns)
        if self._change_ns is not None and self._change_ns <= now_ns:
            self._change_ns = None

    def _tick(self, now_ns: int) -> None:
        assert self.manager is not None
        before = self.manager.mover.disagreements.readings
        self.manager.tick(now_ns)
        self._sample("polled_entries", now_ns, self.manager.mover.disagreements.readings - before)
        quiet_ns = now_ns - self.end_ns
        tick_ns = int(self.config.tick_s * NS_PER_S)
        # Whole ticks, so that their times stay the same however the packets come.
        steps = 1 if quiet_ns <= DENSE_GAP_NS else max(1, (quiet_ns - DENSE_GAP_NS) // tick_ns)
        self._next_tick_ns = now_ns + steps * tick_ns
        self._note_rules(now_ns)

    def _note_rules(self, now_ns: int) -> None:
        """Note how many rules there are. A flush adds some and a tick removes some, so both are to call this."""
        assert self.manager is not None
        assert self.series is not None
        self.series.peak("table_rows", now_ns, self.manager.mover.rules)

    def _sample(self, name: str, now_ns: int, amount: int) -> None:
        if amount:
            assert self.series is not None
            self.series.add(name, now_ns, amount)

    def _advance(self, now_ns: int) -> None:
        assert self.manager is not None
        if self.manager.mover.executor.alive:
            try:
                self._path.advance(now_ns - self.start_ns)
            except NicOffloadError as error:
                self.manager.mover.executor.gone(error)

    # ------------------------------------------------------------------------------------------- paths

    def _handle(self, chunk: Chunk, start: int, stop: int) -> None:
        """Send packets `start` to `stop` their ways."""
        assert self.manager is not None
        executor = self.manager.mover.executor
        if not executor.alive:
            return
        try:
            self._receive(chunk, start, stop)
            self._send(chunk, start, stop)
        except DeviceGoneError as error:
            executor.gone(error)

    def _receive(self, chunk: Chunk, start: int, stop: int) -> None:
        """What comes from the wire: the NIC decides."""
        first, last = np.searchsorted(chunk.rx_packets, (start, stop)).tolist()
        if first == last:
            return
        delivery = self._path.receive(chunk.rx, first, last, UPLINK_PORT)
        self._note_change(delivery.next_change_ns)
        port = delivery.port
        packets = chunk.rx_packets[first:last]
        chunk.path[packets] = self._path_of(port)
        if (port >= FIRST_VF_PORT).any():
            self._note_astray(chunk, packets, port)

    def _note_astray(self, chunk: Chunk, packets: Ints, port: npt.NDArray[np.int32]) -> None:
        vfs = np.array([vm.vf for vm in self.directory.vms], np.int64)
        expected = FIRST_VF_PORT + vfs[chunk.vm[chunk.flow[packets]]]
        wrong = (port >= FIRST_VF_PORT) & (port != expected)
        if wrong.any():
            size = int(chunk.batch.wire_bytes[packets[wrong]].sum())
            self.astray += Count(packets=int(wrong.sum()), bytes=size)

    def _send(self, chunk: Chunk, start: int, stop: int) -> None:
        """What VMs send: their dispatchers decide."""
        assert self.manager is not None
        mover = self.manager.mover
        for vm in mover.dispatch_changed:
            self._tx.pop(vm, None)
        mover.dispatch_changed.clear()
        for vm in chunk.tx_packets:
            packets, batch = self._tx.get(vm) or self._by_vf(chunk, vm, start)
            first, last = np.searchsorted(packets, (start, stop)).tolist()
            if first == last:
                continue
            delivery = self._path.receive(batch, first, last, FIRST_VF_PORT + self.directory.vms[vm].vf)
            self._note_change(delivery.next_change_ns)
            chunk.path[packets[first:last]] = self._path_of(delivery.port)

    def _path_of(self, port: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        path = np.where(port == PF_PORT, VSWITCH, NIC).astype(np.uint8)
        path[port < 0] = DROPPED
        if port[-1] < 0 and self._is_gone():
            # A NIC that is gone takes nothing: from there on the host's other uplink and the virtual switch carry all.
            taken = np.flatnonzero(port >= 0)
            path[taken[-1] + 1 if len(taken) else 0 :] = VSWITCH
        return path

    def _is_gone(self) -> bool:
        """Ask the NIC whether it is still there: one that was pulled out drops packets, and says nothing."""
        assert self.manager is not None
        for ask in (self.nic.vfs, self.nic.tables):
            try:
                ask()
            except DeviceGoneError as error:
                self.manager.mover.executor.gone(error)
                return True
            except NicOffloadError:
                continue
        return False

    def _by_vf(self, chunk: Chunk, vm: int, start: int) -> tuple[Ints, PacketBatch]:
        """Return what a VM sends by its VF from here on, as long as its dispatcher gets no new orders."""
        ahead = chunk.tx_packets[vm]
        ahead = ahead[np.searchsorted(ahead, start) :]
        rows = chunk.row[chunk.flow[ahead]]
        # A flow that has no row yet starts on the virtual switch.
        is_active = (rows >= 0) & (self.table.state[rows] == FlowState.OFFLOADED)
        packets = ahead[is_active]
        self._tx[vm] = found = (packets, chunk.part(packets))
        return found

    def _note_change(self, change_ns: int | None) -> None:
        if change_ns is None:
            return
        change_ns += self.start_ns
        if self._change_ns is None or change_ns < self._change_ns:
            self._change_ns = change_ns

    # ------------------------------------------------------------------------------------------ counts

    def _count(self, chunk: Chunk, stop: int) -> None:
        """Enter into the ledger what became of the packets up to `stop`."""
        start, self._counted = self._counted, stop
        if start == stop:
            return
        part = slice(start, stop)
        flow, path, size = chunk.flow[part], chunk.path[part], chunk.batch.wire_bytes[part]
        is_nic = path != VSWITCH
        count = len(chunk.keys)
        ledger = self.table.ledger
        for is_path, which in ((~is_nic, Path.VSWITCH), (is_nic, Path.NIC)):
            self.intake.enter(chunk, flow[is_path], size[is_path], which)
        dropped = path == DROPPED
        if dropped.any():
            packets, sums = group_sums(flow[dropped], count), group_sums(flow[dropped], count, size[dropped])
            there = np.flatnonzero(packets)
            np.add.at(ledger.dropped_packets, chunk.row[there], packets[there])
            np.add.at(ledger.dropped_bytes, chunk.row[there], sums[there])
        self.table.last_ns[chunk.row[flow]] = chunk.time_ns[part]
        self.intake.note_flags(chunk, part)
        assert self.series is not None
        self.series.add_packets(chunk.time_ns[part], is_nic, size)
