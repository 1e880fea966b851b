"""The nic layer on the emulated NIC, profile by profile: nothing that holds for the fake NIC is an accident of it."""

from __future__ import annotations

import os
import signal

import pytest

from nicoffload import load_registry, open_nic
from nicoffload.compiler import Refusal
from nicoffload.errors import NotSupportedError
from nicoffload.model import Drop, FlowRule, Match, ToQueue, ToVf

REGISTRY = load_registry()
FAMILIES = list(REGISTRY.profiles.families())


@pytest.fixture
def open_mock(tmp_path, sleeper):
    opened = []

    def opener(name):
        nic = open_nic(name, registry=REGISTRY, state_dir=tmp_path / "state", sleep_s=sleeper)
        opened.append(nic)
        return nic

    yield opener
    for nic in opened:
        nic.close()


def candidates(number):
    """Rules of several kinds, of which every NIC with filters takes some."""
    five = {
        "ip_proto": 6,
        "ipv4_src": f"10.0.0.{number}",
        "ipv4_dst": "10.0.1.1",
        "tp_src": number,
        "tp_dst": 80,
    }
    matches = (
        Match.of(**five),
        Match.of(eth_type=0x0800, ip_proto=6, ipv4_dst=f"10.0.2.{number}", tp_dst=80),
        Match.of(eth_dst=0x020000000000 + number, vlan_vid=number),
        Match.of(eth_dst=0x020000000000 + number),
        Match.of(eth_type=0x88B5 + number),
    )
    # Queue 0 as well: an i350 with VFs has no other queue of the PF left.
    for action in (ToVf(vf=1), ToQueue(queue=1), ToQueue(queue=0), Drop()):
        for match in matches:
            yield FlowRule(match=match, actions=(action,))


def some_rules(nic, count):
    """Return rules of one kind that the NIC takes."""
    kind = next(
        (index for index, rule in enumerate(candidates(1)) if not isinstance(nic.check(rule), Refusal)),
        None,
    )
    return None if kind is None else [list(candidates(n))[kind] for n in range(1, count + 1)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kept", [False, True], ids=["memory", "file"])
def test_rules_go_in_and_come_out(open_mock, tmp_path, family, kept):
    name = f"mock:{family},state={tmp_path / 'nic'}" if kept else f"mock:{family}"
    nic = open_mock(name)
    try:
        rules = some_rules(nic, 3)
    except NotSupportedError:
        assert not nic.profile.tables
        return
    assert rules is not None, "no table of this NIC takes any of the common rules"
    report = nic.add_flows(rules)
    assert [each.rule for each in report.installed] == rules
    assert sum(each.ours for each in nic.flows()) == 3
    if kept:
        nic.close()
        nic = open_mock(name)
        assert nic.recovery.clean
        assert sum(each.ours for each in nic.flows()) == 3
    assert len(nic.remove_flows([rule.rule_id for rule in rules])) == 3
    assert not any(each.ours for each in nic.flows())


@pytest.mark.parametrize("family", ["sfn5122f", "mlx5", "ixgbe"])
def test_killed_between_the_calls(open_mock, tmp_path, family):
    name = f"mock:{family},state={tmp_path / 'nic'}"
    nic = open_mock(name)
    rules = some_rules(nic, 8)
    nic.add_flows(rules[:3])
    nic.close()
    for call in ("create_many", "destroy_many", "dump", "read_counters"):
        for after in (False, True):
            child = os.fork()
            if child == 0:
                _die(name, tmp_path, rules, call, after=after)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
            nic = open_mock(name)
            assert nic.recovery.problems == ()
            assert nic.recovery.unaccounted == ()
            ours = {each.rule.rule_id for each in nic.flows() if each.ours}
            assert ours in ({rule.rule_id for rule in rules[:3]}, {rule.rule_id for rule in rules[3:]}), call
            nic.remove_flows(ours)
            nic.add_flows(rules[:3])
            nic.close()


def _die(name, tmp_path, rules, call, *, after):
    """Replace three rules by five, and be killed at a call of the driver."""
    try:
        nic = open_nic(name, registry=REGISTRY, state_dir=tmp_path / "state")
        filters = nic._driver.flow_filters
        original = getattr(filters, call)

        def wrapped(*args):
            if not after:
                os.kill(os.getpid(), signal.SIGKILL)
            original(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        from nicoffload.nic import DesiredState

        plan = nic.plan(DesiredState(flows=tuple(rules[3:]), exact=True))
        setattr(filters, call, wrapped)
        nic.apply(plan)
        nic.remove_flows([rule.rule_id for rule in rules[3:]])
    finally:
        os._exit(1)
