"""``nicoffload devices``: the NICs of this machine."""

from __future__ import annotations

import argparse
from typing import Any

from nicoffload.cli.arguments import add_common
from nicoffload.cli.session import Session


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "devices", help="list the NICs of this machine", description="List the NICs."
    )
    add_common(parser)
    parser.set_defaults(command=_devices)


def _devices(_args: argparse.Namespace, session: Session) -> int:
    from nicoffload.cli.report import error_to_json
    from nicoffload.codec import to_json

    found, failed = session.registry().discover()
    if session.output.as_json:
        session.answer(
            "devices", {"devices": to_json(found), "failed": [error_to_json(fault) for fault in failed]}
        )
        return 0
    for fault in failed:
        session.output.error(fault)
    if not found:
        session.output.line(
            "No NIC found. An emulated one is always there: nicoffload capabilities mock:sfn5122f"
        )
        return 0
    rows = [
        (
            nic.name,
            nic.family,
            nic.title,
            nic.driver or "-",
            nic.ifname or "-",
            "emulated" if nic.emulated else "",
        )
        for nic in found
    ]
    session.output.table(("name", "family", "title", "driver", "interface", ""), rows)
    return 0
