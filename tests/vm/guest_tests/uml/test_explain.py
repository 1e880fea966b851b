"""The commands that `--explain` prints make, run by hand, the kernel state that the SDK makes."""

from __future__ import annotations

import json
import re
import socket

import pytest

from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.tc import Hook, TcFilters
from tests.kernel.against_tc import shown

RULES = (
    "tcp,nw_dst=10.0.0.5,tp_dst=443 actions=vf:1",
    "udp,nw_src=10.0.0.0/8,tp_dst=53 actions=drop",
    "in_port=vf:0,ip,nw_dst=192.0.2.7 actions=uplink",
    "dl_vlan=7,ip,nw_dst=10.1.0.0/16 actions=pop_vlan,vf:0",
    "udp6,ipv6_dst=2001:db8::7 actions=vf:1",
)
STATE = """\
vfs:
  - vf: 0
    mac: "02:00:00:00:00:07"
    vlan: {vid: 30}
    trust: true
    spoof_check: false
  - vf: 1
    link_state: enable
rates:
  - {vf: 0, max_tx_bps: 1000000000}
"""


def commands(text: str) -> list[str]:
    """Return the commands that an answer says would do the same."""
    return [line.removeprefix("same as: ") for line in text.splitlines() if line.startswith("same as: ")]


@pytest.fixture
def twins(simulated_nic, sh):
    """Two NICs, each with two VFs, the switch in switchdev mode and offload on."""
    nics = [simulated_nic() for _ in range(2)]
    for nic in nics:
        sh(f"tc qdisc del dev {nic.netdevs[0]} clsact")
        nic.set_vfs(2)
        sh(f"devlink dev eswitch set {nic.handle} mode switchdev")
        for netdev in nic.netdevs:
            sh(f"ethtool -K {netdev} hw-tc-offload on")
            sh(f"ip link set {netdev} up")
    return nics


def renamed(command: str, ours, theirs) -> str:
    """Return a command with the devices of one NIC in place of the other's."""
    names = dict(zip(ours.netdevs, theirs.netdevs, strict=True))
    names |= {ours.handle: theirs.handle, f"netdevsim{ours.number}": f"netdevsim{theirs.number}"}
    pattern = "|".join(rf"\b{re.escape(name)}\b" for name in sorted(names, key=len, reverse=True))
    return re.sub(pattern, lambda found: names[found[0]], command)


def run(lines: list[str], tell, sh) -> None:
    """Run commands in one shell: some set a variable that later ones use."""
    said = tell("sh", "-exc", "\n".join(lines))
    assert said.status == 0, (lines, said.err)


def masked(value: object, nic) -> str:
    """Return what was shown, with the NIC's devices named by their place."""
    text = json.dumps(value, sort_keys=True)
    for place, name in enumerate(nic.netdevs):
        text = re.sub(rf'"{re.escape(name)}"|\b{re.escape(name)}\b', f"port{place}", text)
    return text


def test_rules_of_flow_add(twins, nicoffload, tell, sh):
    ours, theirs = twins
    said = nicoffload("flow", "add", ours.handle, *RULES, "--explain")
    assert said.status == 0, said.err + said.out
    told = commands(said.out)
    assert len([line for line in told if line.startswith("tc filter add ")]) == len(RULES), said.out
    run([renamed(line, ours, theirs) for line in told], tell, sh)
    for mine, his in zip(ours.netdevs, theirs.netdevs, strict=True):
        assert masked(placeless(shown(mine)), ours) == masked(placeless(shown(his)), theirs)
        with (
            TcFilters(LinuxKernel(), Hook.ingress(socket.if_nametoindex(mine))) as filters,
            TcFilters(LinuxKernel(), Hook.ingress(socket.if_nametoindex(his))) as by_hand,
        ):
            of_both = [
                {
                    state.filter.rule_id: (state.filter.match, state.ref.protocol, state.in_hw)
                    for state in one.dump()
                }
                for one in (filters, by_hand)
            ]
            assert of_both[0] == of_both[1]
            assert None not in of_both[0]
            assert all(in_hw for *_, in_hw in of_both[0].values())
    # And to the SDK they are its own rules, whoever ran the commands.
    listed = [nicoffload("flow", "list", nic.handle, "--json") for nic in twins]
    rules = [
        {one["rule"]["rule_id"]: one["text"] for one in json.loads(said.out)["rules"]} for said in listed
    ]
    assert rules[0] == rules[1]
    assert len(rules[0]) == len(RULES)


def placeless(found: tuple[list[object], list[str]]) -> list[str]:
    """Return the lines that tc shows, without the numbers that tell filters of one kind apart, in order."""
    return sorted(re.sub(r"pref \d+|handle 0x[0-9a-f]+", "", line) for line in found[1])


def test_a_desired_state_of_vfs_and_rates(simulated_nic, nicoffload, tell, sh, ask, tmp_path):
    ours, theirs = simulated_nic(), simulated_nic()
    for nic in (ours, theirs):
        nic.set_vfs(2)
    file = tmp_path / "state.yaml"
    file.write_text(STATE, "utf-8")
    said = nicoffload("apply", ours.handle, "--file", file, "--explain", "--yes")
    assert said.status == 0, said.err + said.out
    told = commands(said.out)
    assert told, said.out
    run([renamed(line, ours, theirs) for line in told], tell, sh)
    first, second = (
        [link["vfinfo_list"] for link in ask(f"ip -j -d link show dev {nic.netdevs[0]}")]
        for nic in (ours, theirs)
    )
    assert first == second
    assert first[0][0]["address"] == "02:00:00:00:00:07"


def explained(nicoffload, *words: object) -> list[str]:
    """Run a command of ours that explains itself, and return the commands that it says would do the same."""
    said = nicoffload(*words, "--explain")
    assert said.status == 0, said.err + said.out
    told = commands(said.out)
    assert told, said.out
    return told


def test_the_mode_of_the_switch_and_rates_through_devlink(simulated_nic, nicoffload, tell, sh, ask, tmp_path):
    ours, theirs = simulated_nic(), simulated_nic()
    for nic in (ours, theirs):
        sh(f"ethtool -K {nic.netdevs[0]} hw-tc-offload off")
    told = explained(nicoffload, "vf", "create", ours.handle, 2)
    run(renamed_before(told, ours, theirs), tell, sh)
    assert len(ask(f"ip -j -d link show dev {theirs.netdevs[0]}")[0]["vfinfo_list"]) == 2
    file = tmp_path / "state.yaml"
    file.write_text('flows: ["tcp,nw_dst=10.0.0.5,tp_dst=443 actions=drop"]\n', "utf-8")
    told = explained(nicoffload, "apply", ours.handle, "--file", file, "--yes")
    assert f"devlink dev eswitch set {ours.handle} mode switchdev" in told
    run(renamed_before(told, ours, theirs), tell, sh)
    modes = [ask(f"devlink -j dev eswitch show {nic.handle}")["dev"][nic.handle] for nic in (ours, theirs)]
    assert modes[0] == modes[1]
    assert modes[0]["mode"] == "switchdev"
    assert placeless(shown(ours.netdevs[0])) == placeless(shown(theirs.netdevs[0])) != []
    for bounds in (("--max", "800M"), ("--min", "80M", "--max", "none")):
        told = explained(nicoffload, "rate", "set", ours.handle, "vf:1", *bounds)
        assert told[0].startswith("devlink port function rate set "), told
        run([renamed(line, ours, theirs) for line in told], tell, sh)
        rates = ask("devlink -j port function rate show")["rate"]
        mine, his = (
            {
                name.rsplit("/", 1)[1]: rate
                for name, rate in rates.items()
                if name.startswith(f"{nic.handle}/")
            }
            for nic in (ours, theirs)
        )
        assert mine == his
    told = explained(nicoffload, "flow", "del", ours.handle, "--all")
    run([renamed(line, ours, theirs) for line in told], tell, sh)
    assert shown(ours.netdevs[0]) == shown(theirs.netdevs[0]) == ([], [])


def renamed_before(told: list[str], ours, theirs) -> list[str]:
    """Return commands for the other NIC that were told before ours had its representors."""
    names = {
        ours.netdevs[0]: theirs.netdevs[0],
        ours.handle: theirs.handle,
        f"netdevsim{ours.number}": f"netdevsim{theirs.number}",
    }
    for name, other in names.items():
        told = [re.sub(rf"\b{re.escape(name)}\b", other, line) for line in told]
    return told
