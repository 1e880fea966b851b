"""`open_nic`: from a name to a NIC whose rules are accounted for."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nicoffload.driver.contract import Driver
    from nicoffload.nic.facade import Nic
    from nicoffload.nic.journal import Journal
    from nicoffload.nic.values import Recovery
    from nicoffload.registry import Registry

STATE_DIR = "NICOFFLOAD_STATE_DIR"
"""Environment variable that names the folder of the journal."""


def open_nic(
    name: str,
    *,
    registry: Registry | None = None,
    state_dir: Path | None = None,
    owner: str = "",
    wall_clock_s: Callable[[], float] = time.time,
    monotonic_s: Callable[[], float] = time.monotonic,
    sleep_s: Callable[[float], None] = time.sleep,
    lock_timeout_s: float = 10.0,
) -> Nic:
    """Open a NIC. What an earlier process left half done is finished or taken back first; `Nic.recovery` tells.

    Args:
        name: PCI address (``0000:03:00.0``), interface name, or ``mock:FAMILY``.
        registry: The plugins; None for those that are installed.
        state_dir: Folder of the journal; None for NICOFFLOAD_STATE_DIR, /var/lib/nicoffload for root, and
            $XDG_STATE_HOME/nicoffload for others. A NIC that dies with the process needs none.
        owner: Who we are, for those who have to wait for us.
        wall_clock_s: Seconds since the epoch.
        monotonic_s: Seconds since some moment, for measuring how long a device takes.
        sleep_s: Waits that many seconds, while the NIC or another process is busy.
        lock_timeout_s: How long to wait for another process that changes the NIC, in seconds.

    Raises:
        NotFoundError: There is no such NIC.
        DeviceBusyError: Another process is changing it and does not finish.
        AccessDeniedError: The folder of the journal may not be written.
        JournalError: The journal can't be made, or a newer release wrote it.
    """
    # Loaded here, so that naming this function costs a program nothing before it opens a NIC.
    from nicoffload.nic.facade import Nic  # noqa: PLC0415
    from nicoffload.nic.retry import Retry  # noqa: PLC0415
    from nicoffload.registry import load_registry  # noqa: PLC0415

    driver = (registry or load_registry()).open(
        name, wall_clock_s=wall_clock_s, monotonic_s=monotonic_s, sleep_s=sleep_s
    )
    try:
        journal, recovery = _journal(driver, name, state_dir, owner, sleep_s, lock_timeout_s)
        try:
            return Nic(
                name,
                driver,
                journal,
                retry=Retry(sleep_s=sleep_s),
                wall_clock_s=wall_clock_s,
                recovery=recovery,
            )
        except BaseException:
            journal.close()
            raise
    except BaseException:
        driver.close()
        raise


def default_state_dir() -> Path:
    """Return the folder of the journal where nobody names one."""
    named = os.environ.get(STATE_DIR)
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/nicoffload")
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "nicoffload"


def _journal(
    driver: Driver,
    name: str,
    state_dir: Path | None,
    owner: str,
    sleep_s: Callable[[float], None],
    lock_timeout_s: float,
) -> tuple[Journal, Recovery]:
    from nicoffload.nic.journal import MemoryJournal  # noqa: PLC0415
    from nicoffload.nic.values import Recovery  # noqa: PLC0415

    if not driver.persistent:
        return MemoryJournal(), Recovery()
    # SQLite is loaded only for a NIC that outlives the process.
    from nicoffload.nic.lock import FileLock  # noqa: PLC0415
    from nicoffload.nic.salvage import open_file  # noqa: PLC0415
    from nicoffload.nic.sqlite_journal import SqliteJournal  # noqa: PLC0415

    folder = default_state_dir() if state_dir is None else Path(state_dir)
    path = folder / "journal.sqlite"
    opened = open_file(path, sleep_s=sleep_s)
    identity = driver.identity()
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    lock = FileLock(
        folder / f"nic-{digest}.lock", holder=owner, device=name, timeout_s=lock_timeout_s, sleep_s=sleep_s
    )
    journal = SqliteJournal(opened.connection, path, identity, lock, port=driver.port())
    return journal, Recovery(damaged=opened.damaged, salvaged=opened.salvaged)
