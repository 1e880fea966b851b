"""The traps of Linux drivers: what a plugin does about each, a check of it, and what the check is worth.

A trap is something that a driver does and a caller does not expect. Each has a check that the plugin keeps its user out
of it, on the emulated driver that has it, and a way to switch off what the plugin does: then the check must fail.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tests.linux.plugged import PROFILES


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """A trap of one driver.

    Args:
        name: Its name.
        family: The NIC that has it.
        does: What the driver does.
        instead: What becomes of it here.
        by: What of the code does that.
        check: Raises `AssertionError` where it does not.
        off: Switches it off.
    """

    name: str
    family: str
    does: str
    instead: str
    by: str
    check: Callable[[], None]
    off: Callable[[Any], None]


TRAPS: list[Trap] = []


def trap(family: str, *, does: str, instead: str, by: str, off: Callable[[Any], None]):
    """Put a check into the list; its name is that of the trap."""

    def wrap(check):
        TRAPS.append(
            Trap(
                name=check.__name__,
                family=family,
                does=does,
                instead=instead,
                by=by,
                check=check,
                off=off,
            )
        )
        return check

    return wrap


def replaced(place: str, by: Any) -> Callable[[Any], None]:
    """Return what puts something else in the place of a name of a module or class."""
    return lambda monkeypatch: monkeypatch.setattr(place, by)


def without_fact(family: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return what hides a fact of a profile from the plugin; the emulated driver goes by the document all the same."""

    def hide(monkeypatch):
        get = type(PROFILES).get

        def changed(catalog, name):
            profile = get(catalog, name)
            return change(profile) if name == family else profile

        monkeypatch.setattr(type(PROFILES), "get", changed)

    return hide
