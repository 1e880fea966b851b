"""``nicoffload flow``: rules in a NIC."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nicoffload.cli.arguments import add_common, add_nic
from nicoffload.cli.session import Session
from nicoffload.cli.steps import add_previews, previewed
from nicoffload.errors import InvalidRequestError, NotSupportedError

if TYPE_CHECKING:
    from nicoffload.compiler import Refusal
    from nicoffload.driver import Placement
    from nicoffload.model import FlowRule, FlowStats
    from nicoffload.nic import FlowReport, OwnedRule

_RULES = """\
A rule is one line of text: tcp,nw_dst=10.0.0.5,tp_dst=443 actions=vf:2
A file holds such lines, a JSON array of rules, or the answer of `flow list --json`.
"""


def add(commands: Any) -> None:
    """Add the parsers of the group."""
    group = commands.add_parser("flow", help="check, add, remove, list and count rules", description=_RULES)
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = _verb(
        verbs,
        "check",
        "say whether and where a NIC could hold rules together; changes nothing",
        _check,
    )
    _add_rules(check)
    adding = _verb(verbs, "add", "install rules, all or none", _add)
    _add_rules(adding)
    adding.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    adding.add_argument(
        "--explain", action="store_true", help="show also place, caveats and the commands that do the same"
    )
    adding.add_argument(
        "--best-effort", action="store_true", help="keep what succeeds when a rule is refused"
    )
    removing = _verb(verbs, "del", "remove rules of ours, and print their last counters", _remove)
    removing.add_argument(
        "rules", nargs="*", metavar="RULE", help="id, the start of an id, or the rule as text"
    )
    removing.add_argument(
        "--file", action="append", default=[], metavar="FILE", help="rules to remove; - for stdin"
    )
    removing.add_argument("--all", action="store_true", help="every rule of ours; those of others stay")
    removing.add_argument("--missing-ok", action="store_true", help="a rule that is not there is no error")
    add_previews(removing)
    listing = _verb(verbs, "list", "list the rules in a NIC, also those of others", _list)
    listing.add_argument("--ours", action="store_true", help="only rules of ours")
    counting = _verb(verbs, "stats", "show the counters of rules of ours", _stats)
    counting.add_argument(
        "rules", nargs="*", metavar="RULE", help="id, the start of an id, or the rule as text"
    )


def _verb(verbs: Any, name: str, text: str, command: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    add_nic(parser)
    add_common(parser)
    parser.set_defaults(command=command)
    return parser


def _add_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rules", nargs="*", metavar="RULE", help="a rule as one line of text")
    parser.add_argument("--file", action="append", default=[], metavar="FILE", help="read rules; - for stdin")


def _check(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.cli.files import read_rules
    from nicoffload.cli.show import answer_to_json
    from nicoffload.compiler import Refusal

    rules = read_rules(args.rules, args.file)
    with session.open(args.nic) as nic:
        answers = nic.check_all(rules)
    if session.output.as_json:
        session.answer(
            "flow check", {"nic": args.nic, "answers": [answer_to_json(answer) for answer in answers]}
        )
    else:
        for answer in answers:
            _print_answer(answer, session)
    return NotSupportedError.exit_code if any(isinstance(answer, Refusal) for answer in answers) else 0


def _print_answer(answer: Placement | Refusal, session: Session) -> None:
    from nicoffload.cli.show import LADDER_COLUMNS, ladder_rows, placement_lines, refusal_lines
    from nicoffload.compiler import Refusal

    if not isinstance(answer, Refusal):
        for line in placement_lines(answer):
            session.output.line(line)
        return
    for line in refusal_lines(answer):
        session.output.line(line)
    session.output.line()
    if rows := ladder_rows(answer):
        session.output.table(LADDER_COLUMNS, rows)
    else:
        session.output.line("None of the usual coarser rules fits this NIC as it is either.")


def _add(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.cli.files import read_rules

    rules = read_rules(args.rules, args.file)
    with session.open(args.nic) as nic:
        if args.dry_run or args.explain:
            code = _explain(nic, rules, args, session)
            if args.dry_run:
                return code
        with session.output.progress(f"installing {len(rules)} rules"):
            report = nic.add_flows(rules, atomic=not args.best_effort)
    _print_report(args.nic, report, session)
    return report.refused[0][1].exit_code if report.refused else 0


def _explain(nic: Any, rules: tuple[FlowRule, ...], args: argparse.Namespace, session: Session) -> int:
    """Show where the rules would go, together with the commands that would do the same."""
    from nicoffload.cli.show import answer_to_json, equivalent_lines
    from nicoffload.compiler import Refusal
    from nicoffload.nic import DesiredState

    answers = nic.check_all(rules)
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    steps = () if refused else nic.plan(DesiredState(flows=rules)).steps
    if session.output.as_json:
        if args.dry_run:
            from nicoffload.codec import to_json

            document = {"nic": args.nic, "answers": [answer_to_json(answer) for answer in answers]}
            session.answer("flow check", document | {"steps": to_json(steps)})
    else:
        for answer in answers:
            _print_answer(answer, session)
        if steps and args.explain:
            for line in equivalent_lines(steps, emulated=nic.info.emulated):
                session.output.line(line)
    return NotSupportedError.exit_code if refused else 0


def _print_report(nic: str, report: FlowReport, session: Session) -> None:
    from nicoffload.cli.report import error_to_json
    from nicoffload.cli.show import slot_text
    from nicoffload.codec import format_rule, rule_to_json

    if session.output.as_json:
        installed = [
            {
                "rule": rule_to_json(done.rule),
                "text": format_rule(done.rule),
                "table": done.ref.table,
                "slot": done.ref.slot,
            }
            for done in report.installed
        ]
        refused = [
            {"rule": rule_to_json(rule), "text": format_rule(rule), "error": error_to_json(fault)}
            for rule, fault in report.refused
        ]
        session.answer("flow add", {"nic": nic, "installed": installed, "refused": refused})
        return
    if report.installed:
        session.output.table(
            ("installed", "rule", "table", "slot"),
            [
                (str(done.rule.rule_id), format_rule(done.rule), done.ref.table, slot_text(done.ref.slot))
                for done in report.installed
            ],
            right=("slot",),
        )
    for _, fault in report.refused:
        session.output.error(fault)


def _remove(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.cli.select import select_rules
    from nicoffload.nic import DesiredState

    if not (args.all or args.rules or args.file):
        raise InvalidRequestError("no rule is given", hint="name a rule by its id or text, or use --all")
    with session.open(args.nic) as nic:
        ours = [row for row in nic.flows() if row.ours]
        chosen = ours if args.all else select_rules(ours, args.rules, args.file, missing_ok=args.missing_ok)
        gone = {row.rule.rule_id for row in chosen}
        stay = tuple(row.rule for row in ours if row.rule.rule_id not in gone)
        if previewed(nic, DesiredState(flows=stay, exact=True), args, session):
            return 0
        with session.output.progress(f"removing {len(chosen)} rules"):
            stats = nic.remove_flows([row.rule.rule_id for row in chosen], missing_ok=args.missing_ok)
    _print_stats("flow del", args.nic, chosen, stats, session)
    return 0


def _list(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.cli.show import slot_text
    from nicoffload.codec import format_rule, rule_to_json

    with session.open(args.nic) as nic:
        rows = [row for row in nic.flows() if row.ours or not args.ours]
    if session.output.as_json:
        rules = [
            {
                "rule": rule_to_json(row.rule),
                "text": format_rule(row.rule),
                "table": row.ref.table,
                "slot": row.ref.slot,
                "ours": row.ours,
                "in_hardware": row.in_hardware,
            }
            for row in rows
        ]
        session.answer("flow list", {"nic": args.nic, "rules": rules})
    elif rows:
        session.output.table(
            ("id", "rule", "table", "slot", "ours", "in hardware"),
            [
                (
                    str(row.rule.rule_id) if row.ours else "-",
                    format_rule(row.rule),
                    row.ref.table,
                    slot_text(row.ref.slot),
                    "yes" if row.ours else "another's",
                    "yes" if row.in_hardware else "no",
                )
                for row in rows
            ],
            right=("slot",),
        )
    else:
        session.output.line("No rules.")
    return 0


def _stats(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.cli.select import select_rules

    with session.open(args.nic) as nic:
        ours = [row for row in nic.flows() if row.ours]
        chosen = select_rules(ours, args.rules, []) if args.rules else ours
        counters = nic.flow_stats([row.rule.rule_id for row in chosen])
    _print_stats(
        "flow stats", args.nic, chosen, [counters.row(index) for index in range(len(chosen))], session
    )
    return 0


def _print_stats(command: str, nic: str, rows: list[OwnedRule], stats: Any, session: Session) -> None:
    from nicoffload.codec import format_rule, to_json
    from nicoffload.model import ByteBasis

    texts = {row.rule.rule_id: format_rule(row.rule) for row in rows}
    counted: list[FlowStats] = list(stats)
    if session.output.as_json:
        session.answer(
            command, {"nic": nic, "flows": [to_json(one) | {"text": texts[one.rule_id]} for one in counted]}
        )
    elif counted:
        session.output.table(
            ("id", "rule", "packets", "bytes", "bytes are", "counted by"),
            [
                (
                    str(one.rule_id),
                    texts[one.rule_id],
                    "-" if one.packets is None else str(one.packets),
                    "-" if one.bytes is None else str(one.bytes),
                    one.facts.byte_basis.value if one.facts else "-",
                    one.facts.source if one.facts else "nobody",
                )
                for one in counted
            ],
            right=("packets", "bytes"),
        )
        if any(one.facts and one.facts.byte_basis is ByteBasis.UNKNOWN for one in counted):
            session.output.line("unknown: whether bytes include the Ethernet header is unknown for this NIC")
    else:
        session.output.line("No rules of ours.")
