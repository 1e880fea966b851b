"""What every test under tests/ can use; the options and the golden files are in tests/harness.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

collect_ignore = ["external_plugin"]
"""A distribution of its own: tests/packaging installs it in an environment of its own and runs its tests there."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root where there is none, and say so."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root, for network namespaces"))


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The top folder of the repository."""
    return ROOT
