"""The compiler on the profiles of this repository: what the issue shows, and properties over all of them."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicoffload.compiler import Compiler, Refusal, lower
from nicoffload.driver.contract import Placement, TableState
from nicoffload.errors import NicOffloadError, NotSupportedError, errno_number
from nicoffload.model import Count, Drop, FlowRule, Match, Mirror, ToPf, ToQueue, ToVf
from nicoffload.profiles.load import load_profile
from tests.compiler.samples import five_tuple, refs, rule, tcp

PATHS = {
    path.stem: path
    for path in sorted(Path(__file__).parents[2].glob("plugins/*/nicoffload_*/profiles/*.json"))
}
MACS = {vf: 0x02_00_00_00_00_00 + vf for vf in range(8)}
LISTED = (
    ("tcp4", frozenset({"ipv4_src", "ipv4_dst", "tp_src", "tp_dst"})),
    ("tcp4", frozenset({"ipv4_dst", "tp_dst"})),
    ("ether", frozenset({"eth_dst"})),
)


@functools.cache
def tables(family):
    found = []
    for one in load_profile(PATHS[family]).tables:
        listed = LISTED if one.mask_model == "firmware_list" else ()
        found.append(TableState(table=one, rows=one.rows, in_use=0, firmware_shapes=listed))
    return tuple(found)


def nic(family):
    return Compiler(tables(family), vfs=8, vf_macs=MACS, vf_vlans={2: 5}, queues=4, vf_queues=1)


def shown():
    """Return the rule that the project's first issue shows."""
    return tcp(ToVf(vf=1), ipv4_src="10.0.0.0/8", tp_dst=80)


def test_there_are_profiles():
    assert {"ixgbe", "mlx5", "sfc_siena", "sfn5122f"} <= set(PATHS)


def test_sfn5122f_names_each_reason_and_offers_what_it_could_hold():
    refusal = nic("sfn5122f").lower(shown())
    own = [reason for reason in refusal.reasons if reason.code != "table.other"]
    assert [(reason.code, reason.path) for reason in own] == [
        ("mask.partial", "/match/ipv4_src"),
        ("combination", "/match"),
    ]
    assert own[0].accepted == "nw_src with /32, one address, or left out"
    assert own[1].accepted == "{nw_src, nw_dst, tp_src, tp_dst} or {nw_dst, tp_dst}"
    offers = {rung.name: rung for rung in refusal.ladder if not rung.reasons}
    assert set(offers) == {"5-tuple", "3-tuple", "MAC+VLAN", "MAC"}
    assert offers["3-tuple"].missing == ("ipv4_dst",)
    assert offers["MAC"].rule.match == Match.of(eth_dst=MACS[1])
    assert offers["MAC"].also_catches.startswith(
        "all traffic to 02:00:00:00:00:01 (VF 1), not only TCP from 10.0.0.0/8"
    )


def test_sfc_siena_refuses_the_vf_on_its_own_account():
    refusal = nic("sfc_siena").lower(shown())
    own = [reason for reason in refusal.reasons if reason.code != "table.other"]
    assert [(reason.code, reason.path) for reason in own] == [
        ("mask.partial", "/match/ipv4_src"),
        ("combination", "/match"),
        ("action.vf_target", "/actions/0"),
    ]
    assert all(rung.reasons for rung in refusal.ladder)
    queue = nic("sfc_siena").lower(five_tuple(1, ToQueue(queue=1)))
    assert queue.table == "rx_ip"


def test_mlx5_takes_it():
    placement = nic("mlx5").lower(shown())
    assert placement.table == "flower_fdb"
    assert placement.flow_type == "tcp4"


def test_ixgbe_has_one_mask_for_all():
    one = nic("ixgbe")
    (first,) = one.place_many([shown()])
    assert first.slot == 0
    assert "mask.second" in {
        reason.code for reason in one.lower(tcp(ipv4_src="10.0.0.0/16", tp_dst=80)).reasons
    }
    assert isinstance(one.lower(tcp(ipv4_src="11.0.0.0/8", tp_dst=81)), Placement)


def test_zero_port_is_refused_by_siena_hardware():
    found = nic("sfn5122f").lower(tcp(ipv4_dst="10.0.0.1", tp_dst=0)).reasons
    assert ("value.unsupported", "EADDRNOTAVAIL") in {(reason.code, reason.errno) for reason in found}


addresses = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.0/8", "0.0.0.1/0.0.0.255"])
ports = st.sampled_from([0, 80, 443, "0x100/0xff00", "0x1/0x1", "1000-1010"])
macs = st.sampled_from(
    ["02:00:00:00:00:01", "00:00:00:00:00:00/01:00:00:00:00:00", "02:00:00:00:00:00/ff:00:00:00:00:00"]
)
small = st.sampled_from([0, 1, "0x1/0x1"])
FIELDS = {
    "in_port": st.sampled_from(["uplink", "vf:1", "vf:9"]),
    "eth_src": macs,
    "eth_dst": macs,
    "vlan_vid": st.sampled_from([5, "0x1/0xf"]),
    "vlan_pcp": small,
    "ipv4_src": addresses,
    "ipv4_dst": addresses,
    "ip_tos": small,
    "ip_ttl": small,
    "tp_src": ports,
    "tp_dst": ports,
    "tun_id": small,
}
ACTIONS = st.sampled_from(
    [
        (ToVf(vf=1),),
        (ToVf(vf=2),),
        (ToVf(vf=9),),
        (ToVf(vf=1, queue=1),),
        (ToQueue(queue=0),),
        (ToQueue(queue=7),),
        (Drop(),),
        (ToPf(),),
        (Count(), ToVf(vf=1)),
        (Mirror(port=2), Drop()),
    ]
)


@st.composite
def rules(draw) -> FlowRule:
    names = draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=5))
    match = {name: draw(FIELDS[name]) for name in names}
    if names & {"tp_src", "tp_dst"}:
        match |= {"ip_proto": draw(st.sampled_from([6, 17]))}
    if names & {"tp_src", "tp_dst", "ip_tos", "ip_ttl"} or draw(st.booleans()):
        match |= {"eth_type": 0x800}
    priority = draw(st.sampled_from([None, None, None, 0, 7]))
    return FlowRule(match=Match.of(**match), actions=draw(ACTIONS), priority=priority)


@st.composite
def plain_rules(draw) -> FlowRule:
    """Return a rule that many NICs take, so that state gets its share of the refusals."""
    drawn = draw(
        st.sampled_from(
            [
                lambda: five_tuple(draw(st.integers(0, 3))),
                lambda: tcp(ipv4_dst="10.0.0.1", tp_dst=draw(st.integers(1, 4))),
                lambda: rule(eth_dst=draw(st.integers(1, 4)) << 1),
                lambda: rule(eth_type=draw(st.integers(0x9000, 0x9004))),
            ]
        )
    )()
    return dataclasses.replace(
        drawn, actions=(draw(st.sampled_from([ToVf(vf=1), ToQueue(queue=1), Drop()])),)
    )


each = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def outline(answer):
    if isinstance(answer, Placement):
        return (answer.table, answer.flow_type, answer.slot, answer.caveats)
    return answer.reasons


@pytest.mark.parametrize("family", PATHS)
@given(st.lists(st.one_of(rules(), plain_rules()), max_size=12))
@each
def test_in_bulk_as_one_by_one(family, asked):
    bulk, single = nic(family), nic(family)
    assert [outline(answer) for answer in bulk.place_many(asked)] == [
        outline(single.place_many([one])[0]) for one in asked
    ]


@pytest.mark.parametrize("family", PATHS)
@given(st.lists(st.one_of(rules(), plain_rules()), max_size=8))
@each
def test_check_tells_what_placing_does(family, asked):
    one = nic(family)
    for each_rule in asked:
        assert outline(one.lower(each_rule)) == outline(one.place_many([each_rule])[0])


@pytest.mark.parametrize("family", PATHS)
@given(st.lists(plain_rules(), max_size=8), st.randoms(use_true_random=False))
@each
def test_what_is_released_is_taken_again(family, asked, random):
    one = nic(family)
    placed = [answer for answer in one.place_many(asked) if isinstance(answer, Placement)]
    gone = [answer for answer in placed if random.random() < 0.5]
    one.release(refs(*gone))
    again = one.place_many([answer.rule for answer in gone])
    assert all(isinstance(answer, Placement) for answer in again)
    one.release(refs(*placed))
    assert [outline(answer) for answer in one.place_many(asked)] == [
        outline(answer) for answer in nic(family).place_many(asked)
    ]


@pytest.mark.parametrize("family", PATHS)
@given(rules())
@each
def test_a_refusal_is_never_bare(family, asked):
    answer = lower(asked, tables(family), vfs=8, queues=4, vf_queues=1)
    if isinstance(answer, Placement):
        return
    assert answer.reasons
    for reason in answer.reasons:
        assert reason.code
        assert reason.message
        assert reason.path or reason.code.startswith("table.")
        assert reason.source or reason.code == "table.none"
        if reason.errno:
            errno_number(reason.errno)
        if reason.code in ("mask.widened", "field.ignored"):
            assert reason.errno == ""
    error = answer.error("mock:x")
    assert isinstance(error, NicOffloadError)
    assert isinstance(error, NotSupportedError)
    assert error.reasons == answer.reasons


@pytest.mark.parametrize("family", PATHS)
@given(rules())
@each
def test_rungs_without_reasons_are_taken(family, asked):
    one = nic(family)
    answer = one.lower(asked)
    if isinstance(answer, Placement):
        return
    for rung in answer.ladder:
        assert rung.also_catches
        assert (rung.rule is None) == bool(rung.missing)
        assert bool(rung.table) != bool(rung.reasons)
        if rung.rule is not None:
            taken = one.lower(rung.rule)
            assert isinstance(taken, Placement) != bool(rung.reasons)
            assert rung.rule.match != asked.match
            assert isinstance(taken, Refusal) or taken.table == rung.table
