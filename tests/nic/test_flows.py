"""Adding, removing and reading rules."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
from fake_driver import BUSY, FakeDriver, Faults, make_table

from nicoffload.driver import InstalledRule, Placement, RuleRef
from nicoffload.errors import (
    ConflictError,
    DeviceBusyError,
    KernelError,
    NotFoundError,
    NotSupportedError,
    ResourceExhaustedError,
    RollbackError,
    VerificationError,
)
from nicoffload.nic import OwnedRule

KINDS = {
    "cookies": lambda: {"cookies": True},
    "slots": lambda: {"cookies": False},
    "driver's slots": lambda: {"cookies": False, "tables": [make_table(picker="driver")]},
    "replacing": lambda: {
        "cookies": False,
        "tables": [make_table(picker="caller", occupied="replace", rows=64)],
    },
}


@pytest.fixture(params=KINDS, ids=list(KINDS))
def kind(request):
    return KINDS[request.param]()


@pytest.fixture(params=[False, True], ids=["memory", "file"])
def driver(request, kind, tmp_path):
    return FakeDriver(path=tmp_path / "nic" if request.param else None, **kind)


def held(driver):
    return [rule for _, _, _, rule in driver.hardware.rules.values()]


def test_rules_go_in_are_read_and_come_out(open_fake, driver, rule):
    nic = open_fake(driver)
    rules = [rule(port) for port in range(1, 6)]
    report = nic.add_flows(rules)
    assert [each.rule for each in report.installed] == rules
    assert report.refused == ()
    assert {each.rule: each.ours for each in nic.flows()} == dict.fromkeys(rules, True)
    assert nic.flow_stats([rules[1].rule_id]).row(0).packets == 7
    assert len(nic.flow_stats().rule_ids) == 5
    stats = nic.remove_flows([rules[0].rule_id, rules[3].rule_id])
    assert [(each.rule_id, each.packets, each.bytes) for each in stats] == [
        (rules[0].rule_id, 7, 700),
        (rules[3].rule_id, 7, 700),
    ]
    assert {each.rule.rule_id for each in nic.flows()} == {rules[i].rule_id for i in (1, 2, 4)}
    nic.remove_flows(each.rule.rule_id for each in nic.flows())
    assert held(driver) == []


def test_check_changes_nothing(open_fake, driver, rule):
    nic = open_fake(driver)
    assert isinstance(nic.check(rule(1)), Placement)
    assert driver.faults.calls == []


def test_a_rule_can_be_added_again_after_it_was_removed(open_fake, driver, rule):
    nic = open_fake(driver)
    one = rule(1)
    for _ in range(3):
        nic.add_flows([one])
        nic.remove_flows([one.rule_id])
    assert nic.flows() == ()


def test_what_is_not_ours_is_shown_and_not_touched(open_fake, kind, rule, tmp_path):
    driver = FakeDriver(path=tmp_path / "nic", **{**kind, "cookies": False})
    theirs = rule(99, vf=None)
    slot = 0 if driver.tables[0].picker != "none" else None
    driver.flow_filters.create_many([Placement(rule=theirs, table="rules", flow_type="any", slot=slot)])
    nic = open_fake(driver)
    assert [each.ours for each in nic.flows()] == [False]
    assert [each.rule.match for each in nic.recovery.unaccounted] == [theirs.match]
    with pytest.raises(NotFoundError, match="no rule of ours"):
        nic.remove_flows([theirs.rule_id])
    nic.add_flows([rule(1)])
    assert sorted(each.ours for each in nic.flows()) == [False, True]


def test_an_id_that_is_there_is_a_conflict_and_nothing_changes(open_fake, driver, rule):
    nic = open_fake(driver)
    one = rule(1)
    nic.add_flows([one])
    with pytest.raises(ConflictError) as caught:
        nic.add_flows([rule(2), one])
    assert caught.value.existing == str(one.rule_id)
    assert [each.rule for each in nic.flows()] == [one]


def test_removing_what_is_not_there(open_fake, driver, rule):
    nic = open_fake(driver)
    one = rule(1)
    nic.add_flows([one])
    with pytest.raises(NotFoundError):
        nic.remove_flows([one.rule_id, uuid.uuid4()])
    assert len(nic.flows()) == 1
    assert len(nic.remove_flows([uuid.uuid4(), one.rule_id, one.rule_id], missing_ok=True)) == 1
    assert nic.remove_flows([uuid.uuid4()], missing_ok=True) == ()


def test_a_rule_that_somebody_else_removed_is_gone_which_is_what_was_asked(open_fake, driver, rule):
    nic = open_fake(driver)
    one = rule(1)
    nic.add_flows([one])
    driver.hardware.rules.clear()
    stats = nic.remove_flows([one.rule_id])
    assert [each.packets for each in stats] == [None]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_refused_rule(open_fake, rule, atomic):
    driver = FakeDriver()
    nic = open_fake(driver)
    good, bad = rule(1), rule(2, vf=77)
    if atomic:
        with pytest.raises(NotSupportedError, match="VF"):
            nic.add_flows([good, bad])
        assert held(driver) == []
        assert isinstance(nic.check(good), Placement)
        nic.add_flows([good])
    else:
        report = nic.add_flows([good, bad], atomic=False)
        assert [each.rule for each in report.installed] == [good]
        assert [each for each, _ in report.refused] == [bad]
    assert held(driver) == [good]


def test_a_full_table(open_fake, rule):
    driver = FakeDriver(tables=[make_table(rows=3)])
    nic = open_fake(driver)
    rules = [rule(port) for port in range(1, 6)]
    with pytest.raises(ResourceExhaustedError) as caught:
        nic.add_flows(rules)
    assert caught.value.limit == 3
    assert len(caught.value.__notes__) == 1, "the second refusal is not lost"
    report = nic.add_flows(rules, atomic=False)
    assert len(report.installed) == 3
    assert all(isinstance(error, ResourceExhaustedError) for _, error in report.refused)
    nic.remove_flows([rules[0].rule_id])
    nic.add_flows([rules[4]])


@pytest.mark.parametrize("atomic", [True, False])
def test_what_the_driver_refuses_although_the_compiler_did_not(open_fake, driver, rule, atomic):
    nic = open_fake(driver)
    keep = rule(9)
    nic.add_flows([keep])
    driver.faults.item = lambda name, index: (
        ResourceExhaustedError("the hash is full") if (name, index) == ("create", 1) else None
    )
    rules = [rule(port) for port in (1, 2, 3)]
    if atomic:
        with pytest.raises(ResourceExhaustedError, match=r"rule 2 of 3 .*: the hash is full"):
            nic.add_flows(rules)
        expected = [keep]
    else:
        report = nic.add_flows(rules, atomic=False)
        assert [each for each, _ in report.refused] == [rules[1]]
        expected = [keep, rules[0], rules[2]]
    driver.faults.item = lambda name, index: None
    assert {each.rule.match.values for each in nic.flows()} == {each.match.values for each in expected}
    assert all(each.ours for each in nic.flows())
    nic.add_flows([rules[1]])


@pytest.mark.parametrize("atomic", [True, False])
def test_a_call_that_succeeds_and_does_nothing_is_found(open_fake, driver, rule, atomic):
    nic = open_fake(driver)
    driver.faults.item = lambda name, index: "nothing" if (name, index) == ("create", 0) else None
    rules = [rule(1), rule(2)]
    if atomic:
        with pytest.raises(VerificationError, match="succeeded, and the rule is not in the NIC"):
            nic.add_flows(rules)
        assert held(driver) == []
    else:
        report = nic.add_flows(rules, atomic=False)
        assert isinstance(report.refused[0][1], VerificationError)
        assert [each.rule for each in report.installed] == [rules[1]]


def test_a_removal_that_succeeds_and_does_nothing_is_found(open_fake, driver, rule):
    nic = open_fake(driver)
    rules = [rule(1), rule(2)]
    nic.add_flows(rules)
    driver.faults.item = lambda name, index: "nothing" if (name, index) == ("destroy", 1) else None
    with pytest.raises(VerificationError, match="still in the NIC"):
        nic.remove_flows([each.rule_id for each in rules])
    driver.faults.item = lambda name, index: None
    assert {each.rule for each in nic.flows() if each.ours} == set(rules), "the removed one was put back"


def test_a_rule_that_reads_back_otherwise_is_taken_out(open_fake, driver, rule, monkeypatch):
    nic = open_fake(driver)
    dump = driver.flow_filters.dump
    wider = rule(2)
    lie = lambda refs=None: [InstalledRule(ref=each.ref, rule=wider) for each in dump(refs)]  # noqa: E731
    monkeypatch.setattr(driver.flow_filters, "dump", lie)
    report = nic.add_flows([rule(1)], atomic=False)
    error = report.refused[0][1]
    assert isinstance(error, VerificationError)
    assert "tp_dst=1 " in error.expected
    assert "tp_dst=2 " in error.actual
    assert held(driver) == []


@pytest.mark.parametrize("stays", [False, True])
def test_a_rule_that_the_driver_widened_goes_with_the_change_that_failed(
    open_fake, driver, rule, monkeypatch, stays
):
    nic = open_fake(driver)
    filters = driver.flow_filters
    create, wider = filters.create_many, rule(9)

    def widen(placements):
        """Take each rule as another one, at the place and under the name of the first, and say nothing of it."""
        return create([each._replace(rule=_renamed(wider, each.rule)) for each in placements])

    monkeypatch.setattr(filters, "create_many", widen)
    if stays:
        driver.faults.item = lambda name, index: KernelError("no") if name == "destroy" else None
    with pytest.raises(RollbackError if stays else VerificationError) as failed:
        nic.add_flows([rule(1), rule(2)])
    if stays:
        assert sum("as another than asked for" in text for text in failed.value.residue) == 2
    assert len(held(driver)) == (2 if stays else 0)


def _renamed(rule, name):
    return dataclasses.replace(rule, rule_id=name.rule_id)


def test_a_busy_nic_is_asked_again_a_bounded_number_of_times(open_fake, driver, rule, sleeper):
    nic = open_fake(driver)
    answers = [BUSY, BUSY]
    driver.faults.item = lambda name, index: answers.pop() if answers and index == 0 else None
    nic.add_flows([rule(1), rule(2)])
    assert len(held(driver)) == 2
    assert sleeper.slept_s == [0.02, 0.04]
    driver.faults.item = lambda name, index: BUSY
    with pytest.raises(DeviceBusyError):
        nic.add_flows([rule(3)])
    assert len(sleeper.slept_s) == 7
    assert len(held(driver)) == 2


def test_when_the_driver_breaks_half_way_what_it_did_is_found_and_undone(open_fake, driver, rule):
    nic = open_fake(driver)
    keep = rule(9)
    nic.add_flows([keep])
    driver.faults.item = lambda name, index: "raise" if (name, index) == ("create", 1) else None
    with pytest.raises(KernelError, match="socket broke"):
        nic.add_flows([rule(1), rule(2), rule(3)])
    assert [each.rule for each in nic.flows()] == [keep]


def test_when_undoing_fails_the_residue_is_named_and_the_cause_kept(open_fake, driver, rule):
    nic = open_fake(driver)
    rules = [rule(1), rule(2)]

    def item(name, index):
        if name == "destroy":
            return KernelError("broken")
        return ResourceExhaustedError("full") if index == 1 else None

    driver.faults.item = item
    with pytest.raises(RollbackError) as caught:
        nic.add_flows(rules)
    assert isinstance(caught.value.__cause__, ResourceExhaustedError)
    assert len(caught.value.residue) == 1
    assert str(rules[0].rule_id) in caught.value.residue[0]
    if driver.persistent:
        driver.faults.item = lambda name, index: None
        nic.close()
        again = open_fake(driver)
        assert again.recovery.undone == ("add 2 rules",)
        assert again.recovery.problems == ()
        assert held(driver) == []


def test_others_took_the_slot_since(open_fake, kind, rule, tmp_path):
    if kind.get("tables", [make_table(picker="caller")])[0].picker != "caller" or kind.get("cookies"):
        kind = KINDS["slots"]()
    driver = FakeDriver(path=tmp_path / "nic", **kind)
    nic = open_fake(driver)
    nic.add_flows([rule(1)])
    placement = nic.check(rule(2))
    theirs = rule(77, vf=None)
    driver.flow_filters.create_many(
        [Placement(rule=theirs, table="rules", flow_type="any", slot=placement.slot)]
    )
    two = rule(2)
    report = nic.add_flows([two, rule(3)])
    assert len(report.installed) == 2
    assert theirs.match in [each.match for each in held(driver)], "another's rule was not overwritten"
    assert len(held(driver)) == 4


def test_the_priority_of_a_nic_without_priorities_does_not_count(open_fake, rule):
    nic = open_fake(FakeDriver(cookies=False, tables=[make_table(picker="driver", priority="none")]))
    nic.add_flows([rule(1)])
    assert isinstance(nic.flows()[0], OwnedRule)


def test_a_nic_without_flow_filters_says_so(open_fake, rule):
    nic = open_fake(FakeDriver(without=("flow_filters", "statistics")))
    for call in (lambda: nic.add_flows([rule(1)]), nic.flows, nic.tables, lambda: nic.check(rule(1))):
        with pytest.raises(NotSupportedError, match="has no flow filters") as caught:
            call()
        assert caught.value.capability == "flow_filters"
    with pytest.raises(NotSupportedError) as caught:
        nic.stats()
    assert caught.value.reasons[0].message == "the fake counts nothing"


def test_refs_of_the_report_are_those_of_the_nic(open_fake, driver, rule):
    nic = open_fake(driver)
    report = nic.add_flows([rule(1), rule(2)])
    refs = {each.ref for each in report.installed}
    assert refs == {each.ref for each in nic.flows()}
    assert all(isinstance(ref, RuleRef) for ref in refs)


def test_faults_count_calls():
    faults = Faults()
    FakeDriver(faults=faults).flow_filters.create_many([])
    assert faults.calls == ["create_many"]
