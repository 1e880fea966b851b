"""Starts programs, in network namespaces where asked, and ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

POLL_S = 0.02
NICE = -10


class LabError(Exception):
    """What ends a run: one line that says what is wrong and what would help."""


def inside(netns: str, words: Sequence[str]) -> list[str]:
    """Return the command that runs a command in a network namespace; empty for where we are.

    Not `ip netns exec`: it gives the command mounts of its own as well, and a software NIC that is made behind them
    has a namespace that nobody else sees.
    """
    return ["nsenter", f"--net=/run/netns/{netns}", *words] if netns else list(words)


def run(
    *words: str, netns: str = "", timeout_s: float = 60, environment: Mapping[str, str] | None = None
) -> str:
    """Run a program to its end, and return what it printed.

    Raises:
        LabError: It can't be started, takes too long, or fails.
    """
    return _run(words, netns, timeout_s, environment)


def attempt(*words: str, netns: str = "", timeout_s: float = 60) -> bool:
    """Run a program that may fail; tell whether it did not."""
    try:
        _run(words, netns, timeout_s, None)
    except LabError:
        return False
    return True


def _run(words: Sequence[str], netns: str, timeout_s: float, environment: Mapping[str, str] | None) -> str:
    command = " ".join(words)
    try:
        done = subprocess.run(
            inside(netns, words),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C is ours to handle, in order
        )
    except FileNotFoundError as cause:
        raise LabError(f"{words[0]} is not installed") from cause
    except subprocess.TimeoutExpired as cause:
        raise LabError(f"`{command}` took longer than {timeout_s:.0f} s") from cause
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise LabError(f"`{command}` failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout


class Processes:
    """Programs that run beside us. A context manager: none outlives it."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(
        self,
        words: Sequence[str],
        netns: str = "",
        *,
        environment: Mapping[str, str] | None = None,
        out: int | IO[str] | None = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Start a program; `nsenter` becomes it, so that the process number is the program's."""
        process = subprocess.Popen(  # what it prints on its error stream comes with the rest
            inside(netns, words),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self._running.append(process)
        favour(process.pid)
        return process

    def stop(self) -> None:
        """End all that still run. Repeatable."""
        running, self._running = self._running, []
        for process in running:
            if process.poll() is None:
                process.kill()
        for process in running:
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


def favour(pid: int) -> None:
    """Let a process run before what else the machine does: if it waits for a core, it is measured as slower than it is.

    Two things decide, on most systems: its nice value, and that of its session (sched_autogroup, sched(7)).
    """
    os.setpriority(os.PRIO_PROCESS, pid, NICE)
    with contextlib.suppress(OSError):  # not there without autogroups
        Path(f"/proc/{pid}/autogroup").write_text(str(NICE), "ascii")


def output_of(process: subprocess.Popen[str], what: str, timeout_s: float, *, say: str = "") -> str:
    """Return what a program printed, once it has ended; its input gets a last word, and ends.

    Raises:
        LabError: It did not end in time, or failed.
    """
    try:
        text, _ = process.communicate(input=say, timeout=timeout_s)
    except subprocess.TimeoutExpired as cause:
        raise LabError(f"{what} did not end within {timeout_s:.0f} s") from cause
    if process.returncode:
        said = text.strip().splitlines()
        raise LabError(f"{what} failed: {said[-1] if said else f'exit code {process.returncode}'}")
    return text


def wait_for(is_so: Callable[[], bool], what: str, timeout_s: float = 10) -> None:
    """Wait until something is so.

    Raises:
        LabError: It is not so in time.
    """
    end_s = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > end_s:
            raise LabError(f"{what} within {timeout_s:.0f} s")
        time.sleep(POLL_S)


def kill(pids: Sequence[int], timeout_s: float = 5) -> None:
    """End processes, and wait until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(_runs(pid) for pid in pids), "a process that was killed did not end", timeout_s)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
