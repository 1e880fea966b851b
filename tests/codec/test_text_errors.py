"""A rule that is wrong is refused with its place, and with the word that was meant."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.codec import RuleTextError, parse_action, parse_rule
from nicoffload.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("text", "column", "path", "says", "hint"),
    [
        ("tcp,nw_dts=10.0.0.5 actions=vf:2", 5, "/match", "'nw_dts'", "did you mean nw_dst?"),
        ("tcp,nw_proto=17 actions=drop", 5, "/match/ip_proto", "contradicts tcp", ""),
        ("nw_proto=17,tcp actions=drop", 13, "/match/ip_proto", "tcp contradicts nw_proto", ""),
        ("tcp,udp actions=drop", 5, "/match/ip_proto", "udp contradicts tcp", ""),
        ("tcp,ipv6 actions=drop", 5, "/match/eth_type", "contradicts", "tcp is IPv4; write tcp6 alone"),
        ("ipv6,tcp actions=drop", 6, "/match/eth_type", "contradicts", "tcp is IPv4; write tcp6 alone"),
        ("tcp,udp_dst=53 actions=drop", 5, "/match/tp_dst", "udp_dst contradicts tcp", "write tp_dst"),
        ("tcp,tcp actions=drop", 5, "/match/eth_type", "has said already", ""),
        (
            "ip,nw_src=10.0.0.1,ip_src=10.0.0.1 actions=drop",
            20,
            "/match/ipv4_src",
            "nw_src has said already",
            "",
        ),
        ("ip,ip_dscp=1,nw_tos=4 actions=drop", 14, "/match/ip_tos", "has said already", ""),
        ("tp_dst=80 actions=drop", 1, "/match/tp_dst", "means nothing unless ip_proto", "name the protocol"),
        ("tcp,ipv6_dst=::1 actions=drop", 5, "/match/ipv6_dst", "means nothing unless eth_type", ""),
        ("tcp,tp_dst=2000-1000 actions=drop", 5, "/match/tp_dst", "no range", ""),
        ("tcp,tp_dst=65536 actions=drop", 5, "/match/tp_dst", "does not fit 16 bits", ""),
        ("tcp,tp_dst=-5 actions=drop", 5, "/match/tp_dst", "negative", ""),
        ("ip,nw_src=10.0.0.0/33 actions=drop", 4, "/match/ipv4_src", "longer than 32 bits", ""),
        ("ip,nw_src=10.0.0 actions=drop", 4, "/match/ipv4_src", "no IPv4 address", ""),
        ("ipv6,ipv6_src=fe80::1%eth0 actions=drop", 6, "/match/ipv6_src", "has a scope", ""),
        ("dl_dst=02:00 actions=drop", 1, "/match/eth_dst", "no MAC address", "02:00:00:00:00:01"),
        ("ip,ip_dscp=64 actions=drop", 4, "/match/ip_tos", "no DSCP", "0 to 63"),
        ("tcp,tcp_flags=+syn-akc actions=drop", 5, "/match/tcp_flags", "no TCP flags", "+syn-ack"),
        ("tcp,nw_dst actions=drop", 5, "", "needs a value", "nw_dst="),
        ("tcp,nw_dst= actions=drop", 5, "", "has no value", ""),
        ("in_port=vf:x actions=drop", 1, "/match/in_port", "no port of a NIC", "uplink, pf or vf:0"),
        ("in_port=1 actions=drop", 1, "/match/in_port", "'1' is a number", "uplink, pf or vf:0"),
        ("in_port=0x1/0xffff actions=drop", 1, "/match/in_port", "is a number", "uplink, pf or vf:0"),
        ("dl_dst=02:00:00:00:00:0 actions=drop", 1, "/match/eth_dst", "no MAC address", "02:00:00:00:00:01"),
        ("table=0,tcp actions=drop", 1, "/match", "'table'", "no OpenFlow table; leave it out"),
        ("cookie=7,tcp actions=drop", 1, "/match", "'cookie'", "id=UUID"),
        ("tcp,ct_state=+trk actions=drop", 5, "/match", "'ct_state'", "not connections"),
        ("tcp actions=set_queue:1,pf", 13, "/actions/0", "'set_queue'", "egress QoS queue"),
        ("tcp actions=goto_table:1", 13, "/actions/0", "'goto_table'", "no OpenFlow table"),
        ("priority=70000 actions=drop", 1, "/priority", "0 to 65535", ""),
        ("priority=-1 actions=drop", 1, "/priority", "no priority", ""),
        ("priority=1,priority=2 actions=drop", 12, "/priority", "given twice", ""),
        ("id=1 actions=drop", 1, "/rule_id", "no UUID", ""),
        ("tcp,tp_dst=80", 14, "/actions", "no actions=", "actions=vf:0"),
        ("", 1, "/actions", "no actions=", ""),
        ("tcp actions=", 13, "/actions/0", "an action is missing", ""),
        ("tcp actions=vf:1,,count", 18, "/actions/1", "an action is missing", ""),
        ("tcp actions=vf:1,drpo", 18, "/actions/1", "'drpo'", "did you mean drop?"),
        ("tcp actions=vf:1,drop", 5, "/actions", "exactly one of", ""),
        ("tcp actions=count", 5, "/actions", "found none", ""),
        ("tcp actions=vf:4096", 13, "/actions/0", "0 to 4095", ""),
        ("tcp actions=vf:-1", 13, "/actions/0", "no vf action", "vf:N"),
        ("tcp actions=vf", 13, "/actions/0", "no vf action", ""),
        ("tcp actions=drop:1", 13, "/actions/0", "no drop action", ""),
        ("tcp actions=output:1", 13, "/actions/0", "'output'", "vf:N, pf or uplink"),
        ("tcp actions=NORMAL", 13, "/actions/0", "'NORMAL'", "virtual switch"),
        ("tcp actions=police:0:1,pf", 13, "/actions/0", "1 to 1600000000000", ""),
        ("tcp actions=police:10T:1,pf", 13, "/actions/0", "1 to 1600000000000", ""),
        ("tcp actions=police:none:1,pf", 13, "/actions/0", "has a rate", ""),
        ("tcp actions=police:100M,pf", 13, "/actions/0", "no police action", "police:RATE:BURST"),
        ("tcp actions=pf,set_field:1->nw_dts", 16, "/actions/1", "'nw_dts'", "nw_dst"),
        ("tcp actions=pf,set_field:1.2.3.4/0->nw_dst", 16, "/actions/1", "mask is empty", ""),
        ("tcp actions=uplink,tunnel_set(id=1,src=1.1.1.1)", 20, "/actions/1", "lacks dst", ""),
        ("tcp actions=uplink,tunnel_set(id=1,src=1.1.1.1,dst=::1)", 20, "/actions/1", "address family", ""),
        (
            "tcp actions=uplink,tunnel_set(id=1,id=2,src=1.1.1.1,dst=1.1.1.2)",
            20,
            "/actions/1",
            "id twice",
            "",
        ),
        (
            "tcp actions=uplink,tunnel_set(id=1,scr=1.1.1.1,dst=1.1.1.2)",
            20,
            "/actions/1",
            "scr",
            "did you mean src?",
        ),
        ("tcp actions=uplink,tunnel_set(id=1", 20, "/actions/1", "no tunnel_set action", ""),
        ("tcp actions=push_vlan:5000,pf", 13, "/actions/0", "0 to 4095", ""),
        ("tcp actions=mod_vlan:5@0x8100,pf", 13, "/actions/0", "no mod_vlan action", ""),
        ("tcp actions=mirror,pf", 13, "/actions/0", "no mirror action", ""),
    ],
)
def test_each_fault_has_its_column_place_and_hint(text, column, path, says, hint):
    with pytest.raises(RuleTextError) as caught:
        parse_rule(text)
    fault = caught.value
    assert (fault.column, fault.path) == (column, path)
    assert says in str(fault)
    assert f"(column {column})" in str(fault)
    assert hint in fault.hint
    assert fault.text == text


# fmt: off
WORDS = st.sampled_from([
    "tcp", "ip", "ipv6", "nw_dst=", "tp_dst=", "10.0.0.1", "/8", "=", ",", " ", "actions=", "vf:", "1", "-", "(", ")",
    "set_field:", "->", "tunnel_set(", "id=", "priority=", "tcp_flags=", "+syn", "²", "٣", "0x", "9" * 5000,
])
# fmt: on


@given(st.lists(WORDS | st.text(max_size=5), max_size=12).map("".join))
def test_no_text_gets_past_the_error_family(text):
    fault = None
    try:
        parse_rule(text)
    except RuleTextError as caught:
        fault = caught
    assert fault is None or 1 <= fault.column <= len(text) + 1


@given(st.text(max_size=30))
def test_no_action_gets_past_the_error_family(text):
    with contextlib.suppress(InvalidRequestError):
        parse_action(text)
