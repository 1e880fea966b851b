"""Filters read by layout say what they say read one by one."""

from __future__ import annotations

import dataclasses
import random
import struct
import uuid

import pytest

from nicoffload.errors import NicOffloadError
from nicoffload.kernel.attributes import attribute, be16, nested, text, u32
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE
from nicoffload.kernel.tc import (
    FilterRef,
    Gact,
    Hook,
    Mirred,
    Placing,
    PoliceRate,
    TcFilter,
    TcFilters,
    Verdict,
    qdisc,
    read,
)
from nicoffload.kernel.tc.alike import alike
from nicoffload.kernel.tc.template import RTM_NEWTFILTER, TCA_KIND, TCA_OPTIONS, TCMSG
from nicoffload.linux.filter_reading import _state_of
from nicoffload.model import Match
from nicoffload.testing import FakeKernel
from tests.kernel.test_tc_decoders import datagrams


def said(states):
    """Return what filters say, without what they counted."""
    plain = [
        dataclasses.replace(
            state,
            counters=None,
            ref=state.ref,
            filter=dataclasses.replace(state.filter, pref=max(state.ref.pref, 1)),
        )
        for state in states
    ]
    return sorted(map(repr, plain))


def expanded(groups):
    return [_state_of(group, place) for group in groups for place in range(len(group.handles))]


@pytest.mark.parametrize("name", ["tc-6.12-full.bin", "tc-6.12-terse.bin"])
def test_a_dump_of_a_real_kernel_by_layout_says_what_it_says_one_by_one(name):
    assert said(expanded(alike(datagrams(name)))) == said(read.states(datagrams(name)))


LONG = [attribute(12, bytes([10, 0, 0, 5]) + bytes(8)), attribute(13, b"\xff" * 4)]
RANGE_AND_VALUE = [attribute(9, b"\x11"), be16(18, 7), be16(87, 5), be16(88, 9)]


@pytest.mark.parametrize("keys", [LONG, RANGE_AND_VALUE], ids=["long", "range and value"])
def test_keys_that_no_kernel_sends_are_read_as_one_by_one(keys):
    """Damaged messages had them, and broke the reading by layout."""
    options = [u32(22, 8), be16(8, 0x0800), *keys]
    payload = TCMSG.pack(0, 7, 0x8000_0001, 0xFFFF_FFF2, 3 << 16 | 0x0008)
    payload += text(TCA_KIND, "flower") + nested(TCA_OPTIONS, *options)
    message = struct.pack("=IHHII", 16 + len(payload), RTM_NEWTFILTER, 2, 1, 0) + payload
    assert said(expanded(alike([message]))) == said(read.states([message]))


@pytest.fixture
def filters():
    kernel = FakeKernel()
    ifindex = kernel.add_netdev("eth0").ifindex
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        qdisc.ensure(netlink, ifindex)
    with TcFilters(kernel, Hook.ingress(ifindex)) as opened:
        yield opened


def made(count, ifindex):
    actions = [
        (Gact(verdict=Verdict.DROP),),
        (Mirred(ifindex=ifindex),),
        (PoliceRate(rate_bytes_per_s=1_000_000, burst_bytes=9999), Gact(verdict=Verdict.PASS)),
    ]
    return [
        TcFilter(
            match=Match.of(ipv4_dst=number, ip_proto=6, tp_dst=number % 7)
            if number % 3
            else Match.of(ipv6_src=number << 64, vlan_vid=number % 5),
            actions=actions[number % len(actions)],
            pref=10 if number % 3 else 11,
            handle=0x8000_0000 + number,
            placing=Placing.SOFTWARE,
            rule_id=uuid.UUID(int=random.getrandbits(128)),
        )
        for number in range(1, count + 1)
    ]


def test_filters_that_are_alike_come_together_and_each_says_its_own(filters):
    items = made(90, filters.hook.ifindex)
    assert all(isinstance(one, FilterRef) for one in filters.add_many(items))
    groups = filters.dump_alike()
    assert len(groups) < 10
    assert said(expanded(groups)) == said(filters.dump())
    assert {state.filter.rule_id: state.filter.match for state in expanded(groups)} == {
        item.rule_id: item.match for item in items
    }


def test_some_filters_are_read_by_their_places_and_what_is_gone_is_told(filters):
    items = made(12, filters.hook.ifindex)
    refs = filters.add_many(items)
    filters.delete_many([refs[4]])
    found = filters.get_many([refs[7], refs[4], refs[2]])
    assert [state and state.filter.rule_id for state in found] == [items[7].rule_id, None, items[2].rule_id]


def test_damage_is_named_and_never_a_crash():
    whole = max(datagrams("tc-6.12-full.bin"), key=len)
    for _ in range(400):
        damaged = bytearray(whole[: random.randint(1, 4000)])
        for _ in range(random.randint(1, 8)):
            damaged[random.randrange(len(damaged))] = random.choice([0, 1, 0xFF, 0x80, random.randrange(256)])
        try:
            expanded(alike([bytes(damaged)]))
        except NicOffloadError:
            continue
