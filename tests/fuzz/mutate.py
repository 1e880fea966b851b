"""Damaged messages by the thousand: numpy changes a block of copies of one seed at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.uint8]

_MOST_CHANGES = 8
_MOST_BYTES = 4096
"""A longer seed is cut: what a decoder does with the 200th VF it does with the first."""
_EXTRA_BYTES = 64
_BYTES = np.array([0, 1, 2, 4, 0x7F, 0x80, 0xFE, 0xFF], np.uint8)
_HALVES = np.array([0, 1, 3, 4, 5, 7, 8, 12, 16, 0x7FFF, 0x8000, 0x8004, 0xFFF0, 0xFFFC, 0xFFFF], np.uint16)
_WORDS = np.array([0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_0000, 0xFFFF_FFFC, 0xFFFF_FFFF], np.uint32)


class Mutator:
    """Makes blocks of damaged messages. Block N of a seed is always the same.

    Args:
        seeds: What is damaged, none of them empty.
        head: Leading bytes that most messages keep, so that they get past the door.
        framed: Whether the first four bytes are the length of the whole, which most messages then tell rightly.
        seed: Of the random numbers.
    """

    def __init__(self, seeds: Sequence[bytes], *, head: int = 0, framed: bool = False, seed: int = 0) -> None:
        self._seeds = [np.frombuffer(one[:_MOST_BYTES], np.uint8) for one in seeds]
        self._head = head
        self._framed = framed
        self._seed = seed

    def block(self, number: int, count: int) -> list[bytes]:
        """Return some damaged messages, all of one seed.

        Args:
            number: Which block.
            count: How many messages.
        """
        chance = np.random.Generator(np.random.PCG64([self._seed, number]))
        one = self._seeds[number % len(self._seeds)]
        rows = np.zeros((count, len(one) + _EXTRA_BYTES), np.uint8)
        rows[:, : len(one)] = one
        rows[:, len(one) :] = chance.integers(0, 256, _EXTRA_BYTES, np.uint8)
        self._splice(chance, rows, len(one))
        _scatter(chance, rows, len(one))
        _overwrite(chance, rows, len(one), _HALVES, share=0.4)
        _overwrite(chance, rows, len(one), _WORDS, share=0.15)
        lengths = _lengths(chance, count, len(one))
        keep = chance.random(count) < 0.8
        head = min(self._head, len(one))
        rows[keep, :head] = one[:head]
        if self._framed:
            told = (lengths.astype(np.uint32)[:, None]).view(np.uint8)
            rows[keep, :4] = told[keep, : rows.shape[1]]
        data, width = rows.tobytes(), rows.shape[1]
        return [data[at * width : at * width + length] for at, length in enumerate(lengths.tolist())]

    def _splice(self, chance: np.random.Generator, rows: Rows, length: int) -> None:
        """Put a stretch of another seed into some rows, at its own place: a part that fits, and does not belong."""
        other = self._seeds[int(chance.integers(len(self._seeds)))]
        filled = np.zeros(rows.shape[1], np.uint8)
        size = min(len(other), rows.shape[1])
        filled[:size] = other[:size]
        ends = np.sort(chance.integers(0, length // 4 + 1, (len(rows), 2)) * 4, axis=1)
        places = np.arange(rows.shape[1])
        inside = (places >= ends[:, :1]) & (places < ends[:, 1:]) & (chance.random(len(rows)) < 0.2)[:, None]
        np.copyto(rows, filled, where=inside)


def _scatter(chance: np.random.Generator, rows: Rows, length: int) -> None:
    """Change up to eight bytes of each row."""
    count = len(rows)
    how_many = chance.integers(0, _MOST_CHANGES + 1, count)
    for change in range(_MOST_CHANGES):
        chosen = np.flatnonzero(how_many > change)
        values = chance.integers(0, 256, len(chosen), np.uint8)
        telling = chance.random(len(chosen)) < 0.5
        values[telling] = chance.choice(_BYTES, int(telling.sum()))
        rows[chosen, chance.integers(0, length, len(chosen))] = values


def _overwrite(
    chance: np.random.Generator, rows: Rows, length: int, values: npt.NDArray[np.generic], *, share: float
) -> None:
    """Put a telling number where an attribute may begin: attributes begin at multiples of four."""
    size = values.dtype.itemsize
    if length < size:
        return
    chosen = np.flatnonzero(chance.random(len(rows)) < share)
    places = chance.integers(0, (length - size) // 4 + 1, len(chosen)) * 4
    written = chance.choice(values, len(chosen)).view(np.uint8).reshape(len(chosen), size)
    for byte in range(size):
        rows[chosen, places + byte] = written[:, byte]


def _lengths(chance: np.random.Generator, count: int, length: int) -> npt.NDArray[np.int64]:
    """Return how long each message is: as the seed, cut, or longer."""
    lengths = np.full(count, length)
    what = chance.random(count)
    cut, longer = what < 0.15, what > 0.95
    lengths[cut] = chance.integers(0, length + 1, int(cut.sum()))
    lengths[longer] += chance.integers(1, _EXTRA_BYTES + 1, int(longer.sum()))
    return lengths
