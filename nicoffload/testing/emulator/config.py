"""How an emulated NIC is at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nicoffload.testing.emulator import assumptions
from nicoffload.testing.emulator.entry import Bank
from nicoffload.testing.emulator.spec import TableSpec, read_table
from nicoffload.testing.emulator.tables import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the user asked for.

    Args:
        seed: Settles what a profile leaves undefined.
        link_bps: Speed of the port.
        vfs: How many VFs exist at first; None for the default.
        mode: Eswitch mode at first; empty for the default.
        prepared: Whether VFs exist, features are on and the eswitch is in switchdev mode where it can be.
        pf_queues: Receive queues of the PF.
        rows: Table to its capacity, where it is not the profile's.
    """

    seed: int = 0
    link_bps: int = assumptions.LINK_BPS
    vfs: int | None = None
    mode: str = ""
    prepared: bool = True
    pf_queues: int = assumptions.PF_QUEUES
    rows: Mapping[str, int] = field(default_factory=dict)


def make_tables(document: Mapping[str, Any], config: Config) -> list[Table]:
    """Return the tables of a profile, empty; tables of one bank share its rows."""
    specs = [read_table(doc, config.rows.get(doc["name"])) for doc in document["tables"]]
    banks: dict[str, Bank] = {}
    for spec in specs:
        banks.setdefault(spec.bank, Bank(spec.rows))
    tables = [Table(spec, banks[spec.bank], config.seed) for spec in specs]
    for table in tables:
        name = table.spec.name
        table.rivals = [t for t in tables if t.spec.name in table.spec.excludes or name in t.spec.excludes]
        table.siblings = {other.spec.name: other for other in tables if other.bank is table.bank}
    return tables


def vf_limit(document: Mapping[str, Any]) -> int:
    """Return how many VFs there can be."""
    sriov = document["sriov"]
    return 0 if sriov is None else sriov["max_vfs"] or assumptions.MAX_VFS


def first_mode(document: Mapping[str, Any], config: Config) -> str:
    """Return the eswitch mode at first; a NIC without modes switches as in legacy mode."""
    modes = document["eswitch"]["modes"] if document["eswitch"] else ["legacy"]
    if config.mode:
        return config.mode
    return "switchdev" if config.prepared and "switchdev" in modes else "legacy"


def first_features(tables: Sequence[Table], config: Config) -> dict[str, bool]:
    """Return which features are on at first; ``mqprio`` stands for traffic classes that are set up."""
    needs = [table.spec.needs for table in tables if "feature" in table.spec.needs]
    features = {
        need["feature"]: config.prepared or need.get("feature_default", "on") == "on" for need in needs
    }
    return {**features, "mqprio": config.prepared}


def first_vfs(document: Mapping[str, Any], config: Config) -> int:
    """Return how many VFs there are at first."""
    if config.vfs is not None:
        return config.vfs
    return min(assumptions.START_VFS, vf_limit(document)) if config.prepared else 0


def refresh_ns(spec: TableSpec) -> int:
    """Return how old the counters of a table may be when they are read."""
    return int(1e9 * ((spec.counters or {}).get("refresh_s") or 0))
