"""The profile's document as the emulator reads it, by its own code: no reading is shared with the SDK's compiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nicoffload.testing.emulator import assumptions

Doc = Mapping[str, Any]
Errors = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """What a flow type does with one field."""

    rule: str
    values: frozenset[int] | None
    low: int | None
    high: int | None
    mask_errno: str | None
    value_errno: str | None


@dataclass(frozen=True, slots=True)
class TypeSpec:
    """One flow type."""

    name: str
    fixed: Mapping[str, frozenset[int]]
    fields: Mapping[str, FieldSpec]
    field_errors: Mapping[str, str]
    at_least_one: frozenset[str]
    together: tuple[tuple[frozenset[str], str | None], ...]
    not_together: tuple[tuple[frozenset[str], str], ...]
    ignores: frozenset[str]
    implicit: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListedShape:
    """One combination of compared fields that a table takes."""

    flow_types: frozenset[str]
    fields: frozenset[str]
    rank: int


@dataclass(frozen=True, slots=True)
class HashSpec:
    """How a hashed table finds a row."""

    depth: int
    function: str
    errno: str


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One filter table."""

    name: str
    bank: str
    rows: int
    rows_assumed: bool
    rows_per_rule: int
    limits: tuple[tuple[str, int, str], ...]
    one_target: tuple[tuple[str, str], ...]
    picker: str
    occupied: str
    erases_old: bool
    first_slot: int
    mask_model: str
    types: Mapping[str, TypeSpec]
    shapes: tuple[ListedShape, ...]
    combine: str
    empty_rule: str | None
    priority: str
    duplicate: str
    copies: int
    ignores: frozenset[str]
    actions: frozenset[str]
    vf_queue: bool
    vf_stride: Doc | None
    at_most: Mapping[str, int]
    order: tuple[frozenset[str], ...]
    not_together: tuple[frozenset[str], ...]
    set_fields: frozenset[str] | None
    action_errno: str | None
    counters: Doc | None
    errors: Errors
    needs: Doc
    excludes: tuple[str, ...]
    hash: HashSpec | None


def read_table(doc: Doc, rows: int | None) -> TableSpec:
    """Return one table of a document.

    Args:
        doc: The table's part of the document.
        rows: Capacity that the user asked for; None for the profile's.
    """
    capacity, slots = doc["capacity"], doc["slots"]
    rules, duplicate = doc.get("action_rules", {}), doc.get("duplicate", {"answer": "allowed"})
    stated = rows or capacity["rows"]
    shapes = tuple(
        ListedShape(frozenset(s["flow_types"]), frozenset(s["fields"]), s.get("rank", at))
        for at, s in enumerate(doc.get("shapes", ()))
    )
    types = {item["name"]: _read_type(item) for item in doc["flow_types"]}
    if doc["mask_model"] == "firmware_list" and not shapes:
        shapes = tuple(
            ListedShape(frozenset({name}), fields, at)
            for at, (name, fields) in enumerate(assumptions.firmware_list(types))
        )
    return TableSpec(
        name=doc["name"],
        bank=doc.get("bank", doc["name"]),
        rows=stated or (assumptions.SWITCH_ROWS if slots["picker"] == "none" else assumptions.TABLE_ROWS),
        rows_assumed=not stated,
        rows_per_rule=capacity.get("rows_per_rule", 1),
        limits=tuple((item["field"], item["rows"], item["errno"]) for item in capacity.get("limits", ())),
        one_target=tuple((item["field"], item["errno"]) for item in doc.get("one_target_per_value", ())),
        picker=slots["picker"],
        occupied=slots.get("occupied", "replace"),
        erases_old=slots.get("erases_old", True),
        first_slot=slots.get("first", 0),
        mask_model=doc["mask_model"],
        types=types,
        shapes=shapes,
        combine=doc.get("combine", "and"),
        empty_rule=doc.get("empty_rule"),
        priority=doc["priority"],
        # No source states what becomes of the second rule: assume that the hardware takes both.
        duplicate="allowed" if duplicate["answer"] == "unknown" else duplicate["answer"],
        copies=duplicate.get("allowed_copies", 1),
        ignores=frozenset(duplicate.get("ignores", ())),
        actions=frozenset(doc["actions"]),
        vf_queue=doc.get("vf_queue", False),
        vf_stride=doc.get("vf_stride"),
        at_most=rules.get("at_most", {}),
        order=tuple(frozenset(level) for level in rules.get("order", ())),
        not_together=tuple(frozenset(group) for group in rules.get("not_together", ())),
        set_fields=frozenset(rules["set_fields"]) if "set_fields" in rules else None,
        action_errno=rules.get("errno"),
        counters=doc["counters"],
        errors=doc["errors"],
        needs=doc.get("needs", {}),
        excludes=tuple(doc.get("excludes", ())),
        hash=_read_hash(doc.get("hash")),
    )


def _read_hash(doc: Doc | None) -> HashSpec | None:
    return HashSpec(doc["search_depth"], doc["function"], doc["errno"]) if doc else None


def _read_type(doc: Doc) -> TypeSpec:
    return TypeSpec(
        name=doc["name"],
        fixed={name: frozenset(values) for name, values in doc["fixed"].items()},
        fields={name: _read_field(rule) for name, rule in doc["fields"].items()},
        field_errors=doc.get("field_errors", {}),
        at_least_one=frozenset(doc.get("at_least_one", ())),
        together=tuple((frozenset(item["fields"]), item["errno"]) for item in doc.get("together", ())),
        not_together=tuple(
            (frozenset(item["fields"]), item["errno"]) for item in doc.get("not_together", ())
        ),
        ignores=frozenset(doc.get("duplicate_ignores", ())),
        implicit=tuple(doc.get("implicit", ())),
    )


def _read_field(doc: str | Doc) -> FieldSpec:
    if isinstance(doc, str):
        return FieldSpec(doc, None, None, None, None, None)
    values = frozenset(doc["values"]) if "values" in doc else None
    return FieldSpec(
        doc["mask"], values, doc.get("min"), doc.get("max"), doc.get("mask_errno"), doc.get("value_errno")
    )
