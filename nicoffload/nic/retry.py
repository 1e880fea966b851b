"""Tries again, a bounded number of times, while a device says that it is busy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nicoffload.errors import DeviceBusyError, NicOffloadError, PluginContractError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often to ask a busy device again.

    Args:
        sleep_s: Waits that many seconds.
        attempts: Calls in all, the first included.
        first_wait_s: Wait before the second call; it doubles each time.
    """

    sleep_s: Callable[[float], None]
    attempts: int = 6
    first_wait_s: float = 0.02

    def call(self, function: Callable[[], R]) -> R:
        """Call what may be repeated, again while it raises `DeviceBusyError`."""
        wait_s = self.first_wait_s
        for _ in range(self.attempts - 1):
            try:
                return function()
            except DeviceBusyError:
                self.sleep_s(wait_s)
                wait_s *= 2
        return function()

    def bulk(self, function: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T], what: str) -> list[R]:
        """Call a bulk function, again for the items that it answers with `DeviceBusyError`.

        Raises:
            PluginContractError: The driver did not answer for every item.
        """
        answers = _answers(function, items, what)
        wait_s = self.first_wait_s
        for _ in range(self.attempts - 1):
            busy = [index for index, answer in enumerate(answers) if isinstance(answer, DeviceBusyError)]
            if not busy:
                break
            self.sleep_s(wait_s)
            wait_s *= 2
            again = _answers(function, [items[index] for index in busy], what)
            for index, answer in zip(busy, again, strict=True):
                answers[index] = answer
        return answers


def _answers(function: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T], what: str) -> list[R]:
    answers = list(function(items))
    if len(answers) != len(items):
        raise PluginContractError(f"the driver's {what} gave {len(answers)} answers for {len(items)} items")
    return answers


def first_error(answers: Sequence[object]) -> NicOffloadError | None:
    """Return the first error among the answers of a bulk call."""
    return next((answer for answer in answers if isinstance(answer, NicOffloadError)), None)
