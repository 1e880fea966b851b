"""The flower figures of the bench alone, measured in user-mode Linux without the tests: for `make bench`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from tests.vm.rig.boot import boot
from tests.vm.rig.layout import CHECKOUT, RESULTS, UML, RigError
from tests.vm.rig.session import new_results_folder

FOLDER = "figures"
FILES = {"flower.json": "", "rss.json": "rss"}
"""What the guest leaves, and the word that makes the bench measure it; the guest's tests leave the same."""


def measure(kernel: Path, *, time_limit_s: float | None = None) -> Path:
    """Measure in the guest, and return the folder with the figures, build/vm/figures.

    Args:
        kernel: Folder of user-mode Linux.
        time_limit_s: The guest's own if None.

    Raises:
        RigError: The guest did not bring them back.
    """
    out, results = new_results_folder(FOLDER), RESULTS / FOLDER
    script = os.path.relpath(CHECKOUT / "tests/bench/kernel.py", CHECKOUT)
    lines = [
        f"{shlex.join([sys.executable, script, *([word] if word else [])])} > /run/out/{file}"
        for file, word in FILES.items()
    ]
    try:
        ended = boot(
            UML,
            kernel,
            ["sh", "-ec", "\n".join(lines)],
            out,
            time_limit_s=time_limit_s or UML.time_limit_s,
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        )
    finally:
        shutil.rmtree(results, ignore_errors=True)
        out.rename(results)
    if ended.status != 0:
        why = "its time was up" if ended.timed_out else f"status {ended.status}"
        raise RigError(f"the guest brought no figures back: {why}, see {results / ended.console.name}")
    return results
