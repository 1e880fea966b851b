"""Rules that are placed together go where they go when they are placed one by one, and take the same."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicoffload.compiler import Compiler, Refusal
from nicoffload.compiler import compiler as compiler_module
from nicoffload.driver.contract import Placement
from nicoffload.model import Drop, FlowRule, Match, ToVf
from nicoffload.profiles.types import Duplicate, FieldLimit, HashFacts, OneTarget
from tests.compiler.samples import field, five_tuple, flow_type, refs, state, table, tcp

UDP = flow_type("udp4", fixed={"eth_type": (0x800,), "ip_proto": (17,)})
TABLES = {
    "plain": [table(rows=None)],
    "small": [table(rows=12)],
    "two rows a rule": [table(rows=30, rows_per_rule=2)],
    "two tables": [table("a", rows=9), table("b", rows=20)],
    "a bank": [table("a", bank="x", rows=14, actions=frozenset({"vf"})), table("b", bank="x", rows=14)],
    "slots": [table(rows=40, picker="caller")],
    "ranked": [table(rows=40, picker="caller", priority="slot_ascending")],
    "one mask": [table(mask_model="one_mask_per_port")],
    "one input set": [table(mask_model="one_input_set_per_flow_type", flow_types=(flow_type(), UDP))],
    "two types": [table(rows=None, flow_types=(flow_type(), UDP))],
    "limited": [table(limits=(FieldLimit(field="tp_src", rows=5, errno="ENOSPC"),))],
    "one target": [table(one_target_per_value=(OneTarget(field="tp_dst", errno="EINVAL"),))],
    "hash": [table(rows=16, hash=HashFacts(search_depth=3, function="crc", errno="EBUSY"))],
    "copies": [table(rows=40, duplicate=Duplicate(answer="allowed"))],
    "ignores": [table(rows=40, duplicate=Duplicate(answer="EEXIST", ignores=frozenset({"tp_src"})))],
    "values": [
        table(
            rows=40,
            flow_types=(
                flow_type(fields={"tp_dst": field(min=80, max=90), "tp_src": "any", "ipv4_src": "any"}),
            ),
        )
    ],
    "excluding": [table("a", rows=40, excludes=("b",), actions=frozenset({"vf"})), table("b", rows=40)],
}


@st.composite
def requests(draw):
    """Return some rules: of a few shapes, protocols, actions and priorities, some of them alike."""
    made = []
    ids = [uuid.UUID(int=n) for n in range(40)]
    for number in range(draw(st.integers(8, 20))):
        ports = {"tp_dst": draw(st.sampled_from([80, 81, 90, 443]))}
        if draw(st.booleans()):
            ports["tp_src"] = draw(st.integers(1, 3)) if draw(st.booleans()) else 1000 + number
        match = Match.of(
            ipv4_src=0x0A000000 + (number if draw(st.integers(0, 9)) else 0),
            ip_proto=draw(st.sampled_from([6, 6, 6, 17])),
            **ports,
        )
        rule_id = ids[draw(st.integers(0, 39)) if not draw(st.integers(0, 9)) else number]
        actions = draw(st.sampled_from([(Drop(),), (ToVf(vf=1),), (ToVf(vf=9),)]))
        priority = draw(st.sampled_from([None, None, None, 5, 9]))
        made.append(FlowRule(match=match, actions=actions, priority=priority, rule_id=rule_id))
    return made


def said(answer):
    """Return what an answer says, in a form that compares."""
    if isinstance(answer, Refusal):
        return answer.rule.rule_id, [(one.code, one.path, one.message) for one in answer.reasons]
    return answer


@pytest.mark.parametrize("kind", TABLES)
@settings(max_examples=12, deadline=None)
@given(first=requests(), second=requests())
def test_together_is_as_one_by_one(kind, first, second):
    together, single = (Compiler([state(one) for one in TABLES[kind]], vfs=8) for _ in range(2))
    for rules in (first, second):
        answers = together.place_many(rules)
        assert list(map(said, answers)) == [said(single.place_many([rule])[0]) for rule in rules]
        placed = [answer for answer in answers if isinstance(answer, Placement)]
        for one in (together, single):
            one.release(refs(*placed[::2]))
        for rule in rules:
            assert said(together.lower(rule)) == said(single.lower(rule))


@pytest.fixture
def asked(monkeypatch):
    """Count the rules that are asked about one by one."""
    found = []
    original = compiler_module.Compiler._find

    def find(self, rule, plan, *, keep):
        found.append(rule)
        return original(self, rule, plan, keep=keep)

    monkeypatch.setattr(compiler_module.Compiler, "_find", find)
    return found


def test_rules_that_are_in_nobodys_way_are_not_asked_one_by_one(asked):
    one = Compiler([state(table(rows=30))], vfs=8)
    rules = [five_tuple(n, ToVf(vf=n % 8)) for n in range(30)]
    placed = one.place_many(rules)
    assert [answer.rule for answer in placed] == rules
    assert asked == []
    assert isinstance(one.lower(five_tuple(99)), Refusal), "the table is full now"
    one.release(refs(placed[4]))
    assert isinstance(one.lower(five_tuple(99)), Placement)


@pytest.mark.parametrize(
    "odd",
    [five_tuple(3), tcp(ToVf(vf=9), tp_dst=5), tcp(eth_src=5)],
    ids=["a copy", "no such VF", "no such field"],
)
def test_one_rule_that_does_not_fit_has_all_asked_and_nothing_taken_twice(asked, odd):
    one = Compiler([state(table(rows=20))], vfs=8)
    rules = [five_tuple(n) for n in range(20)]
    answers = one.place_many([*rules, odd])
    assert len(asked) == 21
    assert all(isinstance(answer, Placement) for answer in answers[:-1])
    assert isinstance(answers[-1], Refusal)
    one.release(refs(*answers[:-1]))
    assert len(one.place_many(rules)) == 20
    assert len(asked) == 21
