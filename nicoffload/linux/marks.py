"""How a filter of ours is told from anybody else's: by its pref, by marks in its handle, and by its cookie together.

tc has no owner of a filter. Open vSwitch's filters have a cookie of 16 bytes as ours do; but it counts prefs from 1 up
and lets the kernel choose handles, which count from 1 up as well. Ours are in a window of prefs, and have the highest
bit of their handle set. The handle also keeps what a filter can't say and a rule does: a priority, and whether the rule
names the port that the filter hangs on. So all of a rule can be read back, by a process that never saw it.
"""

from __future__ import annotations

from dataclasses import dataclass

from nicoffload.kernel.tc import OUR_HANDLES

OURS = OUR_HANDLES
NAMES_PORT = 1 << 30
HAS_PRIORITY = 1 << 29
_PRIORITY_SHIFT = 13
NUMBERS_WITH_PRIORITY = 1 << _PRIORITY_SHIFT
"""How many filters of one pref can have a priority."""
NUMBERS = 1 << 29
PREFS = range(0x4000, 0x8000)
"""Between those of Open vSwitch, which count up from 1, and those that tc chooses, which count down from 0xc000."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What the handle of a filter of ours says.

    Args:
        names_port: Whether the rule names its ingress port.
        priority: The rule's priority; None for none.
        number: Tells filters of one pref apart.
    """

    names_port: bool
    priority: int | None
    number: int


def base_handle(*, names_port: bool, priority: int | None) -> int:
    """Return a handle with number 0."""
    handle = OURS | (NAMES_PORT if names_port else 0)
    if priority is None:
        return handle
    return handle | HAS_PRIORITY | priority << _PRIORITY_SHIFT


def read_marks(handle: int) -> Marks:
    """Return what a handle of ours says."""
    names_port = bool(handle & NAMES_PORT)
    if not handle & HAS_PRIORITY:
        return Marks(names_port, None, handle & NUMBERS - 1)
    return Marks(names_port, handle >> _PRIORITY_SHIFT & 0xFFFF, handle & NUMBERS_WITH_PRIORITY - 1)
