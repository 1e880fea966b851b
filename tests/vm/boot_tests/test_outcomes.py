"""What a guest did is what the rig reports: success, failure, silence, panic, and the reports it wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.vm.rig.boot import boot
from tests.vm.rig.layout import UML
from tests.vm.rig.session import pytest_command
from tests.vm.rig.verdict import NO_STATUS, judge

ONE_OF_TWO_FAILS = """
import os
def test_good(): assert os.environ["NICOFFLOAD_VM"] == "uml"
def test_bad(): assert False
"""


def run(kernel, out, command, guest=UML):
    return boot(guest, kernel, command, out, time_limit_s=300, show=False)


def test_a_failing_test_is_reported_with_its_junit(uml_kernel, out):
    (out / "test_two.py").write_text(ONE_OF_TWO_FAILS, "utf-8")
    ended = run(uml_kernel, out, pytest_command(UML, Path("/run/out/test_two.py")))
    assert ended.status == 1, ended.console.read_text("utf-8", "replace")
    verdict = judge(UML, ended, out / "junit.xml")
    assert verdict.status == 1
    assert "FAILED: 2 tests, 1 failed" in verdict.text
    assert UML.level in (out / "junit.xml").read_text("utf-8")


def test_tests_that_pass_are_a_pass_with_coverage(uml_kernel, out):
    text = "import nicoffload.errors\n" + ONE_OF_TWO_FAILS.replace("assert False", "assert nicoffload.errors")
    (out / "test_two.py").write_text(text, "utf-8")
    ended = run(uml_kernel, out, pytest_command(UML, Path("/run/out/test_two.py")))
    verdict = judge(UML, ended, out / "junit.xml")
    assert verdict.status == 0, ended.console.read_text("utf-8", "replace")
    assert "passed: 2 tests, 0 failed" in verdict.text
    assert (out / "coverage.data").stat().st_size > 0


def test_success_without_a_report_is_none(uml_kernel, out):
    ended = run(uml_kernel, out, ["true"])
    assert ended.status == 0
    assert judge(UML, ended, out / "junit.xml").status == NO_STATUS


def test_a_process_left_behind_does_not_keep_the_guest(uml_kernel, out):
    assert run(uml_kernel, out, ["sh", "-c", "sleep 1000 & exit 3"]).status == 3


def test_a_guest_that_goes_off_early_is_no_success(uml_kernel, out):
    ended = run(uml_kernel, out, ["/run/busybox", "poweroff", "-f"])
    assert ended.status is None
    assert not ended.timed_out
    assert judge(UML, ended, out / "junit.xml").status == NO_STATUS


def test_a_kernel_that_panics_is_no_success(uml_kernel, out):
    eat_all_memory = ["sh", "-c", "echo 2 > /proc/sys/vm/panic_on_oom; exec tail /dev/zero"]
    ended = run(uml_kernel, out, eat_all_memory, guest=replace(UML, memory_mb=64))
    assert "panic" in ended.console.read_text("utf-8", "replace").lower()
    assert ended.status is None
    assert judge(UML, ended, out / "junit.xml").status == NO_STATUS
