"""Flower in the hardware of a simulated NIC: what it takes, refuses, counts, and what the kernel keeps silent about."""

from __future__ import annotations

import dataclasses
import socket

import pytest

from nicoffload.errors import InvalidRequestError, NicOffloadError, NotSupportedError, ResourceExhaustedError
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.tc import (
    FilterRef,
    Gact,
    Hook,
    Placing,
    TcFilter,
    TcFilters,
    Verdict,
    add_command,
    police,
)
from nicoffload.kernel.tc.values import PolicePackets, PoliceRate
from nicoffload.model import Match
from tests.kernel.against_tc import run_commands, shown
from tests.kernel.random_filters import random_filters

DROP = (Gact(verdict=Verdict.DROP),)


@pytest.fixture
def nic(simulated_nic):
    """A NIC with two ports."""
    return simulated_nic(ports=2)


def opened(nic, port: int = 0) -> TcFilters:
    device = nic.netdevs[port]
    return TcFilters(LinuxKernel(), Hook.ingress(socket.if_nametoindex(device)), device=device)


def drops(count: int, placing: Placing) -> list[TcFilter]:
    return [
        TcFilter(match=Match.of(ipv4_dst=number), actions=DROP, pref=1, handle=number + 1, placing=placing)
        for number in range(count)
    ]


def held(action):
    return police.held(action) if isinstance(action, PoliceRate | PolicePackets) else action


def test_random_rules_go_into_the_hardware_as_tc_puts_them_there(nic, tmp_path):
    targets = [socket.if_nametoindex(name) for name in nic.netdevs]
    made = random_filters(500, targets, [Placing.HARDWARE])
    with opened(nic) as filters, opened(nic, 1) as of_tc:
        outcomes = filters.add_many(made)
        assert [outcome for outcome in outcomes if not isinstance(outcome, FilterRef)] == []
        run_commands([add_command(one, of_tc.hook, socket.if_indextoname) for one in made], tmp_path)
        assert shown(nic.netdevs[0]) == shown(nic.netdevs[1])
        for of_one in (filters, of_tc):
            states = sorted(of_one.dump(), key=lambda state: state.ref.pref)
            for item, state in zip(made, states, strict=True):
                assert state.filter.match == item.match
                assert state.filter.actions == tuple(held(action) for action in item.actions)
                assert (state.in_hw, state.in_hw_count, state.filter.placing) == (True, 1, Placing.HARDWARE)
                assert state.foreign == ()
        assert filters.counters().in_hw.all()


def test_a_full_table_refuses_each_rule_that_must_be_in_hardware_and_says_so(nic):
    nic.flow("max").write_text("100", "ascii")
    with opened(nic) as filters:
        outcomes = filters.add_many(drops(150, Placing.HARDWARE))
        assert [isinstance(outcome, FilterRef) for outcome in outcomes] == [True] * 100 + [False] * 50
        refused = outcomes[120]
        assert isinstance(refused, ResourceExhaustedError)
        assert "flow table is full" in refused.kernel_message
        assert len(filters.dump()) == 100


def test_the_same_without_skip_sw_is_silent_and_only_reading_tells(nic):
    nic.flow("max").write_text("100", "ascii")
    with opened(nic) as filters:
        outcomes = filters.add_many(drops(150, Placing.BOTH))
        assert not [outcome for outcome in outcomes if isinstance(outcome, NicOffloadError)]
        states = filters.dump()
        assert sum(state.in_hw is True for state in states) == 100
        assert sum(state.in_hw is False for state in states) == 50
        assert filters.counters().in_hw.sum() == 100


def test_the_drivers_words_reach_the_error(nic):
    nic.flow("reject_actions").write_text("0x2", "ascii")
    with opened(nic) as filters:
        (refused,) = filters.add_many(drops(1, Placing.HARDWARE))
        assert isinstance(refused, NotSupportedError)
        assert "unsupported action" in refused.reasons[0].message
        assert filters.dump() == []


def test_hardware_and_software_count_apart(nic):
    nic.flow("hit_packets").write_text("7", "ascii")
    nic.flow("hit_bytes").write_text("700", "ascii")
    with opened(nic) as filters:
        made = [*drops(300, Placing.BOTH)[:200], *drops(300, Placing.SOFTWARE)[200:]]
        filters.add_many(made)
        found = filters.counters()
        order = found.handles.argsort()
        in_hw = found.in_hw[order]
        assert in_hw.tolist() == [True] * 200 + [False] * 100
        # The kernel asks the NIC again for a filter that did not fit into one part of its answer.
        assert set(found.hw_packets[order][:200].tolist()) <= {7, 14}
        assert (found.hw_bytes[order] == found.hw_packets[order] * 100).all()
        assert (found.packets >= found.hw_packets).all()
        assert not found.hw_packets[order][200:].any()
        assert (filters.counters().hw_packets[found.in_hw] > found.hw_packets[found.in_hw]).all()


def test_chains_are_refused_by_a_nic_that_has_only_the_first(nic):
    with opened(nic) as filters:
        item = dataclasses.replace(drops(1, Placing.HARDWARE)[0], chain=3)
        (refused,) = filters.add_many([item])
        assert isinstance(refused, NotSupportedError | InvalidRequestError)
