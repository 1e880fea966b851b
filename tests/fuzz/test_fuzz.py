"""Each decoder takes some thousand damaged messages; `make fuzz` gives each a million."""

from __future__ import annotations

import random

import pytest

from nicoffload.kernel.attributes import MalformedError
from tests.fuzz.decoders import decoders
from tests.fuzz.mutate import Mutator
from tests.fuzz.run import Broken, Decoder, bounded_memory, fuzz

MESSAGES = 4000
ALL = {one.name: one for one in decoders()}


@pytest.mark.parametrize("name", ALL)
def test_what_was_recorded_is_read_whole(name):
    for seed in ALL[name].seeds:
        ALL[name].decode(seed)


@pytest.mark.parametrize("name", ALL)
def test_damage_is_read_or_named(name):
    outcome = fuzz(ALL[name], MESSAGES, seed=random.randrange(1 << 32))
    assert outcome.messages == outcome.read + outcome.named == MESSAGES
    assert outcome.read > 0
    assert outcome.named > 0 or not ALL[name].always_named


def _decoder(decode) -> Decoder:
    return Decoder(name="planted", seeds=[bytes(range(64))], decode=decode)


def test_a_crash_is_found_and_its_bytes_are_told():
    def decode(data: bytes) -> int:
        return data[60]  # an IndexError where the message is cut

    with pytest.raises(Broken, match=r"planted raises IndexError: index out of range on [0-9a-f]*$"):
        fuzz(_decoder(decode), MESSAGES)


def test_a_hang_is_found():
    def decode(data: bytes) -> None:
        while data[0] == 0xFF:
            pass

    with pytest.raises(Broken, match=r"planted hangs on ff"):
        fuzz(_decoder(decode), 100_000, hang_s=1)


def test_a_length_that_is_believed_is_found():
    def decode(data: bytes) -> bytearray:
        if len(data) < 4:
            raise MalformedError("cut short")
        return bytearray(int.from_bytes(data[:4], "big"))

    with bounded_memory(64), pytest.raises(Broken, match="planted raises MemoryError"):
        fuzz(_decoder(decode), MESSAGES)


def test_a_block_is_always_the_same_and_no_two_are_alike():
    def made(number: int) -> list[bytes]:
        return Mutator([bytes(100), bytes(40)], head=16, framed=True, seed=7).block(number, 500)

    assert made(3) == made(3)
    assert made(3) != made(5)
    assert len(set(made(2))) > 400
    lengths = {len(one) for one in made(2)}
    assert min(lengths) < 20
    assert max(lengths) > 100
    told = sum(int.from_bytes(one[:4], "little") == len(one) for one in made(2) if len(one) >= 4)
    assert told > 300
