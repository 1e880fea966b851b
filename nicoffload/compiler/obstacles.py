"""What stands in a rule's way because of its values or of the rules that are there already."""

from __future__ import annotations

from collections.abc import Sequence

from nicoffload.compiler.actions import vf_exists
from nicoffload.compiler.bank import fate, first_copy
from nicoffload.compiler.fields import answer
from nicoffload.compiler.slots import slot_by_priority
from nicoffload.compiler.verdict import Verdict, value_reason
from nicoffload.compiler.words import mask_text, names, text_name
from nicoffload.errors import Reason
from nicoffload.model import FIRST_VF_PORT, FlowRule, Shape

NOTHING: tuple[Reason, ...] = ()


def obstacles(verdict: Verdict, rule: FlowRule, key: object, vfs: int) -> Sequence[Reason]:
    """Return what keeps a rule out of a table whose shape would fit; empty where it can go in.

    Args:
        verdict: Of the rule's shape and actions.
        rule: The rule.
        key: What tells it from another rule of its shape, by `Verdict.key`.
        vfs: VFs that exist.
    """
    found: Sequence[Reason] = NOTHING
    values = rule.match.values
    for index, low, high in verdict.bounds:
        if not low <= values[index] <= high:  # type: ignore[operator]  # a range is refused by its shape
            found = _values(verdict, rule, vfs)
    if verdict.depends:
        found = [*found, *_by_others(verdict, rule)]
    same = verdict.copies.get(key)
    if same is not None and (len(same) if isinstance(same, tuple) else 1) >= verdict.copies_max:
        found = [*found, _duplicate(verdict, first_copy(same))]
    # Each rule takes at least one row and at most one slot: where a row is free, so is a slot, but for those that the
    # table can't name.
    if verdict.bank.used > verdict.last_used or (verdict.first_slot and _no_slot_left(verdict)):
        found = [*found, _full(verdict)]
    elif verdict.by_priority and rule.priority is not None and slot_by_priority(verdict, rule) is None:
        found = [*found, _no_slot(verdict)]
    return found


def _no_slot_left(verdict: Verdict) -> bool:
    rows = verdict.bank.rows
    return verdict.picks_slot and rows is not None and verdict.bank.lowest_free(verdict.first_slot) >= rows


def _by_others(verdict: Verdict, rule: FlowRule) -> Sequence[Reason]:
    """Return what rules that are there forbid, beyond being the same rule or taking the last row."""
    found: list[Reason] = []
    if verdict.one_mask and verdict.bank.rules and verdict.bank.masks != verdict.shape:
        found.append(_second_mask(verdict))
    if verdict.one_input_set:
        found += _second_input_set(verdict)
    if verdict.limits:
        found += _limits(verdict)
    if verdict.one_target:
        found += _one_target(verdict, rule)
    if verdict.rivals:
        found += _rivals(verdict)
    return found


def _reason(verdict: Verdict, code: str, path: str, message: str, accepted: str, *conditions: str) -> Reason:
    errno, _ = answer(verdict.table.errors, *conditions)
    return Reason(
        code=code, path=path, message=message, accepted=accepted, source=verdict.table.source, errno=errno
    )


def _values(verdict: Verdict, rule: FlowRule, vfs: int) -> list[Reason]:
    found = []
    values = rule.match.values
    for check in verdict.checks:
        value = values[check.index]
        assert isinstance(value, int), "a range is refused by its shape"
        if not check.low <= value <= check.high or (check.allowed is not None and value not in check.allowed):
            found.append(value_reason(verdict, check, value))
    if verdict.enters is not None:
        port = values[verdict.enters]
        if isinstance(port, int):
            found += vf_exists(verdict.table, "/match/in_port", port - FIRST_VF_PORT, vfs)
    return found


def _second_mask(verdict: Verdict) -> Reason:
    message = "the port compares one mask for all its rules, and the rules that are there fixed another one"
    return _reason(verdict, "mask.second", "/match", message, _masks_text(verdict.bank.masks), "second_mask")


def _second_input_set(verdict: Verdict) -> Sequence[Reason]:
    fixed = verdict.bank.input_sets.get(verdict.type_name)
    if fixed is None or fixed.fields == verdict.compared:
        return NOTHING
    message = (
        f"all {verdict.type_name} rules compare the same fields, and the {fixed.rules} that are there compare "
        f"{names(fixed.fields)}, not {names(verdict.compared)}"
    )
    return [_reason(verdict, "mask.second", "/match", message, names(fixed.fields), "second_mask")]


def _masks_text(masks: Shape) -> str:
    return ", ".join(f"{text_name(name)} with mask {mask_text(name, mask)}" for name, mask in masks)


def _limits(verdict: Verdict) -> list[Reason]:
    found = []
    for limit in verdict.table.limits:
        if (
            limit.field in verdict.limits
            and verdict.bank.limited[verdict.table_name, limit.field] >= limit.rows
        ):
            name = text_name(limit.field)
            found.append(
                Reason(
                    code="table.limit",
                    path=f"/match/{limit.field}",
                    message=f"table {verdict.table_name} holds at most {limit.rows} rules that compare {name}",
                    accepted=f"a rule without {name}",
                    source=verdict.table.source,
                    errno=limit.errno,
                )
            )
    return found


def _one_target(verdict: Verdict, rule: FlowRule) -> list[Reason]:
    found: list[Reason] = []
    for index, fact in verdict.one_target:
        there = verdict.bank.targets.get((verdict.shape[index], rule.match.values[index]))
        if there is None or there.fate == fate(rule):
            continue
        name = text_name(fact.field)
        found.append(
            Reason(
                code="action.one_target",
                path="/actions",
                message=f"table {verdict.table_name} knows one target for each value of {name}, and the rules that "
                "are there have another one",
                accepted=f"the target of the other rules with this {name}",
                source=verdict.table.source,
                errno=fact.errno,
            )
        )
    return found


def _rivals(verdict: Verdict) -> list[Reason]:
    return [
        _reason(
            verdict,
            "table.excluded",
            "",
            f"table {verdict.table_name} takes no rules while table {name} holds some",
            f"after the rules of table {name} are removed",
            "excluded",
        )
        for name, bank in verdict.rivals
        if bank.by_table[name]
    ]


def _duplicate(verdict: Verdict, other: FlowRule) -> Reason:
    table = verdict.table
    ignores = table.duplicate.ignores | verdict.flow_type.duplicate_ignores
    ignored = f" (it does not look at {names(ignores)})" if verdict.pick is not None else ""
    if table.duplicate.answer == "replace":
        what = "the NIC would replace it without a word"
        errno = ""
    else:
        what = "the NIC takes it for the same rule"
        errno = table.duplicate.answer
    return Reason(
        code="rule.duplicate",
        path="/match",
        message=f"rule {other.rule_id} in table {table.name} has the same match: {what}{ignored}",
        accepted="after that rule is removed",
        source=table.source,
        errno=errno,
    )


def _full(verdict: Verdict) -> Reason:
    bank = verdict.bank
    message = f"table {verdict.table_name} is full: {bank.used} of {bank.rows} rows are in use"
    return _reason(verdict, "table.full", "", message, "after rules are removed", "full")


def _no_slot(verdict: Verdict) -> Reason:
    message = (
        f"table {verdict.table_name} ranks rules by location, and none is free between the rules that must win "
        "over this one and those that it must win over"
    )
    return _reason(verdict, "priority.no_slot", "/priority", message, "another priority, or none")
