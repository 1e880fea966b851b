"""What a replay found, as values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nicoffload.flexivoffload import cost
from nicoffload.flexivoffload.capture import SkippedPackets
from nicoffload.flexivoffload.flows import Decision, FlowState
from nicoffload.flexivoffload.folding import FoldedFlow, flow_line
from nicoffload.flexivoffload.headers import flow_text
from nicoffload.flexivoffload.ledger import Count, Path
from nicoffload.flexivoffload.placement import NS_PER_S, jain_index
from nicoffload.flexivoffload.replay import Replay, kind_name, vm_name
from nicoffload.flexivoffload.vms import NO_VM

MAX_FLOWS = 10_000
"""Flows that a report lists: the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowReport:
    """One flow.

    Args:
        flow: Its name: a match in one line, which `why` takes.
        vm: Its VM; empty for none.
        direction: ``rx``, ``tx``, ``local`` (between VMs) or ``vswitch``.
        state: At the end.
        offloaded: What the NIC's path took, what it dropped included.
        onloaded: What the virtual switch took.
        dropped: What the NIC dropped.
        first_s: First packet, seconds after that of the capture.
        last_s: Last packet.
        moves: Between the paths.
        code: Why it is where it is.
        policy_rule: Which rule of the policy said so.
        disagreements: Readings of the NIC's counter that were wrong.
        decisions: Its decision record; empty where it left the table.
        decisions_left_out: How many entries of the record were not kept.
    """

    flow: str
    vm: str
    direction: str
    state: FlowState
    offloaded: Count
    onloaded: Count
    dropped: Count
    first_s: float
    last_s: float
    moves: int
    code: str
    policy_rule: str
    disagreements: int
    decisions: tuple[Decision, ...]
    decisions_left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VmReport:
    """One VM: what it received and sent."""

    name: str
    vf: int
    offloaded: Count
    onloaded: Count
    dropped: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One interval of the capture.

    Args:
        start_s: Its begin, seconds after the first packet.
        offloaded: What the NIC's path took.
        onloaded: What the virtual switch took.
        table_rows: Most rules of ours in the NIC at a time.
        cpu_percent: Modelled, as it went.
        cpu_percent_without: Modelled, with all traffic on the virtual switch.
    """

    start_s: float
    offloaded: Count
    onloaded: Count
    table_rows: int
    cpu_percent: float
    cpu_percent_without: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuReport:
    """The host's CPU, modelled; percent of one core, seconds of one core beyond what it needs at rest."""

    with_offload_percent: float
    without_offload_percent: float
    with_offload_core_s: float
    without_offload_core_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsReport:
    """What was done to the NIC, see `executor.Operations`."""

    adds: int
    removes: int
    refused: dict[str, int]
    retries: int
    calls: int
    moves_to_nic: int
    moves_to_vswitch: int
    upcalls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """A whole replay.

    Args:
        capture: The file.
        nic: As named.
        nic_title: For people.
        policy: The policy's file.
        start_ns: Time of the first packet, nanoseconds since the epoch.
        duration_s: First packet to last.
        offloaded: What the NIC's path took.
        onloaded: What the virtual switch took.
        skipped: What the file holds and no path took, by reason.
        ended_early: Why the rest of the file could not be read; empty where there is no rest.
        dropped: What the NIC dropped of what its path took.
        astray: What the NIC gave to the VF of another VM, of what its path took.
        flows_total: Flows seen; a flow that left the table and came again counts again.
        flows_overflow: First packets that found the table full.
        flows: The largest, largest first.
        vms: In the order of the list.
        vms_are_guessed: Whether nobody said which VMs there are.
        others: What belongs to no VM.
        fairness: Jain's index of the VMs' offloaded shares; 1 is even.
        operations: What was done to the NIC.
        tables: Name, usable rows and rows taken at the end, of each table.
        cpu: Modelled.
        intervals: Over time.
        interval_s: Width of an interval.
        counter_readings: NIC counters compared.
        disagreements: Of these, wrong ones by kind.
        nic_gone: Why the NIC was lost; empty where it was not.
        notes: What the user should know.
    """

    capture: str
    nic: str
    nic_title: str
    policy: str
    start_ns: int
    duration_s: float
    offloaded: Count
    onloaded: Count
    skipped: tuple[SkippedPackets, ...]
    ended_early: str
    dropped: Count
    astray: Count
    flows_total: int
    flows_overflow: int
    flows: tuple[FlowReport, ...]
    vms: tuple[VmReport, ...]
    vms_are_guessed: bool
    others: Count
    fairness: float
    operations: OperationsReport
    tables: tuple[tuple[str, int, int], ...]
    cpu: CpuReport
    intervals: tuple[Interval, ...]
    interval_s: float
    counter_readings: int
    disagreements: dict[str, int]
    nic_gone: str
    notes: tuple[str, ...]

    @property
    def skipped_total(self) -> Count:
        """All that was skipped."""
        return Count(
            packets=sum(entry.packets for entry in self.skipped),
            bytes=sum(entry.wire_bytes for entry in self.skipped),
        )

    @property
    def total(self) -> Count:
        """All that the file holds."""
        return self.offloaded + self.onloaded + self.skipped_total

    @property
    def guess_note(self) -> str:
        """What stands for the VMs where nobody named them, or why nothing does; empty where somebody did."""
        if not self.vms_are_guessed:
            return ""
        if self.vms:
            count = len(self.vms)
            stand = "1 destination stands for a VM"
            if count > 1:
                stand = f"{count} destinations, in order of appearance, stand for VMs"
            return f"no list of VMs was given: {stand} (--vms FILE says which there are)"
        if not self.flows_total:
            return "the capture holds no packet of a flow"
        return (
            "no list of VMs was given, and no destination can stand for a VM (loopback, multicast and broadcast "
            "addresses can't, nor can any if the NIC has no VFs), so all stays on the virtual switch; capture on the "
            "uplink of a host with VMs, or say which there are with --vms FILE"
        )

    @property
    def share_packets(self) -> float:
        """Part of the packets that took the NIC's path, 0 to 1."""
        return _share(self.offloaded.packets, self.onloaded.packets)

    @property
    def share_bytes(self) -> float:
        """Part of the bytes that took the NIC's path, 0 to 1."""
        return _share(self.offloaded.bytes, self.onloaded.bytes)


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else 0.0


def make_report(
    replay: Replay, *, capture: str, skipped: tuple[SkippedPackets, ...], ended_early: str
) -> ReplayReport:
    """Return what a finished replay found."""
    by_vm, dropped = _by_vm(replay)
    offloaded, onloaded = _sum(by_vm, Path.NIC), _sum(by_vm, Path.VSWITCH)
    duration_s = (replay.end_ns - replay.start_ns) / NS_PER_S
    names = replay.directory.vms
    vms = tuple(
        VmReport(
            name=vm.name,
            vf=vm.vf,
            offloaded=by_vm.get((index, Path.NIC), Count()),
            onloaded=by_vm.get((index, Path.VSWITCH), Count()),
            dropped=dropped.get(index, Count()),
        )
        for index, vm in enumerate(names)
    )
    shares = [
        _share(vm.offloaded.bytes, vm.onloaded.bytes) for vm in vms if vm.offloaded.bytes + vm.onloaded.bytes
    ]
    mover = replay.manager.mover if replay.manager else None
    overflow = replay.overflow_rows
    return ReplayReport(
        capture=capture,
        nic=replay.nic.name,
        nic_title=replay.nic.info.title,
        policy=replay.policy.source,
        start_ns=replay.start_ns,
        duration_s=duration_s,
        offloaded=offloaded,
        onloaded=onloaded,
        skipped=skipped,
        ended_early=ended_early,
        dropped=_total(dropped.values()),
        astray=replay.astray,
        flows_total=len(replay.table) - len(overflow) + replay.folded.flows,
        flows_overflow=replay.overflow_flows,
        flows=_flows(replay),
        vms=vms,
        vms_are_guessed=replay.vms_are_guessed,
        others=by_vm.get((NO_VM, Path.VSWITCH), Count()),
        fairness=jain_index(np.array(shares)) if shares else 1.0,
        operations=_operations(replay),
        tables=()
        if mover is None
        else tuple(
            (table.name, table.capacity.usable, mover.market.in_use(index))
            for index, table in enumerate(mover.market.tables)
        ),
        cpu=_cpu(replay, offloaded, onloaded, duration_s),
        intervals=_intervals(replay),
        interval_s=replay.series.width_ns / NS_PER_S if replay.series else 0.0,
        counter_readings=mover.disagreements.readings if mover else 0,
        disagreements=dict(sorted(mover.disagreements.by_kind.items())) if mover else {},
        nic_gone=mover.gone_text if mover else "",
        notes=replay.prepared.notes,
    )


def _by_vm(replay: Replay) -> tuple[dict[tuple[int, Path], Count], dict[int, Count]]:
    table, high = replay.table, replay.table.high
    counts = dict(replay.folded.counts)
    dropped = dict(replay.folded.dropped)
    ledger = table.ledger
    for vm in np.unique(table.vm[:high][table.in_use[:high]]).tolist():
        rows = np.flatnonzero(table.in_use[:high] & (table.vm[:high] == vm))
        for path in Path:
            now = Count(
                packets=int(ledger.packets(path)[rows].sum()), bytes=int(ledger.bytes(path)[rows].sum())
            )
            counts[(vm, path)] = counts.get((vm, path), Count()) + now
        lost = Count(
            packets=int(ledger.dropped_packets[rows].sum()), bytes=int(ledger.dropped_bytes[rows].sum())
        )
        dropped[vm] = dropped.get(vm, Count()) + lost
    return counts, dropped


def _sum(counts: dict[tuple[int, Path], Count], path: Path) -> Count:
    return _total([count for (_, which), count in counts.items() if which is path])


def _total(counts: object) -> Count:
    assert hasattr(counts, "__iter__")
    found = Count()
    for count in counts:
        found += count
    return found


def _flows(replay: Replay) -> tuple[FlowReport, ...]:
    table = replay.table
    rows = set(np.flatnonzero(table.in_use[: table.high]).tolist()) - replay.overflow_rows
    sizes = table.bytes()
    largest = sorted(rows, key=lambda row: (-int(sizes[row]), row))[:MAX_FLOWS]
    lines: list[tuple[FoldedFlow, int]] = []
    earlier = dict(replay.folded.lines)
    for row in largest:
        line = flow_line(table, row)
        before = earlier.pop(line.key, None)
        lines.append((before.merged(line) if before else line, row))
    lines += [(line, -1) for line in earlier.values()]
    lines.sort(key=lambda pair: (-pair[0].bytes, pair[0].first_ns, pair[0].key))
    return tuple(_flow(replay, line, row) for line, row in lines[:MAX_FLOWS])


def _flow(replay: Replay, line: FoldedFlow, row: int) -> FlowReport:
    record = replay.table.records.get(row)
    return FlowReport(
        flow=flow_text(line.key),
        vm=vm_name(replay.directory, line.vm),
        direction=kind_name(line.kind, is_local=line.is_local),
        state=line.state,
        offloaded=line.counts[Path.NIC],
        onloaded=line.counts[Path.VSWITCH],
        dropped=line.dropped,
        first_s=(line.first_ns - replay.start_ns) / NS_PER_S,
        last_s=(line.last_ns - replay.start_ns) / NS_PER_S,
        moves=line.moves,
        code=line.code,
        policy_rule=line.policy_rule,
        disagreements=line.disagreements,
        decisions=tuple(record.entries) if record else (),
        decisions_left_out=record.left_out if record else 0,
    )


def _operations(replay: Replay) -> OperationsReport:
    if replay.manager is None:
        return OperationsReport(
            adds=0, removes=0, refused={}, retries=0, calls=0, moves_to_nic=0, moves_to_vswitch=0, upcalls=0
        )
    done = replay.manager.mover.executor.operations
    return OperationsReport(
        adds=done.adds,
        removes=done.removes,
        refused=dict(sorted(done.refused.items())),
        retries=done.retries,
        calls=done.calls,
        moves_to_nic=done.moves_to_nic,
        moves_to_vswitch=done.moves_to_vswitch,
        upcalls=replay.upcalls + replay.overflow_flows,
    )


def _cpu(replay: Replay, offloaded: Count, onloaded: Count, duration_s: float) -> CpuReport:
    mover = replay.manager.mover if replay.manager else None
    work = cost.Work(
        vswitch_bytes=onloaded.bytes,
        installs=mover.executor.operations.adds if mover else 0,
        counters_read=mover.disagreements.readings if mover else 0,
    )
    without = cost.Work(vswitch_bytes=onloaded.bytes + offloaded.bytes)
    return CpuReport(
        with_offload_percent=cost.cpu_percent(work, duration_s),
        without_offload_percent=cost.cpu_percent(without, duration_s),
        with_offload_core_s=round(work.core_s, 9),
        without_offload_core_s=round(without.core_s, 9),
    )


def _intervals(replay: Replay) -> tuple[Interval, ...]:
    series = replay.series
    if series is None:
        return ()
    width_s = series.width_ns / NS_PER_S
    names = (
        "vswitch_packets",
        "vswitch_bytes",
        "nic_packets",
        "nic_bytes",
        "table_rows",
        "installs",
        "polled_entries",
    )
    rows = zip(*(series.column(name).tolist() for name in names), strict=True)
    found = []
    for place, (sw_packets, sw_bytes, hw_packets, hw_bytes, table_rows, installs, polled) in enumerate(rows):
        work = cost.Work(vswitch_bytes=sw_bytes, installs=installs, counters_read=polled)
        found.append(
            Interval(
                start_s=round(place * width_s, 6),
                offloaded=Count(packets=hw_packets, bytes=hw_bytes),
                onloaded=Count(packets=sw_packets, bytes=sw_bytes),
                table_rows=table_rows,
                cpu_percent=cost.cpu_percent(work, width_s),
                cpu_percent_without=cost.cpu_percent(cost.Work(vswitch_bytes=sw_bytes + hw_bytes), width_s),
            )
        )
    return tuple(found)
