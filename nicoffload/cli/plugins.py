"""``nicoffload plugins``: which plugins are installed, and why one is not in use."""

from __future__ import annotations

import argparse
from typing import Any

from nicoffload.cli.arguments import add_common
from nicoffload.cli.session import Session


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "plugins",
        help="list the plugins, what became of them and what they add",
        description="List the plugins, what became of each, and the NIC families and commands that it adds. "
        "NICOFFLOAD_PLUGINS=mock,intel restricts which are loaded.",
    )
    add_common(parser)
    parser.set_defaults(command=_plugins)


def _plugins(_args: argparse.Namespace, session: Session) -> int:
    from nicoffload.cli.report import error_to_json

    found = session.registry().check_profiles()
    if session.output.as_json:
        plugins = [
            {
                "name": status.name,
                "title": status.title,
                "distribution": status.distribution,
                "version": status.version,
                "ok": status.ok,
                "error": error_to_json(status.error) if status.error else None,
                "hooks": list(status.hooks),
                "families": list(status.families),
                "commands": list(status.commands),
            }
            for status in found
        ]
        session.answer("plugins", {"plugins": plugins})
        return 0
    session.output.table(
        ("plugin", "", "version", "brings", "families", "commands"),
        [
            (
                status.name,
                "failed" if not status.ok else ("warning" if status.error else "ok"),
                status.version or "-",
                status.title or "-",
                ", ".join(status.families) or "-",
                ", ".join(status.commands) or "-",
            )
            for status in found
        ],
    )
    for status in found:
        if status.error:
            session.output.error(status.error)
    return 0
