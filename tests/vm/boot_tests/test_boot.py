"""A guest's files and exit status come back, and a guest that hangs is ended.

Runs on the host, from `make test-vm`, which names the kernels that it has built.
"""

from __future__ import annotations

from pathlib import Path

from tests.vm.rig.boot import boot
from tests.vm.rig.verdict import TIMED_OUT, judge


def test_exit_status_and_files_come_back(guest, kernel, out):
    command = ["sh", "-c", "echo $NICOFFLOAD_VM > /run/out/word; exit 7"]
    ended = boot(guest, kernel, command, out, time_limit_s=300, show=False)
    assert ended.status == 7, ended.console.read_text("utf-8", "replace")
    assert not ended.timed_out
    assert (out / "word").read_text("utf-8") == f"{guest.name}\n"


def test_a_hanging_guest_is_ended_with_all_its_processes(guest, kernel, out):
    ended = boot(guest, kernel, ["sleep", "1000"], out, time_limit_s=5, show=False)
    assert ended.timed_out
    assert ended.elapsed_s < 30
    assert judge(guest, ended, out / "junit.xml").status == TIMED_OUT
    assert _processes_that_name(out) == []


def _processes_that_name(folder: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(folder).encode() in line:
            found.append(line.decode("utf-8", "replace"))
    return found
