"""The command behind `make test-vm`: prepares what is missing, boots each guest, sums up."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.vm.rig.apt import Apt
from tests.vm.rig.cache import Cache
from tests.vm.rig.figures import measure
from tests.vm.rig.layout import BOOT_TESTS, CHECKOUT, GUESTS, QEMU, RESULTS, UML, Guest, RigError, cache_root
from tests.vm.rig.needs import needs_of, provide
from tests.vm.rig.session import run_tests
from tests.vm.rig.shell import say
from tests.vm.rig.stock import stock_kernel
from tests.vm.rig.user_mode import user_mode_linux
from tests.vm.rig.verdict import overall
from tests.vm.rig.vswitch import open_vswitch

CANNOT = 77
"""This machine can't have the guests, and the last line says why: what automake takes for a skipped test."""
RIG_FAILS = 70


def main(words: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.rig", description=__doc__)
    parser.add_argument("--vm", choices=sorted(GUESTS), help="this guest only")
    parser.add_argument("-k", dest="expression", default="", help="tests to run, as for pytest -k")
    parser.add_argument("--time-limit", type=float, metavar="S", help="end a guest after as many seconds")
    parser.add_argument(
        "--prepare", action="store_true", help="install and build what is missing, and boot nothing"
    )
    parser.add_argument(
        "--figures",
        action="store_true",
        help="measure the figures of the bench that need flower in uml, and test nothing",
    )
    choice = parser.parse_args(words)
    if choice.figures:
        choice.vm = UML.name
    guests = [GUESTS[choice.vm]] if choice.vm else list(GUESTS.values())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that a guest ends with us
    try:
        return _run(guests, choice)
    except RigError as fault:
        print(f"test-vm: {fault}", file=sys.stderr)
        return CANNOT


def _run(guests: Sequence[Guest], choice: argparse.Namespace) -> int:
    started = time.monotonic()
    cache = Cache(cache_root())
    apt = Apt(cache.root / "apt")
    provide(needs_of(guests), apt)
    vswitch = None if choice.figures else open_vswitch(cache, apt)
    kernels = {guest.name: _kernel(guest, cache, apt) for guest in guests}
    say(f"ready after {time.monotonic() - started:.0f} s; built things are in {cache.root}")
    if choice.prepare:
        return 0
    if vswitch is None:
        say(f"figures are in {measure(kernels[UML.name], time_limit_s=choice.time_limit)}")
        return 0
    if not choice.expression and _boot_tests(kernels) != 0:
        say("the rig itself fails: no result of a guest would mean anything")
        return RIG_FAILS
    verdicts = []
    for guest in guests:
        say(f"{guest.name}: booting")
        kernel = kernels[guest.name]
        verdicts.append(
            run_tests(guest, kernel, vswitch, expression=choice.expression, time_limit_s=choice.time_limit)
        )
    _combine_coverage(guests)
    for verdict in verdicts:
        say(verdict.text)
    return overall(verdicts, some_chosen=bool(choice.expression))


def _kernel(guest: Guest, cache: Cache, apt: Apt) -> Path:
    return {UML.name: user_mode_linux, QEMU.name: stock_kernel}[guest.name](cache, apt)


def _boot_tests(kernels: dict[str, Path]) -> int:
    """Prove on the host that a guest's failure, silence or hang is reported as such."""
    say("does the rig report what guests do?")
    env = {**os.environ, **{f"NICOFFLOAD_KERNEL_{name.upper()}": str(path) for name, path in kernels.items()}}
    command = [sys.executable, "-m", "pytest", "-q", str(BOOT_TESTS.relative_to(CHECKOUT))]
    return subprocess.run(command, cwd=CHECKOUT, env=env, check=False).returncode


def _combine_coverage(guests: Sequence[Guest]) -> None:
    """Join the guests' coverage data into build/vm/coverage.data."""
    parts = [path for guest in guests if (path := RESULTS / guest.name / "coverage.data").exists()]
    if not parts:
        return
    command = [sys.executable, "-m", "coverage", "combine", "-q", "--keep"]
    command += [f"--data-file={RESULTS / 'coverage.data'}", *map(str, parts)]
    subprocess.run(command, cwd=CHECKOUT, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
