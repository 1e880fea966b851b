"""The writer's lock: one process at a time changes a NIC. The kernel frees it when its holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nicoffload.errors import AccessDeniedError, DeviceBusyError, JournalError

_POLL_S = 0.01


class FileLock:
    """An advisory lock on a file beside the journal, in which the holder writes who it is.

    Args:
        path: The file; it is made when it is not there, and never removed.
        holder: Who we are, for the error that others get.
        device: The NIC, for errors.
        timeout_s: How long to wait for another holder.
        sleep_s: Waits that many seconds.
    """

    def __init__(
        self, path: Path, *, holder: str, device: str, timeout_s: float, sleep_s: Callable[[float], None]
    ) -> None:
        self._path = path
        self._holder = f"{holder or 'a process'} (pid {os.getpid()})"
        self._device = device
        self._timeout_s = timeout_s
        self._sleep_s = sleep_s
        self._depth = 0
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as cause:
            raise AccessDeniedError(
                f"may not write {path}", device=device, hint="run as root, or set NICOFFLOAD_STATE_DIR"
            ) from cause
        except OSError as cause:
            raise JournalError(f"can't make {path}: {cause.strerror}", device=device) from cause

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the lock; whoever holds it already may take it again.

        Raises:
            DeviceBusyError: Another holds it for longer than the timeout.
        """
        if self._depth == 0:
            self._take()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file. Repeatable."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take(self) -> None:
        if self._fd < 0:
            raise JournalError("the NIC is closed", device=self._device)
        waited_s = 0.0
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as cause:
                if cause.errno not in (errno.EAGAIN, errno.EACCES):
                    raise JournalError(
                        f"can't lock {self._path}: {cause.strerror}", device=self._device
                    ) from cause
                if waited_s >= self._timeout_s:
                    raise DeviceBusyError(
                        f"{self._read_holder()} is changing it and did not finish within {self._timeout_s:g} s",
                        device=self._device,
                        hint="try again later",
                    ) from cause
                self._sleep_s(_POLL_S)
                waited_s += _POLL_S
            else:
                self._write_holder()
                return

    def _write_holder(self) -> None:
        # A name that can't be written costs others a name in a message, and nothing else.
        with suppress(OSError):
            text = self._holder.encode()
            os.pwrite(self._fd, text, 0)
            os.ftruncate(self._fd, len(text))

    def _read_holder(self) -> str:
        try:
            return os.pread(self._fd, 512, 0).decode(errors="replace") or "another process"
        except OSError:
            return "another process"
