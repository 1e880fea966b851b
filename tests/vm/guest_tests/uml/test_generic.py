"""The generic plugin on real netdevsim: rules, VFs, rates, adoption, and commands by hand that give the same state."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys

import pytest

from nicoffload import open_nic
from nicoffload.errors import NicOffloadError, NotSupportedError
from nicoffload.model import (
    Drop,
    FlowRule,
    LinkState,
    Masked,
    Match,
    Mirror,
    Police,
    RateLimit,
    ToPf,
    ToVf,
    VfConfig,
    VlanTag,
)
from nicoffload.nic import DesiredState
from tests.kernel.against_tc import shown_lines

COOKIE = "0123456789abcdef0123456789abcdef"


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


def test_vfs_and_rates_are_set_read_back_and_undone(simulated_nic, tmp_path, ask):
    made = simulated_nic()
    with open_nic(made.handle, state_dir=tmp_path) as nic:
        assert nic.vf_limit() == 4
        nic.set_vf_count(3)
        (state,) = nic.configure_vfs(
            [
                VfConfig(
                    vf=1,
                    mac=0x020000000001,
                    vlan=VlanTag(vid=5, pcp=3, protocol="802.1ad"),
                    spoof_check=True,
                    trust=True,
                    link_state=LinkState.DISABLE,
                )
            ]
        )
        assert (state.mac, state.trust, state.link_state) == (0x020000000001, True, LinkState.DISABLE)
        report = nic.set_rates({1: RateLimit(min_tx_bps=10_000_000, max_tx_bps=50_000_000)})[0]
        assert report.read_back == report.applied == report.requested
        (link,) = ask(f"ip -j -d link show dev {made.netdevs[0]}")
        shown = link["vfinfo_list"][1]
        assert (shown["address"], shown["link_state"], shown["rate"]["max_tx"]) == (
            "02:00:00:00:00:01",
            "disable",
            50,
        )
        before = nic.vfs()[2]
        with pytest.raises(NicOffloadError):
            nic.configure_vfs([VfConfig(vf=2, trust=True), VfConfig(vf=7, trust=True)])
        assert nic.vfs()[2] == before
        with pytest.raises(NotSupportedError, match="no function"):
            nic._driver.virtual_functions.reset(0)
        nic.set_vf_count(0, force=True)
        assert nic.vfs() == ()


def test_rates_in_switchdev_mode_go_through_devlink(nic, tmp_path, ask):
    with open_nic(nic.handle, state_dir=tmp_path) as opened:
        (report,) = opened.set_rates({1: RateLimit(min_tx_bps=8_000_000, max_tx_bps=40_000_000)})
        assert report.read_back == RateLimit(min_tx_bps=8_000_000, max_tx_bps=40_000_000)
        rates = ask("devlink -j port function rate show")["rate"]
        assert rates[f"{nic.handle}/129"]["tx_max"] == 5_000_000
        with pytest.raises(NicOffloadError) as refused:
            opened.set_rates({0: RateLimit(max_tx_bps=6_000_000_000)})
        assert "rate" in str(refused.value)
        assert opened.rates()[0].read_back == RateLimit()


def state_of(nic, ask):
    """What the kernel holds of a NIC, in words that do not name it."""
    lines = [line for name in nic.netdevs for line in shown_lines(name)]
    for place, name in enumerate(nic.netdevs):
        lines = [re.sub(rf"\b{name}\b", f"port{place}", line) for line in lines]
    (link,) = ask(f"ip -j -d link show dev {nic.netdevs[0]}")
    rates = ask("devlink -j port function rate show").get("rate", {}).items()
    mine = {name.removeprefix(nic.handle): value for name, value in rates if name.startswith(nic.handle)}
    return lines, link.get("vfinfo_list"), mine


def by_hand(commands, sh):
    for line in commands:
        if " > " in line:
            subprocess.run(["sh", "-c", line], check=True)
        else:
            said = subprocess.run(shlex.split(line), capture_output=True, text=True, check=False)
            assert said.returncode == 0, f"{line}: {said.stderr}"


def test_the_commands_that_a_plan_explains_give_the_same_kernel_state(simulated_nic, tmp_path, sh, ask):
    """One NIC is set by a plan, its twin by the commands that the plan shows."""
    nics = [simulated_nic(), simulated_nic()]
    for made in nics:
        sh(f"devlink dev eswitch set {made.handle} mode switchdev")
        sh(f"tc qdisc del dev {made.netdevs[0]} clsact")
        made.set_vfs(2)
        for name in made.netdevs:
            sh(f"ethtool -K {name} hw-tc-offload off")
    rules = [
        *five_tuples(3, ToVf(vf=1)),
        *five_tuples(2, Drop(), in_port=Masked(2, 0xFFFF)),
        FlowRule(
            match=Match.of(eth_dst="02:00:00:00:00:01", vlan_vid=7),
            actions=(Mirror(port=3), ToVf(vf=0)),
            priority=7,
        ),
        FlowRule(
            match=Match.of(ipv6_dst="fe80::/16"),
            actions=(Police(rate_bps=8_000_000, burst_bytes=20_001), ToPf()),
        ),
    ]
    desired = DesiredState(
        vfs=(
            VfConfig(vf=0, mac=0x020000000002, vlan=VlanTag(vid=9), trust=True, link_state=LinkState.ENABLE),
        ),
        rates={1: RateLimit(max_tx_bps=40_000_000)},
        flows=tuple(rules),
    )
    with open_nic(nics[1].handle, state_dir=tmp_path / "twin") as twin:
        plan = twin.plan(desired)
        commands = [line for step in plan.steps for line in step.equivalents]
    assert {step.action for step in plan.steps} == {"configure_vf", "enable_table", "set_rate", "add_flow"}
    assert all(step.equivalents for step in plan.steps)
    with open_nic(nics[0].handle, state_dir=tmp_path / "one") as one:
        one.apply(one.plan(desired))
    by_hand(dict.fromkeys(commands), sh)
    one, twin = state_of(nics[0], ask), state_of(nics[1], ask)
    assert one[0] == twin[0]
    assert one[1:] == twin[1:]


def test_rules_of_others_stay_and_so_does_the_qdisc(nic, tmp_path, sh, tell):
    device = nic.netdevs[0]
    with open_nic(nic.handle, state_dir=tmp_path) as opened:
        rules = five_tuples(3, Drop())
        opened.add_flows(rules)
        words = f"pref 10 flower dst_ip 10.9.9.9 skip_sw action drop cookie {COOKIE}"
        sh(f"tc filter add dev {device} ingress protocol ip {words}")
        flows = opened.flows()
        assert [each.ours for each in flows].count(False) == 1
        opened.remove_flows([rule.rule_id for rule in rules])
        (left,) = opened.flows()
        assert (left.ours, left.rule.match) == (False, Match.of(ipv4_dst="10.9.9.9"))
        assert "clsact" in tell("tc", "qdisc", "show", "dev", device).out
        sh(f"tc filter del dev {device} ingress pref 10")
        more = five_tuples(1, Drop())
        opened.add_flows(more)
        opened.remove_flows([more[0].rule_id])
        assert "clsact" in tell("tc", "qdisc", "show", "dev", device).out


def test_a_full_table_refuses_with_its_name_and_an_atomic_change_leaves_nothing(nic, tmp_path):
    nic.flow("max").write_text("10", "ascii")
    with open_nic(nic.handle, state_dir=tmp_path) as opened:
        with pytest.raises(NicOffloadError, match="full"):
            opened.add_flows(five_tuples(12, Drop()))
        assert int(nic.flow("count").read_text("ascii")) == 0
        report = opened.add_flows(five_tuples(12, Drop()), atomic=False)
        assert (len(report.installed), len(report.refused)) == (10, 2)


KILLED = """
import os, signal, sys
from pathlib import Path
from nicoffload import open_nic
from nicoffload.codec import parse_rule
from nicoffload.linux import LinuxFlows

create = LinuxFlows.create_many

def create_and_die(self, placements):
    create(self, placements)
    os.kill(os.getpid(), signal.SIGKILL)

LinuxFlows.create_many = create_and_die
with open_nic(sys.argv[1], state_dir=Path(sys.argv[2])) as nic:
    nic.add_flows([parse_rule(f"tcp,nw_dst=10.0.0.{n},tp_dst=80 actions=drop") for n in range(1, 21)])
"""


def test_what_a_killed_process_left_in_the_nic_is_settled_by_the_next(nic, tmp_path):
    kept = five_tuples(2, ToVf(vf=0))
    with open_nic(nic.handle, state_dir=tmp_path) as opened:
        opened.add_flows(kept)
    done = subprocess.run([sys.executable, "-c", KILLED, nic.handle, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert int(nic.flow("count").read_text("ascii")) == 22
    with open_nic(nic.handle, state_dir=tmp_path) as opened:
        assert not opened.recovery.clean
        left = [each for each in opened.flows() if each.ours]
        # All that the change was to bring, or nothing of it; what was there before in any case.
        assert len(left) in (2, 22)
        assert {rule.rule_id for rule in kept} <= {each.rule.rule_id for each in left}
    with open_nic(nic.handle, state_dir=tmp_path) as opened:
        assert opened.recovery.clean
