"""How the fake kernel refuses: answers of the emulated driver, and its own, as the operating system raises them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nicoffload.errors import errno_number
from nicoffload.testing.emulator.answer import Refused


class WouldWaitForeverError(Exception):
    """A real kernel would not come back from this call: what was asked waits for a process that need not end.

    No OSError, because no kernel raises it: whoever gets it forgot to look before.
    """


def refusal(number: int) -> OSError:
    """Return what the operating system raises for an errno."""
    return OSError(number, os.strerror(number))


@contextmanager
def as_oserror() -> Iterator[None]:
    """Turn an answer of the emulated driver into what the operating system raises."""
    try:
        yield
    except Refused as answer:
        raise refusal(errno_number(answer.errno)) from answer
