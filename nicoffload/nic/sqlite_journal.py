"""The journal of NICs that outlive a process: one SQLite file for all of them, on the disk before a NIC is touched."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from nicoffload.errors import DeviceBusyError, JournalError
from nicoffload.nic.blocks import RuleRecord
from nicoffload.nic.journal import Journal, LeaseRow, StepIntent, Unfinished
from nicoffload.nic.lock import FileLock
from nicoffload.nic.rule_log import TABLES, RuleLog

T = TypeVar("T")

SCHEMA_VERSION = 2

SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE nics (
    nic TEXT PRIMARY KEY, generation INTEGER NOT NULL, live INTEGER NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0);
CREATE TABLE changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, nic TEXT NOT NULL, title TEXT NOT NULL,
    failed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE steps (
    change INTEGER NOT NULL, seq INTEGER NOT NULL, nic TEXT NOT NULL, kind TEXT NOT NULL, target TEXT NOT NULL,
    before TEXT NOT NULL, after TEXT NOT NULL, PRIMARY KEY (change, seq));
{TABLES}
CREATE TABLE leases (
    nic TEXT NOT NULL, vf INTEGER NOT NULL, owner TEXT NOT NULL, epoch INTEGER NOT NULL, expires_at_s REAL NOT NULL,
    dirty INTEGER NOT NULL, PRIMARY KEY (nic, vf));
"""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "nics": ("nic", "generation", "live", "dead"),
    "changes": ("number", "nic", "title", "failed"),
    "steps": ("change", "seq", "nic", "kind", "target", "before", "after"),
    "blocks": ("number", "nic", "change", "was", "rules", "body"),
    "leases": ("nic", "vf", "owner", "epoch", "expires_at_s", "dirty"),
}
"""What salvage copies, row by row."""


class SqliteJournal(Journal):
    """The records of one NIC in the file that all NICs share.

    Args:
        connection: To a file that `nicoffload.nic.salvage` found sound.
        path: The file.
        nic: `Driver.identity` of the NIC.
        lock: The writer's lock of this NIC.
        port: `Driver.port` of it: changes and rules are of a port, leases of the NIC.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, nic: str, lock: FileLock, *, port: str = ""
    ) -> None:
        self._db: sqlite3.Connection | None = connection
        self._path = path
        self._inode = path.stat().st_ino
        self._nic = nic
        self._side = f"{nic} {port}" if port else nic
        self._lock = lock
        self._log = RuleLog(self._side)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock.

        Raises:
            DeviceBusyError: Another holds it for too long.
            JournalError: Another process found the journal damaged and put it aside.
        """
        with self._lock():
            try:
                moved = self._path.stat().st_ino != self._inode
            except FileNotFoundError:
                moved = True
            if moved:
                raise JournalError(
                    f"{self._path} was put aside by another process",
                    device=self._nic,
                    hint="open the NIC again",
                )
            yield

    def generation(self) -> int:
        """Return a number that grows with every change that any process makes."""
        with self._reading() as db:
            row = db.execute("SELECT generation FROM nics WHERE nic = ?", (self._nic,)).fetchone()
        return int(row[0]) if row else 0

    def rules(self) -> Sequence[RuleRecord]:
        """Return the rules of ours that no unfinished change touches."""
        with self._reading() as db:
            return self._log.rules(db)

    def damage(self) -> Sequence[str]:
        """Return which records of rules can't be read, in words."""
        with self._reading() as db:
            return self._log.damage(db)

    def unfinished(self) -> Sequence[Unfinished]:
        """Return the changes that were cut off, the newest first."""
        with self._reading() as db:
            titles = {
                number: (title, bool(failed))
                for number, title, failed in db.execute(
                    "SELECT number, title, failed FROM changes WHERE nic = ?", (self._side,)
                )
            }
            of_rules = self._log.unfinished(db)
            of_steps = db.execute(
                "SELECT change, kind, target, before, after FROM steps WHERE nic = ? ORDER BY change, seq",
                (self._side,),
            ).fetchall()
        # A damaged journal may have lost the row of a change and kept what belongs to it.
        numbers = sorted({*titles, *of_rules, *(row[0] for row in of_steps)}, reverse=True)
        return [
            Unfinished(
                number=number,
                title=titles[number][0] if number in titles else "a change whose record was damaged",
                failed=number in titles and titles[number][1],
                steps=tuple(
                    StepIntent(kind=kind, target=target, before=before, after=after)
                    for change, kind, target, before, after in of_steps
                    if change == number
                ),
                rules=tuple(of_rules.get(number, ())),
            )
            for number in numbers
        ]

    def begin(
        self,
        title: str,
        before: Sequence[RuleRecord],
        after: Sequence[RuleRecord],
        steps: Sequence[StepIntent],
    ) -> int:
        """Record what is about to change, for good, and return the number of the change."""
        nic = self._side
        with self._transaction() as db:
            self._advance(db)
            number = db.execute("INSERT INTO changes (nic, title) VALUES (?, ?)", (nic, title)).lastrowid
            assert number is not None
            self._log.begin(db, number, before, after)
            # What an earlier change failed to take back is settled by a later change of the same thing.
            db.executemany(
                "DELETE FROM steps WHERE nic = ? AND kind = ? AND target = ?",
                ((nic, step.kind, step.target) for step in steps),
            )
            db.executemany(
                "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    (number, seq, nic, step.kind, step.target, step.before, step.after)
                    for seq, step in enumerate(steps)
                ),
            )
        return number

    def finish(
        self, number: int, moved: Sequence[RuleRecord] = (), dropped: Sequence[uuid.UUID] = ()
    ) -> None:
        """Record that a change is done, and forget its intents."""
        with self._transaction() as db:
            self._log.finish(db, number, moved, dropped)
            self._forget(db, number)

    def abort(
        self,
        number: int,
        moved: Sequence[RuleRecord] = (),
        stuck_rules: Collection[uuid.UUID] = (),
        stuck_steps: Collection[str] = (),
    ) -> None:
        """Record that a change was taken back, but for what is stuck."""
        with self._transaction() as db:
            self._log.abort(db, number, moved, stuck_rules)
            if not stuck_rules and not stuck_steps:
                self._forget(db, number)
                return
            marks = ", ".join("?" * len(stuck_steps))
            db.execute(
                f"DELETE FROM steps WHERE change = ? AND target NOT IN ({marks})",  # noqa: S608 - question marks only
                (number, *stuck_steps),
            )
            db.execute("UPDATE changes SET failed = 1 WHERE number = ?", (number,))
            self._advance(db)

    def replace_rules(self, records: Sequence[RuleRecord]) -> None:
        """Make these the rules that are ours: what adoption found."""
        with self._transaction() as db:
            self._advance(db)
            self._log.replace(db, records)

    def update_leases(self, change: Callable[[dict[int, LeaseRow]], T]) -> T:
        """Let `change` edit the leases, in one IMMEDIATE transaction."""
        with self._transaction() as db:
            rows = self._lease_rows(db)
            answer = change(rows)
            db.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (self._nic, vf, row.owner, row.epoch, row.expires_at_s, int(row.dirty))
                    for vf, row in rows.items()
                ),
            )
        return answer

    def leases(self) -> Mapping[int, LeaseRow]:
        """Return the leases, by VF index."""
        with self._reading() as db:
            return self._lease_rows(db)

    def close(self) -> None:
        """Let go of the file. Repeatable."""
        if self._db is not None:
            # The last to close empties the write-ahead log; a journal that can't is as good as before.
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None
            self._lock.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self._db is None:
            raise JournalError("the NIC is closed", device=self._nic)
        try:
            yield self._db
        except sqlite3.Error as cause:
            raise self._translated(cause) from cause

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _translated(self, cause: sqlite3.Error) -> DeviceBusyError | JournalError:
        if isinstance(cause, sqlite3.OperationalError) and "locked" in str(cause):
            return DeviceBusyError(
                f"another process holds the journal {self._path}", device=self._nic, hint="try again later"
            )
        return JournalError(
            f"can't use the journal {self._path}: {cause}",
            device=self._nic,
            hint="open the NIC again: a damaged journal is put aside and what it holds is saved",
        )

    def _forget(self, db: sqlite3.Connection, number: int) -> None:
        db.execute("DELETE FROM steps WHERE change = ?", (number,))
        db.execute("DELETE FROM changes WHERE number = ?", (number,))
        self._advance(db)

    def _advance(self, db: sqlite3.Connection) -> None:
        db.execute(
            "INSERT INTO nics (nic, generation) VALUES (?, 1)"
            " ON CONFLICT (nic) DO UPDATE SET generation = generation + 1",
            (self._nic,),
        )

    def _lease_rows(self, db: sqlite3.Connection) -> dict[int, LeaseRow]:
        rows = db.execute(
            "SELECT vf, owner, epoch, expires_at_s, dirty FROM leases WHERE nic = ?", (self._nic,)
        )
        return {
            int(vf): LeaseRow(
                owner=str(owner), epoch=int(epoch), expires_at_s=float(expires), dirty=bool(dirty)
            )
            for vf, owner, epoch, expires, dirty in rows
        }
