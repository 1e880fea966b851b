"""``nicoffload capabilities NIC``: what a NIC can do, and how that is known."""

from __future__ import annotations

import argparse
from typing import Any

from nicoffload.cli.arguments import add_common, add_nic
from nicoffload.cli.session import Session

_EMULATOR = "emulator"
"""Capability whose detail lists what the emulator assumes."""


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "capabilities",
        help="show what a NIC can do",
        description="Show what a NIC can do. evidence: declared by its profile, probed on the device, or observed.",
    )
    add_nic(parser)
    parser.add_argument("--sources", action="store_true", help="show where each fact comes from")
    parser.add_argument(
        "--try",
        action="store_true",
        dest="try_out",
        help="put a rule that no packet matches into each table that nobody knows, and take it out at once",
    )
    add_common(parser)
    parser.set_defaults(command=_capabilities)


def _capabilities(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.codec import to_json
    from nicoffload.errors import NotSupportedError

    with session.open(args.nic) as nic:
        if args.try_out:
            nic.try_out()
        info, found = nic.info, nic.capabilities()
        try:
            tables = nic.tables()
        except NotSupportedError:  # no flow filters, as the capabilities say
            tables = ()
    if session.output.as_json:
        document = {
            "device": to_json(info),
            "capabilities": to_json(list(found)),
            "tables": [
                {
                    "name": state.table.name,
                    "mechanism": state.table.mechanism,
                    "mask_model": state.table.mask_model,
                    "rows": state.rows,
                    "in_use": state.in_use,
                    "blocked": to_json(state.blocked),
                    "enable": to_json(state.enable),
                }
                for state in tables
            ],
        }
        session.answer("capabilities", document)
        return 0
    out = session.output
    out.line(f"{info.name}: {info.title} ({info.family}{', emulated' if info.emulated else ''})")
    columns = ["capability", "support", "evidence", "detail", *(["source"] if args.sources else [])]
    # What the emulator assumes is a list of sentences: too long for a cell.
    title, _, assumed = next((c.detail for c in found if c.name == _EMULATOR), "").partition(": ")
    rows = [
        [c.name, c.support.value, c.evidence.value, title if c.name == _EMULATOR else c.detail, c.source]
        for c in found
    ]
    out.line()
    out.table(columns, [row[: len(columns)] for row in rows])
    if assumed:
        out.line()
        out.line(f"{title}:")
        for each in assumed.split("; "):
            out.line(f"  - {each}")
    if tables:
        out.line()
        out.table(
            ("table", "rows", "in use", "masks", "takes rules"),
            [
                (
                    state.table.name,
                    "unknown" if state.rows is None else str(state.rows),
                    str(state.in_use),
                    state.table.mask_model,
                    "; ".join(map(str, state.blocked)) or "yes",
                )
                for state in tables
            ],
            right=("rows", "in use"),
        )
    return 0
