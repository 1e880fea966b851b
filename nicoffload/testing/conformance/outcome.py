"""What becomes of a behaviour that is tried: it is shown, it is broken, or it can't be shown here and says why."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """What became of one behaviour, or of one part of it (a table, a setting)."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_SHOWN = "not_shown"
    """It applies, and could not be tried: the reason tells what was missing. Never a pass."""
    NOT_APPLICABLE = "not_applicable"
    """The NIC's profile declares nothing that the behaviour is about."""
    EXPECTED_FAILURE = "expected_failure"
    """It failed, and the plugin's own file of expected failures says why."""
    STALE = "stale"
    """The plugin's file says that it fails, and it does not."""


class Broken(Exception):  # noqa: N818 - a verdict, not an error of the SDK
    """A driver does not do what a behaviour says."""


class NotShown(Exception):  # noqa: N818 - likewise
    """A behaviour can't be tried here; the text says what is missing."""


class NotApplicable(Exception):  # noqa: N818 - likewise
    """By its profile, the NIC has nothing that a behaviour is about, which only a closer look told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """One behaviour, tried on one part of a NIC.

    Args:
        behaviour: Its number, such as ``FL-05``.
        part: Table, setting or kind of rate; empty for the NIC as a whole.
        verdict: What became of it.
        reason: What broke, or why it was not shown; empty where it passed.
        duration_s: How long it took.
    """

    behaviour: str
    part: str
    verdict: Verdict
    reason: str = ""
    duration_s: float = 0.0

    @property
    def name(self) -> str:
        """Its name in files of expected failures, ``FL-05`` or ``FL-05[fdir]``."""
        return f"{self.behaviour}[{self.part}]" if self.part else self.behaviour
