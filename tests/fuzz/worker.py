"""One decoder in a process of its own, which may take no more memory than a decoder should."""

from __future__ import annotations

from tests.fuzz.decoders import decoders
from tests.fuzz.run import Broken, Outcome, bounded_memory, fuzz


def fuzz_by_name(name: str, messages: int, seed: int) -> Outcome | str:
    """Return what came of a decoder; text where it broke."""
    [decoder] = [one for one in decoders() if one.name == name]
    with bounded_memory():
        try:
            return fuzz(decoder, messages, seed=seed)
        except Broken as finding:
            return str(finding)
