"""The ledger: nothing counted twice, nothing lost, whatever a NIC's counters do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.flexivoffload.ledger import (
    Count,
    Ledger,
    Path,
    Reading,
    RuleCounter,
    Verdict,
    counter_delta,
    full_frame_bytes,
)
from nicoffload.model import ByteBasis, CounterFacts


def facts(bits=64, basis=ByteBasis.L2, refresh_s=0.0):
    return CounterFacts(
        source="nic:rule", byte_basis=basis, packet_bits=bits, byte_bits=bits, refresh_s=refresh_s
    )


@given(
    st.lists(
        st.tuples(st.sampled_from(["sw", "hw", "close_sw", "close_hw", "grow"]), st.integers(1, 1000)),
        max_size=60,
    )
)
def test_totals_are_what_was_counted_and_never_fall(events):
    ledger, rows, size = Ledger(2), np.array([1]), 2
    truth = {Path.VSWITCH: 0, Path.NIC: 0}
    for event, amount in events:
        path = Path.NIC if event.endswith("hw") else Path.VSWITCH
        if event == "grow":
            size += 1
            ledger.grow(size)
        elif event.startswith("close"):
            epoch = int(ledger.epoch[path, 1])
            ledger.close(path, rows)
            assert ledger.epoch[path, 1] == epoch + 1
            assert ledger.live_packets[path, 1] == 0
        else:
            ledger.count(path, rows, np.array([amount]), np.array([amount * 100]))
            truth[path] += amount
        for which, packets in truth.items():
            assert ledger.flow(which, 1) == Count(packets=packets, bytes=packets * 100)
            assert ledger.flow(which, 0) == Count()


@given(st.integers(1, 64), st.integers(0, 2**70), st.integers(0, 2**64 - 1))
def test_a_wrap_is_seen_through(bits, before, gained):
    modulus = 1 << bits
    gained %= modulus
    assert counter_delta(before % modulus, (before + gained) % modulus, bits) == gained


@pytest.mark.parametrize(
    ("basis", "expected"), [(ByteBasis.L2, 330), (ByteBasis.L3, 470), (ByteBasis.UNKNOWN, None)]
)
def test_bytes_come_to_one_basis(basis, expected):
    assert full_frame_bytes(330, 10, 14, basis) == expected


@given(
    st.lists(st.tuples(st.integers(0, 200), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([8, 16, 28, 36, 64]),
    st.sampled_from([ByteBasis.L2, ByteBasis.L3]),
)
def test_an_honest_counter_agrees_across_wraps_and_lost_polls(steps, bits, basis):
    follower, truth = RuleCounter(18), Count()
    pending = 0
    for at, (packets, is_polled) in enumerate(steps):
        # Two wraps between two readings can't be told from one: readings come more often than that.
        if pending + packets * 118 >= 1 << bits:
            continue
        pending += packets * 118
        truth += Count(packets=packets, bytes=packets * 118)
        if not is_polled:
            continue
        pending = 0
        raw = truth.packets * (100 if basis is ByteBasis.L3 else 118)
        mask = (1 << bits) - 1
        reading = Reading(packets=truth.packets & mask, bytes=raw & mask, epoch=1, facts=facts(bits, basis))
        assert follower.observe(reading, truth, at) is Verdict.AGREES
        assert follower.total == truth


def observe(follower, packets, truth, *, epoch=1, how=None, size=None, at=0):
    reading = Reading(packets=packets, bytes=size, epoch=epoch, facts=how or facts())
    return follower.observe(reading, Count(packets=truth, bytes=truth * 100), at)


def test_frozen_reset_behind_and_ahead_are_told_apart():
    follower = RuleCounter(14)
    assert observe(follower, 10, 10) is Verdict.AGREES
    assert observe(follower, 10, 20) is Verdict.FROZEN
    assert observe(follower, 15, 30) is Verdict.BEHIND
    assert observe(follower, 99, 40) is Verdict.AHEAD
    assert observe(follower, 3, 45, epoch=2) is Verdict.RESET
    assert observe(follower, 8, 50, epoch=2) is Verdict.AGREES
    assert follower.total.packets == 50


def test_a_reset_that_nobody_tells_of_is_no_wrap():
    follower = RuleCounter(14)
    assert observe(follower, 100, 100) is Verdict.AGREES
    assert observe(follower, 5, 110, how=facts(bits=28)) is Verdict.RESET
    assert follower.total.packets == 110


def test_wrong_bytes_are_seen():
    follower = RuleCounter(14)
    assert observe(follower, 10, 10, size=1000) is Verdict.AGREES
    assert observe(follower, 20, 20, size=1900) is Verdict.BYTES
    assert observe(follower, 30, 30, size=2900) is Verdict.AGREES


def test_a_counter_that_is_refreshed_each_second_may_lag_a_second_and_no_more():
    slow = facts(refresh_s=1.0)
    follower = RuleCounter(14)
    second = 10**9
    assert observe(follower, 0, 10, how=slow, at=second // 2) is Verdict.AGREES
    assert observe(follower, 10, 20, how=slow, at=3 * second // 2) is Verdict.AGREES
    assert observe(follower, 10, 30, how=slow, at=3 * second) is Verdict.FROZEN
    assert observe(follower, 31, 30, how=slow, at=3 * second) is Verdict.AHEAD


def test_no_counter_is_no_disagreement():
    nothing = Reading(packets=None, bytes=None, epoch=0, facts=None)
    assert RuleCounter(14).observe(nothing, Count(packets=9, bytes=900), 0) is Verdict.MISSING
