"""What a command would do, shown as steps with the shell commands that would do the same."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nicoffload.cli.session import Session

if TYPE_CHECKING:
    from nicoffload.nic import DesiredState, Nic, Plan

_SIGNS = {"add": "+", "remove": "-"}


def add_previews(parser: argparse.ArgumentParser) -> None:
    """Add ``--dry-run`` and ``--explain`` to a command that changes a NIC."""
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    parser.add_argument("--explain", action="store_true", help="show also the commands that do the same")


def previewed(nic: Nic, desired: DesiredState, args: argparse.Namespace, session: Session) -> bool:
    """Show what it takes to bring a NIC to a state where that was asked for.

    Args:
        nic: The NIC.
        desired: The state.
        args: Has what `add_previews` adds.
        session: Where to print. With ``--json`` only a dry run prints: there is one document.

    Returns:
        Whether that was all that was asked for.
    """
    if args.dry_run or (args.explain and not session.output.as_json):
        plan = nic.plan(desired)
        if args.dry_run:
            print_plan(plan, args, session, emulated=nic.info.emulated)
        else:
            _print_commands(plan, session, emulated=nic.info.emulated)
    return bool(args.dry_run)


def print_plan(
    plan: Plan, args: argparse.Namespace, session: Session, *, emulated: bool, applied: bool = False
) -> None:
    """Print a plan.

    Args:
        plan: The plan.
        args: Has the NIC's name, and whether to ``explain``.
        session: Where to print.
        emulated: Whether the NIC is.
        applied: Whether it was carried out, which JSON tells.
    """
    from nicoffload.codec import to_json

    if session.output.as_json:
        session.answer(
            "apply" if applied else "plan",
            {
                "nic": args.nic,
                "steps": to_json(plan.steps),
                "disruption": plan.disruption.value,
                "applied": applied,
            },
        )
        return
    if not plan.steps:
        session.output.line("Nothing to do.")
        return
    session.output.table(
        ("", "step", "of", "what", "disruption"),
        [
            (
                _SIGNS.get(step.action.partition("_")[0], "~"),
                step.action,
                step.target,
                step.detail,
                step.disruption.value,
            )
            for step in plan.steps
        ],
    )
    if args.explain:
        _print_commands(plan, session, emulated=emulated)
    session.output.line(f"{count_text(plan)}, disruption {plan.disruption.value}.")


def count_text(plan: Plan) -> str:
    """Return how many steps a plan has, in words."""
    return "1 step" if len(plan.steps) == 1 else f"{len(plan.steps)} steps"


def _print_commands(plan: Plan, session: Session, *, emulated: bool) -> None:
    from nicoffload.cli.show import equivalent_lines

    for line in equivalent_lines(plan.steps, emulated=emulated) if plan.steps else ():
        session.output.line(line)
