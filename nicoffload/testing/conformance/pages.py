"""The pages of the documentation that are made from the kit: its behaviours, and the support matrix of its reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicoffload.testing.conformance.catalogue import CATALOGUE, GROUPS
from nicoffload.testing.conformance.outcome import Verdict
from nicoffload.testing.conformance.under_test import Ground

_BEHAVIOURS = """\
# Behaviours of a plugin

What every plugin does, by number. A number is a name for ever: one that goes leaves a gap. The conformance kit tries
each on each table, setting or kind of rate that the NIC's profile declares; {doc}`/howto/prove-a-plugin` says how to
run it. This page is made from the kit.
"""

_SUPPORT = """\
# Support matrix

What was tried of each plugin, and what came out: the reports of the conformance kit, and nothing else. A cell counts
the cases that passed of those that were tried; `n/a` says that the NIC has no such thing by its profile.
{doc}`behaviours` says what each group tries.

A row names the code that it is of: a version, and the commit where it is known; a plus after it says that the code had
changes beside that commit.

No row of one kind says anything of another: what passed on an emulator has not passed on a kernel, and what passed on
a kernel with an emulated device has not passed on hardware.
"""


def behaviours_page() -> str:
    """Return the page that describes every behaviour."""
    parts = [_BEHAVIOURS]
    for letters, name in GROUPS.items():
        parts.append(f"## {letters}: {name}\n")
        parts += [
            f"### {each.number}: {each.title}\n\n{_paragraph(each.text)}\n"
            for each in CATALOGUE
            if each.group == letters
        ]
    return "\n".join(parts)


def _paragraph(text: str) -> str:
    """Return a docstring as Markdown."""
    return " ".join(text.split()).replace("``", "`").replace("<", "&lt;").replace(">", "&gt;")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One report, as the support matrix shows it.

    Args:
        plugin: The plugin.
        family: The NIC family.
        title: Its name for people.
        ground: What the NIC stood on.
        kernel: Release of the kernel; empty on an emulator.
        date: Day of the run; empty where it is made with the page.
        code: Version of nicoffload and, where it is known, the commit that was tried.
        variant: What tells it from other rows of the family: the mode of its switch; empty for nothing.
        cells: Group to how many cases there are of each verdict.
        not_shown: Reasons of what could not be tried, each with the names of its cases.
    """

    plugin: str
    family: str
    title: str
    ground: Ground
    kernel: str
    date: str
    code: str
    variant: str
    cells: Mapping[str, Counter[Verdict]]
    not_shown: Mapping[str, Sequence[str]]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a newer report replaces: that of the same plugin, family and variant on the same ground."""
        return self.plugin, self.family, self.ground.value, self.variant

    @property
    def tried(self) -> int:
        """How many cases there are."""
        return sum(sum(counts.values()) for counts in self.cells.values())


def row_to_json(row: Row) -> dict[str, Any]:
    """Return a row as a JSON value."""
    return {
        "plugin": row.plugin,
        "family": row.family,
        "title": row.title,
        "ground": row.ground.value,
        "kernel": row.kernel,
        "date": row.date,
        "code": row.code,
        "variant": row.variant,
        "cells": {
            letters: {verdict.value: counts[verdict] for verdict in Verdict if counts[verdict]}
            for letters, counts in row.cells.items()
        },
        "not_shown": {reason: list(names) for reason, names in row.not_shown.items()},
    }


def row_from_json(document: Mapping[str, Any]) -> Row:
    """Return the row that `row_to_json` wrote."""
    cells = {
        letters: Counter({Verdict(name): count for name, count in document["cells"].get(letters, {}).items()})
        for letters in GROUPS
    }
    return Row(**{**document, "ground": Ground(document["ground"]), "cells": cells})


def summary(document: Mapping[str, Any], *, date: str = "", commit: str = "", variant: str = "") -> Row:
    """Return what the matrix shows of a report.

    Args:
        document: By ``conformance-report.schema.json``.
        commit: What was tried, beside its version; empty where nobody knows.
        date: Day of the run, as it is to be shown.
        variant: What tells it from other rows of the family.
    """
    cells: dict[str, Counter[Verdict]] = {letters: Counter() for letters in GROUPS}
    reasons: dict[str, list[str]] = {}
    for case in document["cases"]:
        verdict = Verdict(case["verdict"])
        cells[case["behaviour"].partition("-")[0]][verdict] += 1
        if verdict in (Verdict.NOT_SHOWN, Verdict.EXPECTED_FAILURE, Verdict.FAILED):
            name = f"{case['behaviour']}[{case['part']}]" if case["part"] else case["behaviour"]
            reasons.setdefault(case["reason"], []).append(name)
    return Row(
        plugin=document["plugin"],
        family=document["family"],
        title=document["title"],
        ground=Ground(document["ground"]),
        kernel=document["kernel"],
        date=date,
        code=f"{document['version']} ({commit})" if commit else str(document["version"]),
        variant=variant,
        cells=cells,
        not_shown=reasons,
    )


_HEADINGS: Mapping[Ground, str] = {
    Ground.HARDWARE: "On hardware",
    Ground.EMULATED_DEVICE: "On a real kernel, with an emulated device",
    Ground.SOFTWARE: "On a real kernel, a NIC in software",
    Ground.EMULATOR: "On an emulator",
}


def support_page(rows: Iterable[Row]) -> str:
    """Return the support matrix."""
    found = sorted(rows, key=lambda row: row.key)
    parts = [_SUPPORT]
    for ground, heading in _HEADINGS.items():
        same = [row for row in found if row.ground is ground]
        parts.append(f"## {heading}\n")
        parts.append(_table(same, ground) if same else "Nothing so far.\n")
    parts += ["## What was not shown, and what failed\n", _gaps(found)]
    return "\n".join(parts)


def _table(rows: Sequence[Row], ground: Ground) -> str:
    when = ("nicoffload",) if ground is Ground.EMULATOR else ("nicoffload", "kernel", "date")
    lines = [
        f"| {' | '.join(('plugin', 'family', 'mode', *when, *GROUPS))} |",
        f"|{'---|' * (3 + len(when) + len(GROUPS))}",
    ]
    for row in rows:
        told = (row.code,) if ground is Ground.EMULATOR else (row.code, row.kernel, row.date)
        cells = [_cell(row.cells[letters]) for letters in GROUPS]
        lines.append(f"| {' | '.join((row.plugin, f'`{row.family}`', row.variant, *told, *cells))} |")
    words = ", ".join(f"{letters} {name}" for letters, name in GROUPS.items())
    return "\n".join([*lines, "", f"{words}.", ""])


def _cell(counts: Counter[Verdict]) -> str:
    tried = sum(
        counts[verdict]
        for verdict in (Verdict.PASSED, Verdict.FAILED, Verdict.STALE, Verdict.EXPECTED_FAILURE)
    )
    if not tried:
        return "not shown" if counts[Verdict.NOT_SHOWN] else "n/a"
    text = f"{counts[Verdict.PASSED]}/{tried}"
    return f"{text} (+{counts[Verdict.NOT_SHOWN]} not shown)" if counts[Verdict.NOT_SHOWN] else text


def _gaps(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        for reason, names in row.not_shown.items():
            where = " ".join(filter(None, (row.ground.value.replace("_", " "), row.variant)))
            lines.append(f"- {row.plugin}, `{row.family}`, {where}: {', '.join(names)}: {_paragraph(reason)}")
    return "\n".join([*(lines or ["Everything that applies was tried."]), ""])
