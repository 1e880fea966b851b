"""Pytest fixtures that give a test its own emulated NIC."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nicoffload import Nic

MockNic = Callable[..., "Nic"]
"""Makes an emulated NIC and opens it: ``mock_nic("ixgbe", faults=[...], vfs=4)``."""


@pytest.fixture
def mock_nic(tmp_path: Path) -> Iterator[MockNic]:
    """Return a function that makes an emulated NIC and opens it; all are closed after the test.

    The function takes the family and, by keyword, `faults` (a list by ``mock-faults.schema.json``) and the options of a
    ``mock:`` name: seed, vfs, mode, link_bps, prepared, state, and ``rows`` (table to its capacity). A NIC without
    `state` is its own: nothing that another test does shows in it.
    """
    # Whoever has this plugin installed must not pay for the SDK in tests that don't use it.
    from nicoffload import open_nic  # noqa: PLC0415

    opened: list[Nic] = []

    def make(
        family: str,
        *,
        faults: Sequence[Mapping[str, Any]] = (),
        rows: Mapping[str, int] | None = None,
        **options: object,
    ) -> Nic:
        parts = [f"mock:{family}", *(f"{key}={value}" for key, value in options.items())]
        parts += [f"rows.{table}={count}" for table, count in (rows or {}).items()]
        if faults:
            script = tmp_path / f"mock-faults-{len(opened)}.json"
            script.write_text(json.dumps({"faults": list(faults)}), "utf-8")
            parts.append(f"faults={script}")
        nic = open_nic(",".join(parts), state_dir=tmp_path / "nicoffload")
        opened.append(nic)
        return nic

    yield make
    for nic in opened:
        nic.close()
