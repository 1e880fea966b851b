"""The hash of the farch hardware against the shift register that its description names."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from nicoffload.testing.emulator.hash import HashRows, siena_hash, siena_key

SHAPE = (("eth_dst", (1 << 48) - 1),)


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1))
def test_it_is_linear_as_a_shift_register_is(first, second):
    assert siena_hash(first) ^ siena_hash(second) == siena_hash(first ^ second) ^ siena_hash(0)


def test_clocking_the_register_once_more_shifts_its_state():
    # A bit of the key that enters one step earlier is clocked once more; taps at x^16 and x^3.
    effect = [siena_hash(1 << bit) ^ siena_hash(0) for bit in range(32)]
    for lower, higher in itertools.pairwise(effect):
        assert higher == (lower << 1 | (lower >> 15 ^ lower >> 2) & 1) & 0xFFFF


def test_ports_of_udp_wildcards_are_swapped():
    tcp = {"ip_proto": 6, "ipv4_dst": 1, "tp_dst": 80}
    assert siena_key(tcp) == 80 << 16 ^ 1
    assert siena_key({**tcp, "ip_proto": 17}) == 80 ^ 1 ^ 1


def test_a_row_that_is_given_back_is_found_again():
    rows = HashRows(rows=8, depth=8, function="siena_lfsr16")
    taken = []
    while (row := rows.find(SHAPE, (5,))) is not None:
        rows.take(row)
        taken.append(row)
    assert len(set(taken)) == 8
    rows.free(taken[3])
    assert rows.find(SHAPE, (5,)) == taken[3]
