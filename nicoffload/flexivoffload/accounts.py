"""What is told alike of a replay and of a live session: its flows, its VMs, and what was done to the NIC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nicoffload.flexivoffload.flows import Decision, FlowState, FlowTable
from nicoffload.flexivoffload.folding import Folded, FoldedFlow, flow_line
from nicoffload.flexivoffload.headers import flow_text
from nicoffload.flexivoffload.intake import Intake
from nicoffload.flexivoffload.ledger import Count, Path
from nicoffload.flexivoffload.manager import FlowManager
from nicoffload.flexivoffload.placement import NS_PER_S
from nicoffload.flexivoffload.vms import NO_VM, RX, TX, Vm, VmDirectory

MAX_FLOWS = 10_000
"""Flows that a report lists: the largest."""


class Account(Protocol):
    """Who has flows to tell of."""

    @property
    def table(self) -> FlowTable:
        """The flows that are told apart at present."""

    @property
    def folded(self) -> Folded:
        """Those that left the table."""

    @property
    def directory(self) -> VmDirectory:
        """The VMs."""

    @property
    def intake(self) -> Intake:
        """Where packets were taken in."""

    @property
    def manager(self) -> FlowManager | None:
        """Who decided; None before the first packet of a account."""

    @property
    def start_ns(self) -> int:
        """When it began."""


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


def share(part: int, rest: int) -> float:
    """Return a part of the whole, 0 to 1."""
    return part / (part + rest) if part + rest else 0.0


def vm_reports(
    vms: Sequence[Vm], by_vm: Mapping[tuple[int, Path], Count], dropped: Mapping[int, Count]
) -> tuple[VmReport, ...]:
    """Return what each VM received and sent, in the order of the list."""
    return tuple(
        VmReport(
            name=vm.name,
            vf=vm.vf,
            offloaded=by_vm.get((index, Path.NIC), Count()),
            onloaded=by_vm.get((index, Path.VSWITCH), Count()),
            dropped=dropped.get(index, Count()),
        )
        for index, vm in enumerate(vms)
    )


def counts_by_vm(account: Account) -> tuple[dict[tuple[int, Path], Count], dict[int, Count]]:
    """Return what each VM had on each path, and what the NIC dropped of it."""
    table, high = account.table, account.table.high
    counts = dict(account.folded.counts)
    dropped = dict(account.folded.dropped)
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


def sum_of_path(counts: Mapping[tuple[int, Path], Count], path: Path) -> Count:
    """Return what all VMs together had on a path."""
    return total([count for (_, which), count in counts.items() if which is path])


def total(counts: Iterable[Count]) -> Count:
    """Return the sum of counts."""
    found = Count()
    for count in counts:
        found += count
    return found


def flow_reports(account: Account) -> tuple[FlowReport, ...]:
    """Return the flows, largest first: both paths of each in one line."""
    table = account.table
    rows = set(np.flatnonzero(table.in_use[: table.high]).tolist()) - account.intake.overflow_rows
    sizes = table.bytes()
    largest = sorted(rows, key=lambda row: (-int(sizes[row]), row))[:MAX_FLOWS]
    lines: list[tuple[FoldedFlow, int]] = []
    earlier = dict(account.folded.lines)
    for row in largest:
        line = flow_line(table, row)
        before = earlier.pop(line.key, None)
        lines.append((before.merged(line) if before else line, row))
    lines += [(line, -1) for line in earlier.values()]
    lines.sort(key=lambda pair: (-pair[0].bytes, pair[0].first_ns, pair[0].key))
    return tuple(_flow(account, line, row) for line, row in lines[:MAX_FLOWS])


def _flow(account: Account, line: FoldedFlow, row: int) -> FlowReport:
    record = account.table.records.get(row)
    return FlowReport(
        flow=flow_text(line.key),
        vm=vm_name(account.directory, line.vm),
        direction=kind_name(line.kind, is_local=line.is_local),
        state=line.state,
        offloaded=line.counts[Path.NIC],
        onloaded=line.counts[Path.VSWITCH],
        dropped=line.dropped,
        first_s=(line.first_ns - account.start_ns) / NS_PER_S,
        last_s=(line.last_ns - account.start_ns) / NS_PER_S,
        moves=line.moves,
        code=line.code,
        policy_rule=line.policy_rule,
        disagreements=line.disagreements,
        decisions=tuple(record.entries) if record else (),
        decisions_left_out=record.left_out if record else 0,
    )


def operations_report(account: Account) -> OperationsReport:
    """Return what was done to the NIC."""
    if account.manager is None:
        return OperationsReport(
            adds=0, removes=0, refused={}, retries=0, calls=0, moves_to_nic=0, moves_to_vswitch=0, upcalls=0
        )
    done = account.manager.mover.executor.operations
    return OperationsReport(
        adds=done.adds,
        removes=done.removes,
        refused=dict(sorted(done.refused.items())),
        retries=done.retries,
        calls=done.calls,
        moves_to_nic=done.moves_to_nic,
        moves_to_vswitch=done.moves_to_vswitch,
        upcalls=account.intake.upcalls + account.intake.overflow_flows,
    )


def kind_name(kind: int, *, is_local: bool) -> str:
    """Return the direction of a flow for people: ``rx``, ``tx``, ``local`` or ``vswitch``."""
    if kind == TX:
        return "local" if is_local else "tx"
    return "rx" if kind == RX else "vswitch"


def vm_name(directory: VmDirectory, vm: int) -> str:
    """Return the name of a VM; empty for none."""
    return "" if vm == NO_VM else directory.vms[vm].name
