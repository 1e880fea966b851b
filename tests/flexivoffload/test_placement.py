"""Placement: operations within the budget, rows within the table, prices that follow scarcity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.flexivoffload.executor import backoff_s
from nicoffload.flexivoffload.placement import (
    NS_PER_S,
    Candidates,
    Capacity,
    OperationBudget,
    PlacementConfig,
    Prices,
    Residents,
    admit,
    idle_rows,
    jain_index,
    next_operation_price,
    next_row_price,
)

CONFIG = PlacementConfig()


def candidates(rates, *, age_s=30.0, vm=0, pinned=False):
    count = len(rates)
    return Candidates(
        rate_pps=np.array(rates, float),
        age_s=np.full(count, age_s),
        vm=np.broadcast_to(np.array(vm, np.int64), count).copy(),
        pinned=np.broadcast_to(np.array(pinned, bool), count).copy(),
        lead=np.ones(count),
    )


def residents(
    rates, *, idle_s=0.0, residence_s=100.0, vm=0, pinned=False, closing=False, min_residence_s=0.0
):
    count = len(rates)

    def column(value, kind):
        return np.broadcast_to(np.array(value, kind), count).copy()

    return Residents(
        rate_pps=np.array(rates, float),
        idle_s=column(idle_s, float),
        residence_s=column(residence_s, float),
        min_residence_s=column(min_residence_s, float),
        vm=column(vm, np.int64),
        pinned=column(pinned, bool),
        closing=column(closing, bool),
        lead=np.ones(count),
    )


def choose(new, old=(), *, usable=100, tokens=1000.0, vms=1, share=0.5, prices=None):
    budget = OperationBudget(1000.0, now_ns=0)
    budget.tokens = tokens
    result = admit(
        new,
        old or residents([]),
        usable=usable,
        weights=np.ones(vms),
        max_vm_share=share,
        prices=prices or Prices(),
        budget=budget,
        config=CONFIG,
    )
    return result, budget


RATES = st.lists(st.floats(0, 10_000), max_size=40)


@given(RATES, RATES, st.integers(0, 40), st.integers(0, 60), st.integers(1, 4), st.booleans())
def test_rows_and_operations_are_never_exceeded(new, old, usable, tokens, vms, is_pinned):
    old = old[:usable]
    waiting = candidates(new, vm=np.arange(len(new)) % vms, pinned=is_pinned)
    installed = residents(old, vm=np.arange(len(old)) % vms)
    result, budget = choose(waiting, installed, usable=usable, tokens=float(tokens), vms=vms)
    assert len(old) - len(result.victims) + len(result.admitted) <= usable
    assert len(result.victims) + len(result.admitted) <= tokens
    assert budget.tokens == tokens - len(result.victims) - len(result.admitted)
    assert len(set(result.victims)) == len(result.victims)
    assert sorted([*result.admitted, *result.refused]) == list(range(len(new)))


@given(st.lists(st.tuples(st.integers(0, 3 * NS_PER_S), st.integers(0, 5)), max_size=50), st.floats(0.5, 100))
def test_operations_stay_within_the_rate_over_any_span(steps, rate):
    budget, now_ns, taken = OperationBudget(rate, now_ns=0), 0, 0
    for wait_ns, wanted in steps:
        now_ns += wait_ns
        budget.advance(now_ns)
        taken += sum(budget.take() for _ in range(wanted))
        assert taken <= rate * now_ns / NS_PER_S + max(rate, 1.0) + 1e-6


def test_a_rate_pays_for_its_row_and_its_operations():
    # 8 packets for adding and removing, over the 4 seconds that it is expected to live: 2 packets/s.
    result, _ = choose(candidates([1.9, 2.1], age_s=4.0))
    assert (result.admitted, result.refused) == ([1], {0: "price"})
    result, _ = choose(candidates([11.9, 12.1], age_s=4.0), prices=Prices(row_pps=10.0))
    assert result.admitted == [1]


def test_a_pin_pays_nothing_and_goes_first():
    new = candidates([50.0, 0.0], pinned=[False, True])
    result, _ = choose(new, usable=1)
    assert result.admitted == [1]


def test_in_a_full_table_only_the_clearly_faster_replaces():
    old = residents([10.0, 20.0])
    assert choose(candidates([12.0]), old, usable=2)[0].refused == {0: "table_full"}
    result, budget = choose(candidates([13.0]), old, usable=2)
    assert (result.admitted, result.victims, budget.tokens) == ([0], [0], 998.0)


def test_victims_have_stayed_their_time():
    old = residents([1.0], residence_s=1.5, min_residence_s=2.0)
    assert choose(candidates([100.0]), old, usable=1)[0].victims == []
    assert choose(candidates([100.0]), residents([1.0], pinned=True), usable=1)[0].victims == []


def test_a_vm_has_at_most_its_share_and_victims_come_from_the_greedy():
    result, _ = choose(candidates([9.0] * 10, vm=0), usable=10, vms=2)
    assert len(result.admitted) == 5
    assert set(result.refused.values()) == {"vm_share"}
    # VM 1 has less than it is guaranteed, so its slow row is spared.
    old = residents([5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 0.1], vm=[0, 0, 0, 0, 0, 0, 0, 1])
    result, _ = choose(candidates([50.0], vm=1), old, usable=8, vms=2)
    assert [int(old.vm[row]) for row in result.victims] == [0]


def test_idle_rows_go_sooner_when_the_table_is_nearly_full():
    budget = OperationBudget(1000.0, now_ns=0)
    old = residents([0.1] * 100, idle_s=2.0)
    assert idle_rows(old, 200, Prices(), budget) == []
    assert len(idle_rows(old, 100, Prices(), budget)) == 15
    assert len(idle_rows(residents([0.1], idle_s=11.0), 200, Prices(), budget)) == 1
    assert len(idle_rows(residents([5.0], idle_s=1.0, closing=True), 200, Prices(), budget)) == 1
    assert idle_rows(residents([0.0], idle_s=99.0, pinned=True), 200, Prices(), budget) == []


def test_prices_follow_scarcity():
    rates = np.linspace(1, 100, 50)
    assert next_row_price(0.0, rates, 50) == pytest.approx(np.percentile(rates, 2))
    assert next_row_price(8.0, rates, 51) == 4.0
    assert next_operation_price(4.0, 0.1, CONFIG) == pytest.approx(5.1)
    assert next_operation_price(4.0, 0.4, CONFIG) == 4.0
    assert next_operation_price(5.0, 0.9, CONFIG) == 4.0


def test_capacity_shrinks_at_once_and_grows_slowly():
    capacity = Capacity(1000, now_ns=0)
    capacity.full(500, 0)
    capacity.advance(9 * NS_PER_S)
    assert capacity.usable == 500
    capacity.advance(10 * NS_PER_S)
    assert capacity.usable == 505
    capacity.advance(10_000 * NS_PER_S)
    assert capacity.usable == 1000
    capacity.full(0, 10_000 * NS_PER_S)
    capacity.advance(10_010 * NS_PER_S)
    assert capacity.usable == 1


def test_waiting_after_failures_doubles_up_to_a_minute():
    assert [backoff_s(n) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_fairness():
    assert jain_index(np.array([1.0, 1.0])) == 1.0
    assert jain_index(np.array([1.0, 0.0])) == 0.5
    assert jain_index(np.zeros(3)) == 1.0
