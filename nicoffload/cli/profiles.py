"""``nicoffload profiles [FAMILY]``: what is known of each family of NICs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nicoffload.cli.arguments import add_common
from nicoffload.cli.report import error_to_json
from nicoffload.cli.session import Session
from nicoffload.errors import NicOffloadError

if TYPE_CHECKING:
    from nicoffload.profiles.types import NicProfile, Rate, Table


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "profiles",
        help="list NIC families, or show one",
        description="List the NIC families that the plugins know, or show what one can do and how it fails.",
    )
    parser.add_argument("family", nargs="?", metavar="FAMILY", help="show this one")
    add_common(parser)
    parser.set_defaults(command=_profiles)


def _profiles(args: argparse.Namespace, session: Session) -> int:
    catalog = session.registry().profiles
    if args.family:
        return _one(catalog.get(args.family), session)
    profiles, broken = [], []
    for family in catalog.families():
        try:
            profiles.append(catalog.get(family))
        except NicOffloadError as fault:
            broken.append(fault)
    if session.output.as_json:
        document = {"failed": [error_to_json(failure) for failure in broken]}
        session.answer("profiles", {"profiles": [_summary(profile) for profile in profiles]} | document)
    else:
        rows = [
            (
                p.family,
                p.title,
                p.vendor,
                p.driver,
                ", ".join(table.name for table in p.tables) or "-",
                _max_vfs(p),
            )
            for p in profiles
        ]
        session.output.table(("family", "title", "vendor", "driver", "tables", "VFs"), rows, right=("VFs",))
        for failure in broken:
            session.output.error(failure)
    return broken[0].exit_code if broken else 0


def _one(profile: NicProfile, session: Session) -> int:
    if session.output.as_json:
        session.answer("profile", {"profile": _plain(profile.document)})
        return 0
    out = session.output
    out.line(f"{profile.family}: {profile.title} ({profile.vendor}, driver {profile.driver})")
    out.line(f"{profile.provenance.kind}: {profile.provenance.text}")
    out.line(f"VFs: {_max_vfs(profile)}{f', made by {profile.sriov.method}' if profile.sriov else ''}")
    out.line(f"guarantee: {_rate_text(profile.rates.min_tx)}; limit: {_rate_text(profile.rates.max_tx)}")
    if profile.tables:
        out.line()
        out.table(
            ("table", "mechanism", "rows", "masks", "actions", "counts"),
            [_table_row(table) for table in profile.tables],
        )
    if profile.quirks:
        out.line()
        out.table(("quirk", "what happens", "source"), [(q.id, q.text, q.source) for q in profile.quirks])
    return 0


def _summary(profile: NicProfile) -> dict[str, Any]:
    return {
        "family": profile.family,
        "title": profile.title,
        "vendor": profile.vendor,
        "driver": profile.driver,
        "provenance": profile.provenance.kind,
        "tables": [table.name for table in profile.tables],
        "max_vfs": profile.sriov.max_vfs if profile.sriov else 0,
    }


def _max_vfs(profile: NicProfile) -> str:
    if profile.sriov is None:
        return "none"
    return "unknown" if profile.sriov.max_vfs is None else str(profile.sriov.max_vfs)


def _rate_text(rate: Rate) -> str:
    if rate.supported != "yes":
        return rate.supported
    return f"in steps of {rate.quantum_bps:,} bit/s" if rate.quantum_bps > 1 else "yes"


def _table_row(table: Table) -> tuple[str, ...]:
    counts = ", ".join(sorted(table.counters.values)) if table.counters else "nothing"
    rows = "unknown" if table.rows is None else str(table.rows)
    return table.name, table.mechanism, rows, table.mask_model, ", ".join(sorted(table.actions)), counts


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
