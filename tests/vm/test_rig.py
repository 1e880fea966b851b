"""The rig's parts that need no guest; what guests do is in boot_tests, on which `make test-vm` starts."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vm.rig import needs
from tests.vm.rig.apt import Apt, backports_source
from tests.vm.rig.boot import Ended, boot
from tests.vm.rig.cache import Cache, key
from tests.vm.rig.layout import (
    BOOT_TESTS,
    GUEST_TESTS,
    GUESTS,
    KERNEL_INPUTS,
    QEMU,
    UML,
    RigError,
    for_command_line,
)
from tests.vm.rig.stock import uncompressed_kernel
from tests.vm.rig.user_mode import refuse_lost_options
from tests.vm.rig.verdict import NO_STATUS, NO_TESTS, TIMED_OUT, Verdict, judge, overall


def write_word(word):
    return lambda folder: (folder / "word").write_text(word, "utf-8")


def test_the_cache_builds_once_for_the_same_inputs_and_anew_for_others(tmp_path):
    cache = Cache(tmp_path / "cache")
    first = cache.entry("thing", ["1"], write_word("one"))
    assert cache.entry("thing", ["1"], write_word("never")) == first
    assert (first / "word").read_text("utf-8") == "one"
    assert (cache.entry("thing", ["2"], write_word("two")) / "word").read_text("utf-8") == "two"


def test_a_build_that_fails_leaves_nothing_behind(tmp_path):
    cache = Cache(tmp_path)

    def half(folder):
        write_word("half")(folder)
        raise RigError("stopped")

    with pytest.raises(RigError, match="stopped"):
        cache.entry("thing", ["1"], half)
    assert [path.name for path in tmp_path.iterdir()] == ["thing.lock"]
    assert (cache.entry("thing", ["1"], write_word("whole")) / "word").read_text("utf-8") == "whole"


def test_what_a_killed_build_left_is_removed(tmp_path):
    cache = Cache(tmp_path)
    for name in (".thing-abc-draft", ".other-abc-draft"):
        (tmp_path / name / "half").mkdir(parents=True)
    cache.entry("thing", ["1"], write_word("whole"))
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".other-abc-draft"]


def test_the_cache_forgets_what_nobody_used_for_a_month(tmp_path):
    cache = Cache(tmp_path)
    old = cache.entry("thing", ["old"], write_word("old"))
    other = cache.entry("other", ["old"], write_word("other"))
    for path in (old, other):
        os.utime(path, (0, 0))
    cache.entry("thing", ["new"], write_word("new"))
    assert not old.exists()
    assert other.exists()


def test_the_border_between_inputs_counts():
    assert key(["ab", "c"]) != key(["a", "bc"]) != key(["abc"])
    assert key(["ab"]) == key([b"ab"])


@pytest.mark.parametrize(
    ("os_release", "expected"),
    [
        ('ID=debian\nVERSION_CODENAME=bookworm\nVERSION_ID="12"\n', "bookworm-backports main\n"),
        ('PRETTY_NAME="x"\nVERSION_CODENAME="trixie"\nID="debian"\n', "trixie-backports main\n"),
        ("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n", ""),
        ("ID=debian\n", ""),
        ("", ""),
    ],
)
def test_backports_are_of_the_release_and_of_debian_only(os_release, expected):
    assert (
        backports_source(os_release)[-len(expected) :] == expected
        if expected
        else not backports_source(os_release)
    )


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\n", 10),
        ("version 7.2.19", 7),
        ("", 0),
    ],
)
def test_qemu_tells_its_version(text, major):
    assert needs.qemu_major(text) == major


def absent(package):
    return needs.Need(package=package, present=lambda: False)


def test_who_is_not_root_is_told_in_one_line_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    there = needs.Need(package="there", present=lambda: True)
    with pytest.raises(RigError) as refused:
        needs.provide([absent("flex"), there, absent("bison")], Apt(tmp_path))
    assert str(refused.value) == "missing: flex, bison; as root on Debian, make test-vm installs them"


def test_nothing_is_installed_where_nothing_is_missing(tmp_path):
    needs.provide([needs.Need(package="there", present=lambda: True)], Apt(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_each_guest_needs_its_own():
    uml, qemu = ({need.package for need in needs.needs_of([guest])} for guest in (UML, QEMU))
    assert "flex" in uml - qemu
    assert "qemu-system-x86" in qemu - uml
    assert uml | qemu == {need.package for need in needs.needs_of([UML, QEMU])}


def test_an_option_that_the_kernel_lost_is_named():
    refuse_lost_options("# text\nCONFIG_A=y\n", "CONFIG_B=y\nCONFIG_A=y\n")
    with pytest.raises(RigError, match="CONFIG_C=y, CONFIG_D=y"):
        refuse_lost_options("CONFIG_A=y\nCONFIG_D=y\nCONFIG_C=y\n", "CONFIG_A=y\n# CONFIG_C is not set\n")


@pytest.mark.skipif(shutil.which("xz") is None, reason="needs xz")
def test_the_image_inside_a_compressed_kernel_is_found_behind_what_only_looks_like_one():
    image = b"\x7fELF" + bytes(range(256)) * 50
    assert uncompressed_kernel(b"MZ" + b"\xfd7zXZ\0 no" + lzma.compress(image) + b"signature") == image
    with pytest.raises(RigError, match="no kernel image"):
        uncompressed_kernel(lzma.compress(b"something else"))


@pytest.mark.parametrize("name", ["with space", "com,ma", "quo'te"])
def test_a_path_that_a_command_line_would_take_apart_is_refused(tmp_path, name):
    with pytest.raises(RigError, match="move the checkout"):
        for_command_line(tmp_path / name)
    with pytest.raises(RigError, match="move the checkout"):
        boot(UML, tmp_path, ["true"], tmp_path / name, time_limit_s=1)


def test_user_mode_linux_without_room_for_its_memory_says_so(tmp_path):
    with pytest.raises(RigError, match="no 1000000000 MiB for a guest's memory"):
        boot(replace(UML, memory_mb=10**9), tmp_path, ["true"], tmp_path, time_limit_s=1)


def junit(folder, **counts):
    attributes = " ".join(f'{name}="{count}"' for name, count in counts.items())
    path = folder / "junit.xml"
    path.write_text(f"<testsuites><testsuite {attributes}/></testsuites>", "utf-8")
    return path


@pytest.mark.parametrize(
    ("status", "timed_out", "counts", "expected"),
    [
        (0, False, {"tests": 3, "failures": 0, "errors": 0, "skipped": 1}, 0),
        (1, False, {"tests": 3, "failures": 1, "errors": 0, "skipped": 0}, 1),
        (5, False, {"tests": 0}, NO_TESTS),
        (None, True, {"tests": 3}, TIMED_OUT),
        (0, True, {"tests": 3}, TIMED_OUT),
        (None, False, {"tests": 3}, NO_STATUS),
        (0, False, {"tests": 0}, NO_STATUS),
        (0, False, {"tests": 2, "skipped": 2}, NO_STATUS),
        (0, False, {"tests": 2, "errors": 1}, NO_STATUS),
        (0, False, None, NO_STATUS),
        (2, False, None, 2),
    ],
)
def test_only_a_report_with_tests_that_ran_is_a_pass(tmp_path, status, timed_out, counts, expected):
    report = junit(tmp_path, **counts) if counts is not None else tmp_path / "junit.xml"
    ended = Ended(status=status, timed_out=timed_out, elapsed_s=1.0, console=tmp_path / "console.log")
    verdict = judge(UML, ended, report)
    assert verdict.status == expected
    assert ("passed" in verdict.text) == (expected == 0)
    assert UML.level in verdict.text


def test_a_report_cut_short_is_no_pass(tmp_path):
    path = tmp_path / "junit.xml"
    path.write_text("<testsuites><testsuite tests='3'", "utf-8")
    ended = Ended(status=0, timed_out=False, elapsed_s=1.0, console=tmp_path / "console.log")
    assert judge(QEMU, ended, path).status == NO_STATUS


@pytest.mark.parametrize(
    ("statuses", "some_chosen", "expected"),
    [
        ([0, 0], False, 0),
        ([0, 1], False, 1),
        ([TIMED_OUT, 0], True, TIMED_OUT),
        ([0, NO_TESTS], True, 0),
        ([0, NO_TESTS], False, NO_TESTS),
        ([NO_TESTS, NO_TESTS], True, NO_TESTS),
        ([NO_TESTS, 1], True, 1),
    ],
)
def test_all_guests_count(statuses, some_chosen, expected):
    verdicts = [Verdict(guest=UML, status=status, text="") for status in statuses]
    assert overall(verdicts, some_chosen=some_chosen) == expected


def test_the_levels_of_a_pass_are_told_apart():
    levels = [guest.level for guest in GUESTS.values()]
    assert len(set(levels)) == len(levels)
    assert all("kernel" in level and ("simulated" in level or "emulated" in level) for level in levels)


def pytest_of(folder, repo_root, **env):
    clean = {
        name: text for name, text in os.environ.items() if not name.startswith(("NICOFFLOAD_", "PYTEST_"))
    }
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(
        command, cwd=repo_root, env={**clean, **env}, capture_output=True, text=True, check=False
    )


def test_on_the_host_guest_tests_are_neither_collected_nor_skipped(repo_root):
    done = pytest_of("tests/vm", repo_root)
    assert "test_rig.py" in done.stdout
    assert not any(
        word in done.stdout for word in (f"{GUEST_TESTS.name}/", f"{BOOT_TESTS.name}/", "skip budget")
    )
    assert done.returncode == 0


@pytest.mark.parametrize("guest", [*GUESTS, "other"])
def test_guest_tests_refuse_a_host_that_poses_as_a_guest(repo_root, guest):
    if "User Mode Linux" in Path("/proc/cpuinfo").read_text("utf-8"):
        pytest.fail("this test belongs on the host")
    done = pytest_of(GUEST_TESTS / "uml", repo_root, NICOFFLOAD_VM=guest)
    if guest == "qemu" and _in_qemu():
        return  # a host that is itself a machine of QEMU's can't be told from ours
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "make test-vm" in done.stderr


def _in_qemu():
    vendor = Path("/sys/class/dmi/id/sys_vendor")
    return vendor.exists() and "QEMU" in vendor.read_text("utf-8")


def test_the_howto_names_every_knob_of_the_flow_table(repo_root):
    patch = (KERNEL_INPUTS / "netdevsim-flow-table.patch").read_text("utf-8")
    knobs = {line.split('"')[1] for line in patch.splitlines() if line.startswith("+\tdebugfs_create_")} - {
        "flow"
    }
    howto = (repo_root / "docs/howto/run-tests-on-a-real-kernel.md").read_text("utf-8")
    assert {knob for knob in knobs if f"`{knob}`" not in howto} == set()
    assert "max" in knobs
