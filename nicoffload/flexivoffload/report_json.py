"""Reports as JSON values; the form is ``schemas/replay-report.schema.json``."""

from __future__ import annotations

from typing import Any

from nicoffload.flexivoffload import cost
from nicoffload.flexivoffload.accounts import FlowReport, VmReport
from nicoffload.flexivoffload.flows import Decision
from nicoffload.flexivoffload.ledger import Count
from nicoffload.flexivoffload.report import Interval, ReplayReport

VERSION = 1


def report_to_json(report: ReplayReport) -> dict[str, Any]:
    """Return a report as JSON values."""
    return {
        "version": VERSION,
        "capture": report.capture,
        "nic": {"name": report.nic, "title": report.nic_title, "gone": report.nic_gone},
        "policy": report.policy,
        "start_ns": report.start_ns,
        "duration_s": report.duration_s,
        "totals": {
            **_count(report.total),
            "offloaded": _count(report.offloaded),
            "onloaded": _count(report.onloaded),
            "skipped": {
                **_count(report.skipped_total),
                "reasons": [
                    {"reason": entry.reason, "packets": entry.packets, "bytes": entry.wire_bytes}
                    for entry in report.skipped
                ],
                "ended_early": report.ended_early,
            },
            "dropped": _count(report.dropped),
            "astray": _count(report.astray),
        },
        "share_offloaded": {"packets": round(report.share_packets, 6), "bytes": round(report.share_bytes, 6)},
        "operations": {
            name: getattr(report.operations, name)
            for name in (
                "adds",
                "removes",
                "refused",
                "retries",
                "calls",
                "moves_to_nic",
                "moves_to_vswitch",
                "upcalls",
            )
        },
        "tables": [
            {"name": name, "usable_rows": usable, "rows_at_end": rows} for name, usable, rows in report.tables
        ],
        "cpu": {
            "with_offload_percent": report.cpu.with_offload_percent,
            "without_offload_percent": report.cpu.without_offload_percent,
            "with_offload_core_s": report.cpu.with_offload_core_s,
            "without_offload_core_s": report.cpu.without_offload_core_s,
            "formula": cost.FORMULA,
            "source": cost.SOURCE,
        },
        "vms": [_vm(vm) for vm in report.vms],
        "vms_are_guessed": report.vms_are_guessed,
        "others": _count(report.others),
        "fairness": round(report.fairness, 6),
        "flows": {
            "seen": report.flows_total,
            "not_told_apart": report.flows_overflow,
            "listed": [flow_to_json(flow) for flow in report.flows],
        },
        "intervals": {"width_s": report.interval_s, "rows": [_interval(row) for row in report.intervals]},
        "counters": {"readings": report.counter_readings, "disagreements": report.disagreements},
        "notes": list(report.notes),
    }


def flow_to_json(flow: FlowReport) -> dict[str, Any]:
    """Return one flow as JSON values."""
    return {
        "flow": flow.flow,
        "vm": flow.vm,
        "direction": flow.direction,
        "state": flow.state.name.lower(),
        "offloaded": _count(flow.offloaded),
        "onloaded": _count(flow.onloaded),
        "dropped": _count(flow.dropped),
        "first_s": flow.first_s,
        "last_s": flow.last_s,
        "moves": flow.moves,
        "code": flow.code,
        "policy_rule": flow.policy_rule,
        "counter_disagreements": flow.disagreements,
        "decisions": [_decision(entry) for entry in flow.decisions],
        "decisions_left_out": flow.decisions_left_out,
    }


def _count(count: Count) -> dict[str, int]:
    return {"packets": count.packets, "bytes": count.bytes}


def _vm(vm: VmReport) -> dict[str, Any]:
    return {
        "name": vm.name,
        "vf": vm.vf,
        "offloaded": _count(vm.offloaded),
        "onloaded": _count(vm.onloaded),
        "dropped": _count(vm.dropped),
    }


def _interval(row: Interval) -> dict[str, Any]:
    return {
        "start_s": row.start_s,
        "offloaded": _count(row.offloaded),
        "onloaded": _count(row.onloaded),
        "table_rows": row.table_rows,
        "cpu_percent": row.cpu_percent,
        "cpu_percent_without": row.cpu_percent_without,
    }


def _decision(entry: Decision) -> dict[str, Any]:
    return {
        "time_ns": entry.time_ns,
        "from": entry.before.name.lower(),
        "to": entry.after.name.lower(),
        "code": entry.code,
        "policy_rule": entry.policy_rule,
        "detail": entry.detail,
        "rate_pps": round(entry.rate_pps, 3),
        "row_price_pps": round(entry.row_price_pps, 3),
        "op_price_packets": round(entry.op_price_packets, 3),
    }
