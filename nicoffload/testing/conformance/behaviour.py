"""A behaviour: one numbered sentence of what every plugin does, and the code that tries it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nicoffload.profiles.types import NicProfile

if TYPE_CHECKING:
    from nicoffload.testing.conformance.bench import Bench

Parts = Callable[[NicProfile], Sequence[str]]
"""Called with a profile; returns what a behaviour is tried on, one after the other; empty where it does not apply."""

Check = Callable[["Bench"], None]
"""Tries a behaviour; raises `Broken` or `NotShown`."""

SETTINGS = ("mac", "vlan", "spoof_check", "trust", "link_state")
RATES = ("min_tx", "max_tx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One thing that every plugin does.

    Args:
        number: Its name for ever: two or three letters for the capability and a number, ``FL-05``.
        title: What holds, in one sentence.
        text: More of it: what exactly is tried.
        parts: On what it is tried.
        check: Tries it.
    """

    number: str
    title: str
    text: str
    parts: Parts
    check: Check

    @property
    def group(self) -> str:
        """The letters of its number."""
        return self.number.partition("-")[0]


def behaviour(number: str, title: str, *, each: Parts) -> Callable[[Check], Behaviour]:
    """Make a function a behaviour; its docstring becomes `Behaviour.text`.

    Args:
        number: Such as ``FL-05``.
        title: One sentence without a full stop.
        each: On what it is tried.
    """

    def wrap(check: Check) -> Behaviour:
        return Behaviour(
            number=number, title=title, text=inspect.getdoc(check) or "", parts=each, check=check
        )

    return wrap


def whole(_profile: NicProfile) -> Sequence[str]:
    """Tried once, on any NIC."""
    return ("",)


def tables(profile: NicProfile) -> Sequence[str]:
    """Tried on each filter table."""
    return tuple(table.name for table in profile.tables)


def with_tables(profile: NicProfile) -> Sequence[str]:
    """Tried once, on a NIC with filter tables."""
    return ("",) if profile.tables else ()


def without_tables(profile: NicProfile) -> Sequence[str]:
    """Tried once, on a NIC without filter tables."""
    return () if profile.tables else ("",)


def with_vfs(profile: NicProfile) -> Sequence[str]:
    """Tried once, on a NIC that can have VFs."""
    return ("",) if profile.sriov is not None and profile.vf is not None else ()


def settings(profile: NicProfile) -> Sequence[str]:
    """Tried on each setting of a VF that the NIC has."""
    return tuple(name for name in SETTINGS if _setting(profile, name) in ("yes", "capability"))


def missing_settings(profile: NicProfile) -> Sequence[str]:
    """Tried on each setting of a VF that the NIC does not have."""
    return tuple(name for name in SETTINGS if _setting(profile, name) == "no")


def _setting(profile: NicProfile, name: str) -> str:
    return "" if profile.vf is None else str(getattr(profile.vf, name).supported)


def rates(profile: NicProfile) -> Sequence[str]:
    """Tried on each kind of rate that the NIC has."""
    if profile.sriov is None:
        return ()
    return tuple(kind for kind in RATES if getattr(profile.rates, kind).supported != "no")


def missing_rates(profile: NicProfile) -> Sequence[str]:
    """Tried on each kind of rate that a NIC with VFs does not have."""
    if profile.sriov is None:
        return ()
    return tuple(kind for kind in RATES if getattr(profile.rates, kind).supported == "no")


def with_rates(profile: NicProfile) -> Sequence[str]:
    """Tried once, on a NIC with rates of VFs."""
    return ("",) if rates(profile) else ()


def with_statistics(profile: NicProfile) -> Sequence[str]:
    """Tried once, on a NIC that counts at its port or VFs."""
    return ("",) if profile.statistics.port or profile.statistics.vf else ()
