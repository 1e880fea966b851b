"""The generic plugin on real netdevsim: rules, VFs, rates, adoption, and commands by hand that give the same state."""

from __future__ import annotations

import pytest

from nicoffload import open_nic
from nicoffload.model import (
    Drop,
    FlowRule,
    Masked,
    Match,
    Mirror,
    Police,
    ToPf,
    ToVf,
)


@pytest.fixture
def nic(simulated_nic, sh):
    """A NIC in switchdev mode with two VFs; the clsact that the fixture made is gone."""
    made = simulated_nic()
    sh(f"devlink dev eswitch set {made.handle} mode switchdev")
    made.set_vfs(2)
    for name in made.netdevs:
        sh(f"ethtool -K {name} hw-tc-offload on")
    sh(f"tc qdisc del dev {made.netdevs[0]} clsact")
    return made


def five_tuples(count, action, **more):
    return [
        FlowRule(
            match=Match.of(
                ipv4_src="10.0.0.1", ipv4_dst=0x0A010000 + n, ip_proto=6, tp_src=5000, tp_dst=80, **more
            ),
            actions=(action,),
        )
        for n in range(count)
    ]


def test_rules_go_in_are_read_back_counted_and_taken_out(nic, tmp_path, ask):
    with open_nic(nic.handle, state_dir=tmp_path) as opened:
        rules = [
            *five_tuples(100, ToVf(vf=1)),
            *five_tuples(20, Drop(), in_port=Masked(2, 0xFFFF)),
            FlowRule(
                match=Match.of(eth_dst="02:00:00:00:00:01"), actions=(Mirror(port=3), ToVf(vf=0)), priority=7
            ),
            FlowRule(
                match=Match.of(ipv6_dst="fe80::1", ip_proto=17),
                actions=(Police(rate_bps=10_000_000, burst_bytes=20_001), ToPf()),
                priority=9,
            ),
        ]
        report = opened.add_flows(rules)
        assert len(report.installed) == len(rules)
        assert all(each.in_hardware for each in report.installed)
        shown = [one for one in ask(f"tc -j filter show dev {nic.netdevs[0]} ingress") if "options" in one]
        assert len(shown) == 102
        assert all(one["options"]["in_hw"] for one in shown)
        nic.flow("packets").write_text("5", "ascii")
        nic.flow("bytes").write_text("500", "ascii")
        counters = opened.flow_stats()
        valid = {rule_id: row for row, rule_id in enumerate(counters.rule_ids)}
        row = valid[rules[0].rule_id]
        assert (counters.valid[row], counters.packets[row], counters.bytes[row]) == (True, 5, 500)
    with open_nic(nic.handle, state_dir=tmp_path) as again:
        assert again.recovery.clean
        flows = again.flows()
        assert {each.rule for each in flows} == set(rules)
        assert all(each.ours for each in flows)
        again.remove_flows([rule.rule_id for rule in rules])
        assert again.flows() == ()
    assert int(nic.flow("count").read_text("ascii")) == 0
