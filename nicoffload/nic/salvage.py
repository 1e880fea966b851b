"""Opens the journal file; one that is damaged is kept beside, and what can be read of it goes into a new one."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nicoffload.errors import AccessDeniedError, JournalError
from nicoffload.nic import old_journal
from nicoffload.nic.blocks import check
from nicoffload.nic.lock import FileLock
from nicoffload.nic.sqlite_journal import COLUMNS, SCHEMA, SCHEMA_VERSION

_BUSY_TIMEOUT_S = 30.0
_ROWS = 1
"""The version that had a row for each rule."""
_WAL_HEADER, _FRAME_HEADER = 32, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A journal file, open.

    Args:
        connection: To a file that is sound.
        damaged: Where the damaged one was put; empty where it was sound.
        salvaged: How many rows of it could be read.
    """

    connection: sqlite3.Connection
    damaged: tuple[Path, ...] = ()
    salvaged: int = 0


class _DamagedError(Exception):
    """The file is not a journal that can be worked with."""


def open_file(path: Path, *, sleep_s: Callable[[float], None]) -> Opened:
    """Open the journal, making or mending it as needed.

    Args:
        path: The file; its folder is made where it is missing.
        sleep_s: Waits that many seconds.

    Raises:
        AccessDeniedError: The folder or the file may not be written.
        JournalError: The folder can't be made, or a newer release wrote the journal.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except PermissionError as cause:
        raise _denied(path.parent) from cause
    except OSError as cause:
        raise JournalError(f"can't make the folder {path.parent}: {cause.strerror}") from cause
    # Two processes that find the damage at one time must not both put the file aside.
    lock = FileLock(
        path.with_suffix(".lock"), holder="", device="", timeout_s=_BUSY_TIMEOUT_S, sleep_s=sleep_s
    )
    with closing(lock), lock():
        return _open_or_mend(path)


def _open_or_mend(path: Path) -> Opened:
    cut = _has_cut_log(path)
    kept = (_put_beside(path, shutil.copyfile),) if cut else ()
    try:
        return Opened(connection=_checked(path), damaged=kept)
    except _DamagedError:
        beside = _put_beside(path, Path.rename)
        connection = _connect(path)
        _create(connection)
        return Opened(connection=connection, damaged=(beside,), salvaged=_salvage(beside, connection))


def _denied(path: Path) -> AccessDeniedError:
    return AccessDeniedError(f"may not write {path}", hint="run as root, or set NICOFFLOAD_STATE_DIR")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def _checked(path: Path) -> sqlite3.Connection:
    log = _beside(path, "-wal")
    new = not path.exists() and not log.exists()
    if not new and (not path.exists() or path.stat().st_size == 0):
        raise _DamagedError  # SQLite would take it for a new file, and throw the log away
    try:
        connection = _connect(path)
    except sqlite3.Error as cause:
        raise _denied(path) from cause
    try:
        if new:
            _create(connection)
        else:
            _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    try:
        connection.execute("PRAGMA synchronous = FULL")
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        written_by = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        sound = verdict is not None and verdict[0] == "ok" and written_by is not None
        if sound and version == _ROWS and written_by[0] == str(_ROWS):
            old_journal.upgrade(connection, SCHEMA_VERSION)
            version, written_by = SCHEMA_VERSION, (str(SCHEMA_VERSION),)
        for table, columns in COLUMNS.items():
            connection.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 1").fetchone()  # noqa: S608 - constants
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    except sqlite3.OperationalError as cause:
        if "readonly" in str(cause) or "unable to open" in str(cause):
            raise _denied(path) from cause
        if "locked" in str(cause):
            raise JournalError(f"another process holds the journal {path}", hint="try again later") from cause
        raise _DamagedError from cause
    except (sqlite3.Error, ValueError, OverflowError) as cause:
        raise _DamagedError from cause
    if not sound or str(version) != written_by[0]:
        raise _DamagedError
    if version != SCHEMA_VERSION:
        raise JournalError(
            f"{path} was written by another release (version {version}; this one knows {SCHEMA_VERSION})",
            hint="use that release, or another NICOFFLOAD_STATE_DIR",
        )


def _create(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA}")
        connection.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except sqlite3.Error as cause:
        raise JournalError(
            f"can't make a journal: {cause}", hint="look at the disk, or set NICOFFLOAD_STATE_DIR"
        ) from cause


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _has_cut_log(path: Path) -> bool:
    """Tell whether the write-ahead log ends within a frame, so that records may be lost although the rest is sound."""
    log = _beside(path, "-wal")
    try:
        size = log.stat().st_size
        with log.open("rb") as file:
            header = file.read(_WAL_HEADER)
    except FileNotFoundError:
        return False
    page = int.from_bytes(header[8:12], "big")
    return size > 0 and (
        len(header) < _WAL_HEADER or (size - _WAL_HEADER) % (_FRAME_HEADER + max(page, 1)) != 0
    )


def _put_beside(path: Path, move: Callable[[Path, Path], Any]) -> Path:
    number = 1
    while any(path.parent.glob(f"{path.name}.damaged-{number}*")):
        number += 1
    beside = _beside(path, f".damaged-{number}")
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            move(_beside(path, suffix), _beside(beside, suffix))
    # The shared-memory file is SQLite's index of the log, made anew from it. It must not outlive its log; for a copy
    # it stays, as others may be using it.
    if move is Path.rename:
        _beside(path, "-shm").unlink(missing_ok=True)
    return beside


def _salvage(beside: Path, target: sqlite3.Connection) -> int:
    """Copy what can be read, and leave the damaged file as it was found: SQLite writes to what it opens."""
    with tempfile.TemporaryDirectory(dir=beside.parent) as folder:
        copy = Path(folder) / "journal"
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(_beside(beside, suffix), _beside(copy, suffix))
        if not copy.exists():
            return 0
        with closing(_connect(copy)) as source:
            source.text_factory = lambda raw: raw.decode(errors="replace")
            saved = sum(_copy_table(source, target, table) for table in COLUMNS)
            rows = list(_readable(source, "rules", old_journal.COLUMNS))
            if rows:
                target.execute("BEGIN IMMEDIATE")
                saved += old_journal.take_over(target, rows)
                target.execute("COMMIT")
            return saved


def _copy_table(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> int:
    columns = COLUMNS[table]
    marks = ", ".join("?" * len(columns))
    insert = f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - constants
    rows = list(dict.fromkeys(_readable(source, table, columns)))
    saved = 0
    target.execute("BEGIN IMMEDIATE")
    for row in rows:
        # A row that breaks a constraint was damaged.
        with suppress(sqlite3.Error, OverflowError, JournalError):
            records = check(row[-1])[0] if table == "blocks" else 1
            target.execute(insert, row)
            saved += records
    target.execute("COMMIT")
    return saved


def _readable(source: sqlite3.Connection, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows that can be read, from both ends: one broken page then costs no more than itself."""
    for order in ("ASC", "DESC"):
        query = f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED ORDER BY rowid {order}"  # noqa: S608 - constants
        with suppress(sqlite3.Error, OverflowError, ValueError):
            yield from source.execute(query)
