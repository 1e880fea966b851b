"""Ask every NIC the same question: can it hold this rule, and if not, what instead?

Usage: python examples/choose_a_nic.py [RULE]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from nicoffload import Nic, load_registry, open_nic
from nicoffload.codec import parse_rule
from nicoffload.compiler import Refusal
from nicoffload.errors import NicOffloadError
from nicoffload.model import FlowRule


def answer(nic: Nic, rule: FlowRule) -> tuple[str, str]:
    """Return whether a NIC can hold a rule, and what is to be said about that."""
    if not nic.profile.tables:
        return "no", "has no filter table"
    verdict = nic.check(rule)
    if not isinstance(verdict, Refusal):
        return "yes", f"in table {verdict.table}"
    # Reasons come with the closest table's first; the ladder goes from the finest rule to the coarsest.
    why = verdict.reasons[0].message
    coarser = [rung for rung in verdict.ladder if not rung.reasons]
    return "no", f"{why}; instead: {coarser[0].name}, {coarser[0].also_catches}" if coarser else why


def answers(rule: FlowRule) -> Iterator[tuple[str, str, str]]:
    """Yield name, verdict and explanation of each NIC."""
    registry = load_registry()
    for device in registry.devices():
        try:
            with open_nic(device.name, registry=registry) as nic:
                yield (device.name, *answer(nic, rule))
        except NicOffloadError as error:  # one NIC that can't be opened says nothing about the others
            yield device.name, "?", str(error)


def main(text: str = "tcp,nw_src=10.0.0.0/8,tp_dst=443 actions=vf:1") -> int:
    """Print a table and return an exit code: 0 where a NIC can hold the rule."""
    try:
        found = list(answers(parse_rule(text)))
    except NicOffloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    table = Table("NIC", "can it", "how, or why not", title=text, title_justify="left", box=None)
    for row in sorted(found, key=lambda row: (row[1] != "yes", row[0])):
        table.add_row(*row)
    Console().print(table)
    return 0 if any(row[1] == "yes" for row in found) else 3


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
