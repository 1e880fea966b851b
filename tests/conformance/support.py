"""Runs the kit over everything that is installed, and keeps what came out: `make support`.

Reports from the guests, which `make test-vm` leaves in build/vm, and of the software NIC, which its plugin's test
leaves there, are taken in where there are any; those taken in before stay otherwise. docs/reference/support.md is made
from the file, and from nothing else.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nicoffload import load_registry
from nicoffload.registry import Registry
from nicoffload.testing.conformance import (
    ExpectedFailure,
    Ground,
    NicUnderTest,
    load_expected_failures,
    run,
)
from nicoffload.testing.conformance.fake import on_fake_kernel
from nicoffload.testing.conformance.pages import Row, row_from_json, row_to_json, summary, support_page
from nicoffload.testing.emulator.config import Config
from tests.revision import code_revision

ROOT = Path(__file__).resolve().parents[2]
REPORTS = Path(__file__).with_name("reports.json")
_ROWS = 64
"""Tables whose locations the caller picks are made so small, for they are filled."""
PAGE = ROOT / "docs/reference/support.md"


def modes(registry: Registry, family: str) -> tuple[str, ...]:
    """Return the eswitch modes of a family; one that is empty where it has none."""
    eswitch = registry.profiles.get(family).eswitch
    return tuple(eswitch.modes) if eswitch else ("",)


def link_bps(registry: Registry, family: str) -> int:
    """Return a link speed at which the rates of a family work."""
    return max(registry.profiles.get(family).rates.max_tx.link_speeds_bps, default=10_000_000_000)


def drives(registry: Registry, family: str) -> bool:
    """Tell whether a plugin drives the family on Linux: one without PCI ids is on paper only."""
    return family == "netdevsim" or bool(registry.profiles.get(family).pci_ids.pf)


def emulated(registry: Registry, family: str, mode: str) -> NicUnderTest:
    """Return a NIC of the mock plugin."""
    words = [f"mock:{family}", f"link_bps={link_bps(registry, family)}", *([f"mode={mode}"] if mode else [])]
    words += [f"rows.{t.name}=64" for t in registry.profiles.get(family).tables if t.rows is None]
    name = ",".join(words)
    return NicUnderTest(
        name=name, open_driver=lambda: registry.open(name), disposable=True, sleep_s=lambda seconds: None
    )


def faked(registry: Registry, family: str, mode: str) -> NicUnderTest:
    """Return a NIC of the plugin that drives the family, on the fake kernel."""
    profile = registry.profiles.get(family)
    small = [t.name for t in profile.tables if t.picker == "caller" and (t.rows or 0) > _ROWS]
    config = Config(mode=mode, link_bps=link_bps(registry, family), rows=dict.fromkeys(small, _ROWS))
    return replace(on_fake_kernel(registry, family, config), most_rows=10 * _ROWS)


def expected_of(registry: Registry, family: str) -> Sequence[ExpectedFailure]:
    """Return the failures that the plugin which brings a family expects, by its own file."""
    owner = next(status.name for status in registry.plugins if family in status.families)
    path = ROOT / "plugins" / owner / "tests/expected_failures.toml"
    return load_expected_failures(path) if path.exists() else ()


def tried(registry: Registry, families: list[str]) -> Iterator[Row]:
    """Yield what comes out of the kit on every family, emulated and on the fake kernel."""
    commit = code_revision()
    for make in (emulated, faked):
        for family in families:
            for mode in modes(registry, family) if make is emulated or drives(registry, family) else ():
                started = time.monotonic()
                report = run(
                    make(registry, family, mode),
                    expected=expected_of(registry, family) if make is faked else (),
                    wall_clock_s=lambda: 0.0,
                )
                found = summary(report.to_json(), commit=commit, variant=mode)
                took_s = time.monotonic() - started
                print(
                    f"support: {found.plugin} {family} {mode}: {dict(report.counts())}, {took_s:.0f} s",
                    file=sys.stderr,
                )
                yield found


def from_guests() -> Iterator[Row]:
    """Yield what the guests brought back."""
    for path in sorted((ROOT / "build/vm").glob("*/conformance-*.json")):
        document = json.loads(path.read_text("utf-8"))
        day = time.strftime("%Y-%m-%d", time.gmtime(document["time_s"]))
        variant = path.stem.removeprefix("conformance-").removeprefix(document["family"]).strip("-")
        told = path.with_name("commit")
        commit = told.read_text("utf-8").strip() if told.exists() else ""
        yield summary(document, date=day, commit=commit, variant=variant)


def known() -> list[Row]:
    """Return the rows that are kept."""
    return [row_from_json(each) for each in json.loads(REPORTS.read_text("utf-8"))]


def keep(rows: dict[tuple[str, str, str, str], Row]) -> None:
    """Write the file and the page."""
    found = [rows[key] for key in sorted(rows)]
    REPORTS.write_text(json.dumps([row_to_json(row) for row in found], indent=1) + "\n", "utf-8")
    PAGE.write_text(support_page(found), "utf-8")


def main(families: list[str]) -> int:
    """Try everything, or some families; what came out is kept family by family, as it takes its time.

    Args:
        families: Which; none for all, and ``guests`` for none, only to take in what the guests brought back.
    """
    registry = load_registry()
    wanted = (
        [name for name in families if name != "guests"] if families else list(registry.profiles.families())
    )
    rows = {row.key: row for row in known()} if REPORTS.exists() else {}
    fresh = set()
    brought = list(from_guests())
    renewed = {row.key[:3] for row in brought}
    rows = {key: row for key, row in rows.items() if key[:3] not in renewed}
    for row in itertools.chain(brought, tried(registry, wanted)):
        rows[row.key] = row
        fresh.add(row.key)
        keep(rows)
    if not families:  # what is not there any more
        keep({key: row for key, row in rows.items() if row.ground is not Ground.EMULATOR or key in fresh})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
