"""What a guest does is what the rig reports: success, failure, silence, a hang, and the reports it wrote.

Runs on the host, from `make test-vm`, which names the kernels that it has built.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vm.rig.boot import boot
from tests.vm.rig.layout import GUESTS, UML
from tests.vm.rig.session import new_results_folder, pytest_command
from tests.vm.rig.verdict import NO_STATUS, TIMED_OUT, judge

KERNELS = {
    guest: Path(os.environ[f"NICOFFLOAD_KERNEL_{guest.name.upper()}"])
    for guest in GUESTS.values()
    if f"NICOFFLOAD_KERNEL_{guest.name.upper()}" in os.environ
}
# What comes after a guest has written its files is the same for every kind, so one will do.
CHEAPEST = UML if UML in KERNELS else next(iter(KERNELS))

ONE_FAILS = """
import os
def test_good(): assert os.environ["NICOFFLOAD_VM"] == "{name}"
def test_bad(): assert False
"""


@pytest.fixture
def out():
    folder = new_results_folder("boot-test")
    yield folder
    shutil.rmtree(folder)


def test_a_failing_test_is_reported_with_its_junit(out):
    guest = CHEAPEST
    (out / "test_two.py").write_text(ONE_FAILS.format(name=guest.name), "utf-8")
    command = pytest_command(guest, Path("/run/out/test_two.py"))
    ended = boot(guest, KERNELS[guest], command, out, time_limit_s=300, show=False)
    assert ended.status == 1, ended.console.read_text("utf-8", "replace")
    verdict = judge(guest, ended, out / "junit.xml")
    assert verdict.status == 1
    assert "FAILED: 2 tests, 1 failed" in verdict.text
    assert guest.level in (out / "junit.xml").read_text("utf-8")


@pytest.mark.parametrize("status", [0, 7])
@pytest.mark.parametrize("guest", KERNELS, ids=lambda guest: guest.name)
def test_exit_status_and_files_come_back(guest, out, status):
    command = ["sh", "-c", f"echo $NICOFFLOAD_VM > /run/out/word; exit {status}"]
    ended = boot(guest, KERNELS[guest], command, out, time_limit_s=120, show=False)
    assert ended.status == status, ended.console.read_text("utf-8", "replace")
    assert not ended.timed_out
    assert (out / "word").read_text("utf-8") == f"{guest.name}\n"


def test_success_without_a_report_is_none(out):
    ended = boot(CHEAPEST, KERNELS[CHEAPEST], ["true"], out, time_limit_s=120, show=False)
    assert judge(CHEAPEST, ended, out / "junit.xml").status == NO_STATUS


@pytest.mark.parametrize("guest", KERNELS, ids=lambda guest: guest.name)
def test_a_hanging_guest_is_ended_with_all_its_processes(guest, out):
    ended = boot(guest, KERNELS[guest], ["sleep", "1000"], out, time_limit_s=8, show=False)
    assert ended.timed_out
    assert ended.elapsed_s < 20
    assert judge(guest, ended, out / "junit.xml").status == TIMED_OUT
    assert _processes_that_name(out) == []


def test_a_process_left_behind_does_not_keep_the_guest(out):
    ended = boot(
        CHEAPEST, KERNELS[CHEAPEST], ["sh", "-c", "sleep 1000 & exit 3"], out, time_limit_s=120, show=False
    )
    assert ended.status == 3


def test_a_guest_that_ends_early_is_no_success(out):
    off = ["/run/busybox", "poweroff", "-f"]
    ended = boot(CHEAPEST, KERNELS[CHEAPEST], off, out, time_limit_s=120, show=False)
    assert ended.status is None
    assert not ended.timed_out
    assert judge(CHEAPEST, ended, out / "junit.xml").status == NO_STATUS


def test_a_kernel_that_panics_is_no_success(out):
    starved = replace(CHEAPEST, memory_mb=16)
    ended = boot(starved, KERNELS[CHEAPEST], ["true"], out, time_limit_s=60, show=False)
    assert judge(CHEAPEST, ended, out / "junit.xml").status in (NO_STATUS, TIMED_OUT)


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
