"""Feeds damaged messages to a decoder, and says what came of them."""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from nicoffload.errors import NicOffloadError
from tests.fuzz.mutate import Mutator

BLOCK = 1000
HANG_S = 60
"""A block takes some tenths of a second; one that takes this long hangs."""
MEMORY_MB = 256
"""What a decoder may have mapped beyond what the process had at the start, caches and numpy's working room included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """One decoder under test.

    Args:
        name: For people.
        seeds: Answers that it reads without complaint.
        decode: Reads one message; what it returns does not matter.
        head: Leading bytes that most damaged messages keep.
        framed: Whether a message begins with its own length.
        always_named: Whether there is damage that it must name; not so where any bytes mean something.
    """

    name: str
    seeds: Sequence[bytes]
    decode: Callable[[bytes], object]
    head: int = 0
    framed: bool = False
    always_named: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of the messages to one decoder.

    Args:
        name: The decoder's.
        messages: How many it was given.
        read: How many of them it read.
        named: How many it refused with an error of the SDK.
        elapsed_s: How long it took.
        grown_mb: By how much the process's peak of memory grew.
    """

    name: str
    messages: int
    read: int
    named: int
    elapsed_s: float
    grown_mb: float


class Broken(Exception):  # noqa: N818  (it is the finding)
    """A decoder broke; the message says how, and on which bytes."""


class _HangError(BaseException):
    """Raised by the alarm; no decoder can catch it by accident."""


def fuzz(decoder: Decoder, messages: int, *, seed: int = 0, hang_s: float = HANG_S) -> Outcome:
    """Give a decoder damaged messages.

    Args:
        decoder: The decoder.
        messages: How many.
        seed: Of the random numbers.
        hang_s: Longest time for a block of messages.

    Raises:
        Broken: It raised what is no error of the SDK, hung, or took memory without bound.
    """
    mutator = Mutator(decoder.seeds, head=decoder.head, framed=decoder.framed, seed=seed)
    start, before = time.monotonic(), _peak_mb()
    read = done = 0
    for number in range(-(-messages // BLOCK)):
        block = mutator.block(number, min(BLOCK, messages - done))
        read += _feed(decoder, block, hang_s)
        done += len(block)
    return Outcome(
        name=decoder.name,
        messages=done,
        read=read,
        named=done - read,
        elapsed_s=time.monotonic() - start,
        grown_mb=_peak_mb() - before,
    )


def _feed(decoder: Decoder, block: Sequence[bytes], hang_s: float) -> int:
    """Return how many messages of a block were read."""
    decode, read, message = decoder.decode, 0, b""
    with _alarm(hang_s):
        try:
            for message in block:
                try:
                    decode(message)
                except NicOffloadError:
                    continue
                read += 1
        except (Exception, _HangError) as fault:
            kind = "hangs" if isinstance(fault, _HangError) else f"raises {type(fault).__name__}: {fault}"
            raise Broken(f"{decoder.name} {kind} on {message.hex()}") from fault
    return read


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise _HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def bounded_memory(megabytes: int = MEMORY_MB) -> Iterator[None]:
    """Let this process map no more than so much beyond what it has: whoever wants more gets a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (megabytes << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
