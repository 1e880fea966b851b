"""``nicoffload plan`` and ``apply``: bring a NIC to the state that a file says."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from nicoffload.cli.arguments import add_common, add_nic
from nicoffload.cli.session import Session
from nicoffload.cli.steps import count_text, print_plan
from nicoffload.errors import InvalidRequestError

if TYPE_CHECKING:
    from nicoffload.nic import Nic, Plan

_FILE = """\
The file is YAML or JSON, of the form of schemas/desired-state.schema.json:

  vf_count: 4
  vfs:
    - {vf: 0, mac: "02:00:00:00:00:01", vlan: {vid: 100}}
  rates:
    - {vf: 0, max_tx_bps: 100M}
  flows:
    - tcp,nw_dst=10.0.0.5,tp_dst=443 actions=vf:0
  exact: false
"""


def add(commands: Any) -> None:
    """Add the parsers of both commands."""
    for name, text, command in (
        ("plan", "show what it takes to bring a NIC to a state; changes nothing", _plan),
        ("apply", "bring a NIC to a state", _apply),
    ):
        parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.\n\n{_FILE}")
        add_nic(parser)
        parser.add_argument(
            "--file", required=True, metavar="FILE", help="the state, as YAML or JSON; - for stdin"
        )
        parser.add_argument("--explain", action="store_true", help="show also the commands that do the same")
        parser.add_argument("--equivalents", action="store_true", dest="explain", help=argparse.SUPPRESS)
        if command is _apply:
            parser.add_argument("--yes", action="store_true", help="do it without asking")
            parser.add_argument("--dry-run", action="store_true", help="show the plan and do nothing")
            parser.add_argument(
                "--force", action="store_true", help="also while somebody holds a VF that it disturbs"
            )
        add_common(parser)
        parser.set_defaults(command=command)


def _plan(args: argparse.Namespace, session: Session) -> int:
    document, source = _read(args)
    with session.open(args.nic) as nic:
        plan, emulated = _planned(document, source, nic), nic.info.emulated
    print_plan(plan, args, session, emulated=emulated)
    return 0


def _apply(args: argparse.Namespace, session: Session) -> int:
    document, source = _read(args)
    with session.open(args.nic) as nic:
        plan, emulated = _planned(document, source, nic), nic.info.emulated
        if args.dry_run or not plan.steps:
            print_plan(plan, args, session, emulated=emulated)
            return 0
        if not session.output.as_json:
            print_plan(plan, args, session, emulated=emulated)
        if not args.yes and not _confirmed(plan, session):
            session.output.note("Nothing done.")
            return 1
        with session.output.progress("applying", len(plan.steps)) as progress:
            nic.apply(plan, progress=lambda done, _total, _what: progress(done), force=args.force)
    if session.output.as_json:
        print_plan(plan, args, session, emulated=emulated, applied=True)
    else:
        session.output.line(f"Done: {count_text(plan)}.")
    return 0


def _read(args: argparse.Namespace) -> tuple[Any, str]:
    from nicoffload.cli.desired import load_desired
    from nicoffload.cli.files import read_text

    source = "standard input" if args.file == "-" else args.file
    return load_desired(read_text(args.file), source), source


def _planned(document: Any, source: str, nic: Nic) -> Plan:
    from nicoffload.cli.desired import to_desired

    return nic.plan(to_desired(document, nic, source))


def _confirmed(plan: Plan, session: Session) -> bool:
    if session.output.as_json or not sys.stdin.isatty():
        raise InvalidRequestError(
            "nobody is there to ask", hint="--yes does it without asking; --dry-run only shows it"
        )
    session.output.note(f"Apply {count_text(plan)} to the NIC, disruption {plan.disruption.value}? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
