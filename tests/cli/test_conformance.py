"""`nicoffload conformance`."""

from __future__ import annotations

import pytest

from nicoffload.cli import conformance
from nicoffload.model import DeviceInfo
from nicoffload.testing.conformance import CATALOGUE


def test_a_report_for_people_and_one_for_machines(cli):
    out = cli.ok("conformance", "mock:ixgbe", "--only", "RT-05,st")
    assert "on an emulator: no kernel and no hardware took part" in out
    report = cli.json("conformance", "mock:ixgbe", "--only", "RT-05,st")
    assert report["ground"] == "emulator"
    assert report["ok"]
    assert report["counts"]["passed"] > 5


def test_the_list(cli):
    assert cli.ok("conformance", "--list").count("\n") == len(CATALOGUE) + 1
    document = cli.json("conformance", "--list", "--only", "FL-05")
    assert [each["number"] for each in document["behaviours"]] == ["FL-05"]


def test_what_is_not_shown_is_listed_with_its_reason(cli):
    out = cli.ok("conformance", "mock:igb_82576", "--only", "RT-01")
    assert out.startswith("not shown:\n  RT-01[max_tx]")
    assert "rates work at a link of" in out
    assert "1 not shown" in out


def test_a_nic_in_use_is_left_alone_unless_told(cli):
    nic = cli.nic("ixgbe", "vfs=2")
    answer = cli("conformance", nic, "--only", "VF-04")
    assert answer.code == 5
    assert "the NIC is in use: 2 VFs exist" in answer.err
    assert cli.ok("conformance", nic, "--only", "VF-04", "--disruptive")
    assert len(cli.json("vf", "list", nic)["vfs"]) == 2


def test_a_failure_that_is_expected_and_does_not_come_fails(cli):
    path = cli.folder / "expected.toml"
    path.write_text('[[failure]]\ncase = "VF-04"\nreason = "it is so"\n')
    answer = cli("conformance", "mock:ixgbe", "--only", "VF-04", "--expected", str(path))
    assert answer.code == 1
    assert "remove the entry" in answer.out
    report = cli.json("conformance", "mock:ixgbe", "--only", "VF-04", "--expected", str(path), code=1)
    assert report["cases"][0]["verdict"] == "stale"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["conformance"], 2, "no NIC is named"),
        (["conformance", "mock:ixgbe", "--only", "FL-99"], 2, "is no behaviour"),
        (["conformance", "mock:nothing"], 4, "no profile of a family"),
        (["conformance", "mock:ixgbe", "--expected", "missing.toml"], 2, "No such file"),
    ],
)
def test_slips(cli, words, code, said):
    answer = cli(*words)
    assert answer.code == code
    assert said in answer.err


@pytest.mark.parametrize(
    ("facts", "is_virtual", "ground"),
    [
        ({"plugin": "mock", "emulated": True}, False, "emulator"),
        ({"plugin": "softnic"}, False, "software"),
        ({"plugin": "generic", "driver": "netdevsim"}, False, "emulated_device"),
        ({"plugin": "intel", "driver": "igb"}, True, "emulated_device"),
        ({"plugin": "intel", "driver": "igb"}, False, "hardware"),
    ],
)
def test_the_ground_is_never_guessed_too_well(monkeypatch, facts, is_virtual, ground):
    monkeypatch.setattr(conformance, "_is_virtual_machine", lambda: is_virtual)
    info = DeviceInfo(name="nic", family="x", title="x", **facts)
    assert conformance._guessed_ground(info) == ground
