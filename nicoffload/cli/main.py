"""The program ``nicoffload``: its parser, and the way from a command line to a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nicoffload.cli import (
    capabilities,
    conformance,
    devices,
    doctor,
    flow,
    plan,
    plugin_commands,
    plugins,
    profiles,
    rate,
    stats,
    vf,
)
from nicoffload.cli.arguments import EXIT_CODES, Parser, add_common, output_of
from nicoffload.cli.output import run
from nicoffload.cli.session import Session

if TYPE_CHECKING:
    from nicoffload.hookspecs import PluginCommand

_GROUPS = (devices, profiles, capabilities, flow, vf, rate, stats, plan, plugins, doctor, conformance)

_DESCRIPTION = """\
One vocabulary for NIC offload: flow filters, virtual functions, rates, statistics.

A NIC is an emulated one (mock:sfn5122f), one of this machine by its PCI address (0000:03:00.0) or interface name
(enp3s0f0), or a software NIC (soft:lab0). `nicoffload doctor` says what there is.
Plugins add commands of their own, such as `nicoffload soft`, which makes software NICs: `nicoffload plugins` lists
them, and each has a --help.
"""


class _Version(argparse.Action):
    """Looks the version up when it is asked for, which takes longer than all the rest of --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_rest: Any) -> None:
        from importlib.metadata import version

        print(f"nicoffload {version('nicoffload')}")
        parser.exit(0)


def build_parser(added: Sequence[PluginCommand] = ()) -> argparse.ArgumentParser:
    """Return the parser of the whole program.

    Args:
        added: The commands of plugins.
    """
    parser = Parser(prog="nicoffload", description=_DESCRIPTION, epilog=EXIT_CODES)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    add_common(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in _GROUPS:
        group.add(commands)
    plugin_commands.add(commands, added)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: The command line without the program's name; None for that of this process.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    if plugin_commands.may_be_meant(words, parser):
        # Plugins are loaded only for a command that is none of ours: that takes longer than all the rest.
        parser = build_parser(plugin_commands.installed())
    args = parser.parse_args(words)
    output = output_of(args)
    session = Session(output=output, state_dir=getattr(args, "state_dir", None))
    return run(lambda: int(args.command(args, session)), program="nicoffload", output=output)


if __name__ == "__main__":
    sys.exit(main())
