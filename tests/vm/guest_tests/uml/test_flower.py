"""Flower, matchall and every action on a real kernel, held against tc in both directions."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator

import pytest

from nicoffload.errors import ConflictError, NicOffloadError, NotFoundError, NotSupportedError
from nicoffload.kernel.linux import LinuxKernel
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
    Verdict,
    add_command,
    police,
)
from nicoffload.model import Match
from tests.kernel.against_tc import run_commands, shown
from tests.kernel.random_filters import random_filters

RULES = 500


@pytest.fixture
def devices(sh) -> Iterator[tuple[str, str]]:
    """Two devices with a clsact, and their peers."""
    for name in ("ours", "theirs"):
        sh(f"ip link add {name} type veth peer name {name}-peer")
        sh(f"tc qdisc add dev {name} clsact")
        for end in (name, f"{name}-peer"):
            sh(f"ip link set {end} addrgenmode none")  # no IPv6 chatter, which would be counted
            sh(f"ip link set {end} up")
    yield "ours", "theirs"
    for name in ("ours", "theirs"):
        sh(f"ip link del {name}")


def name_of(ifindex: int) -> str:
    return socket.if_indextoname(ifindex)


def opened(device: str) -> TcFilters:
    return TcFilters(LinuxKernel(), Hook.ingress(socket.if_nametoindex(device)), device=device)


def as_read(item: TcFilter) -> TcFilter:
    """Return what reading gives back: a bucket in the kernel's steps, and no protocols of absent VLAN tags."""
    held = tuple(
        police.held(action) if isinstance(action, PoliceRate | PolicePackets) else action
        for action in item.actions
    )
    item = dataclasses.replace(item, actions=held)
    plain = not {"vlan_vid", "vlan_pcp", "cvlan_vid", "cvlan_pcp"} & {name for name, _ in item.match.shape}
    return dataclasses.replace(item, outer_tpid=0x8100) if plain else item


def test_random_rules_written_by_us_are_what_tc_reads_and_the_other_way_round(devices, tmp_path):
    ours, theirs = devices
    targets = [socket.if_nametoindex(f"{name}-peer") for name in devices]
    made = random_filters(RULES, targets, [Placing.BOTH, Placing.SOFTWARE])
    with opened(ours) as filters, opened(theirs) as of_tc:
        outcomes = filters.add_many(made)
        assert [outcome for outcome in outcomes if isinstance(outcome, NicOffloadError)] == []
        run_commands([add_command(item, of_tc.hook, name_of) for item in made], tmp_path)
        values, lines = shown(ours)
        their_values, their_lines = shown(theirs)
        assert lines == their_lines
        assert values == their_values

        wanted = sorted((as_read(item) for item in made), key=lambda item: item.pref)
        for read in (filters.dump(), of_tc.dump()):
            assert [state.foreign for state in read if state.foreign] == []
            got = sorted((state.filter for state in read), key=lambda item: item.pref)
            assert got == wanted
            assert not any(state.in_hw for state in read)  # a veth has no hardware, and nobody pretends

        assert filters.delete_many(outcomes) == [None] * len(made)
        assert filters.dump() == []
        gone = filters.delete_many(outcomes[:3])
        assert all(isinstance(answer, NotFoundError) for answer in gone), gone


def test_masks_that_tc_has_no_words_for_come_back_from_the_kernel(devices):
    texts = {
        "ipv4_src": "10.0.0.7/255.0.0.255",
        "ipv6_dst": "2001::1/ffff::ffff",
        "tun_ipv4_dst": "1.0.0.1/255.0.0.255",
        "tun_tp_dst": "0x1200/0xff00",
    }
    made = [
        TcFilter(
            match=Match.of(**{name: text}),
            actions=(Gact(verdict=Verdict.DROP),),
            pref=1 + place,
            handle=1,
        )
        for place, (name, text) in enumerate(texts.items())
    ]
    with opened(devices[0]) as filters:
        filters.add_many(made)
        assert sorted((one.filter for one in filters.dump()), key=lambda one: one.pref) == made
    assert "10.0.0.7/255.0.0.255" in "\n".join(shown(devices[0])[1])
    with pytest.raises(NotSupportedError, match="no tc command"):
        add_command(made[0], filters.hook, name_of)


def test_matchall_polices_above_34_gigabits_and_by_packets(devices, tmp_path):
    ours, theirs = devices
    made = [
        TcFilter(
            match=Match(),
            actions=(
                PoliceRate(rate_bytes_per_s=50_000_000_000, burst_bytes=10_000_000),
                Gact(verdict=Verdict.PASS),
            ),
            pref=1,
            handle=1,
        ),
        TcFilter(
            match=Match.of(eth_type=0x0800),
            actions=(
                PolicePackets(rate_packets_per_s=1_000_000, burst_packets=5000),
                Gact(verdict=Verdict.DROP),
            ),
            pref=2,
            handle=7,
            chain=3,
        ),
    ]
    with opened(ours) as filters, opened(theirs) as of_tc:
        for item in made:
            filters.add(item, kind="matchall")
        run_commands([add_command(item, of_tc.hook, name_of, kind="matchall") for item in made], tmp_path)
        (values, lines), (their_values, their_lines) = shown(ours), shown(theirs)
        assert lines == their_lines
        assert values == their_values
        wanted = [as_read(item) for item in made]
        assert [state.filter for state in filters.dump()] == wanted
        assert [state.filter for state in of_tc.dump()] == wanted


def test_a_failure_ends_at_its_own_rule_and_the_others_stand(devices):
    drop = (Gact(verdict=Verdict.DROP),)
    made = [
        TcFilter(match=Match.of(ipv4_dst=number), actions=drop, pref=1, handle=number + 1)
        for number in range(1000)
    ]
    bad = {17, 63, 64, 500, 999}
    for number in bad:
        made[number] = dataclasses.replace(made[number], handle=made[0].handle)
    absent = {300: Mirred(ifindex=0x7FFF_FFFF)}
    for number, action in absent.items():
        made[number] = dataclasses.replace(made[number], actions=(action,))
    with opened(devices[0]) as filters:
        outcomes = filters.add_many(made)
        refused = {n for n, outcome in enumerate(outcomes) if isinstance(outcome, NicOffloadError)}
        assert refused == bad | absent.keys()
        assert all(isinstance(outcomes[number], ConflictError) for number in bad)
        stand = {state.ref for state in filters.dump()}
        assert stand == {outcome for outcome in outcomes if isinstance(outcome, FilterRef)}


def test_the_kernel_chooses_a_handle_and_tells_it(devices):
    drop = (Gact(verdict=Verdict.DROP),)
    made = [TcFilter(match=Match.of(ipv4_dst=number), actions=drop, pref=1) for number in range(200)]
    with opened(devices[0]) as filters:
        outcomes = filters.add_many(made)
        assert len({outcome.handle for outcome in outcomes} - {0}) == len(made)
        read = {state.ref: state.filter.match for state in filters.dump()}
        assert [read[outcome] for outcome in outcomes] == [item.match for item in made]


def test_replacing_is_one_step(devices):
    match = Match.of(ipv4_dst="10.0.0.1")
    first = TcFilter(match=match, actions=(Gact(verdict=Verdict.DROP),), pref=1, handle=5)
    second = dataclasses.replace(first, actions=(Gact(verdict=Verdict.PASS),))
    with opened(devices[0]) as filters:
        filters.add(first)
        with pytest.raises(ConflictError):
            filters.add(second)
        filters.add(second, replace=True)
        assert [state.filter for state in filters.dump()] == [second]


def test_columns_agree_with_values_and_count_what_passes(devices, sh):
    made = random_filters(300, [socket.if_nametoindex("theirs-peer")], [Placing.BOTH])
    with opened(devices[0]) as filters:
        hit = TcFilter(
            match=Match.of(eth_type=0x88B5), actions=(Gact(verdict=Verdict.DROP),), pref=60000, handle=1
        )
        filters.add(hit)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("ours-peer", 0))
            for _ in range(3):
                wire.send(bytes(12) + b"\x88\xb5" + bytes(46))
        filters.add_many(made)  # now, as one of them might catch those
        states = {(one.ref.chain, one.ref.pref, one.ref.handle): one for one in filters.dump()}
        for found in (filters.counters(), filters.counters(idle=True)):
            assert len(found.handles) == len(states) == 301
            for row in range(301):
                state = states[int(found.chains[row]), int(found.prefs[row]), int(found.handles[row])]
                assert found.rule_id(row) == state.filter.rule_id
                assert found.counted[row]
                assert (found.packets[row], found.bytes[row]) == (
                    state.counters.packets,
                    state.counters.bytes,
                )
                assert found.hw_packets[row] == 0
                assert not found.in_hw[row]
        last = states[0, 60000, 1].counters
        assert (last.packets, last.bytes) == (3, 3 * 46)  # at ingress, without the Ethernet header
        assert last.idle_ns is not None
        assert found.idle_ns[found.prefs == 60000][0] >= 0
        assert (found.idle_ns[found.packets == 0] == -1).all()


def test_a_filter_of_another_owner_is_read_as_foreign_and_not_guessed(devices, sh):
    add = "tc filter add dev ours ingress protocol ip"
    sh(f"{add} pref 1 flower ct_state +trk+est action drop")
    sh(f"{add} pref 2 flower dst_ip 1.1.1.1 action nat ingress 1.1.1.1/32 2.2.2.2")
    with opened(devices[0]) as filters:
        first, second = filters.dump()
        assert first.foreign
        assert "nat" in " ".join(second.foreign)
        assert second.filter.rule_id is None
