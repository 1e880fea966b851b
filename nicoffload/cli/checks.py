"""What ``nicoffload doctor`` looks at. Looking changes nothing."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from nicoffload.cli.session import Session, drives_live

_CAP_NET_ADMIN = 12
"""Bit of the capability, see capability.h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding.

    Args:
        name: What was looked at.
        status: ``ok``, ``warning`` or ``problem``.
        detail: What was found.
        cure: What would help; empty where all is well.
    """

    name: str
    status: str
    detail: str
    cure: str = ""


def run_checks(session: Session) -> Sequence[Check]:
    """Return every finding, in the order in which things depend on each other."""
    found = [_python(), *_libraries(), *_plugins(session), _rights()]
    folder = session.resolved_state_dir()
    state = _state_dir(folder)
    found.append(state)
    journal = folder / "journal.sqlite"
    if state.status != "problem" and journal.exists():
        found += check_journal(journal, now_s=time.time())
    return found


def _python() -> Check:
    return Check(name="python", status="ok", detail=".".join(map(str, sys.version_info[:3])))


def _libraries() -> Iterator[Check]:
    for requirement in requires("nicoffload") or ():
        plain, _, marker = requirement.partition(";")
        name = re.split(r"[^A-Za-z0-9._-]", plain.strip(), maxsplit=1)[0]
        if "extra ==" in marker:
            continue
        try:
            yield Check(name=name, status="ok", detail=version(name))
        except PackageNotFoundError:
            yield Check(
                name=name, status="problem", detail="not installed", cure=f"pip install '{plain.strip()}'"
            )


def _plugins(session: Session) -> Iterator[Check]:
    registry = session.registry()
    plugins = registry.check_profiles()
    if not plugins:
        yield Check(
            name="plugins",
            status="problem",
            detail="none is in use",
            cure="pip install nicoffload-mock, or the plugin of your NIC; see also NICOFFLOAD_PLUGINS",
        )
    elif not drives_live(registry):
        yield Check(
            name="live NICs", status="warning", detail="no plugin drives any here", cure="use mock:FAMILY"
        )
    for status in plugins:
        name = f"plugin {status.name}"
        if status.error is None:
            yield Check(
                name=name,
                status="ok",
                detail=f"{status.version}, {len(status.families)} families".lstrip(", "),
            )
        else:
            cure = status.error.hint or "report it to the plugin's author"
            yield Check(
                name=name, status="warning" if status.ok else "problem", detail=str(status.error), cure=cure
            )


def _rights() -> Check:
    if os.geteuid() == 0:
        return Check(name="rights", status="ok", detail="root")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        effective = int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16)
        if effective >> _CAP_NET_ADMIN & 1:
            return Check(name="rights", status="ok", detail="CAP_NET_ADMIN")
    return Check(
        name="rights",
        status="warning",
        detail="neither root nor CAP_NET_ADMIN: only emulated NICs can be changed",
        cure="run as root, or give the process CAP_NET_ADMIN",
    )


def _state_dir(folder: Path) -> Check:
    name = "state folder"
    # The nearest folder that exists decides whether the rest of the way can be made.
    present = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not present.is_dir():
        return Check(
            name=name, status="problem", detail=f"{present} is no folder", cure="choose another --state-dir"
        )
    if not os.access(present, os.W_OK | os.X_OK):
        return Check(
            name=name,
            status="problem",
            detail=f"{present} can't be written",
            cure="run as root, or choose a folder with --state-dir or NICOFFLOAD_STATE_DIR",
        )
    return Check(
        name=name, status="ok", detail=str(folder) if present == folder else f"{folder} (made when needed)"
    )


def check_journal(path: Path, *, now_s: float) -> Iterator[Check]:
    """Yield whether the journal is sound, whether a change was cut off, and whether leases have run out.

    Args:
        path: The SQLite file.
        now_s: Seconds since the epoch.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as journal:
            verdict = str(journal.execute("PRAGMA quick_check(1)").fetchone()[0])
            if verdict != "ok":
                yield _damaged(path, verdict)
                return
            changes = [row[0] for row in journal.execute("SELECT title FROM changes")]
            held = journal.execute(
                "SELECT nic, vf, owner, expires_at_s FROM leases WHERE owner != ''"
            ).fetchall()
    except sqlite3.Error as cause:
        yield _damaged(path, str(cause))
        return
    yield Check(name="journal", status="ok", detail=f"{path}: sound")
    if changes:
        yield Check(
            name="journal",
            status="warning",
            detail=f"{len(changes)} unfinished: {'; '.join(map(str, changes[:3]))}",
            cure="open the NIC (nicoffload flow list NIC): it finishes or undoes them",
        )
    for nic, vf, owner, expires_at_s in held:
        if expires_at_s <= now_s:
            yield Check(
                name="lease",
                status="warning",
                detail=f"{owner} held vf:{vf} of {nic}, and did not give it back in time",
                cure="nothing to do: the next lease takes it; or release it",
            )


def _damaged(path: Path, why: str) -> Check:
    cure = "open the NIC (nicoffload flow list NIC): the file is put aside and what it holds is saved"
    return Check(name="journal", status="problem", detail=f"{path}: {why}", cure=cure)
