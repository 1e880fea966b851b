"""What a table makes of a rule's masks: refused, compared as asked, or silently compared less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nicoffload.model import FIELDS, RANGE_MASK, Shape
from nicoffload.testing.emulator import assumptions
from nicoffload.testing.emulator.answer import Refused, refuse
from nicoffload.testing.emulator.spec import FieldSpec, TableSpec, TypeSpec

Values = tuple[int, ...]
Filter = tuple[Shape, Values]

_GROUP_BIT = 1 << 40
_IMPLICIT_VALUES = {"eth_dst": assumptions.PF_MAC}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How rules of one shape and flow type are programmed, whatever their values.

    Args:
        shape: What is compared in the end, silently widened or narrowed.
        picks: Where in the rule's values those of `shape` are; None where all are, in order.
        added: Values of fields that the NIC compares on its own, behind the picked ones.
        parts: Positions in `shape` of each filter that is programmed; more than one where fields are or-ed.
        checks: Position in the rule's values, and what may stand there: (position, field, rule).
        fixed: Position in the rule's values, and the exact values that the flow type has there.
        inputs: Fields beyond those that the flow type fixes.
        rank: Precedence of the shape, lowest first; 0 where shapes have none.
    """

    shape: Shape
    picks: tuple[int, ...] | None
    added: Values
    parts: tuple[tuple[int, ...], ...]
    checks: tuple[tuple[int, str, FieldSpec], ...]
    fixed: tuple[tuple[int, str, frozenset[int]], ...]
    inputs: frozenset[str]
    rank: int

    def filters(self, values: Values) -> tuple[Filter, ...]:
        """Return what is programmed for a rule with these values."""
        kept = values if self.picks is None else (*(values[at] for at in self.picks), *self.added)
        if len(self.parts) == 1:
            return ((self.shape, kept),)
        return tuple(
            (tuple(self.shape[at] for at in part), tuple(kept[at] for at in part)) for part in self.parts
        )


def make_recipe(table: TableSpec, kind: TypeSpec, shape: Shape) -> Recipe:
    """Return what a table does with rules of a shape.

    Raises:
        Refused: It takes none, whatever their values.
    """
    _check_fixed(table, kind, shape)
    kept = [at for at, (name, mask) in enumerate(shape) if _is_compared(table, kind, name, mask)]
    kept = _drop_parts(kind, shape, kept)
    matched = {shape[at][0] for at in kept}
    inputs = frozenset(matched - {name for name, values in kind.fixed.items() if values})
    _check_contents(table, kind, matched, inputs)
    rank = _rank(table, kind, inputs)
    added = tuple(name for name in kind.implicit if name not in matched)
    compared = (*(shape[at] for at in kept), *((name, FIELDS[name].full_mask) for name in added))
    return Recipe(
        shape=compared,
        picks=None if len(kept) == len(shape) and not added else tuple(kept),
        added=tuple(_IMPLICIT_VALUES.get(name, 0) for name in added),
        parts=_parts(table, compared, inputs),
        checks=_value_checks(kind, shape),
        fixed=tuple((at, name, kind.fixed[name]) for at, (name, _) in enumerate(shape) if name in kind.fixed),
        inputs=inputs,
        rank=rank,
    )


def check_values(table: TableSpec, recipe: Recipe, values: Sequence[int]) -> None:
    """Look at a rule's values.

    Raises:
        Refused: One of them is not taken.
    """
    for at, name, allowed in recipe.fixed:
        if values[at] not in allowed:
            raise Refused(
                table.errors.get("flow_type") or "EINVAL",
                "flow_type",
                f"{name} of another flow type",
                f"/match/{name}",
            )
    for at, name, rule in recipe.checks:
        value = values[at]
        outside = (
            (rule.values is not None and value not in rule.values)
            or (rule.low is not None and value < rule.low)
            or (rule.high is not None and value > rule.high)
        )
        if outside:
            refuse(
                table.errors,
                "value",
                f"value of {name} is not taken",
                path=f"/match/{name}",
                errno=rule.value_errno,
            )


def _check_fixed(table: TableSpec, kind: TypeSpec, shape: Shape) -> None:
    masks = dict(shape)
    for name, values in kind.fixed.items():
        wrong = name in masks if not values else masks.get(name) != FIELDS[name].full_mask
        if wrong:
            answer = table.errors.get("flow_type") or "EINVAL"
            raise Refused(answer, "flow_type", f"not of flow type {kind.name}: {name}", f"/match/{name}")
    for name, rule in kind.fields.items():
        if rule.rule in ("required", "group_bit") and name not in masks:
            refuse(
                table.errors,
                "required",
                f"{name} must be matched",
                path=f"/match/{name}",
                errno=rule.mask_errno,
            )


def _is_compared(table: TableSpec, kind: TypeSpec, name: str, mask: int) -> bool:
    if name in kind.fixed:
        return True
    path, rule = f"/match/{name}", kind.fields.get(name)
    if rule is None:
        refuse(table.errors, "field", f"can't match {name}", path=path, errno=kind.field_errors.get(name))
        return False
    if mask == RANGE_MASK:
        answer = rule.mask_errno or _mask_errno(table, name) or "EINVAL"
        raise Refused(answer, "partial_mask", f"no ranges of {name}", path)
    if rule.rule == "ignored":
        return False
    if _mask_fits(rule.rule, name, mask):
        return True
    if rule.rule != "exact_or_ignored":
        stated = rule.mask_errno or _mask_errno(table, name)
        refuse(table.errors, "partial_mask", f"mask of {name} is not taken", path=path, errno=stated)
    return False


def _mask_errno(table: TableSpec, name: str) -> str | None:
    vlan = table.errors.get("vlan_mask") if name in ("vlan_vid", "vlan_dei", "vlan_pcp") else None
    return vlan or table.errors.get("partial_mask", "EINVAL")


def _mask_fits(rule: str, name: str, mask: int) -> bool:
    full = FIELDS[name].full_mask
    if rule == "group_bit":
        return mask == _GROUP_BIT
    if rule == "any" or mask == full:
        return True
    if rule == "prefix":
        host = full ^ mask
        return host & (host + 1) == 0
    return rule == "exact_or_group_bit" and mask == _GROUP_BIT


def _drop_parts(kind: TypeSpec, shape: Shape, kept: list[int]) -> list[int]:
    for group, errno in kind.together:
        exact = {shape[at][0] for at in kept if shape[at][1] == FIELDS[shape[at][0]].full_mask}
        present = {shape[at][0] for at in kept} & group
        if not present or group <= exact:
            continue
        if errno is not None:
            text = f"{', '.join(sorted(group))} only together and exact"
            raise Refused(errno, "combination", text, f"/match/{min(present)}")
        kept = [at for at in kept if shape[at][0] not in group]
    return kept


def _check_contents(table: TableSpec, kind: TypeSpec, matched: set[str], inputs: frozenset[str]) -> None:
    if not matched and table.empty_rule is not None:
        raise Refused(table.empty_rule, "empty_rule", "the rule compares nothing", "/match")
    if kind.at_least_one and not inputs & kind.at_least_one:
        refuse(
            table.errors, "required", f"needs one of {', '.join(sorted(kind.at_least_one))}", path="/match"
        )
    for group, errno in kind.not_together:
        if group <= matched:
            raise Refused(errno, "combination", f"not together: {', '.join(sorted(group))}", "/match")


def _rank(table: TableSpec, kind: TypeSpec, inputs: frozenset[str]) -> int:
    if table.mask_model not in ("shapes", "firmware_list"):
        return 0
    for listed in table.shapes:
        if kind.name in listed.flow_types and inputs == listed.fields:
            return listed.rank
    refuse(
        table.errors, "combination", "no such combination of fields", default="EPROTONOSUPPORT", path="/match"
    )
    return len(table.shapes)


def _parts(table: TableSpec, compared: Shape, inputs: frozenset[str]) -> tuple[tuple[int, ...], ...]:
    every = tuple(range(len(compared)))
    if table.combine == "and" or len(inputs) < 2:
        return (every,)
    common = tuple(at for at in every if compared[at][0] not in inputs)
    return tuple((*common, at) for at in every if compared[at][0] in inputs)


def _value_checks(kind: TypeSpec, shape: Shape) -> tuple[tuple[int, str, FieldSpec], ...]:
    found = ((at, name, kind.fields[name]) for at, (name, _) in enumerate(shape) if name in kind.fields)
    return tuple(
        (at, name, rule)
        for at, name, rule in found
        if rule.values is not None or rule.low is not None or rule.high is not None
    )
