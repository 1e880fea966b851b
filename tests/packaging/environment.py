"""Environments that hold wheels and what they declare to need, without a download."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sysconfig
from pathlib import Path

from packaging.requirements import Requirement


def call(*command: str | Path) -> None:
    """Run a command that must succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def declared_needs(names: set[str]) -> set[str]:
    """Return the distributions that these need without any extra, and those that they need, and so on."""
    found: set[str] = set()
    todo = set(names)
    while todo:
        name = todo.pop()
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo |= {requirement.name} - found
    return found


def link_distribution(name: str, target: Path) -> None:
    """Make an installed distribution importable from another site-packages, without a download."""
    outer = Path(sysconfig.get_path("purelib"))
    for top in {path.parts[0] for path in importlib.metadata.files(name) or []} - {"..", "__pycache__"}:
        if not (target / top).exists():
            (target / top).symlink_to(outer / top)
