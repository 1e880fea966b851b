"""``nicoffload soft``: software NICs are made, removed and listed."""

from __future__ import annotations

import argparse

from nicoffload.driver import OpenContext
from nicoffload.hookspecs import CommandAnswer, PluginCommand
from nicoffload_softnic import names

_GROUP = "soft"
_GROUP_HELP = "make and remove software NICs (needs root)"


def _create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="1 to 8 of a-z and 0-9")
    parser.add_argument("--vfs", type=int, default=4, metavar="N", help="how many VFs, 0 to 128; default 4")
    parser.add_argument(
        "--rows",
        type=int,
        metavar="R",
        help="rules that its table holds; default 65536, and with the data path u32 4095, which is its most",
    )
    parser.add_argument(
        "--link-bps",
        type=int,
        metavar="B",
        help="speed of its port in bit/s, shared by the VFs; without it nothing slows them down",
    )
    parser.add_argument(
        "--data-path",
        choices=("auto", "ebpf", "u32"),
        default="auto",
        help="how packets go through it; default auto: ebpf where the kernel has it, else u32, which can do less",
    )


def _create(args: argparse.Namespace, context: OpenContext) -> CommandAnswer:
    from nicoffload_softnic import build  # noqa: PLC0415 - naming the commands must not load NumPy

    made = build.create(
        context.kernel,
        build.Wanted(
            name=args.name, vfs=args.vfs, rows=args.rows, link_bps=args.link_bps, data_path=args.data_path
        ),
    )
    devices = [
        (names.wire(args.name), "the wire: the other end of the uplink"),
        (names.pf(args.name), "PF: what no rule takes of what comes from the wire; its way out"),
    ]
    for index in range(args.vfs):
        devices.append((names.vf(args.name, index), f"VF {index}: for a VM"))
        devices.append(
            (names.representor(args.name, index), f"representor of VF {index}: for the virtual switch")
        )
    return CommandAnswer(
        lines=(
            f"{names.PREFIX}{args.name} is made; its devices are down:",
            f"Its data path is {made.data_path}: {made.why}.",
        ),
        columns=("device", "what_it_is"),
        rows=tuple(devices),
    )


def _destroy_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="as it was made")


def _destroy(args: argparse.Namespace, context: OpenContext) -> CommandAnswer:
    from nicoffload_softnic import build  # noqa: PLC0415

    build.destroy(context.kernel, args.name.removeprefix(names.PREFIX))
    return CommandAnswer(lines=(f"{names.PREFIX}{args.name.removeprefix(names.PREFIX)} is gone",))


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def _list(_args: argparse.Namespace, context: OpenContext) -> CommandAnswer:
    from nicoffload_softnic import build  # noqa: PLC0415

    rows = tuple(
        (names.PREFIX + one.name, one.data_path, one.vfs, one.in_use, one.rows, one.problem or "ok")
        for one in build.find_all(context.kernel)
    )
    return CommandAnswer(
        lines=() if rows else ("There is no software NIC. Make one: nicoffload soft create lab0",),
        columns=("name", "data_path", "vfs", "rules", "rows", "state"),
        rows=rows,
    )


COMMANDS = (
    PluginCommand(
        group=_GROUP,
        group_help=_GROUP_HELP,
        name="create",
        help="make a software NIC",
        description="Make a software NIC in the kernel. open_nic and every command know it as soft:NAME.",
        add_arguments=_create_arguments,
        run=_create,
    ),
    PluginCommand(
        group=_GROUP,
        group_help=_GROUP_HELP,
        name="destroy",
        help="remove a software NIC",
        description="Remove a software NIC and all of its devices, wherever they are.",
        add_arguments=_destroy_arguments,
        run=_destroy,
    ),
    PluginCommand(
        group=_GROUP,
        group_help=_GROUP_HELP,
        name="list",
        help="list the software NICs",
        description="List the software NICs of this machine.",
        add_arguments=_list_arguments,
        run=_list,
    ),
)
"""What the plugin adds to the command line."""
