"""Guesses at what a misspelt word was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is nearest, or an empty text where none is near."""
    words = sorted(known)
    # Two letters that changed places are the commonest slip, and difflib ranks them low.
    swapped = [other for other in words if len(other) == len(word) and sorted(other) == sorted(word)]
    near = swapped or difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return near[0] if near else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean tp_dst?`` for the nearest known word, or an empty text where none is near."""
    near = nearest(word, known)
    return f"did you mean {near}?" if near else ""
