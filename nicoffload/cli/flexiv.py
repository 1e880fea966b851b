"""The program ``flexivoffload``: replay a capture, ask why a flow went where it did, check a policy."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicoffload.cli.arguments import EXIT_CODES, Parser, add_common, output_of
from nicoffload.cli.output import Output, run
from nicoffload.errors import InvalidRequestError

if TYPE_CHECKING:
    from nicoffload.flexivoffload.report import ReplayReport

_DESCRIPTION = """\
FlexivOffload: which flows the NIC carries and which the virtual switch, chosen while each flow lives.
"""
_EXAMPLES = """\
examples:
  flexivoffload replay office.pcap.gz --nic mock:sfn5122f --policy office.yaml --vms office.vms.json
  flexivoffload why office.pcap.gz --flow 'tcp,nw_src=10.0.0.101,tp_dst=80' --nic mock:sfn5122f --policy office.yaml
  flexivoffload policy check office.yaml

"""
SHOWN_FLOWS = 15
"""Flows that the text lists unless it is told otherwise."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole program."""
    parser = Parser(prog="flexivoffload", description=_DESCRIPTION, epilog=_EXAMPLES + EXIT_CODES)
    add_common(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_replay(commands)
    _add_why(commands)
    _add_policy(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: The command line without the program's name; None for that of this process.

    Returns:
        The exit code.
    """
    # An option that a command doesn't know is that command's fault to explain; argparse would blame the whole program.
    args, unknown = build_parser().parse_known_args(argv)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    output = output_of(args)
    return run(lambda: int(args.command(args, output)), program="flexivoffload", output=output)


def _add_replay(commands: Any) -> None:
    parser = commands.add_parser(
        "replay",
        help="replay a packet capture on an emulated NIC",
        description="Replay a packet capture on an emulated NIC and virtual switch, and report which path took what.",
    )
    parser.add_argument("capture", type=Path, metavar="CAPTURE", help="pcap or pcapng, plain or gzipped")
    _add_setting(parser, is_needed=True)
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a report with plots, in one HTML file"
    )
    parser.add_argument(
        "--top",
        type=_natural,
        metavar="N",
        default=SHOWN_FLOWS,
        help=f"list the N largest flows ({SHOWN_FLOWS})",
    )
    add_common(parser)
    parser.set_defaults(command=_replay, parser=parser)


def _add_why(commands: Any) -> None:
    parser = commands.add_parser(
        "why",
        help="explain where one flow went, and why",
        description="Explain one flow: replay a capture, or take the report that `replay --json` wrote.",
    )
    parser.add_argument(
        "capture", nargs="?", metavar="CAPTURE", help="pcap or pcapng; with --report, the flow"
    )
    parser.add_argument(
        "--flow", metavar="FLOW", help="the flow: tcp,nw_src=10.0.0.1,nw_dst=10.0.0.5,tp_dst=443"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="a report that `replay --json` wrote")
    _add_setting(parser, is_needed=False)
    add_common(parser)
    parser.set_defaults(command=_why, parser=parser)


def _add_policy(commands: Any) -> None:
    group = commands.add_parser("policy", help="check a policy", description="Work with policy documents.")
    add_common(group)
    actions = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = actions.add_parser(
        "check",
        help="check a policy and show its rules in the order in which they are obeyed",
        description="Check a policy: its form, and whether it contradicts itself.",
    )
    parser.add_argument("policy", type=Path, metavar="POLICY", help="YAML or JSON")
    add_common(parser)
    parser.set_defaults(command=_policy_check, parser=parser)


def _add_setting(parser: argparse.ArgumentParser, *, is_needed: bool) -> None:
    parser.add_argument("--nic", required=is_needed, metavar="NIC", help="an emulated NIC: mock:sfn5122f")
    parser.add_argument(
        "--policy", type=Path, required=is_needed, metavar="POLICY", help="policy, YAML or JSON"
    )
    parser.add_argument(
        "--vms",
        type=Path,
        metavar="FILE",
        help="the VMs (JSON); without it, they are guessed from the packets",
    )


def _natural(text: str) -> int:
    value = int(text) if text.isdigit() else -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of flows")
    return value


def _run_replay(args: argparse.Namespace, output: Output, capture: Path) -> ReplayReport:
    from nicoffload import open_nic
    from nicoffload.cli.flexiv_show import counted
    from nicoffload.flexivoffload.policy import load_policy
    from nicoffload.flexivoffload.session import replay_capture
    from nicoffload.flexivoffload.vms import load_vms

    policy = load_policy(args.policy)
    vms = load_vms(args.vms) if args.vms else None
    began_s = time.perf_counter()
    with (
        open_nic(args.nic, state_dir=getattr(args, "state_dir", None), owner="flexivoffload") as nic,
        output.progress(f"replaying {capture.name}", total=1000) as tell,
    ):
        report = replay_capture(capture, nic, policy, vms, progress=lambda done: tell(int(done * 1000)))
    took_s = time.perf_counter() - began_s
    rate = report.total.packets / took_s if took_s else 0.0
    output.note(
        f"replayed {counted(report.total.packets, 'packet')} in {took_s:.2f} s, {rate:,.0f} packets/s"
    )
    return report


def _replay(args: argparse.Namespace, output: Output) -> int:
    if args.html:
        # Before the work, not after it.
        from nicoffload.flexivoffload.html import check_tools

        check_tools()
    report = _run_replay(args, output, args.capture)
    if output.as_json:
        from nicoffload.flexivoffload.report_json import report_to_json

        output.json("replay-report", report_to_json(report))
    else:
        from nicoffload.cli.flexiv_show import show_report

        show_report(report, output, top=args.top)
    if args.html:
        from nicoffload.flexivoffload.html import write_html

        write_html(report, args.html)
        output.note(f"report: {args.html}")
    return 0


def _why(args: argparse.Namespace, output: Output) -> int:
    from nicoffload.flexivoffload.explain import explain, find_flow

    document, asked = _report_of(args, output)
    flow = find_flow(document, asked)
    if output.as_json:
        output.json("why", {"start_ns": document["start_ns"], "flow": flow})
        return 0
    for line in explain(flow, document["start_ns"]):
        output.line(line)
    return 0


def _report_of(args: argparse.Namespace, output: Output) -> tuple[dict[str, Any], str]:
    if args.report:
        asked = args.flow or args.capture
        if not asked:
            raise InvalidRequestError("which flow?", path="FLOW", hint="flexivoffload why --report FILE FLOW")
        return _load_report(args.report), asked
    missing = [name for name in ("capture", "flow", "nic", "policy") if not getattr(args, name)]
    if missing:
        raise InvalidRequestError(
            f"{', '.join(missing)} missing",
            hint="flexivoffload why CAPTURE --flow FLOW --nic NIC --policy POLICY, or why --report FILE FLOW",
        )
    from nicoffload.flexivoffload.explain import check_question
    from nicoffload.flexivoffload.report_json import report_to_json

    check_question(args.flow)  # before the work, not after it
    return report_to_json(_run_replay(args, output, Path(args.capture))), args.flow


def _load_report(path: Path) -> dict[str, Any]:
    from nicoffload.codec.documents import load_json
    from nicoffload.schema import validate

    try:
        document: dict[str, Any] = load_json(path.read_text("utf-8"), str(path))
    except OSError as cause:
        raise InvalidRequestError(cause.strerror or str(cause), path=str(path)) from cause
    except ValueError as cause:
        raise InvalidRequestError(
            cause.message if isinstance(cause, InvalidRequestError) else f"{path}: not JSON: {cause}",
            hint="write it with: flexivoffload replay … --json > FILE",
        ) from cause
    validate(document, "replay-report", source=str(path))
    return document


def _policy_check(args: argparse.Namespace, output: Output) -> int:
    from nicoffload.cli.flexiv_show import counted, policy_rows
    from nicoffload.flexivoffload.policy import load_policy

    policy = load_policy(args.policy)
    rows = policy_rows(policy)
    if output.as_json:
        names = ("tier", "rule", "priority", "flows", "decision")
        output.json(
            "policy-check",
            {
                "policy": policy.source,
                "default": "offload" if policy.default_offload else "onload",
                "rules": [dict(zip(names, row, strict=True)) for row in rows],
            },
        )
        return 0
    output.table(("tier", "rule", "priority", "flows", "decision"), rows, right=("priority",))
    output.line()
    output.line(f"{policy.source}: {counted(len(policy.rules), 'rule')}, no contradiction")
    return 0


if __name__ == "__main__":
    sys.exit(main())
