"""``nicoffload doctor``: whether this machine has what the SDK needs, and the cure where it has not."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from nicoffload.cli.arguments import add_common
from nicoffload.cli.session import Session


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "doctor",
        help="check this machine, with the cure for each problem",
        description="Check libraries, plugins, rights and the journal. Ends with 1 when there is a problem.",
    )
    add_common(parser)
    parser.set_defaults(command=_doctor)


def _doctor(_args: argparse.Namespace, session: Session) -> int:
    from nicoffload.cli.checks import Check, run_checks

    checks: Sequence[Check] = run_checks(session)
    problem = any(check.status == "problem" for check in checks)
    if session.output.as_json:
        rows = [
            {"name": check.name, "status": check.status, "detail": check.detail, "cure": check.cure}
            for check in checks
        ]
        session.answer("doctor", {"ok": not problem, "checks": rows})
    else:
        session.output.table(
            ("", "check", "found", "cure"),
            [(check.status, check.name, check.detail, check.cure) for check in checks],
        )
    return 1 if problem else 0
