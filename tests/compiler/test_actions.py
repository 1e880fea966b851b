"""Actions: what a table has, how often, in which order, and to which targets."""

from __future__ import annotations

import pytest

from nicoffload.compiler import Compiler, Refusal
from nicoffload.driver.contract import Placement
from nicoffload.errors import Reason
from nicoffload.model import (
    Count,
    Disruption,
    Drop,
    Masked,
    Mirror,
    PushVlan,
    SetField,
    ToQueue,
    ToUplink,
    ToVf,
)
from nicoffload.profiles.types import ActionRules, Needs
from tests.compiler.samples import compiler, field, flow_type, rule, state, table, tcp

ALL = frozenset({"vf", "queue", "drop", "mirror", "push_vlan", "set_field", "count", "uplink"})


def only(answer) -> Reason:
    assert isinstance(answer, Refusal), answer
    (reason,) = answer.reasons
    return reason


def test_a_vf_on_a_table_of_queues_is_a_reason_of_its_own():
    reason = only(
        compiler(table(actions=frozenset({"queue"}), errors={"vf_target": "EINVAL"})).lower(tcp(ToVf(vf=1)))
    )
    assert (reason.code, reason.path, reason.errno) == ("action.vf_target", "/actions/0", "EINVAL")
    assert "handed to the VM" in reason.accepted


def test_an_action_that_the_table_has_not():
    reason = only(compiler().lower(tcp(Count(), ToVf(vf=1))))
    assert (reason.code, reason.path) == ("action.unsupported", "/actions/0")
    assert reason.accepted == "one of drop, queue, vf"


@pytest.mark.parametrize(
    ("actions", "path", "accepted"),
    [
        ((ToVf(vf=8),), "/actions/0/vf", "0 to 7"),
        ((Mirror(port=10), Drop()), "/actions/0/port", "0 to 7"),
        ((ToQueue(queue=4),), "/actions/0/queue", "0 to 3"),
        ((ToVf(vf=1, queue=2),), "/actions/0/queue", "0 to 1"),
    ],
)
def test_targets_that_do_not_exist(actions, path, accepted):
    one = compiler(table(actions=ALL, vf_queue=True), queues=4, vf_queues=2)
    reason = only(one.lower(tcp(*actions)))
    assert (reason.path, reason.accepted) == (path, accepted)
    assert isinstance(one.lower(tcp(Mirror(port=9), ToVf(vf=7, queue=1))), Placement)


def test_without_vfs_nothing_is_offered():
    assert "before VFs are created" in only(compiler(vfs=0).lower(tcp(ToVf(vf=0)))).accepted


def test_queues_are_not_limited_where_nobody_knows_how_many_there_are():
    assert isinstance(compiler().lower(tcp(ToQueue(queue=999))), Placement)


def test_a_queue_within_a_vf_where_rules_can_not_name_one():
    assert only(compiler().lower(tcp(ToVf(vf=1, queue=1)))).code == "action.vf_queue"


def test_an_ingress_port_that_does_not_exist():
    types = (flow_type(fields={"in_port": field()}),)
    one = compiler(table(flow_types=types))
    assert only(one.lower(tcp(in_port="vf:8"))).path == "/match/in_port"
    assert isinstance(one.lower(tcp(in_port="vf:7")), Placement)


@pytest.mark.parametrize(
    ("actions", "code", "path"),
    [
        ((PushVlan(vid=1), PushVlan(vid=2), PushVlan(vid=3), ToUplink()), "action.repeated", "/actions/2"),
        ((Count(), Count(), ToUplink()), "action.repeated", "/actions/1"),
        ((Count(), PushVlan(vid=1), ToUplink()), "action.order", "/actions/1"),
        ((PushVlan(vid=1), Drop()), "action.together", "/actions/1"),
        ((SetField(field="tp_dst", value=Masked(1, 0xFFFF)), ToUplink()), "action.set_field", "/actions/0"),
    ],
)
def test_arrangement_of_actions(actions, code, path):
    rules = ActionRules(
        at_most={"push_vlan": 2},
        order=(frozenset({"push_vlan"}), frozenset({"count", "mirror"}), frozenset({"uplink", "drop"})),
        not_together=(frozenset({"push_vlan", "drop"}),),
        set_fields=frozenset({"eth_dst"}),
        errno="EINVAL",
    )
    one = compiler(table(actions=ALL, action_rules=rules))
    reason = only(one.lower(tcp(*actions)))
    assert (reason.code, reason.path, reason.errno) == (code, path, "EINVAL")
    fine = (PushVlan(vid=1), PushVlan(vid=2), Mirror(port=0), Count(), ToUplink())
    assert isinstance(one.lower(tcp(*fine)), Placement)


def test_a_blocked_table_tells_what_enabling_it_costs():
    why = Reason(code="table.blocked", path="", message="ntuple is off", accepted="ethtool -K ntuple on")
    blocked = state(blocked=(why,), enable=Disruption.LINK_FLAP)
    reason = only(Compiler([blocked], vfs=8).lower(tcp()))
    assert reason.message == "ntuple is off"
    assert "link_flap" in reason.accepted
    fixed = state(blocked=(why,))
    assert only(Compiler([fixed], vfs=8).lower(tcp())) == why


def test_a_vf_that_needs_its_driver_on_the_host_is_a_caveat():
    one = compiler(table(needs=Needs(vf_driver_on_host=True)))
    assert "bound on this host" in one.lower(tcp(ToVf(vf=1))).caveats[0]
    assert one.lower(tcp(Drop())).caveats == ()


def test_the_first_table_that_takes_a_rule_gets_it():
    tables = (
        table("first", actions=frozenset({"queue"})),
        table("second", actions=frozenset({"vf", "queue"})),
    )
    one = compiler(*tables)
    assert one.lower(tcp(ToQueue(queue=0))).table == "first"
    assert one.lower(tcp(ToVf(vf=0))).table == "second"


def test_all_reasons_of_the_closest_table_and_one_for_each_other():
    far = table("far", actions=frozenset({"queue"}), flow_types=(flow_type("ether", fixed={}, fields={}),))
    asked = rule(ToVf(vf=9), eth_type=0x800, ip_proto=6, ip_tos=1, priority=3)
    answer = compiler(far, table("near")).lower(asked)
    paths = [reason.path for reason in answer.reasons]
    assert paths == ["/match/ip_tos", "/actions/0/vf", "/priority", "/match/eth_type"]
    assert answer.reasons[-1].code == "table.other"
    assert answer.reasons[-1].message.startswith("dl_type is not compared by ether rules of table far (and")


def test_a_nic_without_tables_says_so():
    assert only(Compiler([], vfs=1).lower(tcp())).code == "table.none"
