"""kill -9 at every step of a change: afterwards the NIC is in the old or the new state, no rule unaccounted for."""

from __future__ import annotations

import os
import signal
import traceback

import crash_scenario
import pytest
from fake_driver import FakeDriver, Faults, make_table

from nicoffload.model import RateLimit, VfConfig
from nicoffload.nic import DesiredState

KINDS = {
    "cookies": {"cookies": True},
    "slots": {"cookies": False},
    "driver": {"cookies": False, "tables": [make_table(picker="driver")]},
}


def run_child(folder, kind, where, number):
    """Run the change in a process of its own; tell whether it got through."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            crash_scenario.die(folder, kind, where, number)
            code = 0
        except BaseException:  # noqa: BLE001 - the child must never run on as a second pytest
            traceback.print_exc()
        os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["driver", "journal", "rule"])
def test_killed_at_every_step_of_an_apply(open_fake, tmp_path, kind, where, rule):
    survived = False
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        old, new = crash_scenario.prepare(folder, kind)
        survived = run_child(folder, kind, where, number)
        driver = FakeDriver(path=folder / "nic", **KINDS[kind])
        nic = open_fake(driver, state_dir=folder / "state")
        assert nic.recovery.problems == (), number
        assert nic.recovery.missing == (), number
        assert nic.recovery.changed == (), number
        state = crash_scenario.seen(nic)
        assert state in (old, new), f"killed at {where} {number}: neither old nor new"
        assert len(nic.recovery.unaccounted) == 1, "the rule of another is left alone"
        assert sum(not each.ours for each in nic.flows()) == 1
        if survived:
            assert state == new
            assert nic.recovery.clean
            break
        # What was cut off can be done, and leaves nothing behind.
        nic.apply(nic.plan(crash_scenario.desired()))
        assert crash_scenario.seen(nic) == new
        nic.close()
    assert survived, "the list of steps was not worked through"
    assert number >= 5


@pytest.mark.parametrize("kind", KINDS)
def test_killed_while_taking_back(open_fake, tmp_path, kind):
    """A second kill, while the first is being recovered from, changes nothing about the outcome."""
    for number in range(40):
        folder = tmp_path / str(number)
        folder.mkdir()
        old, new = crash_scenario.prepare(folder, kind)
        assert not run_child(folder, kind, "driver", 5)
        survived = run_child(folder, kind, "recovery", number)
        driver = FakeDriver(path=folder / "nic", **KINDS[kind])
        nic = open_fake(driver, state_dir=folder / "state")
        assert crash_scenario.seen(nic) in (old, new)
        assert nic.recovery.problems == ()
        nic.close()
        if survived:
            return
    pytest.fail("the list of steps was not worked through")


def test_a_plan_that_is_finished_is_empty(open_fake, tmp_path):
    crash_scenario.prepare(tmp_path, "cookies")
    nic = open_fake(FakeDriver(path=tmp_path / "nic"), state_dir=tmp_path / "state")
    nic.apply(nic.plan(crash_scenario.desired()))
    assert nic.plan(crash_scenario.desired()).steps == ()


def test_the_scenario_does_what_it_says(tmp_path, open_fake):
    old, new = crash_scenario.prepare(tmp_path, "cookies")
    assert old != new
    faults = Faults()
    nic = open_fake(FakeDriver(path=tmp_path / "nic", faults=faults), state_dir=tmp_path / "state")
    assert crash_scenario.seen(nic) == old
    nic.apply(nic.plan(crash_scenario.desired()))
    assert crash_scenario.seen(nic) == new
    assert set(faults.calls) >= {"create_many", "destroy_many", "configure_many", "set_many"}
    assert isinstance(crash_scenario.desired(), DesiredState)
    assert VfConfig(vf=1, trust=True) in crash_scenario.desired().vfs
    assert crash_scenario.desired().rates[1] == RateLimit(max_tx_bps=5_000_000)
