"""Names of emulated NICs: every slip is told, with the cure."""

from __future__ import annotations

import pytest

from nicoffload.errors import InvalidRequestError, NotFoundError


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "names no family"),
        ("ixgbe,vfs", "key=value"),
        ("ixgbe,vfs=", "key=value"),
        ("ixgbe,vf=1", "did you mean vfs"),
        ("ixgbe,vfs=1,vfs=2", "stands twice"),
        ("ixgbe,vfs=-1", "whole number"),
        ("ixgbe,vfs=64", "at most 63"),
        ("ixgbe,seed=²", "whole number"),
        ("ixgbe,mode=switchdev", "no mode"),
        ("ixgbe,mode=other", "no value"),
        ("ixgbe,prepared=maybe", "no value"),
        ("ixgbe,rows.fdri=3", "no table 'fdri'"),
        ("ixgbe,rows.fdir=0", "whole number"),
        ("ixgbe,link_bps=0", "whole number"),
        ("ixgbe,faults=no-such-file", "No such file"),
    ],
)
def test_a_malformed_name(open_mock, name, told):
    with pytest.raises(InvalidRequestError) as caught:
        open_mock(name)
    assert told in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"faults": [], "faults": []}', "given twice"),
        ('{"faults": [{"effect": {"kind": "slow_vfs", "extra_s": Infinity}}]}', "no JSON"),
    ],
)
def test_a_fault_script_that_is_no_json(open_mock, tmp_path, text, told):
    (tmp_path / "faults").write_text(text)
    with pytest.raises(InvalidRequestError) as caught:
        open_mock(f"ixgbe,faults={tmp_path / 'faults'}")
    assert told in str(caught.value)


def test_an_unknown_family_is_answered_with_near_ones(open_mock):
    with pytest.raises(NotFoundError) as caught:
        open_mock("sfn5122")
    assert "sfn5122f" in caught.value.hint


def test_there_is_one_for_every_family(registry):
    found = {info.family for info in registry.devices() if info.emulated}
    assert found == set(registry.profiles.families())


def test_every_family_opens_in_each_state(registry):
    for family in registry.profiles.families():
        for options in ("", ",prepared=no"):
            driver = registry.open(f"mock:{family}{options}")
            assert driver.capabilities()
            assert driver.info.emulated
            driver.close()


def test_assumptions_show_in_the_capabilities(open_mock):
    details = {c.name: c.detail for c in open_mock("i40e").capabilities()}
    assert "assumed by the emulator" in details["flow_filters.fdir"]
    assert (
        "assumed by the emulator"
        not in {c.name: c.detail for c in open_mock("ixgbe").capabilities()}["flow_filters.fdir"]
    )
