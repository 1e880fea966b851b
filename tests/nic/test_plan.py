"""Plans: shown without being carried out, carried out as one, and empty afterwards."""

from __future__ import annotations

import uuid

import pytest
from fake_driver import FakeDriver, make_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicoffload.errors import (
    ConflictError,
    InvalidRequestError,
    KernelError,
    NotFoundError,
    NotSupportedError,
    VerificationError,
)
from nicoffload.model import Disruption, Drop, FlowRule, Match, RateLimit, ToVf, VfConfig, VlanTag
from nicoffload.nic import DesiredState


@pytest.fixture(params=[False, True], ids=["memory", "file"])
def driver(request, tmp_path):
    return FakeDriver(path=tmp_path / "nic" if request.param else None)


def test_a_plan_shows_and_changes_nothing(open_fake, driver, rule):
    nic = open_fake(driver)
    old, stays = rule(1), rule(2)
    nic.add_flows([old, stays])
    driver.faults.calls.clear()
    changed = FlowRule(match=stays.match, actions=(ToVf(vf=1),), rule_id=stays.rule_id)
    desired = DesiredState(
        vfs=(VfConfig(vf=0, trust=True, spoof_check=True),),
        rates={2: RateLimit(max_tx_bps=7_000_000)},
        flows=(changed, rule(3)),
        exact=True,
    )
    plan = nic.plan(desired)
    assert [(step.action, step.target) for step in plan.steps] == [
        ("remove_flow", str(old.rule_id)),
        ("configure_vf", "vf:0"),
        ("set_rate", "vf:2"),
        ("replace_flow", str(stays.rule_id)),
        ("add_flow", str(desired.flows[1].rule_id)),
    ]
    assert plan.steps[1].detail == "trust on", "what is so already is no step"
    assert plan.disruption is Disruption.NONE
    assert driver.faults.calls == []
    told = []
    report = nic.apply(plan, progress=lambda *each: told.append(each))
    assert report.steps == plan.steps
    assert [each.rule for each in report.installed] == list(desired.flows)
    assert [done for done, _, _ in told] == [1, 2, 3, 4]
    assert {each.rule for each in nic.flows()} == set(desired.flows)
    assert nic.plan(desired).steps == ()
    assert nic.apply(nic.plan(desired)).steps == ()


def test_a_plan_that_is_out_of_date_is_not_carried_out(open_fake, driver, rule):
    nic = open_fake(driver)
    one = rule(1)
    plan = nic.plan(DesiredState(flows=(one,)))
    nic.add_flows([one])
    with pytest.raises(ConflictError, match="changed since the plan"):
        nic.apply(plan)


def test_what_fails_last_takes_back_what_was_done_first(open_fake, driver, rule):
    nic = open_fake(driver)
    old = rule(1)
    nic.add_flows([old])
    before = nic.vfs(), nic.rates()
    desired = DesiredState(
        vf_count=6,
        vfs=(VfConfig(vf=5, mac=0x020000000042),),
        rates={5: RateLimit(max_tx_bps=7_000_000)},
        flows=(rule(2, vf=5),),
        exact=True,
    )
    plan = nic.plan(desired)
    assert plan.disruption is Disruption.VF_RESET
    asked = []

    def item(name, index):
        asked.append(name)
        return KernelError("no") if name == "create" and asked.count("create") == 1 else None

    driver.faults.item = item
    with pytest.raises(KernelError):
        nic.apply(plan)
    assert (nic.vfs(), nic.rates()) == before
    assert [each.rule for each in nic.flows()] == [old]
    driver.faults.item = lambda name, index: None
    nic.apply(nic.plan(desired))
    assert len(nic.vfs()) == 6
    assert nic.vfs()[5].mac == 0x020000000042
    assert nic.plan(desired).steps == ()


def test_a_rule_under_another_id_counts_as_there(open_fake, driver, rule):
    nic = open_fake(driver)
    one = rule(1)
    nic.add_flows([one])
    same = FlowRule(match=one.match, actions=one.actions)
    assert nic.plan(DesiredState(flows=(same,), exact=True)).steps == ()


def test_without_exact_others_of_ours_stay(open_fake, driver, rule):
    nic = open_fake(driver)
    nic.add_flows([rule(1)])
    nic.apply(nic.plan(DesiredState(flows=(rule(2),))))
    assert len(nic.flows()) == 2
    assert nic.plan(DesiredState()).steps == ()
    nic.apply(nic.plan(DesiredState(exact=True)))
    assert nic.flows() == ()


@pytest.mark.parametrize(
    ("desired", "error", "path"),
    [
        (DesiredState(vf_count=65), InvalidRequestError, "/vf_count"),
        (DesiredState(vf_count=-1), InvalidRequestError, "/vf_count"),
        (DesiredState(vfs=(VfConfig(vf=4, trust=True),)), NotFoundError, "/vfs/0/vf"),
        (DesiredState(vf_count=2, vfs=(VfConfig(vf=2, trust=True),)), NotFoundError, "/vfs/0/vf"),
        (DesiredState(rates={9: RateLimit()}), NotFoundError, "/rates/9"),
    ],
)
def test_a_state_that_can_not_be(open_fake, driver, desired, error, path):
    nic = open_fake(driver)
    with pytest.raises(error) as caught:
        nic.plan(desired)
    assert caught.value.path == path


def test_a_rule_that_has_no_place(open_fake, driver, rule):
    with pytest.raises(NotSupportedError):
        open_fake(driver).plan(DesiredState(flows=(rule(1, vf=60),)))


def test_a_blocked_table_is_enabled_by_a_plan_and_never_by_an_add(open_fake, rule):
    driver = FakeDriver(tables=[make_table("off"), make_table("on", rows=1)], blocked=("off",))
    nic = open_fake(driver)
    one, two = rule(1), rule(2)
    plan = nic.plan(DesiredState(flows=(one,)))
    assert [step.action for step in plan.steps] == ["add_flow"], "a rule that has a place enables nothing"
    with pytest.raises(Exception, match=r"full|feature is off"):
        nic.add_flows([one, two])
    assert "enable_table" not in driver.faults.calls
    plan = nic.plan(DesiredState(flows=(one, two)))
    assert (plan.steps[0].action, plan.steps[0].target) == ("enable_table", "off")
    assert plan.disruption is Disruption.LINK_FLAP
    assert "feature is off" in plan.steps[0].detail
    nic.apply(plan)
    assert len(nic.flows()) == 2
    assert nic.plan(DesiredState(flows=(one, two))).steps == ()


def test_a_table_that_does_not_come_on_is_found(open_fake, rule):
    driver = FakeDriver(tables=[make_table("off")], blocked=("off",))
    nic = open_fake(driver)
    driver.faults.item = lambda name, index: "nothing" if name == "enable_table" else None
    with pytest.raises(VerificationError, match="still blocked"):
        nic.apply(nic.plan(DesiredState(flows=(rule(1),))))
    assert nic.flows() == ()


def test_each_step_says_the_shell_commands_that_the_driver_gives_for_it(open_fake, driver, monkeypatch):
    monkeypatch.setattr(FakeDriver, "equivalents_of_count", lambda self, count: [f"make {count}"])
    monkeypatch.setattr(
        FakeDriver, "equivalents_of_config", lambda self, config: [f"set {config.vf}", "more"]
    )
    monkeypatch.setattr(
        FakeDriver, "equivalents_of_rate", lambda self, vf, limit: [f"rate {vf} {limit.max_tx_bps}"]
    )
    nic = open_fake(driver)
    desired = DesiredState(
        vf_count=2,
        vfs=(VfConfig(vf=0, mac=0x020000000001, vlan=VlanTag(vid=5), trust=True),),
        rates={1: RateLimit(max_tx_bps=50_000_000)},
    )
    steps = {step.action: step.equivalents for step in nic.plan(desired).steps}
    assert steps == {
        "set_vf_count": ("make 2",),
        "configure_vf": ("set 0", "more"),
        "set_rate": ("rate 1 50000000",),
    }


def test_a_table_that_has_to_be_enabled_says_how_by_hand(open_fake, rule, monkeypatch):
    monkeypatch.setattr(FakeDriver, "equivalents_of_table", lambda self, name: [f"enable {name}"])
    nic = open_fake(FakeDriver(tables=[make_table("off")], blocked=("off",)))
    (step,) = [
        step for step in nic.plan(DesiredState(flows=(rule(1),))).steps if step.action == "enable_table"
    ]
    assert step.equivalents == ("enable off",)


def one_rule(port, vf, number):
    return FlowRule(
        match=Match.of(eth_type=0x0800, ip_proto=6, tp_dst=port),
        actions=(Drop() if vf is None else ToVf(vf=vf),),
        rule_id=uuid.UUID(int=number),
    )


def test_what_is_replaced_goes_by_hand_before_anything_comes(open_fake, driver, rule, monkeypatch):
    monkeypatch.setattr(
        FakeDriver, "equivalents_of_removal", lambda self, refs: [[f"del {ref.rule_id.int}"] for ref in refs]
    )
    monkeypatch.setattr(
        FakeDriver, "equivalents", lambda self, placement: [f"add {placement.rule.rule_id.int}"]
    )
    nic = open_fake(driver)
    old = [one_rule(80 + number, None, number) for number in (1, 2, 3)]
    nic.add_flows(old)
    new = [one_rule(443, 0, 2), one_rule(444, 0, 3), one_rule(445, 0, 4)]
    steps = {
        step.target: (step.action, step.equivalents)
        for step in nic.plan(DesiredState(flows=tuple(new), exact=True)).steps
    }
    assert steps == {
        str(uuid.UUID(int=1)): ("remove_flow", ("del 1",)),
        str(uuid.UUID(int=2)): ("replace_flow", ("del 2", "del 3", "add 2")),
        str(uuid.UUID(int=3)): ("replace_flow", ("add 3",)),
        str(uuid.UUID(int=4)): ("add_flow", ("add 4",)),
    }


states = st.builds(
    DesiredState,
    vf_count=st.sampled_from([None, 4, 6]),
    vfs=st.builds(
        lambda chosen: tuple(VfConfig(vf=vf, trust=on) for vf, on in chosen.items()),
        st.dictionaries(st.integers(0, 3), st.booleans(), max_size=3),
    ),
    rates=st.dictionaries(
        st.integers(0, 3),
        st.builds(RateLimit, max_tx_bps=st.none() | st.integers(1_000_000, 10**9)),
        max_size=3,
    ),
    flows=st.builds(
        lambda chosen: tuple(one_rule(port, vf, number) for port, (vf, number) in chosen.items()),
        st.dictionaries(
            st.integers(1, 5),
            st.tuples(st.none() | st.integers(0, 3), st.integers(1, 100)),
            max_size=4,
        ).filter(lambda chosen: len({number for _, number in chosen.values()}) == len(chosen)),
    ),
    exact=st.just(True),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(states, min_size=1, max_size=4))
def test_a_plan_after_its_apply_is_empty(open_fake, wanted):
    nic = open_fake(FakeDriver())
    for desired in wanted:
        nic.apply(nic.plan(desired))
        assert nic.plan(desired).steps == ()
        seen = {(each.rule.match, each.rule.actions) for each in nic.flows()}
        assert seen == {(rule.match, rule.actions) for rule in desired.flows}
