"""The table of mask classes: what the data path tries, one after the other, highest rank first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nicoffload.kernel.bpf import await_readers
from nicoffload.kernel.seam import Kernel
from nicoffload_softnic import layout

Identity = tuple[bytes, bool]
"""A class: its mask, and whether its rules name the port that packets enter."""
_NUMBER_SHIFT = 16
_NAMED_SHIFT = 24
_SHORT = np.array(layout.SHORT_KEY_PLACES)
_SHORT_SET = frozenset(layout.SHORT_KEY_PLACES)


@dataclass(slots=True)
class MaskClass:
    """A class in use.

    Args:
        number: What its keys carry.
        mask: Which bits of a key count.
        named: Whether its rules name the port that packets enter.
        max_rank: At least the highest rank of its rules.
        rules: How many it has.
    """

    number: int
    mask: bytes
    named: bool
    max_rank: int
    rules: int = 0

    @property
    def is_short(self) -> bool:
        """Whether its keys fit the short form: no MAC and no IPv6 address is compared."""
        return not any(set(np.flatnonzero(np.frombuffer(self.mask, np.uint8)).tolist()) - _SHORT_SET)

    @property
    def suffix(self) -> int:
        """What the last word of its keys carries."""
        return self.number << _NUMBER_SHIFT | int(self.named) << _NAMED_SHIFT


class ClassTable:
    """The classes of a NIC, and the two banks in which the data path reads them.

    Args:
        kernel: Where packets are waited for.
        config: The NIC's entry of the map `config`.
        banks: The two entries of the map `classes`.
    """

    def __init__(self, kernel: Kernel, config: Any, banks: Any) -> None:
        self._kernel = kernel
        self._config = config
        self._banks = banks
        self._classes: dict[Identity, MaskClass] = {}
        self._by_number: dict[int, MaskClass] = {}

    def read(self) -> None:
        """Take over what the data path uses, without rules; `add_rules` counts them."""
        bank = self._banks[int(self._config["bank"])]
        self._classes.clear()
        self._by_number.clear()
        for item in bank["item"][: int(bank["count"])]:
            word = int(item["number"])
            one = MaskClass(
                number=word >> _NUMBER_SHIFT & 0xFF,
                mask=_whole_mask(item["mask"].tobytes(), is_short=bool(item["is_short"])),
                named=bool(word >> _NAMED_SHIFT & 1),
                max_rank=int(item["max_rank"]),
            )
            self._classes[one.mask, one.named] = one
            self._by_number[one.number] = one

    def by_number(self, number: int) -> MaskClass | None:
        """Return a class by its number."""
        return self._by_number.get(number)

    def known(self, mask: bytes, *, named: bool) -> MaskClass | None:
        """Return a class that is in use."""
        return self._classes.get((mask, named))

    def find(self, mask: bytes, *, named: bool) -> MaskClass | None:
        """Return a class in use, or a free one with that mask; None where all are in use."""
        found = self._classes.get((mask, named))
        if found is not None:
            return found
        self._drop_empty()
        free = next((n for n in range(layout.MAX_CLASSES) if n not in self._by_number), None)
        if free is None:
            return None
        made = MaskClass(number=free, mask=mask, named=named, max_rank=-1)
        self._classes[mask, named] = made
        self._by_number[free] = made
        return made

    def raise_rank(self, ranks: dict[int, int]) -> None:
        """Let the data path know classes, and that they may hold rules of a rank; before the rules go in.

        Args:
            ranks: Number of a class to the highest rank of the rules that come.
        """
        raised = False
        for number, rank in ranks.items():
            one = self._by_number[number]
            # Rules of one priority share a bound, so that the next one need not raise it.
            bound = rank | layout.YOUNGEST
            if bound > one.max_rank:
                one.max_rank = bound
                raised = True
        if raised:
            self.write()

    def write(self) -> None:
        """Put the classes in force, all at once for each packet."""
        # A packet that began with the bank that is written now must be through with it.
        await_readers(self._kernel)
        number = 1 - int(self._config["bank"])
        bank = self._banks[number]
        ordered = sorted(self._by_number.values(), key=lambda one: -one.max_rank)
        for item, one in zip(bank["item"], ordered, strict=False):
            mask = np.frombuffer(one.mask, np.uint8)
            item["is_short"] = one.is_short
            item["mask"] = 0
            item["mask"].view(np.uint8)[: layout.SHORT_KEY_BYTES if one.is_short else None] = (
                mask[_SHORT] if one.is_short else mask
            )
            item["max_rank"] = max(one.max_rank, 0)
            item["number"] = one.suffix
        bank["count"] = len(ordered)
        self._config["bank"] = number

    def shrink(self) -> None:
        """Take classes without rules out of the data path's way."""
        if self._drop_empty():
            self.write()

    def _drop_empty(self) -> bool:
        empty = [one for one in self._by_number.values() if not one.rules and one.max_rank >= 0]
        for one in empty:
            del self._by_number[one.number]
            del self._classes[one.mask, one.named]
        return bool(empty)


def _whole_mask(mask: bytes, *, is_short: bool) -> bytes:
    if not is_short:
        return mask
    whole = bytearray(layout.KEY_BYTES)
    for place, value in zip(layout.SHORT_KEY_PLACES, mask, strict=False):
        whole[place] = value
    return bytes(whole)
