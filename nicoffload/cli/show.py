"""Placements, refusals, recoveries: as lines for people and as JSON values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from nicoffload.cli.report import reason_to_json, reasons_lines
from nicoffload.codec import format_rule, rule_to_json
from nicoffload.compiler import Refusal, Rung
from nicoffload.driver import Placement
from nicoffload.model import FIELDS
from nicoffload.nic import Recovery, Step

LADDER_COLUMNS = ("what this NIC could hold instead", "table", "rule", "what else it would catch")


def slot_text(slot: int | None) -> str:
    """Return a slot for a table; where the driver picks it, or rules are found by cookie, there is none."""
    return "-" if slot is None else str(slot)


def placement_lines(placement: Placement) -> Iterator[str]:
    """Yield where a rule goes, and what the user should know."""
    slot = "" if placement.slot is None else f", slot {placement.slot}"
    yield f"accepted: {format_rule(placement.rule)}"
    yield f"  table {placement.table}, flow type {placement.flow_type}{slot}"
    if placement.why:
        yield f"  not a table that comes before it: {placement.why}"
    for caveat in placement.caveats:
        yield f"  caveat: {caveat}"


def refusal_lines(refusal: Refusal) -> Iterator[str]:
    """Yield each reason; the ladder is a table of its own."""
    yield f"refused: {format_rule(refusal.rule)}"
    yield from reasons_lines(refusal.reasons)


def ladder_rows(refusal: Refusal) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table of coarser rules that this NIC could hold."""
    return [
        (rung.name, rung.table, _rung_text(rung), rung.also_catches)
        for rung in refusal.ladder
        if not rung.reasons
    ]


def placement_to_json(placement: Placement) -> dict[str, Any]:
    """Return a placement as a JSON value."""
    return {
        "rule": rule_to_json(placement.rule),
        "text": format_rule(placement.rule),
        "accepted": True,
        "table": placement.table,
        "flow_type": placement.flow_type,
        "slot": placement.slot,
        "caveats": list(placement.caveats),
        "why": placement.why,
    }


def refusal_to_json(refusal: Refusal) -> dict[str, Any]:
    """Return a refusal as a JSON value."""
    return {
        "rule": rule_to_json(refusal.rule),
        "text": format_rule(refusal.rule),
        "accepted": False,
        "reasons": [reason_to_json(reason) for reason in refusal.reasons],
        "ladder": [_rung_to_json(rung) for rung in refusal.ladder],
    }


def answer_to_json(answer: Placement | Refusal) -> dict[str, Any]:
    """Return what the compiler answered as a JSON value."""
    return placement_to_json(answer) if isinstance(answer, Placement) else refusal_to_json(answer)


def equivalent_lines(steps: Iterable[Step], *, emulated: bool) -> Iterator[str]:
    """Yield the shell commands that would do the same, or why there are none."""
    commands = [command for step in steps for command in step.equivalents]
    yield from (f"same as: {command}" for command in commands)
    if not commands:
        which = "an emulated NIC" if emulated else "this NIC"
        yield f"{which}: no tc, ip or ethtool command does the same"


def recovery_lines(recovery: Recovery) -> Iterator[str]:
    """Yield what opening a NIC found left over and did about it."""
    yield from (f"recovered: {text}" for text in recovery.undone)
    yield from (f"adopted: {format_rule(found.rule, with_id=True)}" for found in recovery.adopted)
    yield from (f"no longer in the NIC: {format_rule(rule, with_id=True)}" for rule in recovery.missing)
    yield from (f"replaced by another's: {format_rule(found.rule)}" for found in recovery.changed)
    yield from (f"damaged journal put aside: {path}" for path in recovery.damaged)
    if recovery.damaged:
        yield f"records saved from it: {recovery.salvaged}"
    yield from (f"problem: {text}" for text in recovery.problems)


def _rung_text(rung: Rung) -> str:
    if rung.rule is not None:
        return format_rule(rung.rule)
    needed = ", ".join(FIELDS[name].texts[0] for name in rung.missing)
    return f"needs {needed}" if needed else "-"


def _rung_to_json(rung: Rung) -> dict[str, Any]:
    return {
        "name": rung.name,
        "rule": None if rung.rule is None else rule_to_json(rung.rule),
        "text": None if rung.rule is None else format_rule(rung.rule),
        "table": rung.table,
        "missing": list(rung.missing),
        "also_catches": rung.also_catches,
        "reasons": [reason_to_json(reason) for reason in rung.reasons],
    }
