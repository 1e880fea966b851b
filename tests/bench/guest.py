"""Figures that need flower, which few kernels have: brought back by the user-mode Linux guest of `make test-vm`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = (ROOT / "build/vm/uml", ROOT / "build/vm/figures")
FILES = ("flower.json", "rss.json", "vendor.json")
NAMES = (
    "flower_bulk_over_tc_batch",
    "flower_bulk_over_pyroute2",
    "flower_rule_objects_over_tc_batch",
    "flower_stats_over_tc_json",
    "rss_mb_100k_rules",
    "vendor_over_kernel",
    "nic_over_driver",
)
"""What is promised of them."""
MEASURED = (
    "nicoffload/kernel",
    "nicoffload/model",
    "nicoffload/linux",
    "nicoffload/compiler",
    "nicoffload/nic",
    "tests/bench/kernel.py",
    "tests/bench/vendor.py",
)
"""Source text whose change makes a figure one of another program."""

Figures = dict[str, float]


def figures(root: Path = ROOT) -> tuple[Figures, str]:
    """Return the guest's figures, from its last run where the measured code is that of now, else from a run of it now.

    Returns:
        The figures, and what is to be said where they are missing; empty where none is.
    """
    found = read(FOLDERS, newest_source(root))
    if found:
        return found, ""
    say(
        "no figures of the guest with this code: it measures them now; the first time it builds a kernel, some minutes"
    )
    command = [sys.executable, "-m", "tests.vm.rig", "--figures"]
    done = subprocess.run(
        command, cwd=root, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False
    )
    found = read(FOLDERS, newest_source(root)) if done.returncode == 0 else {}
    if found:
        return found, ""
    why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("test-vm: ")
    return {}, f"{', '.join(NAMES)} are missing: the guest that has flower brought none ({why})"


def read(folders: Iterable[Path], newer_than_s: float) -> Figures:
    """Return the newest figures that a run of the guest left; empty where one of its files is missing or too old."""
    runs = []
    for folder in folders:
        files = [folder / name for name in FILES]
        if all(file.exists() for file in files):
            runs.append((min(file.stat().st_mtime for file in files), files))
    fresh = [run for run in runs if run[0] >= newer_than_s]
    if not fresh:
        return {}
    merged: Figures = {}
    for file in max(fresh)[1]:
        merged |= json.loads(file.read_text("ascii"))
    return merged


def newest_source(root: Path) -> float:
    """Return when the measured code was last changed, in seconds since the epoch."""
    files = [
        file
        for name in MEASURED
        for file in ([root / name] if name.endswith(".py") else (root / name).rglob("*.py"))
    ]
    return max(file.stat().st_mtime for file in files)


def say(message: str) -> None:
    """Tell the user one line, beside the figures."""
    print(f"bench: guest: {message}", file=sys.stderr, flush=True)
