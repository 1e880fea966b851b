"""What sequence numbers tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.lab.udp import judge


def of(*numbers, sent):
    found = judge(np.array(numbers, np.int64), sent)
    return found.lost, found.duplicated, found.reordered, found.farthest


@pytest.mark.parametrize(
    ("numbers", "sent", "expected"),
    [
        ((), 0, (0, 0, 0, 0)),
        ((), 3, (3, 0, 0, 0)),
        ((0, 1, 2), 3, (0, 0, 0, 0)),
        ((0, 2, 1), 3, (0, 0, 1, 1)),
        ((2, 0, 1), 3, (0, 0, 2, 2)),
        ((0, 1, 1, 2), 3, (0, 1, 0, 0)),
        ((0, 2, 2, 1), 4, (1, 1, 1, 1)),
    ],
)
def test_it_tells_lost_twice_and_late(numbers, sent, expected):
    assert of(*numbers, sent=sent) == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=60))
def test_it_agrees_with_going_through_them_one_by_one(numbers):
    seen, highest, late, twice = set(), -1, 0, 0
    for number in numbers:
        if number in seen:
            twice += 1
            continue
        seen.add(number)
        late += number < highest
        highest = max(highest, number)
    assert of(*numbers, sent=41)[:3] == (41 - len(seen), twice, late)
