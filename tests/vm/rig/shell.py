"""Running other programs, so that a failure is one line and a log to read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.vm.rig.layout import RigError

# Programs of the administrator are not on every user's PATH.
PATH = os.pathsep.join(
    [os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
)


def say(message: str) -> None:
    """Tell the user one line."""
    print(f"test-vm: {message}", flush=True)


def find(program: str) -> str | None:
    """Return where a program is, also where only root looks; None if nowhere."""
    return shutil.which(program, path=PATH)


def run(
    argv: Sequence[str | Path],
    *,
    log: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program and return what it wrote; with a log, its errors and output go there instead.

    Args:
        argv: The program and its arguments.
        log: File that output and errors are appended to.
        cwd: Folder to run in.
        env: Variables to add to the environment.

    Raises:
        RigError: It can't be run, or its exit status is not 0.
    """
    words = [str(word) for word in argv]
    full_env = {**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8", **(env or {})}
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=full_env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if log is None else subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as fault:
        raise RigError(f"can't run {words[0]}: {fault.strerror}") from fault
    if log is not None:
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"$ {' '.join(words)}\n{done.stdout}")
    if done.returncode == 0:
        return done.stdout
    last_lines = (done.stdout if log is not None else done.stderr).strip().splitlines()[-15:]
    print("\n".join(last_lines), file=sys.stderr)
    where = f"; the whole is in {log}" if log is not None else ""
    raise RigError(f"{' '.join(words[:4])} … ended with status {done.returncode}{where}")
