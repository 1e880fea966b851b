"""What the decoders of filters make of a real kernel's answers, whole and damaged."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from nicoffload.errors import NicOffloadError
from nicoffload.kernel.tc import read, u32_filters
from nicoffload.kernel.tc.columns import columns

CAPTURES = Path(__file__).parent / "captures"
MUTATIONS = 6000


def datagrams(name: str) -> list[bytes]:
    """Return Linux 6.12's answer to a dump of 60 random flower filters (full: 10 of u32, a matchall besides)."""
    data = (CAPTURES / name).read_bytes()
    found, start = [], 0
    while start < len(data):
        (length,) = struct.unpack_from("=I", data, start)
        found.append(data[start + 4 : start + 4 + length])
        start += 4 + length
    return found


def test_a_full_dump_is_read_whole():
    states = read.states(datagrams("tc-6.12-full.bin"))
    assert [kind for state in states if (kind := state.ref.kind)].count("flower") == 60
    assert [state.foreign for state in states if state.foreign] == []
    assert len(u32_filters.states(datagrams("tc-6.12-full.bin"))) == 10


@pytest.mark.parametrize("name", ["tc-6.12-full.bin", "tc-6.12-terse.bin"])
def test_columns_say_what_values_say(name):
    found = columns(datagrams(name))
    values = {(state.ref.pref, state.ref.handle): state for state in read.states(datagrams(name))}
    rows = [row for row in range(len(found.handles)) if found.counted[row]]
    assert len(rows) >= 60
    for row in rows:
        state = values[int(found.prefs[row]), int(found.handles[row])]
        assert found.chains[row] == state.ref.chain
        assert found.rule_id(row) == state.filter.rule_id
        assert (found.packets[row], found.bytes[row]) == (state.counters.packets, state.counters.bytes)
        assert bool(found.in_hw[row]) == bool(state.in_hw)


@pytest.mark.parametrize("name", ["tc-6.12-full.bin", "tc-6.12-terse.bin"])
@pytest.mark.parametrize("decode", [read.states, columns, u32_filters.states])
def test_damage_is_named_and_never_a_crash(name, decode):
    whole = max(datagrams(name), key=len)
    outcomes = set()
    for _ in range(MUTATIONS // 6):
        damaged = bytearray(whole[: random.randint(1, len(whole))] if random.random() < 0.2 else whole[:4000])
        for _ in range(random.randint(1, 8)):
            place = random.randrange(len(damaged))
            damaged[place] = random.choice([0, 1, 0xFF, 0x80, random.randrange(256)])
        try:
            decode([bytes(damaged)])
            outcomes.add("read")
        except NicOffloadError:
            outcomes.add("named")
    assert outcomes == {"read", "named"}


def test_a_dump_with_no_two_layouts_alike_takes_no_longer_than_its_length():
    """Each message has its own place for junk: the columns must not compare each with all."""
    out = []
    for number in range(3000):
        head = struct.pack("=BxxxiIII", 0, 1, 1 + number, 0, 1 << 16)
        body = head + b"".join(struct.pack("=HH", 4, 40 + (number >> bit & 1) * 9 + bit) for bit in range(12))
        out.append(struct.pack("=IHHII", 16 + len(body), 44, 0, 1, 0) + body)
    found = columns(out)
    assert found.handles.tolist() == list(range(1, 3001))
    assert not found.counted.any()
