"""Packets go where rules, MAC addresses and VF settings send them, and every counter says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicoffload.driver import Placement, RuleRef
from nicoffload.model import (
    Drop,
    FlowRule,
    LinkState,
    Match,
    Mirror,
    Police,
    RateLimit,
    ToVf,
    VfConfig,
    VlanTag,
)
from tests.mock.batches import make_batch

TCP = {"ip_proto": 6, "eth_type": 0x0800}
VF0, VF1 = 0x02_00_00_00_00_01, 0x02_00_00_00_00_02


def send(nic, batch, in_port=0):
    return nic.packet_path.receive(batch, 0, len(batch), in_port).port.tolist()


def with_macs(open_mock, name="ixgbe"):
    nic = open_mock(name)
    answers = nic.virtual_functions.configure_many([VfConfig(vf=0, mac=VF0), VfConfig(vf=1, mac=VF1)])
    assert answers == [None, None]
    nic.packet_path.advance(10**10)
    return nic


def test_frames_go_to_the_vf_with_their_address_and_others_to_the_pf(open_mock, packets):
    nic = with_macs(open_mock)
    group = 1 << 40
    headers = [{"eth_dst": VF0}, {"eth_dst": VF1}, {"eth_dst": 0x020000000055}, {"eth_dst": group | VF0}]
    assert send(nic, packets(headers)) == [2, 3, 1, 1]


def test_a_port_vlan_is_compared_and_taken_off(open_mock, packets):
    nic = with_macs(open_mock)
    nic.virtual_functions.configure_many([VfConfig(vf=0, vlan=VlanTag(vid=7))])
    headers = [{"eth_dst": VF0, "vlan_tci": 7}, {"eth_dst": VF0, "vlan_tci": 8}, {"eth_dst": VF0}]
    assert send(nic, packets(headers)) == [2, 1, 1]
    row = nic.statistics.read()[1]
    assert (row.rx_packets, row.rx_bytes) == (1, 96)


def test_vfs_reach_each_other_through_the_switch(open_mock, packets):
    nic = with_macs(open_mock)
    headers = [{"eth_src": VF0, "eth_dst": VF1}, {"eth_src": VF0, "eth_dst": 0x020000000099}]
    assert send(nic, packets(headers), in_port=2) == [3, 0]
    uplink, first, second, *_ = nic.statistics.read()
    assert (uplink.tx_packets, first.tx_packets, second.rx_packets) == (1, 2, 1)


def test_a_spoofed_frame_is_dropped_and_one_of_an_untold_vf_is_not(open_mock, packets):
    nic = with_macs(open_mock)
    batch = packets([{"eth_src": VF1, "eth_dst": 5}, {"eth_src": VF0, "eth_dst": 5}])
    assert send(nic, batch, in_port=2) == [-1, 0]
    nic.virtual_functions.configure_many([VfConfig(vf=0, spoof_check=False)])
    assert send(nic, batch, in_port=2) == [0, 0]
    assert nic.device.ports.values[2].tolist()[1] == 3, "sent: the spoofed one does not count"


def test_a_disabled_link_lets_nothing_through_and_enable_does_nothing_on_an_ixgbe(open_mock, packets):
    nic = with_macs(open_mock)
    functions, batch = nic.virtual_functions, packets([{"eth_dst": VF0}])
    functions.configure_many([VfConfig(vf=0, link_state=LinkState.DISABLE)])
    assert send(nic, batch) == [-1]
    assert functions.configure_many([VfConfig(vf=0, link_state=LinkState.ENABLE)]) == [None]
    assert functions.states()[0].link_state is LinkState.DISABLE
    assert send(nic, batch) == [-1]
    functions.configure_many([VfConfig(vf=0, link_state=LinkState.AUTO)])
    assert send(nic, batch) == [2]


def test_a_vf_in_reset_gets_packets_again_when_its_reset_ends(open_mock, packets):
    nic = with_macs(open_mock)
    nic.virtual_functions.reset(0)
    offered = packets([{"eth_dst": VF0}], count=20, gap_ns=10_000_000)
    batch = replace(offered, time_ns=offered.time_ns + 10**10)
    first = nic.packet_path.receive(batch, 0, 1, 0)
    assert first.port.tolist() == [-1]
    assert first.next_change_ns == 10**10 + 100_000_000
    assert nic.packet_path.receive(batch, 1, 20, 0).port.tolist() == [-1] * 9 + [2] * 10


def test_a_limit_holds_over_many_packets(open_mock, packets):
    nic = with_macs(open_mock)
    report = nic.rates.set_many({0: RateLimit(max_tx_bps=11_000_000)})[0]
    assert report.applied == RateLimit(max_tx_bps=11_000_000)
    # 100 Mbit/s offered for 2 seconds.
    offered = packets([{"eth_src": VF0, "eth_dst": 5}], count=20_000, gap_ns=100_000, size=1250)
    batch = replace(offered, time_ns=offered.time_ns + 10**10)
    passed = sum(port == 0 for port in send(nic, batch, in_port=2)) * 1250 * 8
    assert 22_000_000 * 0.99 < passed < 22_000_000 * 1.01 + 65_536 * 8
    nic.rates.set_many({0: RateLimit()})
    assert send(nic, batch, in_port=2).count(-1) == 0


def test_police_and_mirror(open_mock, packets):
    nic = open_mock("mlx5")
    actions = (Mirror(port=3), Police(rate_bps=1_000_000, burst_bytes=5000), ToVf(vf=0))
    rule = FlowRule(match=Match.of(ipv4_dst=1), actions=actions)
    (ref,) = nic.flow_filters.create_many([Placement(rule=rule, table="flower_fdb", flow_type="")])
    ports = send(nic, packets([{"ipv4_dst": 1}], count=10, size=1000))
    assert ports == [2] * 5 + [-1] * 5
    assert nic.device.ports.values[3].tolist()[0] == 10, "the mirror has all"
    assert nic.flow_filters.read_counters([ref]).packets.tolist() == [10]


def test_counters_that_a_nic_lacks_are_absent(open_mock, put, packets):
    nic = open_mock("sfn5122f")
    ref = put(nic, "rx_ip", ToVf(vf=0), ipv4_dst=1, tp_dst=80, **TCP)
    assert send(nic, packets([{"ipv4_dst": 1, "tp_dst": 80}])) == [2]
    read = nic.flow_filters.read_counters([ref])
    assert read.valid.tolist() == [False]
    assert read.facts == [None]
    assert [row.name for row in nic.statistics.read()] == ["uplink"]
    assert nic.statistics.read()[0].rx_dropped is None


def test_priorities_are_honoured_and_without_them_specific_rules_win(open_mock, put, packets):
    nic = open_mock("mlx5")
    put(nic, "flower_fdb", ToVf(vf=0), priority=1, ipv4_dst=1, tp_dst=80, **TCP)
    put(nic, "flower_fdb", ToVf(vf=1), priority=9, ipv4_dst=1, **TCP)
    assert send(nic, packets([{"ipv4_dst": 1, "tp_dst": 80}])) == [3]
    sfc = open_mock("sfn5122f")
    put(sfc, "rx_ip", ToVf(vf=0), ipv4_dst=1, tp_dst=80, **TCP)
    put(sfc, "rx_ip", ToVf(vf=1), ipv4_src=9, ipv4_dst=1, tp_src=7, tp_dst=80, **TCP)
    batch = packets(
        [{"ipv4_dst": 1, "tp_dst": 80}, {"ipv4_src": 9, "ipv4_dst": 1, "tp_src": 7, "tp_dst": 80}]
    )
    assert send(sfc, batch) == [2, 3]


def change(nic, act, match, vf, at, refs):
    """Carry out one step of a script on a NIC whose rules so far are `refs`."""
    if act == "add":
        rule = FlowRule(match=Match.of(**match), actions=(ToVf(vf=vf),), priority=at)
        refs += nic.flow_filters.create_many([Placement(rule=rule, table="flower_fdb", flow_type="")])
    elif act == "remove" and refs:
        nic.flow_filters.destroy_many([refs.pop(vf % len(refs))])
    elif act == "reset" and nic.virtual_functions.states()[vf].ready:
        nic.virtual_functions.reset(vf)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "reset", "nothing"]),
            st.sampled_from([{"ipv4_dst": 1}, {"ipv4_dst": 2, "tp_dst": 81, **TCP}, {"eth_dst": VF0}]),
            st.integers(0, 7),
        ),
        min_size=6,
        max_size=6,
    )
)
def test_kept_verdicts_equal_fresh_ones(registry, steps):
    """Whatever changes between stretches of a batch, packets go where a NIC that remembers nothing sends them."""
    headers = [{"ipv4_dst": at % 4, "tp_dst": 80 + at % 3, "eth_dst": VF0 + at % 2} for at in range(12)]
    batch = make_batch(headers, 120)
    nic, twin = (registry.open("mock:mlx5") for _ in range(2))
    refs, twin_refs = [], []
    for at, step in zip(range(0, 120, 20), steps, strict=True):
        change(nic, *step, at, refs)
        change(twin, *step, at, twin_refs)
        kept = nic.packet_path.receive(batch, at, at + 20, 0).port
        fresh = twin.packet_path.receive(make_batch(headers, 120), at, at + 20, 0).port
        assert kept.tolist() == fresh.tolist()
    counted = nic.device.ports.values
    assert counted[0, 0] == 120
    assert counted[1:, 0].sum() + counted[:, 4].sum() == 120, "each is delivered, or counted as dropped"


def test_ten_thousand_rules_and_a_thousand_headers(open_mock, packets):
    nic = open_mock("mlx5")
    rules = [
        FlowRule(match=Match.of(ipv4_dst=at, tp_dst=80, **TCP), actions=(ToVf(vf=at % 8),))
        for at in range(10_000)
    ]
    placements = [Placement(rule=rule, table="flower_fdb", flow_type="tcp4") for rule in rules]
    assert all(isinstance(ref, RuleRef) for ref in nic.flow_filters.create_many(placements))
    batch = packets([{"ipv4_dst": at * 7, "tp_dst": 80} for at in range(1000)], count=5000)
    ports = nic.packet_path.receive(batch, 0, 5000, 0).port
    assert ports.tolist() == [2 + (at % 1000 * 7) % 8 for at in range(5000)]


@pytest.mark.parametrize("in_port", [0, 1, 2])
def test_an_empty_stretch_is_nothing(open_mock, packets, in_port):
    nic = open_mock("sfn5122f")
    delivery = nic.packet_path.receive(packets([{"eth_dst": 1}]), 0, 0, in_port)
    assert delivery.port.dtype == np.int32
    assert len(delivery.port) == 0


def test_a_dropped_packet_is_counted_by_its_rule(open_mock, put, packets):
    nic = open_mock("mlx5")
    ref = put(nic, "flower_fdb", Drop(), ipv4_dst=1)
    assert send(nic, packets([{"ipv4_dst": 1}], count=7)) == [-1] * 7
    counters = nic.flow_filters.read_counters([ref])
    assert (counters.packets.tolist(), counters.last_used_ns.tolist()) == ([7], [6000])
