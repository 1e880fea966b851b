"""The rules in the journal's file: nothing is lost when the log is written anew, and journals of version 1 go on."""

from __future__ import annotations

import json
import sqlite3

import pytest
from fake_driver import FakeDriver

from nicoffload.driver import Placement
from nicoffload.errors import KernelError, ResourceExhaustedError, RollbackError
from nicoffload.model import ACTION_NAMES, FlowRule, Match, ToVf
from nicoffload.nic import rule_log

VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE nics (nic TEXT PRIMARY KEY, generation INTEGER NOT NULL);
CREATE TABLE changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, nic TEXT NOT NULL, title TEXT NOT NULL,
    failed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE steps (
    change INTEGER NOT NULL, seq INTEGER NOT NULL, nic TEXT NOT NULL, kind TEXT NOT NULL, target TEXT NOT NULL,
    before TEXT NOT NULL, after TEXT NOT NULL, PRIMARY KEY (change, seq));
CREATE TABLE rules (
    nic TEXT NOT NULL, rule_id BLOB NOT NULL, tbl TEXT, slot INTEGER, body TEXT,
    change INTEGER, was_tbl TEXT, was_slot INTEGER, was_body TEXT, PRIMARY KEY (nic, rule_id));
CREATE INDEX rules_in_change ON rules (change) WHERE change IS NOT NULL;
CREATE TABLE leases (
    nic TEXT NOT NULL, vf INTEGER NOT NULL, owner TEXT NOT NULL, epoch INTEGER NOT NULL, expires_at_s REAL NOT NULL,
    dirty INTEGER NOT NULL, PRIMARY KEY (nic, vf));
INSERT INTO meta VALUES ('schema', '1');
PRAGMA user_version = 1;
"""


def in_file(tmp_path, query):
    """Return the rows of a query of the journal."""
    database = sqlite3.connect(tmp_path / "state/journal.sqlite")
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def ours(nic):
    return {each.rule.rule_id for each in nic.flows() if each.ours}


@pytest.mark.parametrize("side", ["", "1"], ids=["one port", "a second port"])
def test_a_log_that_is_mostly_dead_is_written_anew(open_fake, tmp_path, rule, monkeypatch, side):
    monkeypatch.setattr(rule_log, "_MOST_DEAD", 20)
    driver = FakeDriver(path=tmp_path / "nic", cookies=False)
    monkeypatch.setattr(driver, "port", lambda: side, raising=False)
    nic = open_fake(driver)
    kept = [rule(port) for port in range(1, 6)]
    nic.add_flows(kept)
    most = 0
    for port in range(100, 150):
        one = rule(port)
        nic.add_flows([one])
        nic.remove_flows([one.rule_id])
        most = max(most, in_file(tmp_path, "SELECT total(rules) FROM blocks")[0][0])
        assert ours(nic) == {one.rule_id for one in kept}
    assert 10 < most < 40
    nic.close()
    again = open_fake(driver)
    assert again.recovery.clean
    assert ours(again) == {one.rule_id for one in kept}
    name = f"fake:0 {side}".strip()
    live, dead = in_file(tmp_path, f"SELECT live, dead FROM nics WHERE nic = '{name}'")[0]
    assert (live, live + dead) == (5, in_file(tmp_path, "SELECT total(rules) FROM blocks")[0][0])


def test_another_process_reads_the_log_as_it_was_written(open_fake, tmp_path, rule):
    make = lambda: FakeDriver(path=tmp_path / "nic", cookies=False, shared=True)  # noqa: E731
    one, two = open_fake(make()), open_fake(make())
    rules = [rule(port) for port in range(1, 100)]
    one.add_flows(rules)
    two.remove_flows([each.rule_id for each in rules[::2]])
    one.add_flows(rules[:1])
    assert ours(one) == ours(two) == {each.rule_id for each in (rules[0], *rules[1::2])}


@pytest.fixture
def stuck(open_fake, tmp_path, rule):
    """A NIC with a rule that stays, and two of a change that was refused half-way and could not be taken back."""
    driver = FakeDriver(path=tmp_path / "nic", cookies=False)
    nic = open_fake(driver)
    keep, first, second = rule(3), rule(1), rule(2)
    nic.add_flows([keep])

    def item(name, index):
        if name == "destroy":
            return KernelError("broken")
        return ResourceExhaustedError("full") if index == 1 else None

    driver.faults.item = item
    with pytest.raises(RollbackError):
        nic.add_flows([first, second])
    driver.faults.item = lambda name, index: None
    assert in_file(tmp_path, "SELECT failed FROM changes") == [(1,)]
    assert in_file(tmp_path, "SELECT total(rules) FROM blocks WHERE change IS NOT NULL") == [(1,)]
    return driver, nic, keep, first


def test_what_is_stuck_is_taken_back_by_the_next_open(open_fake, tmp_path, stuck):
    driver, nic, keep, _ = stuck
    nic.close()
    again = open_fake(driver)
    assert again.recovery.undone == ("add 2 rules",)
    assert ours(again) == {keep.rule_id}
    assert len(again.flows()) == 1
    assert in_file(tmp_path, "SELECT count(*) FROM changes") == [(0,)]


def test_what_is_stuck_is_settled_by_a_later_change_of_the_same_rule(open_fake, tmp_path, stuck):
    driver, nic, keep, first = stuck
    slot = next(key for key, rule in driver.hardware.rules.items() if rule[3].match == first.match)
    del driver.hardware.rules[slot]
    nic.add_flows([first])
    assert in_file(tmp_path, "SELECT total(rules) FROM blocks WHERE change IS NOT NULL") == [(0,)]
    nic.close()
    again = open_fake(driver)
    assert ours(again) == {keep.rule_id, first.rule_id}


def version_1(tmp_path):
    """Leave a journal as version 1 wrote it, empty, and return a connection to it."""
    (tmp_path / "state").mkdir()
    database = sqlite3.connect(tmp_path / "state/journal.sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(VERSION_1)
    database.execute("INSERT INTO nics VALUES ('fake:0', 7)")
    return database


def text_1(rule):
    """Return a rule as version 1 wrote it."""
    plain = [["vf", {"vf": action.vf, "queue": action.queue}] for action in rule.actions]
    assert {ACTION_NAMES[type(action)] for action in rule.actions} == {"vf"}
    return json.dumps([rule.priority, rule.match.shape, rule.match.values, plain])


def put_1(database, rule, *, slot, change=None, was=None):
    """Write a rule as version 1 did."""
    before = ("rules", slot, text_1(was)) if was is not None else (None, None, None)
    after = ("rules", slot, text_1(rule)) if rule is not None else (None, None, None)
    rule_id = (rule or was).rule_id
    row = ("fake:0", rule_id.bytes, *after, change, *before)
    database.execute("INSERT INTO rules VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


@pytest.fixture
def installed(tmp_path, rule):
    """A NIC without cookies that holds three rules, and those rules by slot."""
    driver = FakeDriver(path=tmp_path / "nic", cookies=False)
    rules = [rule(port, priority=port) for port in (1, 2, 3)]
    driver.flow_filters.create_many(
        [Placement(rule=one, table="rules", flow_type="any", slot=slot) for slot, one in enumerate(rules)]
    )
    return driver, rules


def test_a_journal_of_version_1_goes_on(open_fake, tmp_path, installed):
    driver, rules = installed
    database = version_1(tmp_path)
    for slot, one in enumerate(rules):
        put_1(database, one, slot=slot)
    database.execute("INSERT INTO leases VALUES ('fake:0', 1, 'vm-a', 9, 2e9, 0)")
    database.close()
    nic = open_fake(driver)
    assert nic.recovery.clean
    assert nic.recovery.unaccounted == ()
    assert ours(nic) == {one.rule_id for one in rules}
    assert [lease.owner for lease in nic.leases()] == ["vm-a"]
    assert in_file(tmp_path, "SELECT generation, live, dead FROM nics") == [(7, 3, 0)]
    nic.remove_flows([rules[0].rule_id])
    nic.close()
    assert ours(open_fake(driver)) == {one.rule_id for one in rules[1:]}


def test_a_change_that_version_1_left_half_done_is_taken_back(open_fake, tmp_path, installed, rule):
    driver, rules = installed
    database = version_1(tmp_path)
    database.execute(
        "INSERT INTO changes (number, nic, title) VALUES (4, 'fake:0', 'replace a rule and add one')"
    )
    # Rule 0 was as it is; rule 1 is replaced by what the NIC does not hold yet; rule 2 was added; another is to come.
    replacement = FlowRule(
        match=Match.of(eth_type=0x0800, ip_proto=6, tp_dst=77),
        actions=(ToVf(vf=1),),
        rule_id=rules[1].rule_id,
    )
    put_1(database, rules[0], slot=0)
    put_1(database, replacement, slot=1, change=4, was=rules[1])
    put_1(database, rules[2], slot=2, change=4)
    put_1(database, rule(9), slot=3, change=4)
    database.close()
    nic = open_fake(driver)
    assert nic.recovery.undone == ("replace a rule and add one",)
    assert nic.recovery.problems == ()
    assert {each.rule.rule_id: each.rule for each in nic.flows()} == {one.rule_id: one for one in rules[:2]}


def test_a_damaged_journal_of_version_1_is_salvaged(open_fake, tmp_path, installed):
    driver, rules = installed
    database = version_1(tmp_path)
    for slot, one in enumerate(rules):
        put_1(database, one, slot=slot)
    database.execute("UPDATE rules SET body = '[1, 2' WHERE rule_id = ?", (rules[1].rule_id.bytes,))
    database.execute("INSERT INTO rules (nic, rule_id, tbl, body) VALUES ('fake:0', 'x', 'rules', '')")
    database.execute(
        "INSERT INTO rules (nic, rule_id, tbl, body) VALUES (x'00', ?, 'rules', '')", (b"x" * 16,)
    )
    database.execute("PRAGMA user_version = 0")
    database.close()
    nic = open_fake(driver)
    assert nic.recovery.damaged
    assert nic.recovery.salvaged == 2
    assert ours(nic) == {rules[0].rule_id, rules[2].rule_id}
    assert len(nic.recovery.unaccounted) == 1
