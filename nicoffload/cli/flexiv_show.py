"""Replay reports and policies as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from nicoffload.cli.output import Output
from nicoffload.codec import format_match
from nicoffload.flexivoffload import cost
from nicoffload.flexivoffload.accounts import FlowReport
from nicoffload.flexivoffload.ledger import Count
from nicoffload.flexivoffload.policy import Policy, PolicyRule, RuleKind
from nicoffload.flexivoffload.report import ReplayReport


def show_report(report: ReplayReport, output: Output, *, top: int) -> None:
    """Print a replay report.

    Args:
        report: The report.
        output: Where to.
        top: How many flows to list.
    """
    output.line(f"{report.capture} on {report.nic} ({report.nic_title}), policy {report.policy}")
    output.line(f"{report.duration_s:.3f} s, {counted(report.flows_total, 'flow')}")
    for note in _notes(report):
        output.line(f"note: {note}")
    output.line()
    output.table(("path", "packets", "bytes", "of packets", "of bytes"), _totals(report), right=_NUMBERS)
    if report.vms:
        output.line()
        output.table(_VM_COLUMNS, [_vm_row(vm) for vm in _vms(report)], right=_VM_COLUMNS[1:])
    output.line()
    output.table(("what", "value"), _facts(report))
    if top and report.flows:
        output.line()
        shown = report.flows[:top]
        output.line(f"the {len(shown)} largest of {counted(report.flows_total, 'flow')}:")
        output.table(
            _FLOW_COLUMNS, [_flow_row(flow) for flow in shown], right=("NIC bytes", "switch bytes", "moves")
        )


_NUMBERS = ("packets", "bytes", "of packets", "of bytes")
_VM_COLUMNS = ("VM", "VF", "NIC packets", "switch packets", "NIC bytes", "switch bytes", "share")
_FLOW_COLUMNS = ("flow", "VM", "dir", "state", "NIC bytes", "switch bytes", "moves", "why")


def _notes(report: ReplayReport) -> list[str]:
    notes = list(report.notes)
    if report.guess_note:
        notes.append(report.guess_note)
    if report.nic_gone:
        notes.append(f"the NIC was lost, and all flows went to the virtual switch: {report.nic_gone}")
    if report.ended_early:
        notes.append(f"the rest of the capture can't be read: {report.ended_early}")
    if report.astray.packets:
        notes.append(f"the NIC gave {report.astray.packets:,} packets to the VF of another VM")
    return notes


def counted(count: int, word: str) -> str:
    """Return a number with its noun: ``1 flow``, ``1,200 flows``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _totals(report: ReplayReport) -> list[tuple[str, ...]]:
    rows = [
        ("NIC (offloaded)", report.offloaded),
        ("virtual switch (onloaded)", report.onloaded),
        *((f"skipped: {e.reason}", Count(packets=e.packets, bytes=e.wire_bytes)) for e in report.skipped),
        ("total", report.total),
    ]
    whole = report.total
    shown: list[tuple[str, ...]] = [
        (name, *_count(count), _part(count.packets, whole.packets), _part(count.bytes, whole.bytes))
        for name, count in rows
    ]
    if report.dropped.packets:
        shown.append(("of the NIC's: dropped", *_count(report.dropped), "", ""))
    return shown


def _count(count: Count) -> tuple[str, str]:
    return f"{count.packets:,}", f"{count.bytes:,}"


def _part(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _vms(report: ReplayReport) -> list[tuple[str, str, Count, Count]]:
    rows = [(vm.name, str(vm.vf), vm.offloaded, vm.onloaded) for vm in report.vms]
    if report.others.packets:
        rows.append(("(no VM)", "-", Count(), report.others))
    return rows


def _vm_row(vm: tuple[str, str, Count, Count]) -> tuple[str, ...]:
    name, vf, nic, switch = vm
    return (
        name,
        vf,
        f"{nic.packets:,}",
        f"{switch.packets:,}",
        f"{nic.bytes:,}",
        f"{switch.bytes:,}",
        _part(nic.bytes, nic.bytes + switch.bytes),
    )


def _facts(report: ReplayReport) -> list[tuple[str, str]]:
    done = report.operations
    refused = ", ".join(f"{count} {code}" for code, count in done.refused.items()) or "0"
    peak = max((row.table_rows for row in report.intervals), default=0)
    usable = ", ".join(f"{name} {rows:,}" for name, rows, _ in report.tables) or "none"
    facts = [
        ("rules added / removed", f"{done.adds:,} / {done.removes:,} in {counted(done.calls, 'call')}"),
        ("refused by the NIC", refused),
        ("retries", f"{done.retries:,}"),
        ("flows moved to the NIC / back", f"{done.moves_to_nic:,} / {done.moves_to_vswitch:,}"),
        ("most rules at a time", f"{peak:,}; rows that may be used: {usable}"),
        ("upcalls of the virtual switch", f"{done.upcalls:,}"),
        (
            "host CPU, modelled",
            (
                f"{report.cpu.with_offload_percent:.2f} % of a core, {report.cpu.without_offload_percent:.2f} % "
                f"without offload (at rest {cost.BASE_PERCENT} %)"
            ),
        ),
        (
            "core seconds for packets",
            f"{report.cpu.with_offload_core_s:.4f}, {report.cpu.without_offload_core_s:.4f} without offload",
        ),
    ]
    if report.counter_readings:
        wrong = ", ".join(f"{count} {kind}" for kind, count in report.disagreements.items()) or "none wrong"
        facts.append(("NIC counters compared", f"{report.counter_readings:,}; {wrong}"))
    return facts


def _flow_row(flow: FlowReport) -> tuple[str, ...]:
    why = f"{flow.code} ({flow.policy_rule})" if flow.policy_rule else flow.code
    return (
        flow.flow,
        flow.vm or "-",
        flow.direction,
        flow.state.name.lower(),
        f"{flow.offloaded.bytes:,}",
        f"{flow.onloaded.bytes:,}",
        str(flow.moves),
        why,
    )


def policy_rows(policy: Policy) -> list[tuple[str, ...]]:
    """Return the rules of a policy in the order in which they are obeyed, with the default last."""
    ordered: Sequence[PolicyRule] = sorted(policy.rules, key=lambda rule: (rule.tier, rule.rank))
    rows: list[tuple[str, ...]] = [
        (
            f"{rule.tier.value} {rule.tier.name.lower()}",
            rule.rule_id,
            str(rule.priority),
            _flows(rule),
            _decision(rule),
        )
        for rule in ordered
    ]
    rows.append(("6 default", "-", "-", "all other", "offload" if policy.default_offload else "onload"))
    return rows


def _flows(rule: PolicyRule) -> str:
    parts = [f"VM {rule.vm}"] if rule.vm else []
    parts.append(format_match(rule.match) or ("" if rule.vm else "all"))
    return " ".join(part for part in parts if part)


def _decision(rule: PolicyRule) -> str:
    if rule.is_header:
        return f"{rule.kind.value}{', pinned' if rule.pin else ''}"
    conditions = []
    for threshold in rule.thresholds:
        name = threshold.measure.value
        if rule.kind is RuleKind.DEMOTE and threshold.down is not None:
            conditions.append(f"{name} at most {threshold.down:,.10g} (back from {threshold.up:,.10g})")
        else:
            until = "" if threshold.down is None else f" (until {threshold.down:,.10g})"
            conditions.append(f"{name} at least {threshold.up:,.10g}{until}")
    where = "offload" if rule.kind is RuleKind.PROMOTE else "onload"
    return f"{where} when {' and '.join(conditions)}"
