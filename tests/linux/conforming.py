"""The conformance kit on a vendor's plugin over a fake kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nicoffload import load_registry
from nicoffload.testing.conformance import load_expected_failures, run
from nicoffload.testing.conformance.fake import on_fake_kernel
from nicoffload.testing.conformance.report import lines
from nicoffload.testing.emulator.config import Config

REGISTRY = load_registry()
PROFILES = REGISTRY.profiles

_ROWS = 64
"""Tables with locations are made so small, for they are filled."""
_VFS = 3
"""Each has network devices that are looked at over and over."""


def variants(vendor: str) -> Iterator[tuple[str, str]]:
    """Yield every family of a vendor that can be plugged in, in each of its modes."""
    for family in PROFILES.families():
        profile = PROFILES.get(family)
        if profile.vendor == vendor and profile.pci_ids.pf:
            yield from ((family, mode) for mode in (profile.eswitch.modes if profile.eswitch else ("",)))


def check(family: str, mode: str, expected: Path | None = None) -> None:
    """Try every behaviour.

    Args:
        family: The NIC.
        mode: Mode of its eswitch; empty for none.
        expected: File of the failures that the plugin expects.

    Raises:
        AssertionError: The plugin lacks one; it says which.
    """
    profile = PROFILES.get(family)
    rows = {
        table.name: _ROWS
        for table in profile.tables
        if table.picker == "caller" and (table.rows or 0) > _ROWS
    }
    config = Config(prepared=True, mode=mode, rows=rows, vfs=_VFS if profile.sriov else 0)
    failures = load_expected_failures(expected) if expected is not None else ()
    report = run(
        replace(on_fake_kernel(REGISTRY, family, config), most_rows=600),
        expected=[one for one in failures if one.family in ("", family)],
    )
    assert report.ok, "\n".join(lines(report))
