"""``nicoffload stats NIC``: counters of the port and of VFs."""

from __future__ import annotations

import argparse
from typing import Any

from nicoffload.cli.arguments import add_common, add_nic
from nicoffload.cli.session import Session

_COUNTERS = ("rx_packets", "rx_bytes", "rx_dropped", "tx_packets", "tx_bytes", "tx_dropped")


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "stats",
        help="show the counters of port and VFs",
        description="Show the counters of port and VFs. A dash: there is no such counter, which is not zero.",
    )
    add_nic(parser)
    add_common(parser)
    parser.set_defaults(command=_stats)


def _stats(args: argparse.Namespace, session: Session) -> int:
    from nicoffload.codec import to_json

    with session.open(args.nic) as nic:
        rows = list(nic.stats())
    if session.output.as_json:
        session.answer("stats", {"nic": args.nic, "counters": to_json(rows)})
        return 0
    columns = ("of", *(name.replace("_", " ") for name in _COUNTERS), "bytes are")
    session.output.table(
        columns,
        [
            (
                row.name,
                *("-" if getattr(row, name) is None else str(getattr(row, name)) for name in _COUNTERS),
                row.facts.byte_basis.value if row.facts else "-",
            )
            for row in rows
        ],
        right=columns[1:-1],
    )
    return 0
