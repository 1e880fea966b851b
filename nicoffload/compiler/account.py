"""Keeps account of what rules take of a table, and gives it back."""

from __future__ import annotations

from nicoffload.compiler.bank import InputSet, Target, add_copy, drop_copy, fate
from nicoffload.compiler.verdict import Verdict
from nicoffload.model import FlowRule


def take(verdict: Verdict, rule: FlowRule, key: object, slot: int | None) -> None:
    """Account for a rule that goes into a table.

    Args:
        verdict: Of the rule in that table.
        rule: The rule.
        key: What tells it from another rule of its shape, by `Verdict.key`.
        slot: Its location, where the caller picks it.
    """
    bank = verdict.bank
    bank.used += verdict.rows_per_rule
    bank.rules += 1
    if slot is not None:
        bank.slots[slot] = rule
    copies = verdict.copies
    same = copies.get(key)
    copies[key] = rule if same is None else add_copy(same, rule)
    if verdict.depends:
        for name in verdict.limits:
            bank.limited[verdict.table_name, name] += 1
        if verdict.one_mask and bank.rules == 1:
            bank.masks = verdict.shape
        if verdict.one_input_set:
            bank.input_sets.setdefault(verdict.type_name, InputSet(verdict.compared)).rules += 1
        for index, _ in verdict.one_target:
            value = (verdict.shape[index], rule.match.values[index])
            bank.targets.setdefault(value, Target(fate(rule))).rules += 1
        if verdict.rivals:
            bank.by_table[verdict.table_name] += 1


def give_back(verdict: Verdict, rule: FlowRule, slot: int | None) -> None:
    """Undo `take`."""
    bank = verdict.bank
    bank.used -= verdict.rows_per_rule
    bank.rules -= 1
    if slot is not None:
        bank.free_slot(slot)
    key = verdict.key(rule)
    same = drop_copy(verdict.copies.pop(key), rule)
    if same is not None:
        verdict.copies[key] = same
    for name in verdict.limits:
        bank.limited[verdict.table_name, name] -= 1
    if verdict.one_input_set:
        bank.input_sets[verdict.type_name].rules -= 1
        if not bank.input_sets[verdict.type_name].rules:
            del bank.input_sets[verdict.type_name]
    for index, _ in verdict.one_target:
        value = (verdict.shape[index], rule.match.values[index])
        bank.targets[value].rules -= 1
        if not bank.targets[value].rules:
            del bank.targets[value]
    if verdict.rivals:
        bank.by_table[verdict.table_name] -= 1
