"""``nicoffload rate``: transmit rates of VFs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nicoffload.cli.arguments import add_common, add_nic
from nicoffload.cli.session import Session
from nicoffload.cli.steps import add_previews, previewed
from nicoffload.cli.vf import parse_vf
from nicoffload.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nicoffload.model import RateLimit, RateReport
    from nicoffload.nic import Nic


def add(commands: Any) -> None:
    """Add the parsers of the group."""
    group = commands.add_parser("rate", help="transmit rates of VFs: show, set")
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    show = verbs.add_parser(
        "show", help="show the rates", description="Show what was asked for, applied, read back."
    )
    setting = verbs.add_parser(
        "set", help="set rates of a VF", description="Set rates of a VF; one not named stays."
    )
    for parser, command in ((show, _show), (setting, _set)):
        add_nic(parser)
        add_common(parser)
        parser.set_defaults(command=command)
    setting.add_argument("vf", type=parse_vf, metavar="VF", help="vf:0 or 0")
    setting.add_argument("--min", metavar="RATE", help="guarantee: 100M, 1.5Gbit, 2500kbps (bits), none")
    setting.add_argument("--max", metavar="RATE", help="limit, likewise")
    add_previews(setting)


def _show(args: argparse.Namespace, session: Session) -> int:
    with session.open(args.nic) as nic:
        reports = list(nic.rates())
    _print("rate show", args.nic, reports, session)
    return 0


def _set(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.codec import parse_rate
    from nicoffload.model import RateLimit
    from nicoffload.nic import DesiredState

    bounds = {
        name: parse_rate(text, option)
        for name, text, option in (("min_tx_bps", args.min, "--min"), ("max_tx_bps", args.max, "--max"))
        if text is not None
    }
    if not bounds:
        raise InvalidRequestError("no rate is given", hint="--min RATE, --max RATE, or both")
    RateLimit(**bounds)  # a rate that is wrong on every NIC is told before a NIC is opened
    with session.open(args.nic) as nic:
        limit = limit_with_kept_bound(nic, args.vf, bounds)
        if previewed(nic, DesiredState(rates={args.vf: limit}), args, session):
            return 0
        reports = nic.set_rates({args.vf: limit})
    _print("rate set", args.nic, list(reports), session)
    return 0


def limit_with_kept_bound(nic: Nic, vf: int, bounds: dict[str, int | None]) -> RateLimit:
    """Return both rates of a VF: those that are given, and for one that is not, what is in force.

    Args:
        nic: The NIC.
        vf: Index of the VF.
        bounds: ``min_tx_bps``, ``max_tx_bps`` or both.

    Raises:
        InvalidRequestError: One is left out and the NIC does not tell what is in force.
    """
    from nicoffload.model import RateLimit

    if len(bounds) < 2:
        now = next((report for report in nic.rates() if report.vf == vf), None)
        in_force = now and (now.requested or now.read_back or now.applied)
        kept = ({"min_tx_bps", "max_tx_bps"} - set(bounds)).pop()
        if now is not None and in_force is None:
            raise InvalidRequestError(
                f"the NIC does not tell the {kept} that is in force",
                device=nic.name,
                hint="give both --min and --max",
            )
        bounds = {**bounds, kept: getattr(in_force, kept) if in_force else None}
    return RateLimit(**bounds)


def _print(command: str, name: str, reports: Sequence[RateReport], session: Session) -> None:
    from nicoffload.codec import to_json

    if session.output.as_json:
        session.answer(command, {"nic": name, "rates": to_json(list(reports))})
    elif reports:
        session.output.table(
            ("VF", "asked for", "applied", "read back", "note"),
            [
                (
                    f"vf:{r.vf}",
                    limit_text(r.requested),
                    limit_text(r.applied),
                    limit_text(r.read_back),
                    r.note,
                )
                for r in reports
            ],
        )
    else:
        session.output.line("No VF has a rate.")


def limit_text(limit: RateLimit | None) -> str:
    """Return both rates for a table; where they are unknown, a dash."""
    from nicoffload.codec import format_rate

    return (
        "-" if limit is None else f"min {format_rate(limit.min_tx_bps)}, max {format_rate(limit.max_tx_bps)}"
    )
