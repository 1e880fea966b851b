"""Whether a match fits a flow type: which fields it compares, under which masks, in which combination.

Everything here depends on the shape of a match and on the values that tell flow types apart, not on the other values:
100,000 rules of one shape are judged once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from nicoffload.compiler.ranges import range_to_masks
from nicoffload.compiler.words import exact_text, mask_text, names, text_name, value_text
from nicoffload.driver.contract import TableState
from nicoffload.errors import Reason
from nicoffload.model import FIELDS, RANGE_MASK, Shape
from nicoffload.profiles.types import Errors, FieldRule, FlowType, NotTogether, Table, Together

GROUP_BIT = 1 << 40
"""The multicast bit of a MAC address."""

_VLAN = frozenset({"vlan_vid", "vlan_dei", "vlan_pcp"})

_SHOWN_MASKS = 8

_WIDER = "the rule would catch more than it says"

Value = int | tuple[int, int]


def answer(errors: Errors, *conditions: str) -> tuple[str, bool]:
    """Return what a driver answers to the first condition that its profile knows, and whether it answers nothing."""
    for condition in conditions:
        if condition in errors:
            errno = errors[condition]
            return errno or "", errno is None
    return "", False


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is judged: a shape, the values at hand, and the flow type that it is held against."""

    state: TableState
    flow_type: FlowType
    shape: Shape
    values: Mapping[str, Value]
    """Values of the fields that some flow type fixes and of those with a range; of no other field."""

    @property
    def table(self) -> Table:
        """The table."""
        return self.state.table

    @property
    def source(self) -> str:
        """Where the facts about the flow type come from."""
        return self.flow_type.source or self.table.source

    @property
    def compared(self) -> frozenset[str]:
        """The fields that are compared beyond those that the flow type fixes."""
        return frozenset(name for name, _ in self.shape if name not in self.flow_type.fixed)

    def reason(self, code: str, path: str, message: str, accepted: str = "", errno: str = "") -> Reason:
        """Return a reason with the source of the flow type."""
        return Reason(
            code=code, path=path, message=message, accepted=accepted, source=self.source, errno=errno
        )


def field_reasons(judged: Judged) -> Iterator[Reason]:
    """Yield everything that keeps a match out of a flow type, by its fields alone."""
    yield from _fixed(judged)
    yield from _fields(judged)
    yield from _required(judged)
    yield from _at_least_one(judged)
    for group in judged.flow_type.together:
        yield from _together(judged, group)
    for pair in judged.flow_type.not_together:
        yield from _not_together(judged, pair)
    yield from _combination(judged)


def _fixed(judged: Judged) -> Iterator[Reason]:
    masks = dict(judged.shape)
    errno, _ = answer(judged.table.errors, "flow_type")
    for name, allowed in judged.flow_type.fixed.items():
        path = f"/match/{name}"
        if not allowed:
            if name in masks:
                message = f"flow type {judged.flow_type.name} does not compare {text_name(name)}"
                yield judged.reason("flow_type", path, message, f"a rule without {text_name(name)}", errno)
        elif masks.get(name) != FIELDS[name].full_mask or judged.values.get(name) not in allowed:
            message = (
                f"flow type {judged.flow_type.name} is only for {text_name(name)} {_either(name, allowed)}"
            )
            accepted = f"{text_name(name)} {_either(name, _taken(judged, name))}"
            yield judged.reason("flow_type", path, message, accepted, errno)


def _taken(judged: Judged, name: str) -> list[int]:
    """Return the values of a field with which one of the table's flow types would be the rule's."""
    compared = {field for field, _ in judged.shape}
    found = set(judged.flow_type.fixed[name])
    for other in judged.table.flow_types:
        rest = ((key, among) for key, among in other.fixed.items() if key != name and among)
        if compared <= {*other.fixed, *other.fields} and all(
            judged.values.get(key) in among for key, among in rest
        ):
            found.update(other.fixed.get(name, ()))
    return sorted(found)


def _either(name: str, values: Iterable[int]) -> str:
    return " or ".join(f"{value:#06x}" if name == "eth_type" else str(value) for value in values)


def _fields(judged: Judged) -> Iterator[Reason]:
    for name, mask in judged.shape:
        if name in judged.flow_type.fixed:
            continue
        rule = judged.flow_type.fields.get(name)
        reason = _unsupported(judged, name) if rule is None else _mask(judged, name, mask, rule)
        if reason is not None:
            yield reason


def _unsupported(judged: Judged, name: str) -> Reason:
    errno, silent = answer(judged.table.errors, "field", "combination")
    if name in judged.flow_type.field_errors:
        errno, silent = judged.flow_type.field_errors[name], False
    code = "field.ignored" if silent else "field.unsupported"
    fields = names(judged.flow_type.fields)
    message = (
        f"{text_name(name)} is not compared by {judged.flow_type.name} rules of table {judged.table.name}"
    )
    if silent:
        message += f" and would be ignored: {_WIDER}"
    return judged.reason(code, f"/match/{name}", message, f"any of {fields}" if fields != "{}" else "", errno)


def _mask(judged: Judged, name: str, mask: int, rule: FieldRule) -> Reason | None:
    path = f"/match/{name}"
    if rule.mask == "ignored":
        message = f"{text_name(name)} is accepted and not compared: {_WIDER}"
        return judged.reason("field.ignored", path, message, f"a rule without {text_name(name)}")
    if mask == RANGE_MASK:
        return _range(judged, name, rule)
    if takes_mask(rule.mask, name, mask):
        return None
    conditions = ("vlan_mask", "partial_mask") if name in _VLAN else ("partial_mask",)
    errno, silent = answer(judged.table.errors, *conditions)
    if rule.mask_errno:
        errno, silent = rule.mask_errno, False
    accepted = _accepted_masks(rule.mask, name)
    shown = mask_text(name, mask)
    if rule.mask == "exact_or_ignored" or silent:
        message = f"{text_name(name)} with mask {shown} is accepted and not compared: {_WIDER}"
        return judged.reason("mask.widened", path, message, accepted)
    message = f"{text_name(name)} can't be compared under mask {shown}"
    return judged.reason("mask.partial", path, message, accepted, errno)


def takes_mask(kind: str, name: str, mask: int) -> bool:
    """Tell whether a kind of mask rule compares a field under a mask just as it says."""
    full = FIELDS[name].full_mask
    if kind == "group_bit":
        return mask == GROUP_BIT
    if kind == "any" or mask == full:
        return True
    if kind == "prefix":
        return mask == full ^ (full >> mask.bit_count())
    return kind == "exact_or_group_bit" and mask == GROUP_BIT


def _accepted_masks(kind: str, name: str) -> str:
    if kind == "prefix":
        return f"{text_name(name)} with a prefix mask"
    if kind == "group_bit":
        return f"the multicast bit of {text_name(name)} alone"
    group = ", or the multicast bit alone" if kind == "exact_or_group_bit" else ""
    leave_out = "" if kind == "required" else ", or left out"
    return f"{text_name(name)} with {exact_text(name)}{group}{leave_out}"


def _range(judged: Judged, name: str, rule: FieldRule) -> Reason:
    span = judged.values.get(name)
    assert isinstance(span, tuple), "values hold every range"
    first, last = span
    masks = range_to_masks(first, last)
    if all(takes_mask(rule.mask, name, part.mask) for part in masks):
        shown = ", ".join(value_text(name, part) for part in masks[:_SHOWN_MASKS])
        more = f", … ({len(masks)} in all)" if len(masks) > _SHOWN_MASKS else ""
        accepted = f"one rule for each of {shown}{more}"
    else:
        accepted = f"one rule for each of the {last - first + 1} ports"
    errno = rule.mask_errno or answer(judged.table.errors, "partial_mask")[0]
    message = f"{text_name(name)} {first}-{last}: table {judged.table.name} compares no ranges"
    return judged.reason("range.unsupported", f"/match/{name}", message, accepted, errno)


def _required(judged: Judged) -> Iterator[Reason]:
    present = {name for name, _ in judged.shape}
    errno, _ = answer(judged.table.errors, "required", "combination")
    for name, rule in judged.flow_type.fields.items():
        if rule.mask in ("required", "group_bit") and name not in present:
            message = (
                f"{judged.flow_type.name} rules of table {judged.table.name} always compare {text_name(name)}"
            )
            accepted = _accepted_masks(rule.mask, name)
            yield judged.reason(
                "field.required", f"/match/{name}", message, accepted, rule.mask_errno or errno
            )


def _at_least_one(judged: Judged) -> Iterator[Reason]:
    wanted = judged.flow_type.at_least_one
    present = {name for name, _ in judged.shape}
    if wanted and not present.intersection(wanted):
        errno, _ = answer(judged.table.errors, "required", "combination")
        message = f"{judged.flow_type.name} rules of table {judged.table.name} compare at least one of {names(wanted)}"
        yield judged.reason("field.at_least_one", "/match", message, f"one of {names(wanted)}", errno)


def _together(judged: Judged, group: Together) -> Iterator[Reason]:
    masks = {name: mask for name, mask in judged.shape if name in group.fields}
    if not masks or all(masks.get(name) == FIELDS[name].full_mask for name in group.fields):
        return
    code = "field.together" if group.errno else "field.ignored"
    ignored = "" if group.errno else f" and are ignored otherwise: {_WIDER}"
    message = f"{names(group.fields)} count only when all of them are matched exactly{ignored}"
    accepted = f"all of {names(group.fields)} exactly, or none"
    yield judged.reason(code, f"/match/{next(iter(masks))}", message, accepted, group.errno or "")


def _not_together(judged: Judged, group: NotTogether) -> Iterator[Reason]:
    if judged.compared.issuperset(group.fields):
        message = f"table {judged.table.name} can't compare all of {names(group.fields)} in one rule"
        accepted = f"a rule without one of {names(group.fields)}"
        yield judged.reason(
            "field.not_together", f"/match/{group.fields[-1]}", message, accepted, group.errno
        )


def combinations(state: TableState, flow_type: str) -> list[frozenset[str]] | None:
    """Return the combinations of fields that a flow type takes; None where it takes any."""
    table = state.table
    if table.mask_model == "shapes":
        return [shape.fields for shape in table.shapes if flow_type in shape.flow_types]
    if table.mask_model == "firmware_list" and state.firmware_shapes is not None:
        return [fields for name, fields in state.firmware_shapes if name == flow_type]
    return None


def _combination(judged: Judged) -> Iterator[Reason]:
    table = judged.table
    compared = judged.compared
    if not judged.shape and table.empty_rule:
        message = f"table {table.name} takes no rule that compares nothing"
        yield judged.reason("rule.empty", "/match", message, "a rule with a field", table.empty_rule)
        return
    if table.combine == "or" and len(compared) > 1:
        message = (
            f"table {table.name} makes a filter of its own of each of {names(compared)}: "
            "the rule would catch packets that have any of them"
        )
        yield judged.reason("mask.widened", "/match", message, "a rule with one field")
    listed = combinations(judged.state, judged.flow_type.name)
    known = compared.intersection(judged.flow_type.fields)  # the others are refused on their own account
    if listed is None or compared in listed or (known != compared and known in listed):
        return
    errno, _ = answer(table.errors, "combination", "flow_type")
    who = "the firmware lists" if table.mask_model == "firmware_list" else f"table {table.name} has"
    which = f"for exactly {names(known)}" if listed else "at all"
    message = f"{who} no {judged.flow_type.name} filter {which}"
    accepted = " or ".join(names(fields) for fields in listed)
    yield judged.reason("combination", "/match", message, accepted, errno)
