"""pytest in a guest: the command, and the folder its results end in."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.revision import code_revision
from tests.vm.rig.boot import boot
from tests.vm.rig.layout import CHECKOUT, GUEST_TESTS, RESULTS, Guest
from tests.vm.rig.verdict import Verdict, judge


def run_tests(
    guest: Guest, kernel: Path, vswitch: Path, *, expression: str = "", time_limit_s: float | None = None
) -> Verdict:
    """Run the guest's tests in it; leave junit.xml, coverage.data, console.log and the commit in build/vm/<guest>.

    Args:
        guest: Which guest.
        kernel: Folder of its kernel.
        vswitch: Folder that Open vSwitch is unpacked into.
        expression: Which tests, as for `pytest -k`; empty for all.
        time_limit_s: The guest's own if None.
    """
    out = new_results_folder(guest.name)
    (out / "commit").write_text(code_revision() + "\n", "utf-8")
    results = RESULTS / guest.name
    try:
        ended = boot(
            guest,
            kernel,
            pytest_command(guest, GUEST_TESTS / guest.name, GUEST_TESTS / "both", expression=expression),
            out,
            time_limit_s=time_limit_s or guest.time_limit_s,
            env={"NICOFFLOAD_OVS": str(vswitch), "PYTHONDONTWRITEBYTECODE": "1"},
        )
    finally:
        shutil.rmtree(results, ignore_errors=True)
        out.rename(results)
    ended = replace(ended, console=results / ended.console.name)
    return judge(guest, ended, results / "junit.xml")


def pytest_command(guest: Guest, *folders: Path, expression: str = "") -> list[str]:
    """Return the command that runs folders of tests in a guest, under coverage, with the host's interpreter."""
    command = [
        sys.executable,
        "-W",
        "ignore:Module nicoffload",
    ]  # a plugin that no test here imports is no fault
    command += ["-m", "coverage", "run", "--data-file=/run/out/coverage.data", "-m", "pytest"]
    command += [
        os.path.relpath(path, CHECKOUT) if path.is_relative_to(CHECKOUT) else str(path) for path in folders
    ]
    command += [
        "--junitxml=/run/out/junit.xml",
        "-o",
        f"junit_suite_name=nicoffload {guest.name}: {guest.level}",
    ]
    # The family that lets a test record figures of its own, with record_property.
    command += ["-o", "junit_family=xunit1", "-p", "no:cacheprovider", "--color=no"]
    return [*command, "-k", expression] if expression else command


def new_results_folder(name: str) -> Path:
    """Return a new empty folder, so that runs side by side don't meet."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=RESULTS))
    folder.chmod(0o755)
    return folder
