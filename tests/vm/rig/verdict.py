"""What a guest's run is worth, judged by what it brought back."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from tests.vm.rig.boot import Ended
from tests.vm.rig.layout import Guest

TIMED_OUT = 124  # as timeout(1)
NO_STATUS = 125
NO_TESTS = 5  # as pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of one guest.

    Args:
        guest: The guest.
        status: 0 if tests ran there and all passed; pytest's status, or one of the constants of this module.
        text: One line for people.
    """

    guest: Guest
    status: int
    text: str


def judge(guest: Guest, ended: Ended, junit: Path) -> Verdict:
    """Return the verdict; a status of 0 alone proves nothing, a report that counts tests must have come with it."""
    status, text = _judge(ended, junit)
    word = "passed" if status == 0 else "no test chosen" if status == NO_TESTS else "FAILED"
    return Verdict(
        guest=guest,
        status=status,
        text=f"{guest.name}: {word}: {text}, {ended.elapsed_s:.0f} s; {guest.level}",
    )


def _judge(ended: Ended, junit: Path) -> tuple[int, str]:
    if ended.timed_out:
        return TIMED_OUT, "its time was up"
    if ended.status is None:
        return NO_STATUS, f"it ended without an exit status (a kernel panic?), see {ended.console}"
    try:
        count = _counts(junit)
    except (FileNotFoundError, ET.ParseError):
        return ended.status or NO_STATUS, f"exit status {ended.status} and no report"
    text = f"{count['tests']} tests, {count['failures'] + count['errors']} failed, {count['skipped']} skipped"
    if ended.status == 0 and count["tests"] == count["skipped"]:
        return NO_STATUS, f"exit status 0, and yet no test ran ({text})"
    if ended.status == 0 and count["failures"] + count["errors"]:
        return NO_STATUS, f"exit status 0, and yet a test failed ({text})"
    return ended.status, text


def _counts(junit: Path) -> dict[str, int]:
    names = ("tests", "failures", "errors", "skipped")
    suites = list(ET.parse(junit).getroot().iter("testsuite"))
    return {name: sum(int(suite.get(name, 0)) for suite in suites) for name in names}


def overall(verdicts: list[Verdict], *, some_chosen: bool) -> int:
    """Return the status of the whole run.

    Args:
        verdicts: One for each guest.
        some_chosen: Whether the caller chose tests by expression: then a guest may have none, but not every guest.
    """
    ran = [verdict for verdict in verdicts if verdict.status != NO_TESTS]
    bad = [verdict.status for verdict in ran if verdict.status != 0]
    if bad:
        return bad[0]
    return 0 if ran and (some_chosen or len(ran) == len(verdicts)) else NO_TESTS
