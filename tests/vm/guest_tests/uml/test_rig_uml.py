"""What user-mode Linux with the patched netdevsim must offer to the tests that count on it."""

from __future__ import annotations

from pathlib import Path

import pytest

UDP_4789 = "protocol ip flower ip_proto udp dst_port 4789 skip_sw action drop"
FLOW_DISSECTOR_KEY_PORTS = 1 << 4
FLOW_ACTION_DROP = 1 << 1


def test_the_kernel_is_the_one_that_was_built(guest):
    assert guest == "uml"
    assert "User Mode Linux" in Path("/proc/cpuinfo").read_text("utf-8")


@pytest.mark.parametrize("module", ["netdevsim", "openvswitch", "cls_flower", "act_police"])
def test_modprobe_knows_what_is_built_in(tell, module):
    assert tell("modprobe", module).status == 0
    assert tell("modprobe", "igb").status != 0


def test_netdevsim_takes_a_flower_rule_into_hardware(simulated_nic, sh, ask):
    nic = simulated_nic()
    [netdev] = nic.netdevs
    sh(f"tc filter add dev {netdev} ingress {UDP_4789}")
    [_, shown] = ask(f"tc -j filter show dev {netdev} ingress")
    assert shown["options"]["in_hw"] is True
    assert shown["options"]["in_hw_count"] == 1
    assert shown["options"]["skip_sw"] is True
    assert nic.flow("count").read_text("ascii") == "1\n"
    sh(f"tc filter del dev {netdev} ingress")
    assert nic.flow("count").read_text("ascii") == "0\n"


def test_a_rule_takes_hardware_statistics_from_the_table(simulated_nic, sh, ask):
    nic = simulated_nic()
    [netdev] = nic.netdevs
    sh(f"tc filter add dev {netdev} ingress {UDP_4789}")
    nic.flow("hit_packets").write_text("3", "ascii")
    nic.flow("hit_bytes").write_text("300", "ascii")
    ask(f"tc -j -s filter show dev {netdev} ingress")
    [_, shown] = ask(f"tc -j -s filter show dev {netdev} ingress")
    [action] = shown["options"]["actions"]
    assert action["stats"]["hw_packets"] == 6
    assert action["stats"]["hw_bytes"] == 600


def test_a_rule_has_counted_what_the_table_says_however_often_it_is_read(simulated_nic, sh, ask):
    nic = simulated_nic()
    [netdev] = nic.netdevs
    sh(f"tc filter add dev {netdev} ingress {UDP_4789}")
    for packets in (5, 5, 9):
        nic.flow("packets").write_text(str(packets), "ascii")
        nic.flow("bytes").write_text(str(packets * 64), "ascii")
        [_, shown] = ask(f"tc -j -s filter show dev {netdev} ingress")
        stats = shown["options"]["actions"][0]["stats"]
        assert (stats["hw_packets"], stats["hw_bytes"]) == (packets, packets * 64)


def test_a_full_table_says_so(simulated_nic, sh, tell):
    nic = simulated_nic()
    [netdev] = nic.netdevs
    nic.flow("max").write_text("1", "ascii")
    sh(f"tc filter add dev {netdev} ingress prio 1 {UDP_4789}")
    said = tell(*f"tc filter add dev {netdev} ingress prio 2 {UDP_4789}".split())
    assert said.status != 0
    assert "flow table is full" in said.err
    assert nic.flow("count").read_text("ascii") == "1\n"


def test_without_skip_sw_a_refusal_is_silent_and_the_rule_is_not_in_hardware(simulated_nic, sh, ask):
    nic = simulated_nic()
    [netdev] = nic.netdevs
    nic.flow("reject_kinds").write_text("1", "ascii")
    sh(f"tc filter add dev {netdev} ingress {UDP_4789.replace('skip_sw ', '')}")
    [_, shown] = ask(f"tc -j filter show dev {netdev} ingress")
    assert shown["options"]["not_in_hw"] is True
    assert "in_hw" not in shown["options"]


@pytest.mark.parametrize(
    ("knob", "value", "text"),
    [
        ("reject_keys", FLOW_DISSECTOR_KEY_PORTS, "unsupported match keys 0x10"),
        ("reject_actions", FLOW_ACTION_DROP, "unsupported action 1"),
        ("reject_kinds", 1, "unsupported classifier"),
    ],
)
def test_the_table_refuses_what_it_is_told_to_refuse(simulated_nic, tell, knob, value, text):
    nic = simulated_nic()
    [netdev] = nic.netdevs
    nic.flow(knob).write_text(str(value), "ascii")
    said = tell(*f"tc filter add dev {netdev} ingress {UDP_4789}".split())
    assert said.status != 0
    assert text in said.err


def test_a_chain_is_refused_until_the_table_takes_chains(simulated_nic, tell):
    nic = simulated_nic()
    [netdev] = nic.netdevs
    rule = f"tc filter add dev {netdev} ingress chain 3 {UDP_4789}".split()
    assert "unsupported chain" in tell(*rule).err
    nic.flow("max_chain").write_text("3", "ascii")
    assert tell(*rule).status == 0


def test_matchall_with_police_goes_into_hardware(simulated_nic, sh, ask):
    [netdev] = simulated_nic().netdevs
    sh(
        f"tc filter add dev {netdev} ingress matchall skip_sw action police rate 100mbit burst 64k conform-exceed drop"
    )
    shown = ask(f"tc -j filter show dev {netdev} ingress")[-1]
    assert shown["options"]["in_hw"] is True
    assert shown["options"]["actions"][0]["kind"] == "police"


def test_u32_goes_into_hardware_and_out_of_it(simulated_nic, sh):
    nic = simulated_nic()
    [netdev] = nic.netdevs
    sh(f"tc filter add dev {netdev} ingress protocol ip u32 match ip dst 10.0.0.5/32 skip_sw action drop")
    assert " in_hw" in sh(f"tc filter show dev {netdev} ingress")
    assert nic.flow("count").read_text("ascii") == "1\n"
    sh(f"tc filter del dev {netdev} ingress")
    assert nic.flow("count").read_text("ascii") == "0\n"


def test_offload_can_not_be_turned_off_over_offloaded_rules(simulated_nic, sh, tell):
    [netdev] = simulated_nic().netdevs
    sh(f"tc filter add dev {netdev} ingress {UDP_4789}")
    assert tell("ethtool", "-K", netdev, "hw-tc-offload", "off").status != 0
    sh(f"tc filter del dev {netdev} ingress")
    # Linux remembers the refused wish, and asks the driver only about a new one.
    sh(f"ethtool -K {netdev} hw-tc-offload on")
    sh(f"ethtool -K {netdev} hw-tc-offload off")


def test_a_nic_goes_with_its_rules_in_place(simulated_nic, sh):
    nic = simulated_nic(ports=2)
    for netdev in nic.netdevs:
        sh(f"tc filter add dev {netdev} ingress {UDP_4789}")
    assert len(nic.netdevs) == 2


def test_devlink_switches_the_mode_and_representors_appear(simulated_nic, sh, ask):
    nic = simulated_nic()
    nic.set_vfs(3)
    mode = f"devlink -j dev eswitch show {nic.handle}"
    assert ask(mode)["dev"][nic.handle]["mode"] == "legacy"
    assert len(nic.netdevs) == 1
    sh(f"devlink dev eswitch set {nic.handle} mode switchdev")
    assert ask(mode)["dev"][nic.handle]["mode"] == "switchdev"
    flavours = [port["flavour"] for port in ask("devlink -j port show")["port"].values()]
    assert flavours.count("pcivf") == 3
    assert len(nic.netdevs) == 4
    sh(f"devlink dev eswitch set {nic.handle} mode legacy")
    assert len(nic.netdevs) == 1


def test_a_kernel_tool_reads_back_what_another_set_on_a_vf(simulated_nic, sh, ask):
    nic = simulated_nic()
    [netdev] = nic.netdevs
    nic.set_vfs(2)
    sh(f"ip link set {netdev} vf 1 mac 02:00:00:00:00:11 vlan 7 qos 3")
    [link] = ask(f"ip -j link show {netdev}")
    assert link["vfinfo_list"][1]["address"] == "02:00:00:00:00:11"
    assert link["vfinfo_list"][1]["vlan_list"][0]["vlan"] == 7
