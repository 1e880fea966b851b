"""Every rule of the model survives text and JSON, and JSON keeps to the schema."""

from __future__ import annotations

import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.codec import (
    action_from_json,
    action_to_json,
    format_action,
    format_rate,
    format_rule,
    match_from_json,
    match_to_json,
    parse_action,
    parse_rate,
    parse_rule,
    rule_from_json,
    rule_to_json,
)
from nicoffload.model import (
    FIELDS,
    Count,
    Drop,
    FlowRule,
    Kind,
    Masked,
    Match,
    Mirror,
    ModifyVlan,
    Police,
    PopVlan,
    PortRange,
    PushVlan,
    SetField,
    ToPf,
    ToQueue,
    ToUplink,
    ToVf,
    TunnelSet,
    TunnelUnset,
)
from nicoffload.schema import find_faults


def masked(name: str) -> st.SearchStrategy[Masked]:
    full = FIELDS[name].full_mask
    prefixes = st.integers(1, FIELDS[name].bits).map(lambda length: full ^ (full >> length))
    masks = st.just(full) | prefixes | st.integers(1, full)
    return st.builds(lambda mask, value: Masked(value & mask, mask), masks, st.integers(0, full))


def exact(name: str, value: int) -> Masked:
    return Masked(value, FIELDS[name].full_mask)


@st.composite
def matches(draw: st.DrawFn) -> Match:
    """Any match: free fields, and those that need a protocol below one that has it."""
    other = draw(st.sampled_from(["tun_ipv4", "tun_ipv6"]))  # a tunnel's outer addresses are of one version
    free = [
        name
        for name, spec in FIELDS.items()
        if not spec.needs and name != "eth_type" and not name.startswith(other)
    ]
    fields = draw(st.dictionaries(st.sampled_from(free), st.none(), max_size=6))
    eth_type = draw(st.sampled_from([None, 0x0800, 0x86DD, 0x0806, 0x88F7]))
    chosen = {name: draw(masked(name)) for name in fields}
    if eth_type is None:
        chosen |= {"eth_type": draw(masked("eth_type"))} if draw(st.booleans()) else {}
        return Match(**chosen)
    chosen["eth_type"] = exact("eth_type", eth_type)
    if eth_type not in (0x0800, 0x86DD):
        return Match(**chosen)
    version = "ipv4" if eth_type == 0x0800 else "ipv6"
    above = [f"{version}_src", f"{version}_dst", "ip_tos", "ip_ttl", "ip_frag"]
    proto = draw(st.sampled_from([None, 1, 6, 17, 47, 58, 132]))
    if proto is not None:
        chosen["ip_proto"] = exact("ip_proto", proto)
        above += {6: ["tp_src", "tp_dst", "tcp_flags"], 1: ["icmp_type", "icmp_code"]}.get(proto, [])
        above += ["tp_src", "tp_dst"] if proto in (17, 132) else []
    for name in draw(st.lists(st.sampled_from(above), unique=True)):
        ports = st.builds(lambda a, b: PortRange(min(a, b), max(a, b)), *[st.integers(0, 0xFFFF)] * 2)
        chosen[name] = draw(masked(name) | ports if FIELDS[name].kind is Kind.PORT else masked(name))
    return Match(**chosen)


@st.composite
def tunnels(draw: st.DrawFn) -> TunnelSet:
    kind = draw(st.sampled_from([ipaddress.IPv4Address, ipaddress.IPv6Address]))
    ends = [str(kind(draw(st.integers(0, (1 << kind(0).max_prefixlen) - 1)))) for _ in range(2)]
    return TunnelSet(
        tun_id=draw(st.integers(0, 0xFFFFFF)), src=ends[0], dst=ends[1], tp_dst=draw(st.integers(1, 0xFFFF))
    )


VIDS, PCPS = st.integers(0, 4095), st.integers(0, 7)
SIDE_ACTIONS = st.one_of(
    st.builds(Mirror, port=st.integers(0, 4097)),
    st.builds(Police, rate_bps=st.integers(1, 1_600_000_000_000), burst_bytes=st.integers(1, 1 << 32)),
    st.builds(PushVlan, vid=VIDS, pcp=PCPS, tpid=st.sampled_from([0x8100, 0x88A8])),
    st.builds(PopVlan),
    st.builds(ModifyVlan, vid=VIDS, pcp=PCPS),
    st.sampled_from(sorted(FIELDS)).flatmap(
        lambda name: st.builds(SetField, field=st.just(name), value=masked(name))
    ),
    tunnels(),
    st.builds(TunnelUnset),
    st.builds(Count),
)
FATES = st.one_of(
    st.builds(ToVf, vf=st.integers(0, 4095), queue=st.integers(0, 0xFFFF)),
    st.builds(ToQueue, queue=st.integers(0, 0xFFFF)),
    st.builds(ToPf),
    st.builds(ToUplink),
    st.builds(Drop),
)


@st.composite
def rules(draw: st.DrawFn) -> FlowRule:
    actions = [*draw(st.lists(SIDE_ACTIONS, max_size=4)), draw(FATES)]
    return FlowRule(
        match=draw(matches()),
        actions=tuple(draw(st.permutations(actions))),
        priority=draw(st.none() | st.integers(0, 0xFFFF)),
        rule_id=draw(st.uuids()),
    )


@given(rules())
def test_text_gives_the_same_rule_back(rule):
    assert parse_rule(format_rule(rule, with_id=True)) == rule
    assert parse_rule(format_rule(rule), rule_id=rule.rule_id) == rule


@given(rules())
def test_json_gives_the_same_rule_back(rule):
    assert rule_from_json(json.loads(json.dumps(rule_to_json(rule)))) == rule


@given(rules())
def test_json_keeps_to_the_schema(rule):
    assert find_faults(rule_to_json(rule), "flow-rule") == ()


@given(matches())
def test_a_match_survives_alone(match):
    assert match_from_json(match_to_json(match)) == match


@given(SIDE_ACTIONS | FATES)
def test_an_action_survives_alone(action):
    assert parse_action(format_action(action)) == action
    assert action_from_json(action_to_json(action)) == action


@given(st.none() | st.integers(0, 1 << 60))
def test_a_rate_survives(rate_bps):
    assert parse_rate(format_rate(rate_bps)) == rate_bps


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("tcp,nw_dst=10.0.0.5,tp_dst=443 actions=vf:2", None),
        ("  tcp  nw_dst=10.0.0.5 , tp_dst=443   actions=vf:2", "tcp,nw_dst=10.0.0.5,tp_dst=443 actions=vf:2"),
        (
            "ip,nw_proto=6,ip_dst=10.0.0.5,tcp_dst=443,action=vf:2",
            "tcp,nw_dst=10.0.0.5,tp_dst=443 actions=vf:2",
        ),
        ("nw_dst=10.1.2.3/8 actions=drop", "ip,nw_dst=10.0.0.0/8 actions=drop"),
        ("nw_dst=10.1.2.3/255.0.0.0 actions=drop", "ip,nw_dst=10.0.0.0/8 actions=drop"),
        ("udp6,ipv6_dst=2001:DB8::/32 actions=drop", "udp6,ipv6_dst=2001:db8::/32 actions=drop"),
        ("ip,ip_dscp=10 actions=drop", "ip,nw_tos=0x28/0xfc actions=drop"),
        ("tcp,tcp_flags=+syn-ack actions=drop", "tcp,tcp_flags=0x2/0x12 actions=drop"),
        ("tcp,tp_dst=1000-2000 actions=drop", None),
        ("tcp,tp_dst=80-80 actions=drop", "tcp,tp_dst=80 actions=drop"),
        ("ip,nw_src=1.2.3.4/0 actions=drop", "ip actions=drop"),
        ("in_port=vf:3,dl_vlan=100 actions=pop_vlan,uplink", None),
        ("ip,nw_frag=later actions=pf", None),
        ("actions=drop", None),
        ("udp actions=police:100M:64k,vf:1.7", "udp actions=police:100M:64000,vf:1.7"),
        (
            "ip actions=tunnel_set(id=5, src=10.0.0.1, dst=10.0.0.2),uplink",
            "ip actions=tunnel_set(id=5,src=10.0.0.1,dst=10.0.0.2,tp_dst=4789),uplink",
        ),
        ("ip actions=set_field:2001:db8::1->ipv6_dst,set_field:0x2/0x3->tun_id,pf", None),
        ("dl_type=0x88cc actions=push_vlan:5/3@0x88a8,mirror:vf:0,count,pf", None),
    ],
)
def test_examples_have_one_canonical_text(text, canonical):
    assert format_rule(parse_rule(text)) == (canonical or text)
