"""Of several tables the answer says why it is this one."""

from __future__ import annotations

import dataclasses

from nicoffload.compiler import Compiler
from nicoffload.driver import Placement
from nicoffload.model import Drop, FlowRule, Match, ToQueue
from nicoffload.registry import load_registry


def rule(number=1, action=None):
    match = Match.of(ipv4_dst=number, ip_proto=6, tp_dst=80, ipv4_src=1, tp_src=2)
    return FlowRule(match=match, actions=(action or Drop(),))


def place(tables, *rules):
    found = Compiler(tables, vfs=0, queues=8).place_many(rules)
    assert all(isinstance(one, Placement) for one in found)
    return found


def test_the_first_table_needs_no_reason_and_a_later_one_has_those_of_all_before_it():
    driver = load_registry().open("mock:mlx5,mode=switchdev,vfs=2,prepared=yes")
    tables = driver.flow_filters.tables()
    assert place(tables, rule())[0].why == ""
    (other,) = place(tables, rule(action=ToQueue(queue=1)))
    assert other.table == "ntuple"
    assert "flower_fdb" in other.why
    assert "flower_nic" in other.why


def test_a_table_that_is_full_is_told():
    driver = load_registry().open("mock:mlx5,mode=switchdev,vfs=2,prepared=yes")
    tables = [
        dataclasses.replace(state, rows=1) if state.table.name == "flower_fdb" else state
        for state in driver.flow_filters.tables()
    ]
    first, second = place(tables, rule(1), rule(2))
    assert (first.table, first.why) == ("flower_fdb", "")
    assert second.table != "flower_fdb"
    assert "flower_fdb: what is in it leaves no place" in second.why
