"""Rules of the receive classifier against the real ethtool, which talks to a driver of ours."""

from __future__ import annotations

import dataclasses
import random
import shlex

import pytest

from nicoffload.kernel.ntuple import NtupleRule, add_command, delete_command
from nicoffload.kernel.ntuple_layout import encode_rule
from tests.kernel import ethtool_spy
from tests.kernel.classifier import INSERT, RULE, Driver, table
from tests.kernel.random_ntuple import random_rules

if ethtool_spy.missing:
    pytest.skip(ethtool_spy.missing, allow_module_level=True)


def said_by_ethtool(rule: NtupleRule) -> bytes:
    """Return what ethtool sends for the equal command, without the bytes that it leaves to chance."""
    seen = []

    def answer(asked):
        seen.append(asked)
        return asked

    ethtool_spy.spy(shlex.split(add_command("nic0", rule)), answer)
    [insert] = seen
    return insert[:4] + bytes(12) + insert[16:188] + bytes(4)  # flow_type and data of no use, padding


def unlike_ethtool(count: int, seed: int) -> list[str]:
    return [
        add_command("nic0", rule)
        for rule in random_rules(count, seed)
        if said_by_ethtool(rule) != encode_rule(INSERT, rule)
    ]


def test_ethtool_sends_the_same_bytes_for_the_equal_command():
    assert unlike_ethtool(54, seed=3) == []


@pytest.mark.slow
def test_ethtool_sends_the_same_bytes_for_many_random_rules():
    assert unlike_ethtool(1000, seed=random.randrange(1 << 32)) == []


def test_ethtool_reads_and_deletes_through_the_same_structures():
    driver = Driver()
    table(driver).insert(dataclasses.replace(RULE, location=5))
    shown = ethtool_spy.spy(["ethtool", "-n", "nic0", "rule", "5"], driver)
    assert "Filter: 5" in shown
    assert "Dest port: 4789 mask: 0x0" in shown
    assert "Action: Direct to VF 3 queue 1" in shown
    ethtool_spy.spy(shlex.split(delete_command("nic0", 5)), driver)
    assert driver.rules == {}


def test_ethtool_chooses_the_same_slot():
    ours, theirs = Driver(), Driver()
    for _ in range(3):
        table(ours).insert(RULE)
        ethtool_spy.spy(shlex.split(add_command("nic0", RULE)), theirs)
    assert ours.rules.keys() == theirs.rules.keys()
