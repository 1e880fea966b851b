"""A stock Open vSwitch with hardware offload and we, on one NIC: whose flows are whose, and neither harms the other."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nicoffload import open_nic
from nicoffload.kernel import Netlink
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.seam import NETLINK_ROUTE
from nicoffload.kernel.tc import (
    FilterRef,
    FilterState,
    Gact,
    Hook,
    Mirred,
    Placing,
    PolicePackets,
    TcFilter,
    TcFilters,
    Verdict,
    qdisc,
)
from nicoffload.model import Drop, FlowRule, Match
from tests.kernel.random_filters import random_filters

KERNEL = LinuxKernel()
OURS = 200
PORTS = (5001, 5002, 5003)
_HEADER = struct.Struct(">6s6sHBBHHHBBH4s4sHHHH")


def frame(port: int, *, ident: int = 0) -> bytes:
    """Return a UDP packet over IPv4, padded to the shortest frame."""
    return _HEADER.pack(
        bytes.fromhex("020000000002"),
        bytes.fromhex("020000000001"),
        0x0800,
        0x45,
        0,
        46,
        ident,
        0,
        64,
        17,
        0,
        bytes([10, 0, 0, 1]),
        bytes([10, 0, 0, 2]),
        40000,
        port,
        26,
        0,
    ).ljust(60, b"\0")


def wire(first: str, second: str) -> None:
    """Wire two ports of simulated NICs, so that what one sends the other receives."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        ends = " ".join(f"{here}:{socket.if_nametoindex(name)}" for name in (first, second))
        Path("/sys/bus/netdevsim/link_device").write_text(ends, "ascii")
    finally:
        os.close(here)


class Scene:
    """A bridge of Open vSwitch over both ports of a NIC, and a port outside that is wired to the first.

    Args:
        vswitch: Open vSwitch, running.
        nic: The NIC.
        outside: Name of the port outside.
    """

    def __init__(self, vswitch, nic, outside: str) -> None:
        self.vswitch, self.nic, self.outside = vswitch, nic, outside
        self.port, self.other = nic.netdevs

    def bridge(self) -> None:
        """Make the bridge; its flows name the port, so that each port of UDP has a flow of its own."""
        tell = self.vswitch.tell
        # Its flows must not go by themselves while a test looks: idle ones would, after ten seconds.
        tell(
            "ovs-vsctl",
            "set",
            "Open_vSwitch",
            ".",
            "other_config:hw-offload=true",
            "other_config:max-idle=3600000",
        )
        tell("ovs-vsctl", "add-br", "br0")
        for name in (self.port, self.other):
            tell("ovs-vsctl", "add-port", "br0", name)
        tell("ovs-ofctl", "del-flows", "br0")
        for number in PORTS:
            flow = f"in_port={self.port},udp,tp_dst={number},actions=output:{self.other}"
            tell("ovs-ofctl", "add-flow", "br0", flow)

    def send(self) -> None:
        """Send a packet to each port of UDP, from outside."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as carrier:
            carrier.bind((self.outside, 0))
            for number in PORTS:
                carrier.send(frame(number))

    def offloaded(self) -> set[str]:
        """Return Open vSwitch's names of its flows that it says are in the NIC.

        It shows ours among them where it knows each of their actions: to it, every cookie is the name of a flow.
        """
        shown = self.vswitch.tell("ovs-appctl", "dpctl/dump-flows", "-m", "type=offloaded")
        lines = [line for line in shown.splitlines() if "udp(" in line and "dst=500" in line]
        return {found[1] for line in lines if (found := re.match(r"ufid:(\S+), ", line))}

    def learn(self) -> set[str]:
        """Send packets until Open vSwitch has a flow in the NIC for each port of UDP, and return their names."""
        deadline = time.monotonic() + 60
        while len(found := self.offloaded()) < len(PORTS):
            assert time.monotonic() < deadline, f"Open vSwitch offloads {found} only"
            self.send()
        return found


@pytest.fixture
def scene(vswitch, simulated_nic, sh) -> Iterator[Scene]:
    nic, outside = simulated_nic(ports=2), simulated_nic()
    [far] = outside.netdevs
    wire(nic.netdevs[0], far)
    one = Scene(vswitch, nic, far)
    yield one
    vswitch.tell("ovs-vsctl", "--if-exists", "del-br", "br0")


def opened(device: str) -> TcFilters:
    return TcFilters(KERNEL, Hook.ingress(socket.if_nametoindex(device)), device=device)


def ours(device: str, count: int = OURS) -> list[TcFilter]:
    """Return filters for the NIC alone, each with a rule id, none of which takes a packet of the test."""
    made = random_filters(count, [socket.if_nametoindex(device)], [Placing.HARDWARE])
    return [
        TcFilter(
            match=Match.of(ipv4_src="192.0.2.1", ipv4_dst=number, ip_proto=6, tp_dst=80),
            actions=item.actions,
            pref=40_000,
            placing=Placing.HARDWARE,
            rule_id=uuid.uuid4(),
        )
        for number, item in enumerate(made)
        if not any(isinstance(action, Mirred) and action.ingress for action in item.actions)
    ]


def install(device: str, made: list[TcFilter]) -> list[FilterRef]:
    with opened(device) as filters:
        outcomes = filters.add_many(made)
    assert [one for one in outcomes if not isinstance(one, FilterRef)] == []
    return outcomes


def seen(device: str) -> tuple[dict[uuid.UUID, FilterState], list[FilterState]]:
    """Return what is ours by rule id, and what is another's."""
    with opened(device) as filters:
        states = filters.dump()
    mine = {state.filter.rule_id: state for state in states if state.filter.rule_id is not None}
    return mine, [state for state in states if state.filter.rule_id is None]


def settled(device: str) -> tuple[dict[uuid.UUID, FilterState], list[FilterState]]:
    """Return the same once two readings agree: while others remove a pref, the kernel's answer may leave some out."""
    before = seen(device)
    while True:
        now = seen(device)
        if now[0].keys() == before[0].keys() and len(now[1]) == len(before[1]):
            return now
        before = now


def check_both(scene: Scene, made: list[TcFilter], flows: set[str]) -> None:
    """Check that all of ours and all of theirs stand, in the NIC, and are told apart."""
    mine, others = settled(scene.port)
    assert set(mine) == {item.rule_id for item in made}
    assert all(state.in_hw for state in mine.values())
    assert all(mine[item.rule_id].filter.match == item.match for item in made)
    assert len([state for state in others if state.ref.kind == "flower"]) >= len(flows)
    assert flows <= scene.offloaded()


def test_flows_of_both_live_in_one_nic_and_are_told_apart(scene):
    scene.bridge()
    flows = scene.learn()
    made = ours(scene.port)
    install(scene.port, made)
    check_both(scene, made, flows)
    with opened(scene.port) as filters:
        found = filters.counters()
        assert {found.rule_id(row) for row in range(len(found.handles))} == {None} | {
            item.rule_id for item in made
        }
        cookies = [state for state in filters.dump() if state.filter.rule_id is None and state.ref.handle]
    # Theirs have cookies of 16 bytes too, and no one takes them for rules of ours.
    assert len(cookies) >= len(flows)
    total = int(scene.nic.flow("count").read_text("ascii"))
    assert total >= len(made) + len(flows)


def test_open_vswitch_takes_our_cookies_for_names_of_its_flows_and_harms_none(scene):
    """To it a cookie is the name of a flow: it looks for each of ours in vain, in each of its rounds, and says so."""
    scene.bridge()
    flows = scene.learn()
    made = ours(scene.port)
    install(scene.port, made)
    for _ in range(3):
        scene.vswitch.tell("ovs-appctl", "revalidator/wait")
    check_both(scene, made, flows)
    assert scene.offloaded() == flows
    assert "unexpected flow" in scene.vswitch.log()


def test_what_has_no_rule_id_open_vswitch_does_not_even_see(scene):
    scene.bridge()
    flows = scene.learn()
    made = [dataclasses.replace(item, rule_id=None) for item in ours(scene.port)]
    refs = install(scene.port, made)
    for _ in range(3):
        scene.vswitch.tell("ovs-appctl", "revalidator/wait")
    assert scene.offloaded() == flows
    assert "unexpected flow" not in scene.vswitch.log()
    _, others = seen(scene.port)
    assert {state.ref for state in others} >= set(refs)


@pytest.mark.parametrize("named", [False, True])
def test_how_long_a_round_of_open_vswitch_takes_beside_5000_of_ours(scene, named, record_property):
    scene.bridge()
    scene.learn()
    made = [
        TcFilter(
            match=Match.of(ipv4_dst=number, ip_proto=6),
            actions=(Gact(verdict=Verdict.DROP),),
            pref=40_000,
            placing=Placing.HARDWARE,
            rule_id=uuid.uuid4() if named else None,
        )
        for number in range(5000)
    ]
    install(scene.port, made)
    for _ in range(4):
        scene.vswitch.tell("ovs-appctl", "revalidator/wait")
    shown = scene.vswitch.tell("ovs-appctl", "upcall/show")
    record_property("dump_duration_ms", re.search(r"dump duration : (\d+)ms", shown)[1])
    with opened(scene.port) as filters:
        assert len(filters.counters(pref=40_000).handles) == len(made)


THEIR_FLUSHES: dict[str, Callable[[Scene], object]] = {
    "datapath flows deleted": lambda scene: scene.vswitch.tell("ovs-appctl", "dpctl/del-flows"),
    "revalidator purge": lambda scene: scene.vswitch.tell("ovs-appctl", "revalidator/purge"),
    "OpenFlow flows deleted": lambda scene: scene.vswitch.tell("ovs-ofctl", "del-flows", "br0"),
    "port taken off": lambda scene: scene.vswitch.tell("ovs-vsctl", "del-port", "br0", scene.port),
    "bridge deleted": lambda scene: scene.vswitch.tell("ovs-vsctl", "del-br", "br0"),
    "daemon ended": lambda scene: scene.vswitch.stop(),
}


@pytest.mark.parametrize("how", THEIR_FLUSHES)
def test_ours_survive_whatever_takes_theirs_away(scene, how):
    scene.bridge()
    scene.learn()
    made = ours(scene.port)
    install(scene.port, made)
    THEIR_FLUSHES[how](scene)
    mine, _ = settled(scene.port)
    assert set(mine) == {item.rule_id for item in made}
    assert all(state.in_hw for state in mine.values())
    if how == "daemon ended":
        scene.vswitch.start_again()


def test_theirs_survive_when_ours_come_and_go_and_come(scene):
    scene.bridge()
    flows = scene.learn()
    made = ours(scene.port)
    for _ in range(3):
        refs = install(scene.port, made)
        check_both(scene, made, flows)
        with opened(scene.port) as filters:
            assert filters.delete_many(refs) == [None] * len(refs)
        check_both(scene, [], flows)
    scene.send()
    assert scene.learn() >= flows


def test_a_port_that_has_rules_of_ours_becomes_a_port_of_open_vswitch(scene):
    made = ours(scene.port)
    install(scene.port, made)
    scene.bridge()
    check_both(scene, made, scene.learn())


def test_a_port_offloads_on_when_our_last_rule_goes(scene, sh, tmp_path):
    for name in scene.nic.netdevs:
        sh(f"tc qdisc del dev {name} clsact")
    rule = FlowRule(match=Match.of(ipv4_dst="192.0.2.1", ip_proto=6, tp_dst=80), actions=(Drop(),))
    with open_nic(scene.nic.handle, state_dir=tmp_path) as nic:
        nic.add_flows([rule])  # makes the qdisc
        scene.bridge()
        nic.remove_flows([rule.rule_id])  # Open vSwitch has no flow now
    assert scene.learn()


def test_open_vswitch_was_there_first_and_its_own_qdisc_serves_both(scene, sh):
    for name in scene.nic.netdevs:
        sh(f"tc qdisc del dev {name} clsact")
    scene.bridge()
    flows = scene.learn()
    with Netlink(KERNEL, NETLINK_ROUTE) as netlink:
        found = qdisc.ensure(netlink, socket.if_nametoindex(scene.port))
    assert found.kind == "ingress"  # theirs: put a clsact in its place, and their flows are gone
    made = ours(scene.port)
    install(scene.port, made)
    check_both(scene, made, flows)


def test_a_pref_that_both_use_holds_the_rules_of_both(scene):
    scene.bridge()
    flows = scene.learn()
    _, others = seen(scene.port)
    theirs = next(state for state in others if state.ref.protocol == 0x0800)
    made = [
        TcFilter(
            match=Match.of(ipv4_dst=number, ip_proto=6),
            actions=(Gact(verdict=Verdict.DROP),),
            pref=theirs.ref.pref,
            placing=Placing.HARDWARE,
            rule_id=uuid.uuid4(),
        )
        for number in range(OURS)
    ]
    refs = install(scene.port, made)
    check_both(scene, made, flows)
    with opened(scene.port) as filters:
        assert filters.delete_many(refs) == [None] * len(refs)
    check_both(scene, [], flows)


def test_the_policer_of_a_port_of_theirs_and_a_rate_of_ours_stand_side_by_side(scene):
    scene.bridge()
    scene.learn()
    tell = scene.vswitch.tell
    tell("ovs-vsctl", "set", "interface", scene.port, "ingress_policing_rate=100000")
    police = TcFilter(
        match=Match(),
        actions=(PolicePackets(rate_packets_per_s=1_000_000, burst_packets=5000),),
        pref=50_000,
        rule_id=uuid.uuid4(),
    )
    with opened(scene.port) as filters:
        ref = filters.add(police, kind="matchall")
        kinds = [(state.ref.kind, state.filter.rule_id) for state in filters.dump()]
        assert kinds.count(("matchall", police.rule_id)) == 1
        assert kinds.count(("matchall", None)) == 1
        tell("ovs-vsctl", "set", "interface", scene.port, "ingress_policing_rate=0")
        left = [state.ref for state in filters.dump() if state.ref.kind == "matchall"]
        assert left == [ref]
