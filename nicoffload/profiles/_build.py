"""Turns a sound profile document into values. Every default of the schema is applied here and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from nicoffload.profiles.types import (
    ActionRules,
    Caveat,
    Counters,
    DevlinkRate,
    Duplicate,
    Errors,
    Eswitch,
    FieldLimit,
    FieldRule,
    FlowType,
    HashFacts,
    Needs,
    NicProfile,
    NotTogether,
    OneTarget,
    PciIds,
    Provenance,
    Quirk,
    Rate,
    Rates,
    Representor,
    Setting,
    Sriov,
    Statistics,
    Table,
    TableShape,
    Together,
    VfFacts,
    VfStride,
    Warns,
)

Document = Mapping[str, Any]

_NO_LIMIT = sys.maxsize
_SETTINGS = ("mac", "vlan", "qos", "vlan_protocols", "spoof_check", "trust", "link_state")


def build_profile(document: Document) -> NicProfile:
    """Return the value of a document that was found sound."""
    statistics = document["statistics"]
    rates = document["rates"]
    representor = statistics.get("representor")
    quirks = tuple(_quirk(quirk) for quirk in document["quirks"])
    return NicProfile(
        family=document["family"],
        title=document["title"],
        vendor=document["vendor"],
        driver=document["driver"],
        vf_driver=document.get("vf_driver"),
        provenance=Provenance(**document["provenance"]),
        pci_ids=PciIds(**_tuples(document["pci_ids"])),
        sriov=_optional(document["sriov"], _sriov),
        eswitch=_optional(document["eswitch"], _eswitch),
        tables=tuple(_table(table, quirks) for table in document["tables"]),
        vf=_optional(document["vf"], _vf),
        rates=Rates(
            min_tx=_rate(rates["min_tx"], "guarantee"),
            max_tx=_rate(rates["max_tx"], "limit"),
            devlink=_optional(rates["devlink"], _devlink_rate),
            min_before_max=rates.get("min_before_max", False),
        ),
        statistics=Statistics(
            vf=_optional(statistics["vf"], _counters),
            port=_optional(statistics["port"], _counters),
            representor=None if representor is None else Representor(**representor),
        ),
        quirks=quirks,
        document=MappingProxyType(dict(document)),
    )


def _optional(part: Document | None, build: Any) -> Any:
    return None if part is None else build(part)


def _tuples(part: Document) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in part.items()}


def _errors(part: Document) -> Errors:
    return MappingProxyType(dict(part))


def _sriov(part: Document) -> Sriov:
    # Without sriov_configure in the driver the kernel answers ENOENT (drivers/pci/iov.c sriov_numvfs_store).
    write = part.get("sysfs_write", "works" if part["method"] in {"sysfs", "links"} else "ENOENT")
    left = part.get("pf_queues_with_vfs") or ()
    steps = (
        ((_NO_LIMIT, left),) if isinstance(left, int) else ((one["max_vfs"], one["queues"]) for one in left)
    )
    return Sriov(
        **{
            **part,
            "sysfs_write": write,
            "errors": _errors(part["errors"]),
            "pf_queues_with_vfs": tuple(steps),
        }
    )


def _eswitch(part: Document) -> Eswitch:
    return Eswitch(**{**_tuples(part), "errors": _errors(part["errors"])})


def _vf(part: Document) -> VfFacts:
    settings = {name: Setting(**_tuples(part[name])) for name in _SETTINGS}
    return VfFacts(
        **settings,
        errors=_errors(part["errors"]),
        source=part["source"],
        busy_while_resetting=part.get("busy_while_resetting", ""),
    )


def _rate(part: Document, meaning: str) -> Rate:
    return Rate(**{"meaning": meaning, **_tuples(part)})


def _devlink_rate(part: Document) -> DevlinkRate:
    return DevlinkRate(**{**_tuples(part), "errors": _errors(part["errors"])})


def _counters(part: Document) -> Counters:
    return Counters(**{**part, "values": frozenset(part["values"])})


def _quirk(part: Document) -> Quirk:
    return Quirk(**{**part, "warns": _optional(part.get("warns"), _warns)})


def _warns(part: Document) -> Warns:
    return Warns(
        table=part["table"],
        actions=frozenset(part.get("actions", ())),
        fields=frozenset(part.get("fields", ())),
    )


def _table(part: Document, quirks: Sequence[Quirk]) -> Table:
    capacity = part["capacity"]
    slots = part["slots"]
    duplicate = part.get("duplicate", {"answer": "unknown"})
    return Table(
        name=part["name"],
        mechanism=part["mechanism"],
        bank=part.get("bank", part["name"]),
        rows=capacity["rows"],
        rows_per_rule=capacity.get("rows_per_rule", 1),
        limits=tuple(FieldLimit(**limit) for limit in capacity.get("limits", ())),
        capacity_note=capacity.get("note", ""),
        picker=slots["picker"],
        occupied=slots.get("occupied", ""),
        erases_old=slots.get("erases_old", True),
        first_slot=slots.get("first", 0),
        mask_model=part["mask_model"],
        flow_types=tuple(_flow_type(flow_type) for flow_type in part["flow_types"]),
        shapes=tuple(_shape(shape) for shape in part.get("shapes", ())),
        combine=part.get("combine", "and"),
        empty_rule=part.get("empty_rule"),
        priority=part["priority"],
        duplicate=Duplicate(
            answer=duplicate["answer"],
            allowed_copies=duplicate.get("allowed_copies", 1),
            ignores=frozenset(duplicate.get("ignores", ())),
        ),
        actions=frozenset(part["actions"]),
        vf_queue=part.get("vf_queue", False),
        vf_stride=_optional(part.get("vf_stride"), lambda facts: VfStride(**facts)),
        action_rules=_action_rules(part.get("action_rules", {})),
        counters=_optional(part["counters"], _counters),
        errors=_errors(part["errors"]),
        source=part["source"],
        needs=Needs(**_tuples(part.get("needs", {}))),
        excludes=tuple(part.get("excludes", ())),
        hash=_optional(part.get("hash"), lambda facts: HashFacts(**facts)),
        caveats=tuple(
            Caveat(text=quirk.text, actions=quirk.warns.actions, fields=quirk.warns.fields)
            for quirk in quirks
            if quirk.warns is not None and quirk.warns.table == part["name"]
        ),
        one_target_per_value=tuple(OneTarget(**one) for one in part.get("one_target_per_value", ())),
        note=part.get("note", ""),
    )


def _flow_type(part: Document) -> FlowType:
    return FlowType(
        name=part["name"],
        fixed=MappingProxyType({field: tuple(values) for field, values in part["fixed"].items()}),
        fields=MappingProxyType({field: _field_rule(rule) for field, rule in part["fields"].items()}),
        field_errors=MappingProxyType(dict(part.get("field_errors", {}))),
        at_least_one=tuple(part.get("at_least_one", ())),
        together=tuple(
            Together(fields=tuple(group["fields"]), errno=group["errno"])
            for group in part.get("together", ())
        ),
        not_together=tuple(
            NotTogether(fields=tuple(group["fields"]), errno=group["errno"])
            for group in part.get("not_together", ())
        ),
        implicit=tuple(part.get("implicit", ())),
        duplicate_ignores=frozenset(part.get("duplicate_ignores", ())),
        source=part.get("source", ""),
    )


def _field_rule(part: str | Document) -> FieldRule:
    if isinstance(part, str):
        return FieldRule(mask=part)
    values: Sequence[int] | None = part.get("values")
    return FieldRule(**{**part, "values": None if values is None else frozenset(values)})


def _shape(part: Document) -> TableShape:
    return TableShape(
        name=part.get("name", ""),
        flow_types=frozenset(part["flow_types"]),
        fields=frozenset(part["fields"]),
        rank=part.get("rank", 0),
    )


def _action_rules(part: Document) -> ActionRules:
    set_fields = part.get("set_fields")
    return ActionRules(
        at_most=MappingProxyType(dict(part.get("at_most", {}))),
        order=tuple(frozenset(level) for level in part.get("order", ())),
        not_together=tuple(frozenset(group) for group in part.get("not_together", ())),
        set_fields=None if set_fields is None else frozenset(set_fields),
        errno=part.get("errno", ""),
        source=part.get("source", ""),
    )
