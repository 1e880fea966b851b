"""Transcripts of scenarios in a guest, held against the files that the fake kernel is held against on the host."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.scenarios import Scenario, Subject, run

GOLDEN = Path(__file__).parents[2] / "kernel/golden/scenarios"
OUT = Path("/run/out/scenarios")
"""Comes back as `build/vm/<guest>/scenarios`: where Linux changed, the new file is there to be copied."""


def hold_against_golden(scenario: Scenario, subject: Subject) -> None:
    """Fail unless a scenario brings the answers that are on file."""
    found = run(scenario, subject)
    OUT.mkdir(exist_ok=True)
    (OUT / f"{scenario.__name__}.txt").write_text(found, "utf-8")
    assert found == (GOLDEN / f"{scenario.__name__}.txt").read_text("utf-8")
