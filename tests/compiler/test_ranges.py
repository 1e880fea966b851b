"""Ranges as masks: exact, minimal, and split into rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.compiler import expand_ranges, range_to_masks
from nicoffload.errors import InvalidRequestError
from nicoffload.model import Masked, PortRange
from tests.compiler.samples import tcp

ports = st.integers(0, 0xFFFF)
ranges = st.tuples(ports, ports).map(sorted)


def covered(masks: list[Masked]) -> list[int]:
    found: list[int] = []
    for part in masks:
        low = part.mask & -part.mask
        found += range(part.value, part.value + low)
    return found


def fewest(first: int, last: int, bits: int = 16) -> int:
    """Count prefixes by walking the tree of prefixes: another way than the one under test."""

    def walk(start: int, size: int) -> int:
        if last < start or start + size - 1 < first:
            return 0
        if first <= start and start + size - 1 <= last and size < 1 << bits:
            return 1
        return walk(start, size // 2) + walk(start + size // 2, size // 2)

    return walk(0, 1 << bits)


@given(ranges)
def test_masks_cover_the_range_exactly_and_each_port_once(bounds):
    first, last = bounds
    assert covered(range_to_masks(first, last)) == list(range(first, last + 1))


@given(ranges)
def test_no_smaller_set_of_prefixes_covers_the_range(bounds):
    first, last = bounds
    assert len(range_to_masks(first, last)) == fewest(first, last)


def test_worst_range_takes_thirty_masks():
    assert len(range_to_masks(1, 65534)) == 30


def test_full_range_takes_two_masks_since_a_mask_is_never_empty():
    assert range_to_masks(0, 65535) == [Masked(0, 0x8000), Masked(0x8000, 0x8000)]


@pytest.mark.parametrize(("first", "last"), [(2, 1), (-1, 5), (0, 65536)])
def test_no_range_is_refused(first, last):
    with pytest.raises(InvalidRequestError):
        range_to_masks(first, last)


def test_rule_without_ranges_is_returned_as_it_is():
    rule = tcp(tp_dst=80)
    assert expand_ranges(rule) == (rule,)


@given(st.tuples(st.integers(0, 300), st.integers(0, 300)).map(sorted))
def test_parts_of_a_rule_match_what_the_rule_matches(bounds):
    rule = tcp(tp_dst=PortRange(*bounds) if bounds[0] != bounds[1] else bounds[0], tp_src=7)
    parts = expand_ranges(rule)
    masks = [part.match.tp_dst for part in parts]
    assert covered(masks) == list(range(bounds[0], bounds[1] + 1))
    assert all(part.match.replace(tp_dst=None) == rule.match.replace(tp_dst=None) for part in parts)
    assert all((part.actions, part.priority) == (rule.actions, rule.priority) for part in parts)


def test_two_ranges_are_crossed_under_ids_that_stay_the_same():
    rule = tcp(tp_src="1-2", tp_dst="1000-1003")
    parts = expand_ranges(rule)
    assert len(parts) == 2
    assert len({part.rule_id for part in parts}) == 2
    assert [part.rule_id for part in expand_ranges(rule)] == [part.rule_id for part in parts]
    assert rule.rule_id not in {part.rule_id for part in parts}


def test_more_than_256_parts_are_refused_with_a_hint():
    with pytest.raises(InvalidRequestError, match="900 rules") as caught:
        expand_ranges(tcp(tp_src="1-65534", tp_dst="1-65534"))
    assert caught.value.path == "/match/tp_src"
    assert caught.value.hint
