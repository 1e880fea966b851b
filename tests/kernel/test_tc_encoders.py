"""What is sent: pinned bytes, one template for all, every reason of a refusal, and the model's actions both ways."""

from __future__ import annotations

import dataclasses
import random
import struct
import uuid

import numpy as np
import pytest

from nicoffload.errors import InvalidRequestError, NotSupportedError
from nicoffload.kernel.tc import (
    OUR_HANDLES,
    Gact,
    Hook,
    Placing,
    PoliceRate,
    QueueStyle,
    Targets,
    TcFilter,
    TcFilters,
    UnknownAction,
    Verdict,
    flat_keys,
    lower_actions,
    raise_actions,
)
from nicoffload.kernel.tc.police import held
from nicoffload.model import (
    Count,
    Drop,
    Masked,
    Match,
    Mirror,
    ModifyVlan,
    Police,
    PopVlan,
    PushVlan,
    SetField,
    ToPf,
    ToQueue,
    ToUplink,
    ToVf,
    TunnelSet,
    TunnelUnset,
)
from tests.kernel.random_filters import random_filters
from tests.kernel.scripted import ScriptedKernel, acknowledge

DROP = (Gact(verdict=Verdict.DROP),)
TARGETS = Targets(ifindexes={0: 10, 1: 11, 2: 12, 5: 15}, queues=QueueStyle.SKBEDIT)
TCP = Match.of(eth_type=0x0800, ip_proto=6)
TCP6 = Match.of(eth_type=0x86DD, ip_proto=6)


def sent(items: list[TcFilter]) -> dict[int, bytes]:
    """Return the message of each filter by its handle, without sequence number and acknowledgement flag."""
    kernel = ScriptedKernel(acknowledge)
    with TcFilters(kernel, Hook.ingress(1)) as filters:
        outcomes = filters.add_many(items)
    assert not [one for one in outcomes if isinstance(one, Exception)]
    found = {}
    for data in kernel.channel.sent:
        start = 0
        while start < len(data):
            (length,) = struct.unpack_from("=I", data, start)
            whole = data[start : start + length]
            handle = struct.unpack_from("=I", whole, 24)[0]
            found[handle] = whole[:6] + bytes([whole[6] & ~4]) + whole[7:8] + bytes(4) + whole[12:]
            start += length
    return found


def test_a_thousand_at_once_are_the_same_bytes_as_one_by_one():
    made = random_filters(400, [3, 4], list(Placing))
    made = [dataclasses.replace(item, handle=OUR_HANDLES + place) for place, item in enumerate(made)]
    together = sent(made)
    for item in random.sample(made, 100):
        assert sent([item])[item.handle] == together[item.handle]


def test_sixty_four_go_into_a_send_and_only_the_last_asks_for_an_answer():
    made = [TcFilter(match=Match.of(ipv4_dst=n), actions=DROP, pref=1, handle=1 + n) for n in range(200)]
    kernel = ScriptedKernel(acknowledge)
    with TcFilters(kernel, Hook.ingress(1)) as filters:
        filters.add_many(made)
    sizes = [len(data) // struct.unpack_from("=I", data)[0] for data in kernel.channel.sent]
    assert sizes == [64, 64, 64, 8]
    assert all(len(acknowledge(data)) == 1 for data in kernel.channel.sent)


def test_columns_are_the_same_bytes_as_objects():
    match = Match.of(ipv6_src="2001::1", ip_proto=17, tp_dst=53)
    ids = [uuid.UUID(int=n) for n in range(1, 101)]
    made = [
        TcFilter(
            match=match.replace(ipv6_src=Masked(n, (1 << 128) - 1), tp_dst=Masked(n, 0xFFFF)),
            actions=DROP,
            pref=3,
            handle=OUR_HANDLES | n,
            rule_id=ids[n - 1],
        )
        for n in range(1, 101)
    ]
    kernel = ScriptedKernel(acknowledge)
    sources = b"".join(n.to_bytes(16, "big") for n in range(1, 101))
    with TcFilters(kernel, Hook.ingress(1)) as filters:
        like = dataclasses.replace(made[0], rule_id=ids[0])
        numbers = np.arange(1, 101, dtype=np.uint32)
        columns = {"ipv6_src": np.frombuffer(sources, np.uint8).reshape(-1, 16), "tp_dst": numbers}
        cookies = np.frombuffer(b"".join(one.bytes for one in ids), np.uint8).reshape(-1, 16)
        assert filters.add_columns(like, columns, numbers | OUR_HANDLES, cookies=cookies) == {}
        with pytest.raises(InvalidRequestError, match="do not fit"):
            filters.add_columns(like, {"eth_src": numbers}, numbers)
        by_columns = b"".join(kernel.channel.sent)
    with TcFilters(ScriptedKernel(acknowledge), Hook.ingress(1)) as filters:
        filters.add_many(made)
        by_objects = b"".join(filters._netlink._channel.sent)
    assert by_columns == by_objects


@pytest.mark.parametrize(
    ("name", "match", "actions"),
    [
        ("drop", "ipv4_dst=10.0.0.1", (Drop(),)),
        ("five-tuple", "ipv4_src=1.2.3.4,ipv4_dst=5.6.7.8,ip_proto=6,tp_src=1,tp_dst=2", (ToVf(vf=3),)),
        ("vlan", "vlan_vid=5,vlan_pcp=3,eth_type=0x0806", (PopVlan(), ToVf(vf=0))),
        ("police", "ipv6_dst=2001::/16", (Police(rate_bps=100_000_000_000, burst_bytes=10**6), ToUplink())),
        (
            "rewrite",
            "eth_type=0x0800,ip_proto=17",
            (SetField(field="tp_dst", value=Masked(53, 0xFFFF)), ToPf()),
        ),
        (
            "tunnel",
            "tun_id=7,tun_ipv4_dst=1.1.1.1",
            (TunnelSet(tun_id=9, src="1.1.1.1", dst="2.2.2.2"), PushVlan(vid=2), ToUplink()),
        ),
    ],
)
def test_the_bytes_are_pinned(name, match, actions, golden):
    parsed = Match.of(**dict(part.split("=") for part in match.split(",")))
    lowered = lower_actions(actions, parsed, TARGETS)
    item = TcFilter(
        match=parsed, actions=lowered.actions, pref=7, handle=OUR_HANDLES | 9, rule_id=uuid.UUID(int=0xABCDEF)
    )
    (data,) = sent([item]).values()
    golden.check_text(f"golden/flower-{name}.hex", data.hex(" ", 4) + "\n")


@pytest.mark.parametrize(
    ("match", "code"),
    [
        (Match.of(in_port=2), "field.hook"),
        (Match.of(vlan_dei=1), "field.unknown"),
        (Match.of(vlan_vid="0x1/0x3"), "mask.partial"),
        (Match.of(tun_id="1/3"), "mask.partial"),
        (Match.of(tun_id=1 << 40), "value.range"),
        (Match.of(eth_type=0x0800, ip_frag="not_later"), "value.fragment"),
        (Match.of(eth_type=0x86DD, ip_proto=1, icmp_type=8), "value.protocol"),
    ],
)
def test_what_flower_can_not_say_is_refused_with_its_reason(match, code):
    with TcFilters(ScriptedKernel(acknowledge), Hook.ingress(1), device="eth0") as filters:
        (refused,) = filters.add_many([TcFilter(match=match, actions=DROP, pref=1, handle=1)])
    assert isinstance(refused, NotSupportedError)
    assert refused.reasons[0].code == code
    assert refused.device == "eth0"


def test_all_reasons_are_named_not_only_the_first():
    with TcFilters(ScriptedKernel(acknowledge), Hook.ingress(1)) as filters:
        match = Match.of(in_port=2, vlan_dei=1)
        (refused,) = filters.add_many([TcFilter(match=match, actions=DROP, pref=1, handle=1)])
    assert [reason.path for reason in refused.reasons] == ["/match/in_port", "/match/vlan_dei"]


@pytest.mark.parametrize(
    ("actions", "match"),
    [
        ((Drop(),), TCP),
        ((Mirror(port=5), ToVf(vf=0)), TCP),
        ((PushVlan(vid=5, pcp=2, tpid=0x88A8), ToUplink()), TCP),
        ((PopVlan(), ModifyVlan(vid=3, pcp=1), ToPf()), TCP),
        ((TunnelSet(tun_id=5, src="::1", dst="::2"), TunnelUnset(), ToUplink()), TCP),
        ((ToQueue(queue=7),), TCP),
        ((Police(rate_bps=8_000_000, burst_bytes=10_000), ToVf(vf=3)), TCP),
        (
            (
                SetField(field="eth_dst", value=Masked(0x0200_0000_0001, (1 << 48) - 1)),
                SetField(field="ipv4_src", value=Masked(7, 0xFFFF_FFFF)),
                SetField(field="tp_dst", value=Masked(80, 0xFFFF)),
                ToVf(vf=0),
            ),
            TCP,
        ),
        ((SetField(field="ip_tos", value=Masked(0x10, 0xFC)), ToVf(vf=0)), TCP6),
        ((SetField(field="ipv6_dst", value=Masked(1 << 127, 3 << 126)), ToVf(vf=0)), TCP6),
    ],
)
def test_actions_of_the_model_come_back(actions, match):
    lowered = lower_actions((Count(), *actions), match, TARGETS)
    raised, foreign = raise_actions(lowered.actions, match, TARGETS, lowered.hw_tc)
    assert foreign == []
    assert set(raised) == set(actions)
    assert raised[-1] == actions[-1]


@pytest.mark.parametrize(
    ("actions", "code"),
    [
        ((ToVf(vf=9),), "target.absent"),
        ((ToVf(vf=0, queue=2),), "target.vf_queue"),
        ((Police(rate_bps=7, burst_bytes=1), Drop()), "rate.too_low"),
        ((Police(rate_bps=1_000_001, burst_bytes=1), Drop()), "rate.fraction"),
        ((SetField(field="tp_dst", value=Masked(1, 0xFFFF)), Drop()), "set_field.unknown"),
    ],
)
def test_actions_that_tc_has_not_are_refused_with_their_reason(actions, code):
    with pytest.raises(NotSupportedError) as caught:
        lower_actions(actions, Match.of(eth_type=0x0806), TARGETS)
    assert caught.value.reasons[0].code == code


def test_nothing_stands_behind_the_fate():
    with pytest.raises(InvalidRequestError, match="behind"):
        lower_actions((Drop(), PopVlan()), TCP, TARGETS)


def test_a_bucket_that_the_kernel_can_not_hold_is_refused():
    with pytest.raises(InvalidRequestError, match="fill"):
        held(PoliceRate(rate_bytes_per_s=1, burst_bytes=300))
    assert held(PoliceRate(rate_bytes_per_s=125_000, burst_bytes=15_001)).burst_bytes == 15_001


def test_an_action_of_somebody_else_is_never_written():
    with TcFilters(ScriptedKernel(acknowledge), Hook.ingress(1)) as filters:
        strange = (UnknownAction(kind="ct", detail=""),)
        (refused,) = filters.add_many([TcFilter(match=TCP, actions=strange, pref=1, handle=1)])
    assert isinstance(refused, InvalidRequestError)


def test_words_for_ports_behind_a_plain_header_only():
    keys = {
        key.offset: (key.mask, key.value)
        for key in flat_keys(Match.of(eth_type=0x0800, ip_proto=6, tp_dst=80))
    }
    assert keys[0] == (0x0F00_0000, 0x0500_0000)
    assert keys[4] == (0x1FFF, 0)
    assert keys[20] == (0xFFFF, 80)
