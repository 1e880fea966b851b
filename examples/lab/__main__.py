"""Measure on this machine what offloading does.

Usage: python -m examples.lab [--quick] [--vms N] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from examples.lab import needs, plots, records, summary
from examples.lab.run import all_plans, end_in_order, measure
from examples.lab.shell import LabError
from examples.lab.topology import MAX_VMS
from nicoffload.errors import NicOffloadError

GOAL_MISSED, NOT_MEASURED, INTERRUPTED = 1, 2, 130
"""Exit codes beside 0, every goal was held: some was not; nothing could be measured, or not all; Ctrl-C."""


def main(arguments: list[str]) -> int:
    """Run the lab and return an exit code."""
    options = _parse(arguments)
    folder = Path(options.out)
    begin_s = time.monotonic()
    try:
        needs.check_root()
        root = needs.prepare(folder / "openvswitch", say)
        end_in_order()
        results = measure(
            all_plans(root, quick=options.quick, vms=options.vms),
            vms=options.vms,
            say=say,
            keep=lambda found: hand_over(records.write(found, folder)),
        )
    except KeyboardInterrupt:
        say("ended before its time; the lab is taken down")
        return INTERRUPTED
    except (LabError, NicOffloadError) as error:
        print(f"lab: {error}", file=sys.stderr)
        if getattr(error, "hint", ""):
            print(f"  {getattr(error, 'hint', '')}", file=sys.stderr)
        return NOT_MEASURED
    written = [*records.write(results, folder), *plots.draw_all(results, folder)]
    hand_over(written)
    for line in summary.lines(results):
        print(line)
    say(
        f"done in {(time.monotonic() - begin_s) / 60:.1f} minutes; see {folder}/lab.png and {folder}/lab.json"
    )
    goals = results.goals()
    missed = sum(not goal.held for goal in goals)
    if missed:
        say(f"{missed} of {len(goals)} goals missed: exit code {GOAL_MISSED}")
    return GOAL_MISSED if missed else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make lab", description="Measure on this machine what offloading does."
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer measurements, and shorter: under two minutes"
    )
    parser.add_argument("--vms", type=int, default=MAX_VMS, choices=range(1, MAX_VMS + 1), help="most VMs")
    parser.add_argument("--out", default="build/lab", help="folder for the results")
    return parser.parse_args(arguments)


def say(text: str) -> None:
    """Tell the progress."""
    print(f"lab: {text}", flush=True)


def hand_over(paths: list[Path]) -> None:
    """Give what root wrote to the user who asked root to."""
    user, group = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if user.isdigit() and group.isdigit():
        for path in {*paths, *(path.parent for path in paths)}:
            os.chown(path, int(user), int(group))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
