"""Prefs and handles: which filters are ours, and the order that their prefs keep."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import ResourceExhaustedError
from nicoffload.kernel.tc import FilterRef
from nicoffload.linux.hook_book import HookBook, is_ours
from nicoffload.linux.marks import NUMBERS_WITH_PRIORITY, PREFS, Marks, base_handle, read_marks

priorities = st.none() | st.integers(0, 0xFFFF)


@given(names_port=st.booleans(), priority=priorities, number=st.integers(1, NUMBERS_WITH_PRIORITY - 1))
def test_a_handle_says_what_was_put_into_it(names_port, priority, number):
    handle = base_handle(names_port=names_port, priority=priority) | number
    assert read_marks(handle) == Marks(names_port, priority, number)
    assert 0x8000_0000 <= handle <= 0xFFFF_FFFF


@given(
    st.lists(st.tuples(st.sampled_from([0x800, 0x86DD, 3]), priorities, st.integers(1, 20_000)), max_size=40)
)
def test_prefs_keep_the_order_of_priorities_and_no_place_is_given_twice(wanted):
    book = HookBook(7)
    places = set()
    prefs = []
    for protocol, priority, count in wanted:
        try:
            spans = book.take(protocol, priority, count)
        except ResourceExhaustedError:
            continue  # neighbours in priority may leave no pref between them, and then nothing is given
        assert sum(given_out for _, _, given_out in spans) == count
        for pref, number, given_out in spans:
            assert pref in PREFS
            span = {(pref, number + at) for at in range(given_out)}
            assert not span & places
            places |= span
            prefs.append((pref, protocol, priority))
    for pref, protocol, priority in prefs:
        for other, its_protocol, its_priority in prefs:
            if pref == other:
                assert (protocol, priority) == (its_protocol, its_priority)
            elif priority is not None and its_priority is not None and priority > its_priority:
                assert pref < other


def test_what_was_read_is_kept_in_order_and_others_prefs_are_left_alone():
    book = HookBook(7)
    others = PREFS.start + (0xFFFF - 100) * (len(PREFS) - 1) // 0xFFFF
    book.note(others, 1, 0x800, 0, None)
    book.note(others + 5, base_handle(names_port=False, priority=99) | 8, 0x800, 0, 42)
    ((pref, number, _),) = book.take(0x800, 100, 1)
    assert pref != others
    assert pref < others + 5
    assert number == 1
    assert book.take(0x800, 99, 1) == [(others + 5, 9, 1)]
    assert book.ours[42].handle == base_handle(names_port=False, priority=99) | 8


def test_where_no_pref_is_left_the_reason_is_told():
    book = HookBook(7, range(100, 103))
    book.take(0x800, 10, 1)
    book.take(0x800, 20, 1)
    with pytest.raises(ResourceExhaustedError, match="no pref"):
        book.take(0x800, 15, 1)


@pytest.mark.parametrize(
    ("pref", "handle", "chain", "kind", "ours"),
    [
        (PREFS.start, 0x8000_0001, 0, "flower", True),
        (PREFS.start, 1, 0, "flower", False),
        (5, 0x8000_0001, 0, "flower", False),
        (PREFS.start, 0x8000_0001, 3, "flower", False),
        (PREFS.start, 0x8000_0001, 0, "u32", False),
    ],
)
def test_only_all_marks_together_make_a_filter_ours(pref, handle, chain, kind, ours):
    ref = FilterRef(pref=pref, handle=handle, chain=chain, protocol=0x800, kind=kind)
    assert is_ours(ref) is ours
