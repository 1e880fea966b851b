"""The NIC in a file, one transaction an operation: a killed process leaves it as before the operation or as after."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nicoffload.errors import InvalidRequestError
from nicoffload.model import LinkState
from nicoffload.testing.emulator.bucket import Setting
from nicoffload.testing.emulator.rulefile import dump_rule, load_rule
from nicoffload.testing.emulator.vfs import Vf

if TYPE_CHECKING:
    from nicoffload.testing.emulator.device import Device
    from nicoffload.testing.emulator.entry import Entry

_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vf (number INTEGER PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY, tab TEXT NOT NULL, flow_type TEXT NOT NULL, slot INTEGER, line INTEGER,
    ghost INTEGER NOT NULL, counter INTEGER NOT NULL, rule TEXT NOT NULL,
    packets INTEGER NOT NULL, bytes INTEGER NOT NULL, last_ns INTEGER NOT NULL, epoch INTEGER NOT NULL
);
"""


class Store:
    """A state file.

    Args:
        path: Where it is; made when it is not there.
        family: Profile of the NIC.
        device: Name of the NIC in errors.

    Raises:
        InvalidRequestError: The file is something else, is damaged, holds a NIC of another family, or can't be opened.
    """

    def __init__(self, path: Path, family: str, device: str) -> None:
        self.path = path
        self._family = family
        self._device = device
        self._depth = 0
        self._version = -1
        self._base = -1
        try:
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as cause:
            raise self._error(
                f"can't be opened: {cause.strerror}", hint="name a file in a folder that exists"
            ) from cause
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as cause:
            os.close(self._lock)
            raise self._error(f"can't be opened: {cause}") from cause
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file. Repeatable."""
        if self._lock >= 0:
            self._db.close()
            os.close(self._lock)
            self._lock = -1

    @contextmanager
    def locked(self, device: Device) -> Iterator[None]:
        """Keep other processes out, take over what they changed, and write what this one changes."""
        if self._depth == 0:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._depth += 1
        try:
            with self._translated():
                self._refresh(device)
            yield
            with self._translated():
                self._flush(device)
        finally:
            self._depth -= 1
            if self._depth == 0:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def put_entry(self, device: Device, entry: Entry, replaced: Sequence[Entry]) -> None:
        """Write a new rule, and what became of those that it replaced."""
        with self._transaction():
            for gone in replaced:
                if gone.ghost:
                    self._db.execute("UPDATE entry SET ghost = 1 WHERE id = ?", (gone.entry_id,))
                else:
                    self._db.execute("DELETE FROM entry WHERE id = ?", (gone.entry_id,))
            rules, row = device.rules, entry.counter
            self._db.execute(
                "INSERT INTO entry VALUES (?, ?, ?, ?, ?, 0, ?, ?, 0, 0, -1, ?)",
                (
                    entry.entry_id,
                    entry.table,
                    entry.flow_type,
                    entry.slot,
                    entry.row,
                    row,
                    dump_rule(entry.rule),
                    int(rules.epoch[row]),
                ),
            )
            self._put("next_entry", entry.entry_id + 1)

    def drop_entry(self, entry: Entry) -> None:
        """Forget a rule."""
        with self._transaction():
            self._db.execute("DELETE FROM entry WHERE id = ?", (entry.entry_id,))

    def put_device(self, device: Device, changed: Iterable[Vf] | None) -> None:
        """Write VFs (None: all of them), mode, features, clock, counters of ports, and how far the faults are."""
        with self._transaction():
            if changed is None:
                self._db.execute("DELETE FROM vf")
            for vf in device.sriov.vfs if changed is None else changed:
                self._db.execute("INSERT OR REPLACE INTO vf VALUES (?, ?)", (vf.index, _dump_vf(vf)))
            self._put("device", _dump_device(device))

    def _prepare(self) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            with self._translated():
                self._db.execute("PRAGMA journal_mode = WAL")
                # The kernel keeps what a killed process has written; only a power cut needs more.
                self._db.execute("PRAGMA synchronous = OFF")
                names = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master")}
                if names and "meta" not in names:
                    raise self._error("is a database of something else")
                self._db.executescript(_SCHEMA)
                known = self._get("nic")
                if known is None:
                    with self._transaction():
                        self._put("nic", {"format": _FORMAT, "family": self._family})
                elif known != {"format": _FORMAT, "family": self._family}:
                    raise self._error(
                        f"holds a NIC of family {known.get('family')!r} (format {known.get('format')})"
                    )
                if self._db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                    raise self._error("is damaged")
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _refresh(self, device: Device) -> None:
        version = self._get("version") or 0
        if version == self._version:
            return
        self._version = version
        known = self._get("device")
        if known is None:
            self.put_device(device, None)
            return
        try:
            self._load(device, known)
        except (KeyError, ValueError, TypeError, IndexError) as cause:
            raise self._error(f"is damaged: {cause!r}") from cause

    def _load(self, device: Device, known: dict[str, Any]) -> None:
        vfs = [_load_vf(text) for (text,) in self._db.execute("SELECT value FROM vf ORDER BY number")]
        rows = self._db.execute("SELECT * FROM entry ORDER BY id").fetchall()
        device.load(known, vfs, self._get("next_entry") or 1)
        for entry_id, table, flow_type, slot, line, ghost, counter, rule, *counts in rows:
            device.rules.claim(counter, *counts)
            found = device.table(table)
            if found is None:
                raise KeyError(table)
            entry = found.revive(load_rule(rule), flow_type, slot)
            entry.entry_id, entry.row, entry.ghost, entry.counter = entry_id, line, bool(ghost), counter
            found.restore(entry)
        device.rules.settle({row[6] for row in rows})

    def _flush(self, device: Device) -> None:
        """Write what changes without a request of its own: counters, the clock, faults."""
        rules = device.rules
        touched = np.flatnonzero(rules.touched).tolist()
        text = json.dumps(_dump_device(device))
        if not touched and text == self._text("device"):
            return
        with self._transaction():
            self._db.executemany(
                "UPDATE entry SET packets = ?, bytes = ?, last_ns = ?, epoch = ? WHERE counter = ?",
                (
                    (
                        int(rules.packets[at]),
                        int(rules.bytes[at]),
                        int(rules.last_ns[at]),
                        int(rules.epoch[at]),
                        at,
                    )
                    for at in touched
                ),
            )
            rules.touched[touched] = False
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('device', ?)", (text,))
            for vf in device.sriov.vfs:
                self._db.execute("INSERT OR REPLACE INTO vf VALUES (?, ?)", (vf.index, _dump_vf(vf)))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._version += 1
            self._put("version", self._version)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _text(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def _get(self, key: str) -> Any:
        text = self._text(key)
        return None if text is None else json.loads(text)

    def _put(self, key: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, json.JSONDecodeError) as cause:
            raise self._error(f"can't be read or written: {cause}") from cause

    def _error(self, what: str, hint: str = "delete the file to start with a new NIC") -> InvalidRequestError:
        return InvalidRequestError(
            f"state file {self.path} {what}", path="state", device=self._device, hint=hint
        )


def _dump_device(device: Device) -> dict[str, Any]:
    return {
        "now_ns": device.now_ns,
        "mode": device.mode,
        "link": (device.link_bps, device.speed_bps),
        "features": device.features,
        "ports": device.ports.values.tolist(),
        "epoch": device.ports.epoch,
        "faults": device.faults.to_json(),
    }


def _dump_vf(vf: Vf) -> str:
    values = dataclasses.asdict(vf)
    values["link_state"] = vf.link_state.value
    return json.dumps(values)


def _load_vf(text: str) -> Vf:
    values = json.loads(text)
    values["link_state"] = LinkState(values["link_state"])
    for kind in ("min_tx", "max_tx"):
        values[kind] = Setting(**values[kind])
    return Vf(**values)
