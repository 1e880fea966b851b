"""Fuzz the decoders of nicoffload/kernel: `make fuzz`.

Each decoder is given damaged answers of real kernels, a million unless told otherwise. It may read them or refuse them
with an error of the SDK; a crash, a hang and memory without bound fail the run. What came of it is in build/fuzz.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.fuzz.decoders import decoders
from tests.fuzz.run import Outcome
from tests.fuzz.worker import fuzz_by_name

RESULTS = Path(__file__).resolve().parents[2] / "build" / "fuzz.json"


def _arguments(names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument(
        "--messages", type=int, default=1_000_000, help="for each decoder (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the random numbers (default: the time)"
    )
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at once")
    parser.add_argument(
        "names", nargs="*", metavar="DECODER", help=f"all of {', '.join(names)} where none is named"
    )
    found = parser.parse_args()
    if unknown := set(found.names) - set(names):
        parser.error(f"no decoder {', '.join(sorted(unknown))}")
    return found


def main() -> int:
    """Fuzz, tell each outcome as it comes, and return the exit status."""
    names = [one.name for one in decoders()]
    asked = _arguments(names)
    chosen = asked.names or names
    print(
        f"fuzz: {asked.messages:,} messages to each of {len(chosen)} decoders, seed {asked.seed}", flush=True
    )
    outcomes: list[Outcome] = []
    findings: list[str] = []
    # A process for each decoder: what one of them leaves in memory is not the next one's.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.jobs, mp_context=context, max_tasks_per_child=1) as pool:
        for done in as_completed(
            pool.submit(fuzz_by_name, name, asked.messages, asked.seed) for name in chosen
        ):
            found = done.result()
            if isinstance(found, str):
                findings.append(found)
                print(f"fuzz: FAILED: {found}", flush=True)
                continue
            outcomes.append(found)
            print(
                f"fuzz: {found.name:20} {found.messages:>9,} messages: {found.read:>9,} read, {found.named:>9,} named,"
                f" {found.elapsed_s:5.0f} s, {found.grown_mb:3.0f} MB",
                flush=True,
            )
    RESULTS.parent.mkdir(exist_ok=True)
    report = {
        "messages_per_decoder": asked.messages,
        "seed": asked.seed,
        "decoders": [dataclasses.asdict(one) for one in sorted(outcomes, key=lambda one: one.name)],
        "findings": findings,
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", "ascii")
    print(f"fuzz: {len(outcomes)} decoders held, {len(findings)} broke", flush=True)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
