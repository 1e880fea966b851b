"""What a run of the kit found, as a value, as JSON and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicoffload.testing.conformance.catalogue import CATALOGUE, GROUPS
from nicoffload.testing.conformance.outcome import CaseResult, Verdict
from nicoffload.testing.conformance.under_test import Ground

SCHEMA = "conformance-report"
_BAD = frozenset({Verdict.FAILED, Verdict.STALE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run of the kit found.

    Args:
        nic: The NIC, as it was named.
        family: Its profile.
        title: Its name for people.
        plugin: The plugin that drives it.
        driver: The kernel driver; empty where there is none.
        ground: What the NIC stands on.
        kernel: Release of the kernel that took part; empty on an emulator.
        version: Of nicoffload.
        time_s: When the run began, in seconds since the epoch.
        cases: Every behaviour and part, in the order tried.
        residue: What could not be put back, in words.
        unused: Expected failures that are about nothing that was tried.
    """

    nic: str
    family: str
    title: str
    plugin: str
    driver: str
    ground: Ground
    kernel: str
    version: str
    time_s: float
    cases: tuple[CaseResult, ...]
    residue: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing failed, nothing expected to fail passed, and the NIC is as it was."""
        return not self.residue and not self.unused and not any(each.verdict in _BAD for each in self.cases)

    def of(self, *verdicts: Verdict) -> tuple[CaseResult, ...]:
        """Return the cases with one of some verdicts."""
        return tuple(each for each in self.cases if each.verdict in verdicts)

    def counts(self) -> Mapping[str, int]:
        """Return how many cases there are of each verdict."""
        found = Counter(each.verdict.value for each in self.cases)
        return {verdict.value: found[verdict.value] for verdict in Verdict}

    def to_json(self) -> dict[str, Any]:
        """Return the report as a document by ``conformance-report.schema.json``."""
        titles = {each.number: each.title for each in CATALOGUE}
        return {
            "schema": SCHEMA,
            "nic": self.nic,
            "family": self.family,
            "title": self.title,
            "plugin": self.plugin,
            "driver": self.driver,
            "ground": self.ground.value,
            "kernel": self.kernel,
            "version": self.version,
            "time_s": self.time_s,
            "ok": self.ok,
            "counts": dict(self.counts()),
            "cases": [
                {
                    "behaviour": each.behaviour,
                    "title": titles[each.behaviour],
                    "part": each.part,
                    "verdict": each.verdict.value,
                    "reason": each.reason,
                    "duration_s": round(each.duration_s, 6),
                }
                for each in self.cases
            ],
            "residue": list(self.residue),
            "unused": list(self.unused),
        }


GROUND_WORDS: Mapping[Ground, str] = {
    Ground.EMULATOR: "on an emulator: no kernel and no hardware took part",
    Ground.SOFTWARE: "on a NIC in software, behind a real kernel",
    Ground.EMULATED_DEVICE: "on a real kernel and driver with an emulated device, not on hardware",
    Ground.HARDWARE: "on hardware",
}
"""What a report says of where its results come from."""


def lines(report: Report) -> Sequence[str]:
    """Return a report for people: what failed, what was not shown and why, and the sum."""
    found: list[str] = []
    for verdict, heading in (
        (Verdict.FAILED, "failed"),
        (Verdict.STALE, "expected to fail, and passed"),
        (Verdict.EXPECTED_FAILURE, "failed, as expected"),
        (Verdict.NOT_SHOWN, "not shown"),
    ):
        cases = report.of(verdict)
        if cases:
            found += [f"{heading}:", *_by_reason(cases)]
    found += [f"left behind: {text}" for text in report.residue]
    found += [f"an expected failure is about nothing that was tried: {text}" for text in report.unused]
    counts = report.counts()
    others = [
        f"{counts[verdict.value]} {words}"
        for verdict, words in (
            (Verdict.FAILED, "failed"),
            (Verdict.STALE, "passed unexpectedly"),
            (Verdict.EXPECTED_FAILURE, "failed as expected"),
            (Verdict.NOT_SHOWN, "not shown"),
            (Verdict.NOT_APPLICABLE, "not applicable"),
        )
        if counts[verdict.value]
    ]
    sums = ", ".join([f"{counts['passed']} passed", *others])
    kernel = f" (Linux {report.kernel})" if report.kernel else ""
    found.append(f"{report.nic} ({report.family}): {sums}; {GROUND_WORDS[report.ground]}{kernel}")
    return found


def _by_reason(cases: Sequence[CaseResult]) -> Sequence[str]:
    """Return cases in words: one with its title, those of one reason together."""
    titles = {each.number: each.title for each in CATALOGUE}
    grouped: dict[str, list[CaseResult]] = {}
    for each in cases:
        grouped.setdefault(each.reason, []).append(each)
    found = []
    for reason, same in grouped.items():
        names = ", ".join(each.name for each in same)
        title = f": {titles[same[0].behaviour]}" if len(same) == 1 else ""
        found += [f"  {names}{title}", f"    {reason}"]
    return found


def by_group(report: Report) -> Mapping[str, Counter[Verdict]]:
    """Return for each group of behaviours how many cases came out how."""
    found: dict[str, Counter[Verdict]] = {letters: Counter() for letters in GROUPS}
    for each in report.cases:
        found[each.behaviour.partition("-")[0]][each.verdict] += 1
    return found
