"""What a replay found, as values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nicoffload.flexivoffload import cost
from nicoffload.flexivoffload.accounts import (
    FlowReport,
    OperationsReport,
    VmReport,
    counts_by_vm,
    flow_reports,
    operations_report,
    share,
    sum_of_path,
    total,
    vm_reports,
)
from nicoffload.flexivoffload.capture import SkippedPackets
from nicoffload.flexivoffload.ledger import Count, Path
from nicoffload.flexivoffload.placement import NS_PER_S, jain_index
from nicoffload.flexivoffload.replay import Replay
from nicoffload.flexivoffload.vms import NO_VM


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
        return share(self.offloaded.packets, self.onloaded.packets)

    @property
    def share_bytes(self) -> float:
        """Part of the bytes that took the NIC's path, 0 to 1."""
        return share(self.offloaded.bytes, self.onloaded.bytes)


def make_report(
    replay: Replay, *, capture: str, skipped: tuple[SkippedPackets, ...], ended_early: str
) -> ReplayReport:
    """Return what a finished replay found."""
    by_vm, dropped = counts_by_vm(replay)
    offloaded, onloaded = sum_of_path(by_vm, Path.NIC), sum_of_path(by_vm, Path.VSWITCH)
    duration_s = (replay.end_ns - replay.start_ns) / NS_PER_S
    names = replay.directory.vms
    vms = vm_reports(names, by_vm, dropped)
    shares = [
        share(vm.offloaded.bytes, vm.onloaded.bytes) for vm in vms if vm.offloaded.bytes + vm.onloaded.bytes
    ]
    mover = replay.manager.mover if replay.manager else None
    overflow = replay.intake.overflow_rows
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
        dropped=total(dropped.values()),
        astray=replay.astray,
        flows_total=len(replay.table) - len(overflow) + replay.folded.flows,
        flows_overflow=replay.intake.overflow_flows,
        flows=flow_reports(replay),
        vms=vms,
        vms_are_guessed=replay.vms_are_guessed,
        others=by_vm.get((NO_VM, Path.VSWITCH), Count()),
        fairness=jain_index(np.array(shares)) if shares else 1.0,
        operations=operations_report(replay),
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
