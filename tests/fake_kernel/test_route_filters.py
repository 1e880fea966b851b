"""Filters in the fake kernel as the kernel layer and tc write and read them, and what its drivers make of them."""

from __future__ import annotations

import dataclasses
import struct
import uuid

import pytest

from nicoffload.errors import (
    ConflictError,
    DeviceBusyError,
    InvalidRequestError,
    NicOffloadError,
    NotSupportedError,
    ResourceExhaustedError,
    errno_name,
)
from nicoffload.kernel import Netlink
from nicoffload.kernel.events import Events, FilterEvent, LinkEvent, Topic
from nicoffload.kernel.seam import NETLINK_ROUTE
from nicoffload.kernel.tc import (
    FilterRef,
    Gact,
    Hook,
    Mirred,
    Placing,
    PolicePackets,
    PoliceRate,
    TcFilter,
    TcFilters,
    U32Filter,
    U32Filters,
    Verdict,
    linked_keys,
    police,
    qdisc,
)
from nicoffload.model import Drop, FlowRule, Match
from nicoffload.testing.conformance.packets import to_batch
from tests.agreement.probes import packets_for
from tests.fake_kernel.plugging import plugged
from tests.kernel.exchanges import fake
from tests.kernel.random_filters import random_filters, random_u32

DROP = (Gact(verdict=Verdict.DROP),)
OURS = 0x8000_0000


def hook(kernel, netdev) -> Hook:
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        qdisc.ensure(netlink, netdev.ifindex)
    return Hook.ingress(netdev.ifindex)


def prepared(family: str, **config):
    """Return a kernel, its NIC, and the filters of the PF's ingress, with the feature of tc on everywhere."""
    kernel, nic = plugged(family, prepared=True, **config)
    for netdev in nic.netdevs():
        netdev.features["hw-tc-offload"].active = True
    kernel.follow(nic)
    return kernel, nic, TcFilters(kernel, hook(kernel, nic.pf), device="nic")


def drops(count: int, placing: Placing) -> list[TcFilter]:
    return [
        TcFilter(match=Match.of(ipv4_dst=number), actions=DROP, pref=1, handle=number + 1, placing=placing)
        for number in range(count)
    ]


def as_read(item: TcFilter) -> TcFilter:
    """Return what reading gives back: a bucket in the kernel's steps, and no protocols of absent VLAN tags."""
    held = tuple(
        police.held(one) if isinstance(one, PoliceRate | PolicePackets) else one for one in item.actions
    )
    tagged = {"vlan_vid", "vlan_pcp", "cvlan_vid", "cvlan_pcp"} & {name for name, _ in item.match.shape}
    return dataclasses.replace(item, actions=held, outer_tpid=item.outer_tpid if tagged else 0x8100)


def test_random_filters_come_back_as_they_were_asked():
    kernel, roles = fake.plain("a", "b", "c")
    made = random_filters(300, [roles["b"], roles["c"]], [Placing.BOTH, Placing.SOFTWARE])
    made = [dataclasses.replace(item, handle=item.handle | OURS) for item in made]
    with TcFilters(kernel, hook(kernel, kernel.world.netdev(roles["a"]))) as filters:
        outcomes = filters.add_many(made)
        assert [one for one in outcomes if not isinstance(one, FilterRef)] == []
        states = sorted(filters.dump(), key=lambda state: state.ref.pref)
        assert [state.filter for state in states] == [as_read(item) for item in made]
        assert not any(state.foreign or state.in_hw for state in states)
        found = filters.counters()
        assert sorted(found.handles.tolist()) == sorted(item.handle for item in made)
        assert filters.delete_many(outcomes) == [None] * len(made)
        assert filters.dump() == []


def test_random_words_come_back_as_they_were_asked():
    kernel, roles = fake.plain("a", "b", "c")
    made = random_u32(200, [roles["b"], roles["c"]])
    made = [dataclasses.replace(item, table=0x800 + place) for place, item in enumerate(made)]
    with U32Filters(kernel, hook(kernel, kernel.world.netdev(roles["a"]))) as filters:
        outcomes = [filters.add_many([item])[0] for item in made]
        assert [one for one in outcomes if not isinstance(one, FilterRef)] == []
        states = sorted(filters.dump(), key=lambda state: state.ref.pref)
        assert [state.item for state in states] == made


def test_a_full_table_is_an_error_only_for_what_must_be_in_hardware():
    kernel, roles, knob = fake.netdevsim()
    netdev = kernel.world.netdev(roles["a"])
    netdev.features["hw-tc-offload"].active = True
    knob("max", 100)
    with TcFilters(kernel, hook(kernel, netdev)) as filters:
        outcomes = filters.add_many(drops(150, Placing.HARDWARE))
        assert [isinstance(one, FilterRef) for one in outcomes] == [True] * 100 + [False] * 50
        assert isinstance(outcomes[120], ResourceExhaustedError)
        assert "flow table is full" in outcomes[120].kernel_message
        filters.delete_many(outcomes[:100])
        assert not [
            one for one in filters.add_many(drops(150, Placing.BOTH)) if isinstance(one, NicOffloadError)
        ]
        in_hw = [state.in_hw for state in filters.dump()]
        assert in_hw.count(True) == 100
        assert in_hw.count(False) == 50
        assert kernel.route.offloaded(netdev) == 100


def test_a_drivers_refusal_is_silent_without_skip_sw():
    _, nic, filters = prepared("mlx5")
    odd = TcFilter(
        match=Match.of(ipv4_dst=1),
        actions=(PolicePackets(rate_packets_per_s=5, burst_packets=5), *DROP),
        pref=1,
    )
    with filters:
        refused = filters.add_many([dataclasses.replace(odd, placing=Placing.HARDWARE)])[0]
        assert isinstance(refused, NotSupportedError)
        assert refused.kernel_message.startswith("mlx5_core: ")
        assert filters.dump() == []
        filters.add(odd)
        (state,) = filters.dump()
        assert (state.in_hw, state.in_hw_count) == (False, 0)
        assert not nic.device.table("flower_fdb").entries


@pytest.mark.parametrize(
    ("family", "errno", "words"),
    [
        ("mlx5", "EOPNOTSUPP", "TC offload is disabled on net device"),
        ("ice", "EINVAL", "ice: can't apply TC flower filters, turn ON hw-tc-offload and try again"),
        ("igb_82576", "EOPNOTSUPP", "TC offload is disabled on net device"),
        ("sfn5122f", "EOPNOTSUPP", ""),
    ],
)
def test_a_feature_that_is_off_is_refused_in_the_drivers_words(family, errno, words):
    kernel, nic = plugged(family)
    nic.pf.features["hw-tc-offload"].active = False
    with TcFilters(kernel, hook(kernel, nic.pf)) as filters:
        (refused,) = filters.add_many(drops(1, Placing.HARDWARE))
    assert refused.kernel_message == words
    assert errno_name(refused.errno) == errno


def test_a_representor_is_where_packets_of_a_vf_come_in_and_go_to():
    kernel, nic, filters = prepared("mlx5", vfs=2)
    filters.close()
    rule = TcFilter(
        match=Match.of(ipv4_dst=1),
        actions=(Mirred(ifindex=nic.representors[1].ifindex),),
        pref=1,
        handle=OURS,
        placing=Placing.HARDWARE,
        rule_id=uuid.UUID(int=7),
    )
    with TcFilters(kernel, hook(kernel, nic.representors[0])) as filters:
        filters.add(rule)
        device = nic.device
        [packet, *_] = packets_for(FlowRule(match=rule.match, actions=(Drop(),)), pf_mac=5)
        batch = to_batch([packet])
        assert device.receive(batch, 0, 1, 2).tolist() == [3]  # from VF 0 to VF 1
        kernel.advance(60)
        (state,) = filters.dump()
        assert (state.counters.packets, state.counters.hw_packets) == (1, 1)
        assert state.counters.bytes == state.counters.hw_bytes > 0
        assert state.counters.idle_ns == pytest.approx(60e9, abs=1e9)
        counted = filters.counters()
        assert counted.hw_packets.tolist() == [1]


def test_a_device_of_another_switch_is_no_target():
    kernel, _, filters = prepared("mlx5", vfs=2)
    other = kernel.add_netdev("other")
    with filters:
        item = TcFilter(
            match=Match.of(ipv4_dst=1),
            actions=(Mirred(ifindex=other.ifindex),),
            pref=1,
            placing=Placing.HARDWARE,
        )
        (refused,) = filters.add_many([item])
    assert "not on same switch" in refused.kernel_message


def test_filters_go_with_the_device_that_they_hang_on():
    kernel, nic, filters = prepared("mlx5", vfs=2)
    filters.close()
    with TcFilters(kernel, hook(kernel, nic.representors[1])) as filters:
        filters.add_many(drops(3, Placing.HARDWARE))
        assert len(nic.device.table("flower_fdb").entries) == 3
        nic.device.sriov.set_count(0)
        kernel.follow(nic)
        assert not nic.device.table("flower_fdb").entries


def test_ixgbe_reads_a_five_tuple_from_two_tables_and_hides_what_it_refuses():
    kernel, nic = plugged("ixgbe", prepared=True, vfs=2)
    nic.pf.features["hw-tc-offload"].active = True
    kernel.follow(nic)
    match = Match.of(ipv4_src="10.0.0.1", ipv4_dst="10.1.0.1", ip_proto=17, tp_src=53, tp_dst=80)
    leading, inner = linked_keys(match)
    to_vf = (Mirred(ifindex=nic.vfs[1].netdev.ifindex),)
    with U32Filters(kernel, hook(kernel, nic.pf)) as filters:
        filters.add_table(1, 5)
        link = U32Filter(keys=leading, actions=(), pref=1, node=1, link=5, placing=Placing.HARDWARE)
        rule = U32Filter(keys=inner, actions=to_vf, pref=1, node=7, table=5, placing=Placing.HARDWARE)
        outcomes = filters.add_many([link, rule])
        assert all(isinstance(one, FilterRef) for one in outcomes)
        (entry,) = nic.device.table("u32").entries.values()
        assert entry.rule.match == match
        assert (entry.slot, entry.plan.port) == (7, 3)
        assert [state.in_hw for state in filters.dump()] == [True, True]
        # Linux does not pass on what the driver refuses: only reading tells.
        far = dataclasses.replace(rule, node=0xFFF)
        assert isinstance(filters.add_many([far])[0], FilterRef)
        assert [state.in_hw for state in filters.dump() if state.ref.handle & 0xFFF == 0xFFF] == [False]
        assert filters.delete_many(outcomes) == [None, None]
        assert not nic.device.table("u32").entries


def test_a_table_stays_in_use_for_a_while_after_what_led_to_it():
    kernel, roles = fake.plain("a", "b")
    leading, inner = linked_keys(Match.of(ip_proto=6, tp_dst=80, eth_type=0x0800))
    to_b = (Mirred(ifindex=roles["b"]),)
    with U32Filters(kernel, hook(kernel, kernel.world.netdev(roles["a"]))) as filters:
        filters.add_table(1, 5)
        (link, _) = filters.add_many(
            [
                U32Filter(keys=leading, actions=(), pref=1, node=1, link=5),
                U32Filter(keys=inner, actions=to_b, pref=1, node=2),
            ]
        )
        table = FilterRef(pref=1, handle=5 << 20, chain=0, protocol=0x0800, kind="u32")
        assert [type(one) for one in filters.delete_many([link, table])] == [type(None), DeviceBusyError]
        kernel.advance(0.1)
        assert filters.delete_many([table]) == [None]


def test_matchall_on_a_representor_is_the_rate_of_its_vf():
    kernel, nic, filters = prepared("mlx5", vfs=2)
    filters.close()
    limit = TcFilter(
        match=Match(),
        actions=(PoliceRate(rate_bytes_per_s=12_500_000, burst_bytes=100_000),),
        pref=1,
        placing=Placing.HARDWARE,
    )
    with TcFilters(kernel, hook(kernel, nic.representors[1])) as filters:
        assert isinstance(
            filters.add_many([dataclasses.replace(limit, pref=2)], kind="matchall")[0], InvalidRequestError
        )
        filters.add_many([limit], kind="matchall")
        assert nic.device.sriov.vfs[1].max_tx.applied == 100_000_000
        (state,) = filters.dump()
        assert state.in_hw
        filters.delete_many([state.ref])
        assert nic.device.sriov.vfs[1].max_tx.applied == 0


def test_who_listens_hears_of_links_and_filters():
    kernel, _, filters = prepared("mlx5", vfs=0)
    with filters, Events(kernel, [Topic.LINK, Topic.FILTER]) as events:
        filters.add_many(drops(2, Placing.BOTH))
        filters.delete_many([state.ref for state in filters.dump()][:1])
        heard = [one for _ in range(3) for one in events.read(timeout_s=0)]
        assert [one.handle for one in heard if isinstance(one, FilterEvent)] == [1, 2, 1]
        kernel.add_netdev("new")
        assert [one.ifname for one in events.read(timeout_s=0) if isinstance(one, LinkEvent)] == ["new"]


def test_a_fault_answers_in_the_drivers_place():
    fault = {
        "when": {"operation": "flow_create", "call": 2},
        "effect": {"kind": "answer", "operation": "flow_create", "errno": "EBUSY"},
    }
    kernel, nic = plugged("mlx5", prepared=True, faults=[fault])
    with TcFilters(kernel, hook(kernel, nic.pf)) as filters:
        outcomes = filters.add_many(drops(3, Placing.HARDWARE))
    assert [type(one) for one in outcomes] == [FilterRef, DeviceBusyError, FilterRef]


def test_a_cookie_may_come_twice_since_drivers_never_see_it():
    _, _, filters = prepared("mlx5")
    same = [
        dataclasses.replace(item, handle=OURS + item.handle, rule_id=uuid.UUID(int=1))
        for item in drops(2, Placing.HARDWARE)
    ]
    with filters:
        assert all(isinstance(one, FilterRef) for one in filters.add_many(same))
        again = filters.add_many(same[:1])[0]
        assert isinstance(again, ConflictError)


def test_what_is_no_message_is_passed_over():
    kernel, _ = fake.plain("a")
    assert kernel.route.handle(b"") == []
    assert kernel.route.handle(b"\xff" * 40) == []
    assert kernel.route.handle(struct.pack("=IHHII", 16, 44, 1, 1, 0)) == []  # no payload: nothing to do
    (unknown,) = kernel.route.handle(struct.pack("=IHHII", 20, 99, 1, 1, 0) + bytes(4))
    assert struct.unpack_from("=i", unknown, 16) == (-95,)
