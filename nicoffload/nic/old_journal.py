"""Journals of version 1, which had a row for each rule: what they hold goes into blocks."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterable
from typing import Any

from nicoffload.errors import NicOffloadError
from nicoffload.model import RANGE_MASK, FlowRule, Masked, Match, PortRange
from nicoffload.model.match import FieldValue
from nicoffload.nic.blocks import RuleRecord, pack
from nicoffload.nic.records import read_actions
from nicoffload.nic.rule_log import TABLES

COLUMNS = ("nic", "rule_id", "change", "was_tbl", "was_slot", "was_body", "tbl", "slot", "body")

_UPGRADE = (
    "ALTER TABLE nics ADD COLUMN live INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE nics ADD COLUMN dead INTEGER NOT NULL DEFAULT 0",
    *filter(str.strip, TABLES.split(";")),
)


def upgrade(db: sqlite3.Connection, version: int) -> None:
    """Turn a journal of version 1 into one of a later version, wholly or not at all.

    Args:
        db: The journal.
        version: The later one.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in _UPGRADE:
            db.execute(statement)
        take_over(db, db.execute(f"SELECT {', '.join(COLUMNS)} FROM rules").fetchall())  # noqa: S608 - constants
        db.execute("DROP TABLE rules")
        db.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(version),))
        db.execute(f"PRAGMA user_version = {version}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def take_over(db: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> int:
    """Write rows of version 1 as blocks, and return how many records there were; one that is damaged is left out."""
    found: dict[tuple[str, int | None, bool], list[RuleRecord]] = {}
    saved = 0
    for nic, rule_id, change, *places in dict.fromkeys(rows):
        if not isinstance(nic, str) or not isinstance(change, int | None):
            continue
        before, after = _record(rule_id, *places[:3]), _record(rule_id, *places[3:])
        saved += before is not None or after is not None
        if before is not None:
            found.setdefault((nic, change, True), []).append(before)
            # The row of a change that was not over stood in place of that of the rule as it was.
            found.setdefault((nic, None, False), []).append(before)
        if after is not None:
            found.setdefault((nic, change, False), []).append(after)
    # The later of two blocks has the last word: first what is at rest, then how it was, then how it will be.
    for (nic, change, was), records in sorted(
        found.items(), key=lambda item: (item[0][1] is not None, not item[0][2])
    ):
        db.executemany(
            "INSERT INTO blocks (nic, change, was, rules, body) VALUES (?, ?, ?, ?, ?)",
            ((nic, change, int(was), *block) for block in pack(records)),
        )
        if change is None:
            db.execute("UPDATE nics SET live = live + ? WHERE nic = ?", (len(records), nic))
    return saved


def _record(rule_id: object, table: object, slot: object, body: object) -> RuleRecord | None:
    if not isinstance(rule_id, bytes) or len(rule_id) != 16:
        return None
    if not isinstance(table, str) or not isinstance(body, str) or not isinstance(slot, int | None):
        return None
    try:
        rule = _rule(body, uuid.UUID(bytes=rule_id))
    except (ValueError, TypeError, KeyError, AttributeError, NicOffloadError):
        return None
    return RuleRecord(rule.rule_id, table, slot, rule)


def _rule(text: str, rule_id: uuid.UUID) -> FlowRule:
    priority, shape, values, actions = json.loads(text)
    fields: dict[str, FieldValue] = {
        name: PortRange(*value) if mask == RANGE_MASK else Masked(value, mask)
        for (name, mask), value in zip(shape, values, strict=True)
    }
    return FlowRule(match=Match(**fields), actions=read_actions(actions), priority=priority, rule_id=rule_id)
