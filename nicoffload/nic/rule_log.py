"""The rules of one NIC in the journal's file: a log of blocks, to which every change adds and of which none is edited.

Blocks count in the order of their numbers. One that `was` names rules as a change found them, the others name them as
it leaves them; while the change is not over its number stands beside them. So beginning a change is all that is
written of a rule, and finishing takes its number away. Where more is dead than lives the log is written anew.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from nicoffload.errors import JournalError
from nicoffload.nic.blocks import Block, RuleRecord, check, pack, pack_ids, read_ids, unpack
from nicoffload.nic.journal import RuleIntent

TABLES = """
CREATE TABLE blocks (
    number INTEGER PRIMARY KEY, nic TEXT NOT NULL, change INTEGER, was INTEGER NOT NULL, rules INTEGER NOT NULL,
    body BLOB NOT NULL);
CREATE INDEX blocks_in_change ON blocks (change) WHERE change IS NOT NULL;
"""

T = TypeVar("T")

_MOST_DEAD = 1024
"""So many dead records may be in a log of any length."""


class RuleLog:
    """The rules of one NIC. Its methods are called within a transaction of their caller.

    Args:
        nic: `Driver.identity` of the NIC, with its port where it has several.
    """

    def __init__(self, nic: str) -> None:
        self._nic = nic

    def rules(self, db: sqlite3.Connection) -> list[RuleRecord]:
        """Return the rules of ours that no unfinished change touches; what is damaged is left out."""
        held = self._at_rest(db)
        for (body,) in db.execute(
            "SELECT body FROM blocks WHERE nic = ? AND change IS NOT NULL", (self._nic,)
        ):
            for rule_id in _readable(body, read_ids):
                held.pop(rule_id, None)
        return list(held.values())

    def damage(self, db: sqlite3.Connection) -> Sequence[str]:
        """Return which records can't be read, in words."""
        found = []
        for number, rules, body in db.execute(
            "SELECT number, rules, body FROM blocks WHERE nic = ?", (self._nic,)
        ):
            try:
                check(body)
            except JournalError as cause:
                found.append(f"{cause.message}; it is number {number} and has {rules} rules")
        return found

    def unfinished(self, db: sqlite3.Connection) -> Mapping[int, Sequence[RuleIntent]]:
        """Return what changes that are not over do to rules, by number of the change."""
        before: dict[int, dict[uuid.UUID, RuleRecord]] = {}
        after: dict[int, dict[uuid.UUID, RuleRecord]] = {}
        for change, was, body in db.execute(
            "SELECT change, was, body FROM blocks WHERE nic = ? AND change IS NOT NULL ORDER BY number",
            (self._nic,),
        ):
            records = (before if was else after).setdefault(change, {})
            records.update((record.rule_id, record) for record in _readable(body, unpack))
        return {
            change: [
                RuleIntent(rule_id, was.get(rule_id), will.get(rule_id))
                for rule_id in dict.fromkeys((*was, *will))
            ]
            for change in before.keys() | after.keys()
            for was, will in ((before.get(change, {}), after.get(change, {})),)
        }

    def begin(
        self, db: sqlite3.Connection, change: int, before: Sequence[RuleRecord], after: Sequence[RuleRecord]
    ) -> None:
        """Write what a change does to rules."""
        if db.execute("SELECT 1 FROM changes WHERE nic = ? AND failed", (self._nic,)).fetchone():
            self._settle(db, {record.rule_id for records in (before, after) for record in records})
        self._append(db, pack(before), change=change, was=True)
        self._append(db, pack(after), change=change)

    def finish(
        self, db: sqlite3.Connection, change: int, moved: Sequence[RuleRecord], dropped: Sequence[uuid.UUID]
    ) -> None:
        """Let a change stand, but for rules that are elsewhere and rules that are not there."""
        counts = dict(
            db.execute("SELECT was, total(rules) FROM blocks WHERE change = ? GROUP BY was", (change,))
        )
        db.execute("UPDATE blocks SET change = NULL WHERE change = ?", (change,))
        self._append(db, pack(moved))
        self._append(db, pack_ids(dropped), was=True)
        added, gone = int(counts.get(0, 0)), int(counts.get(1, 0)) + len(dropped)
        self._count(db, live=added - gone, dead=2 * gone + len(moved))

    def abort(
        self,
        db: sqlite3.Connection,
        change: int,
        moved: Sequence[RuleRecord],
        stuck: Collection[uuid.UUID],
    ) -> None:
        """Forget a change, but for rules that were put back elsewhere and those of which it is not known."""
        self._keep(db, [change], frozenset(stuck).__contains__)
        self._append(db, pack(moved))
        self._count(db, live=0, dead=len(moved))

    def replace(self, db: sqlite3.Connection, records: Sequence[RuleRecord]) -> None:
        """Make these the rules that no unfinished change touches."""
        if db.execute("SELECT 1 FROM changes WHERE nic = ?", (self._nic,)).fetchone():
            self._settle(db, {record.rule_id for record in records})
        self._rewrite(db, records)

    def _at_rest(self, db: sqlite3.Connection) -> dict[uuid.UUID, RuleRecord]:
        held: dict[uuid.UUID, RuleRecord] = {}
        for was, body in db.execute(
            "SELECT was, body FROM blocks WHERE nic = ? AND change IS NULL ORDER BY number", (self._nic,)
        ):
            if was:
                for rule_id in _readable(body, read_ids):
                    held.pop(rule_id, None)
            else:
                held.update((record.rule_id, record) for record in _readable(body, unpack))
        return held

    def _settle(self, db: sqlite3.Connection, rules: Collection[uuid.UUID]) -> None:
        """Forget what earlier changes could not take back of rules that change now."""
        changes = [
            number for (number,) in db.execute("SELECT number FROM changes WHERE nic = ?", (self._nic,))
        ]
        self._keep(db, changes, lambda rule_id: rule_id not in rules)

    def _keep(
        self, db: sqlite3.Connection, changes: Iterable[int], wanted: Callable[[uuid.UUID], bool]
    ) -> None:
        """Forget what changes do to rules, but for some rules."""
        for change in changes:
            rows = db.execute("SELECT was, body FROM blocks WHERE change = ?", (change,)).fetchall()
            db.execute("DELETE FROM blocks WHERE change = ?", (change,))
            for was, body in rows:
                kept = [record for record in _readable(body, unpack) if wanted(record.rule_id)]
                self._append(db, pack(kept), change=change, was=bool(was))

    def _append(
        self,
        db: sqlite3.Connection,
        blocks: Iterable[Block],
        *,
        change: int | None = None,
        was: bool = False,
    ) -> None:
        db.executemany(
            "INSERT INTO blocks (nic, change, was, rules, body) VALUES (?, ?, ?, ?, ?)",
            ((self._nic, change, int(was), rules, body) for rules, body in blocks),
        )

    def _count(self, db: sqlite3.Connection, *, live: int, dead: int) -> None:
        """Count what lives and what is dead, and write the log anew where that is too much."""
        if not live and not dead:
            return
        db.execute(
            "INSERT INTO nics (nic, generation, live, dead) VALUES (?, 0, ?, ?)"
            " ON CONFLICT (nic) DO UPDATE SET live = live + excluded.live, dead = dead + excluded.dead",
            (self._nic, live, dead),
        )
        row = db.execute("SELECT live, dead FROM nics WHERE nic = ?", (self._nic,)).fetchone()
        if row is not None and (row[0] <= 0 or row[1] > row[0] + _MOST_DEAD):
            self._rewrite(db, self._at_rest(db).values())

    def _rewrite(self, db: sqlite3.Connection, records: Collection[RuleRecord]) -> None:
        db.execute("DELETE FROM blocks WHERE nic = ? AND change IS NULL", (self._nic,))
        self._append(db, pack(records))
        db.execute(
            "INSERT INTO nics (nic, generation, live, dead) VALUES (?, 0, ?, 0)"
            " ON CONFLICT (nic) DO UPDATE SET live = excluded.live, dead = 0",
            (self._nic, len(records)),
        )


def _readable(body: bytes, read: Callable[[bytes], Iterable[T]]) -> list[T]:
    """Return what a block holds; nothing where it is damaged, which `RuleLog.damage` tells."""
    try:
        return list(read(body))
    except JournalError:
        return []
