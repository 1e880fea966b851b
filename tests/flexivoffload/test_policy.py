"""Policy documents: every fault at once, each with its place; tiers; contradictions; hysteresis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import PolicyError
from nicoffload.flexivoffload.policy import Measure, RuleKind, Tier, load_policy, parse_policy
from nicoffload.flexivoffload.policy.decide import Readings, StatisticsRules, judge_first_packets
from nicoffload.flexivoffload.policy.types import is_within, matches_overlap
from nicoffload.model import Match
from nicoffload.packets import HAS_ETH, HAS_IPV4, HAS_PORTS, HEADER_DTYPE


def rules(*entries):
    return "version: 1\nrules:\n" + "".join(f"  - {entry}\n" for entry in entries)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("version: 1\nrulez: []\n", "p.yaml:2:1: /rulez", "did you mean rules?"),
        ("version: 2\n", "p.yaml:1:1: /version", "is not 1"),
        (
            rules("{id: a, action: onload, prioritiy: 3}"),
            "p.yaml:3:29: /rules/0/prioritiy",
            "did you mean priority?",
        ),
        (rules("{id: a}"), "p.yaml:3:5: /rules/0", "exactly one of action, promote and demote"),
        (rules("{id: a, action: onload, match: 'tcp,nw_dts=1.2.3.4'}"), "/rules/0/match", "nw_dst"),
        (
            rules("{id: a, action: onload, match: {nw_dts: 1.2.3.4}}"),
            "/rules/0/match/nw_dts",
            "did you mean nw_dst?",
        ),
        (rules("{id: a, action: onload, match: {tp_dst: 80}}"), "/rules/0/match/tp_dst", "name the protocol"),
        (rules("{id: a, action: onload, match: 'tun_id=5'}"), "/rules/0/match", "not looked into tunnels"),
        (rules("{id: a, action: onload}", "{id: a, action: onload}"), "p.yaml:4:6: /rules/1/id", "already"),
        (rules("{id: a, promote: {pps: {up: 10, down: 11}}}"), "/rules/0/promote/pps/down", "exceeds up"),
        (rules("{id: a, promote: {pps: {up: 10, down: 9}}}"), "/rules/0/promote/pps/down", "at most 0.8"),
        (
            rules("{id: a, promote: {packets: {up: 10, down: 1}}}"),
            "/rules/0/promote/packets/down",
            "never falls",
        ),
        (rules("{id: a, demote: {pps: {up: 10}}}"), "/rules/0/demote/pps", "needs down"),
        (rules("{id: a, promote: {bps: {up: -1}}}"), "/rules/0/promote/bps/up", "not above 0"),
        (rules("{id: a, promote: {bps: {up: fast}}}"), "/rules/0/promote/bps/up", "is no rate"),
        (rules("{id: a, action: onload, hold_s: 3}"), "/rules/0/hold_s", "means nothing"),
        (rules("{id: a, when: statistics, action: onload}"), "/rules/0/when", "first_packet"),
        ("version: 1\nversion: 1\n", "p.yaml:2:1: /version", "twice"),
        ("version: [1\n", "p.yaml:2:1", "neither YAML nor JSON"),
        ("- 1\n", "p.yaml:1:1", "a policy is a mapping"),
        ("version: 1\ndefault: &a [*a]\n", "p.yaml", ""),
        ('{"version": 1,\n\t"defult": "onload"}', "p.yaml:2:2: /defult", "did you mean default?"),
    ],
)
def test_a_fault_has_its_place_and_its_cure(text, place, words):
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, source="p.yaml")
    assert place in str(caught.value)
    assert words in str(caught.value)


def test_all_faults_are_told_at_once():
    text = (
        "version: 1\ndefualt: onload\nrules:\n  - id: a\n    action: drop\n  - id: b b\n    action: onload\n"
    )
    with pytest.raises(PolicyError, match="3 faults") as caught:
        parse_policy(text, source="p.yaml")
    assert [line.split(": ")[0] for line in caught.value.message.splitlines()[1:]] == [
        "p.yaml:2:1",
        "p.yaml:5:5",
        "p.yaml:6:5",
    ]


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(PolicyError, match="No such file"):
        load_policy(tmp_path / "no.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="not UTF-8"):
        load_policy(tmp_path / "bad.yaml")


@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_a_policy_error(text):
    try:
        parse_policy(text)
    except PolicyError:
        return


@pytest.mark.parametrize(
    "pair",
    [
        ("{id: a, match: tcp, action: onload}", "{id: b, match: tcp, action: offload}"),
        (
            "{id: a, priority: 5, match: 'tcp,tp_dst=80', action: onload}",
            "{id: b, priority: 5, match: 'tcp,nw_dst=10.0.0.1', action: offload}",
        ),
        ("{id: a, promote: {pps: {up: 100}}}", "{id: b, demote: {pps: {down: 90}}}"),
        ("{id: a, match: tcp, promote: {packets: {up: 100}}}", "{id: b, demote: {packets: {up: 50}}}"),
    ],
)
def test_contradictions_are_found_at_load(pair):
    with pytest.raises(PolicyError, match=r"/rules/1:"):
        parse_policy(rules(*pair))


@pytest.mark.parametrize(
    "pair",
    [
        ("{id: a, match: 'tcp,tp_dst=22', action: onload}", "{id: b, match: tcp, action: offload}"),
        ("{id: a, match: tcp, action: onload}", "{id: b, match: udp, action: offload}"),
        ("{id: a, vm: x, match: tcp, action: onload}", "{id: b, vm: y, match: tcp, action: offload}"),
        ("{id: a, priority: 9, match: tcp, action: onload}", "{id: b, match: tcp, action: offload}"),
        ("{id: a, promote: {pps: {up: 100}}}", "{id: b, demote: {pps: {down: 20}}}"),
        ("{id: a, match: tcp, promote: {pps: {up: 100}}}", "{id: b, match: udp, demote: {pps: {down: 99}}}"),
    ],
)
def test_what_only_looks_like_a_contradiction_is_let_through(pair):
    assert len(parse_policy(rules(*pair)).rules) == 2


def test_matches_are_written_as_text_or_as_fields():
    policy = parse_policy(
        rules(
            "{id: a, match: 'tcp,nw_dst=10.0.0.0/8,tp_dst=80-90', action: onload}",
            "{id: b, match: {protocol: tcp, ipv4_dst: 10.0.0.0/8, tp_dst: 80-90, vm: web}, action: onload}",
            "{id: c, match: {dl_dst: 12:34:56:10:11:12}, action: onload}",
        )
    )
    assert policy.rules[0].match == policy.rules[1].match
    assert policy.rules[1].vm == "web"
    assert policy.rules[2].match.eth_dst.value == 0x123456101112


def header(**fields):
    row = np.zeros(1, HEADER_DTYPE)
    row["present"] = HAS_ETH | HAS_IPV4 | HAS_PORTS
    row["eth_type"] = 0x800
    for name, value in fields.items():
        row[name] = value
    return row


def judge(policy, row):
    zero = np.zeros(1, np.int32)
    return judge_first_packets(policy, row, zero, zero, ["web"])


def test_tiers_then_priority_then_the_more_specific_then_the_older():
    policy = parse_policy(
        rules(
            "{id: wide, match: tcp, action: offload}",
            "{id: narrow, match: 'tcp,tp_dst=80', action: offload}",
            "{id: high, priority: 5, match: 'tcp,tp_dst=80-81', action: offload}",
            "{id: pin, match: 'tcp,tp_dst=90', action: offload, pin: true}",
            "{id: deny, match: 'tcp,tp_dst=100', action: onload}",
            "{id: twin, match: tcp, action: offload}",
        )
    )
    found = {}
    for port in (70, 80, 90, 100):
        verdict = judge(policy, header(ip_proto=6, tp_dst=port))
        found[port] = (Tier(int(verdict.tier[0])), policy.rules[int(verdict.rule[0])].rule_id)
    assert found == {
        70: (Tier.HEADER, "wide"),
        80: (Tier.HEADER, "high"),
        90: (Tier.PIN, "pin"),
        100: (Tier.DENY, "deny"),
    }
    other = judge(policy, header(ip_proto=17, tp_dst=80))
    assert (Tier(int(other.tier[0])), int(other.rule[0])) == (Tier.DEFAULT, -1)


FIELD_VALUES = {
    "ip_proto": st.sampled_from([6, 17]),
    "ipv4_dst": st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "11.0.0.0/8"]),
    "tp_dst": st.sampled_from(["80", "80-90", "85-100", "0x50/0xf0"]),
}


@st.composite
def matches(draw):
    fields = {"eth_type": 0x800, "ip_proto": draw(FIELD_VALUES["ip_proto"])}
    for name in ("ipv4_dst", "tp_dst"):
        if draw(st.booleans()):
            fields[name] = draw(FIELD_VALUES[name])
    return Match.of(**fields)


@given(
    matches(),
    matches(),
    st.integers(70, 110),
    st.sampled_from([0x0A010203, 0x0A010000, 0x0B000001, 0x0A000000]),
)
def test_overlap_and_inclusion_agree_with_packets(one, other, port, address):
    from nicoffload.flexivoffload.headers import match_headers
    from nicoffload.flexivoffload.policy import PolicyRule

    for proto in (6, 17):
        row = header(ip_proto=proto, tp_dst=port, ipv4_dst=address)
        first, second = (bool(match_headers(m, row, np.zeros(1, np.int32))[0]) for m in (one, other))
        if first and second:
            assert matches_overlap(one, other)
        inner, outer = (PolicyRule(rule_id="r", kind=RuleKind.ONLOAD, match=m) for m in (one, other))
        if is_within(inner, outer) and first:
            assert second


def run(rule, values, on_nic, step_s=1):
    """Feed one flow's rate, a value a second, to a rule, and return when it held."""
    state = StatisticsRules(parse_policy(rules(rule)), 1)
    state.start(0, np.array([True]))
    held = []
    for second, value in enumerate(values):
        column = np.array([float(value)])
        state.update(
            Readings(
                now_ns=second * step_s * 10**9,
                values=dict.fromkeys(Measure, column),
                on_nic_s=np.array([float(on_nic[second])]),
            )
        )
        held.append(bool(state.holds[0, 0]))
    return held


def test_promotion_has_hysteresis_hold_and_residence():
    rule = "{id: a, promote: {pps: {up: 100, down: 50}}, hold_s: 1, min_residence_s: 3}"
    values = [100, 100, 60, 40, 40, 40, 40, 40]
    on_nic = [-1, -1, 0, 1, 2, 3, 4, 5]
    assert run(rule, values, on_nic) == [False, True, True, True, True, True, False, False]


def test_a_rate_between_down_and_up_changes_nothing():
    rule = "{id: a, promote: {pps: {up: 100, down: 50}}}"
    assert run(rule, [99, 100, 51, 99, 50, 99], [-1, -1, 0, 1, 2, -1]) == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]


def test_demotion_waits_for_the_flow_to_be_on_the_nic_and_lets_it_back_at_up():
    rule = "{id: a, demote: {pps: {down: 10, up: 40}}, min_residence_s: 1}"
    assert run(rule, [5, 5, 5, 20, 40, 5], [-1, 0, 1, -1, -1, -1]) == [False, False, True, True, False, False]


def test_a_count_demotes_for_good():
    assert run("{id: a, demote: {packets: {up: 10}}}", [5, 10, 11], [0, 1, -1]) == [False, True, True]


def test_example_policies_are_sound(repo_root):
    found = sorted((repo_root / "examples/policies").glob("*.yaml"))
    assert len(found) >= 3
    for path in found:
        assert load_policy(path).rules
