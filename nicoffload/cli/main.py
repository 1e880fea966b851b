"""The program ``nicoffload``: its parser, and the way from a command line to a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from nicoffload.cli import (
    capabilities,
    conformance,
    devices,
    doctor,
    flow,
    plan,
    plugins,
    profiles,
    rate,
    stats,
    vf,
)
from nicoffload.cli.arguments import EXIT_CODES, Parser, add_common, output_of
from nicoffload.cli.output import run
from nicoffload.cli.session import Session

_GROUPS = (devices, profiles, capabilities, flow, vf, rate, stats, plan, plugins, doctor, conformance)

_DESCRIPTION = """\
One vocabulary for NIC offload: flow filters, virtual functions, rates, statistics.

A NIC is an emulated NIC (mock:sfn5122f) or, where a plugin drives live NICs, a PCI address (0000:03:00.0) or an
interface name (enp3s0f0). None of the plugins that come with nicoffload does; `nicoffload doctor` says what there is.
"""


class _Version(argparse.Action):
    """Looks the version up when it is asked for, which takes longer than all the rest of --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_rest: Any) -> None:
        from importlib.metadata import version

        print(f"nicoffload {version('nicoffload')}")
        parser.exit(0)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole program."""
    parser = Parser(prog="nicoffload", description=_DESCRIPTION, epilog=EXIT_CODES)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    add_common(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in _GROUPS:
        group.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: The command line without the program's name; None for that of this process.

    Returns:
        The exit code.
    """
    args = build_parser().parse_args(argv)
    output = output_of(args)
    session = Session(output=output, state_dir=getattr(args, "state_dir", None))
    return run(lambda: int(args.command(args, session)), program="nicoffload", output=output)


if __name__ == "__main__":
    sys.exit(main())
