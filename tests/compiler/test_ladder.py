"""The ladder of coarser rules, and the error that a refusal becomes."""

from __future__ import annotations

import pytest

from nicoffload.compiler import Compiler, Refusal
from nicoffload.driver.contract import Placement
from nicoffload.errors import NotSupportedError, Reason
from nicoffload.model import Drop, ToVf
from tests.compiler.samples import FOUR, field, flow_type, rule, shape, state, table, tcp

MAC = 0x02_00_00_00_00_01


def nic(**more):
    ip = table(mask_model="shapes", shapes=(shape(*FOUR), shape("ipv4_dst", "tp_dst")))
    ether = flow_type("ether", fixed={}, fields={"eth_dst": field(), "vlan_vid": field()})
    mac = table(
        "mac",
        mask_model="shapes",
        flow_types=(ether,),
        shapes=(shape("eth_dst", types=("ether",)), shape("eth_dst", "vlan_vid", types=("ether",))),
    )
    return Compiler([state(ip), state(mac)], **({"vfs": 8, "vf_macs": {1: MAC}, "vf_vlans": {1: 7}} | more))


def rungs(answer):
    assert isinstance(answer, Refusal), answer
    return {rung.name: rung for rung in answer.ladder}


def test_the_rungs_from_fine_to_coarse():
    answer = nic().lower(tcp(ip_tos=1, ipv4_src="10.0.0.1", ipv4_dst="10.0.0.5", tp_src=5, tp_dst=443))
    found = rungs(answer)
    assert list(found) == ["5-tuple", "3-tuple", "destination IP", "MAC+VLAN", "MAC"]
    words = {name: rung.also_catches for name, rung in found.items()}
    asked = "TCP from 10.0.0.1 port 5 to 10.0.0.5 port 443 with nw_tos 1"
    assert words == {
        "5-tuple": "all TCP from 10.0.0.1 port 5 to 10.0.0.5 port 443, not only with nw_tos 1",
        "3-tuple": "all TCP to 10.0.0.5 port 443, not only from 10.0.0.1 port 5 with nw_tos 1",
        "destination IP": "all IPv4 to 10.0.0.5, not only TCP from 10.0.0.1 port 5 to port 443 with nw_tos 1",
        "MAC+VLAN": f"all traffic to 02:00:00:00:00:01 with dl_vlan 7 (VF 1), not only {asked}",
        "MAC": f"all traffic to 02:00:00:00:00:01 (VF 1), not only {asked}",
    }
    held = {name: rung.table for name, rung in found.items()}
    assert held == {"5-tuple": "rx", "3-tuple": "rx", "destination IP": "", "MAC+VLAN": "mac", "MAC": "mac"}
    assert found["destination IP"].reasons


def test_rungs_without_reasons_are_taken_and_deliver_as_the_rule_does():
    one = nic()
    asked = tcp(ToVf(vf=1), ip_tos=1, ipv4_dst="10.0.0.5", tp_dst=443)
    good = [rung for rung in one.lower(asked).ladder if not rung.reasons and rung.rule]
    assert [rung.name for rung in good] == ["3-tuple", "MAC+VLAN", "MAC"]
    answers = one.place_many([rung.rule for rung in good])
    assert all(isinstance(answer, Placement) for answer in answers)
    assert [answer.table for answer in answers] == [rung.table for rung in good]
    assert all(rung.rule.actions == asked.actions for rung in good)


def test_what_is_not_known_is_named():
    found = rungs(nic(vf_macs={}, vf_vlans={}).lower(tcp(ipv4_src="10.0.0.0/8", tp_dst=80)))
    assert {name: rung.missing for name, rung in found.items()} == {
        "5-tuple": ("ipv4_src", "ipv4_dst", "tp_src"),
        "3-tuple": ("ipv4_dst",),
        "destination IP": ("ipv4_dst",),
        "MAC+VLAN": ("eth_dst", "vlan_vid"),
        "MAC": ("eth_dst",),
    }
    assert all(rung.rule is None for rung in found.values())
    assert found["3-tuple"].table == "rx"
    assert not found["3-tuple"].reasons
    assert found["3-tuple"].also_catches == "all TCP to one nw_dst port 80, not only from 10.0.0.0/8"
    assert found["5-tuple"].also_catches.endswith("less than the rule asks for")


def test_the_rule_itself_is_no_rung():
    one = nic()
    one.place_many([rule(ToVf(vf=1), eth_dst=MAC)])
    assert "MAC" not in rungs(one.lower(rule(ToVf(vf=1), eth_dst=MAC)))


@pytest.mark.parametrize(
    ("match", "names"),
    [
        ({"eth_type": 0x800, "ip_proto": 1, "icmp_type": 8}, ["destination IP", "MAC+VLAN", "MAC"]),
        ({"eth_type": 0x806}, ["MAC+VLAN", "MAC"]),
        (
            {"ipv6_dst": "2001:db8::1", "ip_proto": 17},
            ["5-tuple", "3-tuple", "destination IP", "MAC+VLAN", "MAC"],
        ),
    ],
)
def test_only_rungs_that_make_sense_for_the_protocol(match, names):
    found = rungs(nic().lower(rule(Drop(), **match)))
    assert list(found) == names
    if "ipv6_dst" in match:
        assert found["destination IP"].rule.match.ipv6_dst.value & 1


def test_the_ingress_port_stays():
    found = rungs(nic().lower(tcp(in_port="vf:0", ipv4_dst="10.0.0.5", tp_dst=1)))
    assert found["destination IP"].rule.match.in_port.value == 2


def test_the_ladder_is_worked_out_when_asked_for_and_once():
    calls = []

    def work():
        calls.append(1)
        return ()

    refusal = Refusal(rule=tcp(), reasons=[Reason(code="x", path="", message="y")], ladder=work)
    assert calls == []
    assert refusal.ladder == refusal.ladder == ()
    assert calls == [1]


def test_a_refusal_needs_a_reason():
    with pytest.raises(TypeError):
        Refusal(rule=tcp(), reasons=[])


def test_the_error_has_every_reason_and_what_could_be_held_instead():
    error = nic().lower(tcp(ipv4_src="10.0.0.0/8", tp_dst=80)).error("mock:sfn5122f")
    assert isinstance(error, NotSupportedError)
    assert error.capability == "flow_filters"
    assert error.device == "mock:sfn5122f"
    assert [reason.code for reason in error.reasons] == ["mask.partial", "combination", "table.other"]
    assert "it could hold: MAC+VLAN in mac" in error.hint
    assert "3-tuple in rx with nw_dst" in error.hint


def test_no_hint_where_nothing_could_be_held():
    error = nic().lower(tcp(ToVf(vf=99), tp_dst=80)).error("x")
    assert error.hint == ""
