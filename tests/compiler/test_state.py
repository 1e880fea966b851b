"""What other rules do to a rule: rows, slots, duplicates, limits, priorities, tables that exclude each other."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload import load_registry
from nicoffload.compiler import Compiler, Refusal, lower
from nicoffload.driver.contract import InstalledRule, Placement, RuleRef
from nicoffload.errors import ConflictError, ResourceExhaustedError
from nicoffload.model import Drop, FlowRule, Match, ToVf
from nicoffload.profiles.types import Duplicate, FieldLimit, HashFacts, OneTarget
from tests.compiler.samples import (
    compiler,
    field,
    five_tuple,
    flow_type,
    refs,
    rule,
    shape,
    state,
    table,
    tcp,
)


def codes(answer):
    assert isinstance(answer, Refusal), answer
    return [reason.code for reason in answer.reasons]


def foreign(of, slot, name="rx"):
    return InstalledRule(ref=RuleRef(rule_id=None, table=name, slot=slot), rule=of)


def test_a_full_table_says_so_and_takes_a_rule_again_after_a_release():
    one = compiler(table(rows=2, errors={"full": "EBUSY"}))
    placed = one.place_many([five_tuple(n) for n in range(3)])
    assert codes(placed[2]) == ["table.full"]
    error = placed[2].error("mock:x")
    assert isinstance(error, ResourceExhaustedError)
    assert (error.limit, error.in_use, error.device) == (2, 2, "mock:x")
    assert error.errno == 16
    one.release(refs(placed[0]))
    assert isinstance(one.lower(five_tuple(3)), Placement)
    assert isinstance(one.lower(placed[0].rule), Placement)


def test_rows_in_use_by_others_count():
    assert codes(lower(five_tuple(1), [state(in_use=16)], vfs=8)) == ["table.full"]
    assert codes(lower(five_tuple(1), [state(table(rows_per_rule=2), in_use=15)], vfs=8)) == ["table.full"]


def test_rows_are_shared_by_the_tables_of_a_bank():
    first = table("a", bank="x", rows=1, actions=frozenset({"vf"}))
    second = table("b", bank="x", rows=1, actions=frozenset({"drop"}))
    one = compiler(first, second)
    one.place_many([five_tuple(1, ToVf(vf=0))])
    assert codes(one.lower(five_tuple(2, Drop())))[0] == "table.full"


def test_unknown_capacity_is_taken_with_a_caveat():
    answer = lower(five_tuple(1), [state(table(rows=None))], vfs=8)
    assert "is not known" in answer.caveats[0]


def test_a_hash_table_has_a_caveat_only_when_it_is_nearly_full():
    hashed = table(rows=100, hash=HashFacts(search_depth=5, function="unknown", errno="EBUSY"))
    one = compiler(hashed)
    placed = one.place_many([five_tuple(n) for n in range(100)])
    told = [bool(answer.caveats) for answer in placed]
    assert told == sorted(told)
    assert told.count(True) == 75  # 0.25 ** 5 is a chance of one in a thousand
    assert "EBUSY" in placed[-1].caveats[0]


def test_caller_picked_slots_are_the_lowest_free():
    one = compiler(table(picker="caller"))
    placed = one.place_many([five_tuple(n) for n in range(4)])
    assert [answer.slot for answer in placed] == [0, 1, 2, 3]
    one.release(refs(placed[2], placed[1]))
    assert [answer.slot for answer in one.place_many([five_tuple(n) for n in range(4, 7)])] == [1, 2, 4]


def test_slots_of_foreign_rules_are_left_alone_and_can_be_released_by_place():
    installed = [foreign(five_tuple(n), slot) for n, slot in ((1, 0), (2, 2))]
    one = Compiler([state(table(picker="caller"), in_use=2)], installed, vfs=8)
    assert [answer.slot for answer in one.place_many([five_tuple(n) for n in (3, 4)])] == [1, 3]
    assert codes(one.lower(five_tuple(1))) == ["rule.duplicate"]
    one.release([RuleRef(rule_id=uuid.uuid4(), table="rx", slot=0)])
    assert one.lower(five_tuple(1)).slot == 0


def test_release_may_be_repeated_and_ignores_what_it_does_not_know():
    one = compiler(table(rows=1))
    (placed,) = one.place_many([five_tuple(1)])
    one.release(refs(placed, placed))
    one.release([RuleRef(rule_id=None, table="rx", slot=None), RuleRef(rule_id=None, table="no", slot=3)])
    assert isinstance(one.place_many([five_tuple(2)])[0], Placement)
    assert codes(one.lower(five_tuple(3))) == ["table.full"]


def test_check_changes_nothing():
    one = compiler(table(rows=1))
    assert all(isinstance(one.lower(five_tuple(n)), Placement) for n in (1, 1, 2))


@pytest.mark.parametrize(("answer", "errno"), [("EEXIST", "EEXIST"), ("EINVAL", "EINVAL"), ("replace", "")])
def test_a_second_rule_with_the_same_match_is_refused(answer, errno):
    one = compiler(table(duplicate=Duplicate(answer=answer)))
    (first,) = one.place_many([five_tuple(1)])
    refusal = one.lower(five_tuple(1, Drop()))
    assert codes(refusal) == ["rule.duplicate"]
    assert refusal.reasons[0].errno == errno
    error = refusal.error("x")
    assert isinstance(error, ConflictError)
    assert error.existing == str(first.rule.rule_id)


@pytest.mark.parametrize("answer", ["allowed", "unknown"])
def test_copies_that_the_driver_allows_have_a_caveat(answer):
    one = compiler(table(duplicate=Duplicate(answer=answer)))
    first, second = one.place_many([five_tuple(1), five_tuple(1)])
    assert first.caveats == ()
    assert "same match" in second.caveats[0]


def test_some_copies_are_allowed_before_the_answer():
    one = compiler(table(duplicate=Duplicate(answer="EEXIST", allowed_copies=2)))
    placed = one.place_many([five_tuple(1) for _ in range(3)])
    assert codes(placed[2]) == ["rule.duplicate"]
    one.release(refs(placed[0]))
    assert isinstance(one.place_many([five_tuple(1)])[0], Placement)
    one.release(refs(placed[1]))
    assert isinstance(one.place_many([five_tuple(1)])[0], Placement)
    assert codes(one.lower(five_tuple(1))) == ["rule.duplicate"]


@pytest.mark.parametrize("by_type", [False, True])
def test_fields_that_the_driver_does_not_look_at_make_no_difference(by_type):
    ignored = frozenset({"vlan_vid"})
    of_type, of_table = (ignored, frozenset()) if by_type else (frozenset(), ignored)
    types = (flow_type(fields={"tp_dst": field(), "vlan_vid": field()}, duplicate_ignores=of_type),)
    one = compiler(table(flow_types=types, duplicate=Duplicate(answer="EINVAL", ignores=of_table)))
    (placed,) = one.place_many([tcp(tp_dst=1, vlan_vid=5)])
    refusal = one.lower(tcp(tp_dst=1, vlan_vid=6))
    assert "{dl_vlan}" in refusal.reasons[0].message
    assert isinstance(one.lower(tcp(tp_dst=2, vlan_vid=5)), Placement)
    one.release(refs(placed))
    assert isinstance(one.lower(tcp(tp_dst=1, vlan_vid=6)), Placement)


def test_the_same_rule_id_twice_is_a_conflict():
    one = compiler()
    asked = five_tuple(1)
    placed = one.place_many([asked, dataclasses.replace(five_tuple(2), rule_id=asked.rule_id)])
    assert codes(placed[1]) == ["rule.id"]
    assert isinstance(placed[1].error("x"), ConflictError)


def test_narrower_limits_within_a_table():
    limited = table(limits=(FieldLimit(field="tp_src", rows=1, errno="ENOSPC"),))
    one = compiler(limited)
    (first,) = one.place_many([tcp(tp_src=1)])
    refusal = one.lower(tcp(tp_src=2))
    assert codes(refusal) == ["table.limit"]
    assert isinstance(refusal.error("x"), ResourceExhaustedError)
    assert isinstance(one.lower(tcp(tp_dst=2)), Placement)
    one.release(refs(first))
    assert isinstance(one.lower(tcp(tp_src=2)), Placement)


def test_one_target_for_each_value():
    one = compiler(table(one_target_per_value=(OneTarget(field="tp_dst", errno="EEXIST"),)))
    (first,) = one.place_many([tcp(ToVf(vf=1), tp_dst=80)])
    refusal = one.lower(tcp(ToVf(vf=2), tp_dst=80, tp_src=1))
    assert codes(refusal) == ["action.one_target"]
    assert refusal.reasons[0].errno == "EEXIST"
    assert isinstance(one.lower(tcp(ToVf(vf=1), tp_dst=80, tp_src=1)), Placement)
    one.release(refs(first))
    assert isinstance(one.lower(tcp(ToVf(vf=2), tp_dst=80)), Placement)


@pytest.mark.parametrize(("first", "second"), [("vf", "drop"), ("drop", "vf")])
def test_tables_that_exclude_each_other_do_so_both_ways(first, second):
    tables = (table("a", excludes=("b",), actions=frozenset({"vf"})), table("b", actions=frozenset({"drop"})))
    actions = {"vf": ToVf(vf=0), "drop": Drop()}
    one = compiler(*tables)
    placed = one.place_many([five_tuple(1, actions[first])])
    assert "table.excluded" in codes(one.lower(five_tuple(2, actions[second])))
    one.release(refs(*placed))
    assert isinstance(one.lower(five_tuple(2, actions[second])), Placement)


@pytest.mark.parametrize("meaning", ["none", "most_specific", "shape_rank"])
def test_a_priority_is_refused_where_the_nic_has_none(meaning):
    one = compiler(table(priority=meaning, mask_model="shapes", shapes=(shape("tp_dst"),)))
    refusal = one.lower(tcp(tp_dst=1, priority=5))
    assert codes(refusal) == ["priority.unsupported"]
    assert refusal.reasons[0].path == "/priority"
    assert isinstance(one.lower(tcp(tp_dst=1)), Placement)


def test_a_priority_is_taken_where_it_is_honoured():
    assert isinstance(compiler(table(priority="honoured")).lower(tcp(tp_dst=1, priority=5)), Placement)


def ranked(rows=8):
    types = (flow_type(fields={"tp_dst": field("any"), "tp_src": field()}),)
    return compiler(table(rows=rows, picker="caller", priority="slot_ascending", flow_types=types))


def test_overlapping_rules_get_slots_in_the_order_of_their_priorities():
    one = ranked()
    asked = [("0x50/0xff", 100), (0x50, 200), ("0x60/0xf0", 100), ("0x50/0x50", 50)]
    middle, high, apart, low = one.place_many([tcp(tp_dst=dst, priority=priority) for dst, priority in asked])
    assert high.slot < middle.slot < low.slot
    assert isinstance(apart, Placement)


def test_no_slot_between_two_rules_is_a_reason():
    one = ranked(rows=2)
    (above,) = one.place_many([tcp(tp_dst="0/0x8000", priority=40000)])
    one.place_many([tcp(tp_dst="0/0xc000", priority=20000)])
    refusal = one.lower(tcp(tp_dst="0/0xe000", priority=30000))
    assert codes(refusal) == ["table.full"]
    wide = ranked(rows=3)
    placed = wide.place_many([tcp(tp_dst=n, tp_src=n, priority=n) for n in (1, 2, 3)])
    assert sorted(answer.slot for answer in placed) == [0, 1, 2]
    wide.release(refs(next(answer for answer in placed if answer.slot == 1)))
    wide_rule = wide.lower(tcp(priority=9))  # meets all, and must win over all
    assert codes(wide_rule) == ["priority.no_slot"]
    assert wide_rule.reasons[0].path == "/priority"
    assert wide.lower(tcp(tp_dst=77, priority=9)).slot == 1  # meets none
    assert above.slot == 0


@pytest.mark.parametrize("order", [range(40), range(39, -1, -1)])
def test_priorities_that_are_close_and_come_in_order_find_room(order):
    one = ranked(rows=256)
    answers = one.place_many([tcp(tp_src=number or None, priority=number) for number in order])
    # Only rule 0 meets the others; they are kept in order all the same.
    assert [answer.slot for answer in answers] == sorted((a.slot for a in answers), reverse=order[0] == 0)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["0xf", "0x1", "0x3"]), st.integers(0, 5)), max_size=12
    )
)
def test_slots_keep_the_order_of_priorities(asked):
    one = ranked(rows=8)
    answers = one.place_many([tcp(tp_dst=f"{value}/{mask}", priority=p * 13000) for value, mask, p in asked])
    placed = [answer for answer in answers if isinstance(answer, Placement)]
    for high in placed:
        for low in placed:
            a, b = high.rule.match.tp_dst, low.rule.match.tp_dst
            meet = not (a.value ^ b.value) & a.mask & b.mask
            if meet and high.rule.priority > low.rule.priority:
                assert high.slot < low.slot
    refused = {code for answer in answers if isinstance(answer, Refusal) for code in codes(answer)}
    assert refused <= {"rule.duplicate", "priority.no_slot", "table.full"}


operations = st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=40)


@given(operations, st.sampled_from(["none", "caller"]))
def test_account_stays_true_over_any_sequence(steps, picker):
    """After any placing and releasing, the compiler says what one that was made from the outcome says."""
    of = table(rows=4, picker=picker, mask_model="one_input_set_per_flow_type")
    one = compiler(of)
    there = {}
    for add, number in steps:
        if not add:
            one.release(refs(*(there.pop(key) for key in [number] if key in there)))
            continue
        (answer,) = one.place_many([numbered(number)])
        if isinstance(answer, Placement):
            there[number] = answer
    installed = [
        InstalledRule(ref=ref, rule=placed.rule)
        for placed, ref in zip(there.values(), refs(*there.values()), strict=True)
    ]
    anew = Compiler([state(of, in_use=len(there))], installed, vfs=8)
    for number in range(8):
        asked = numbered(number)
        answers = [which.lower(asked) for which in (one, anew)]
        assert (
            len({(type(a), getattr(a, "slot", None), str(getattr(a, "reasons", ""))) for a in answers}) == 1
        )


def numbered(number):
    """Return a rule by number: of one input set up to 5, of another above."""
    return five_tuple(number) if number < 6 else tcp(tp_dst=number)


def test_the_memory_of_kinds_is_bounded_and_account_survives_it(monkeypatch):
    monkeypatch.setattr("nicoffload.compiler.plan._MOST_KINDS", 1)
    one = compiler(table(rows=3, picker="caller"))
    placed = one.place_many([five_tuple(1), tcp(tp_dst=1), tcp(tp_src=1)])
    assert codes(one.lower(tcp(tp_dst=2))) == ["table.full"]
    one.release(refs(*placed))
    again = one.place_many([answer.rule for answer in placed])
    assert [answer.slot for answer in again] == [0, 1, 2]


def test_a_foreign_rule_that_no_flow_type_would_take_still_counts():
    strange = rule(Drop(), tun_id=5)
    one = Compiler([state(table(rows=1, picker="caller"), in_use=1)], [foreign(strange, 0)], vfs=8)
    assert codes(one.lower(five_tuple(1))) == ["table.full"]
    one.release([RuleRef(rule_id=None, table="rx", slot=0)])
    assert one.lower(five_tuple(1)).slot == 0


def test_a_rule_of_a_table_that_is_not_there_is_left_out():
    one = Compiler([state(table(rows=1))], [foreign(five_tuple(1), 0, name="gone")], vfs=8)
    assert isinstance(one.lower(five_tuple(1)), Placement)


def test_a_table_that_can_not_name_its_first_location_is_full_one_rule_earlier():
    registry = load_registry()
    driver = registry.open("mock:ixgbe,rows.fdir=8")
    states = [state for state in driver.flow_filters.tables() if state.table.name == "u32"]
    assert states[0].table.first_slot == 1
    compiler = Compiler(states, vfs=8)

    def rule(number):
        match = Match.of(ip_proto=6, ipv4_src=number, ipv4_dst=9, tp_src=1, tp_dst=2)
        return FlowRule(match=match, actions=(Drop(),))

    placed = compiler.place_many([rule(number) for number in range(1, 10)])
    rows = states[0].rows
    assert [each.slot for each in placed[: rows - 1]] == list(range(1, rows))
    assert [reason.code for reason in placed[rows - 1].reasons] == ["table.full"]
    compiler.release([RuleRef(rule_id=placed[2].rule.rule_id, table="u32", slot=3)])
    assert compiler.place_many([rule(99)])[0].slot == 3
