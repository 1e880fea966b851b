"""What is known of a rule from its shape and actions alone, worked out once and kept for all rules like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from nicoffload.compiler.actions import Targets, action_reasons
from nicoffload.compiler.bank import Bank, Copies
from nicoffload.compiler.fields import Judged, Value, answer, field_reasons
from nicoffload.compiler.words import names, text_name
from nicoffload.driver.contract import TableState
from nicoffload.errors import Reason
from nicoffload.model import RANGE_MASK, FlowRule, Match, Shape, ToVf
from nicoffload.profiles.types import FieldRule, FlowType, Table

NEAR_FULL = 1e-3
"""Chance of a refusal by a hash table from which on the user is told."""

_DECIDES = {
    "none": "nothing defines which of two overlapping rules wins",
    "most_specific": "the rule with more compared fields wins",
    "shape_rank": "the kind of filter decides which rule wins",
}

Values = tuple[Value, ...]
Pick = Callable[[Values], object]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """A rule of one shape, with given actions, in one flow type of one table.

    Args:
        state: The table.
        bank: What it shares with others.
        flow_type: The flow type.
        reasons: Everything against it that does not depend on values or on other rules.
        checks: Position, field and rule of each value that is limited.
        shape: The shape of the rule.
        compared: Fields compared beyond those that the flow type fixes.
        pick: What of the values tells two rules apart; None: all of them.
        copies: The rules that it could be a duplicate of.
        copies_max: How many rules with one match there may be; None for any number.
        caveats: What to tell the user.
        hash_from: Rows in use from which on the table may refuse by its hash; None where it does not hash.
    """

    state: TableState
    bank: Bank
    flow_type: FlowType
    reasons: tuple[Reason, ...]
    checks: tuple[tuple[int, str, FieldRule], ...]
    shape: Shape
    compared: frozenset[str]
    pick: Pick | None
    copies: Copies
    copies_max: int | None
    caveats: tuple[str, ...]
    hash_from: int | None
    # Copied from the table: they are looked at once for each of 100,000 rules.
    table_name: str
    type_name: str
    rows_per_rule: int
    picks_slot: bool
    by_priority: bool
    honours_priority: bool
    mask_model: str
    shares_masks: bool
    limits: tuple[str, ...]
    rivals: tuple[tuple[str, Bank], ...]

    @property
    def table(self) -> Table:
        """What the profile says of the table."""
        return self.state.table

    def key(self, rule: FlowRule) -> object:
        """Return what a driver compares to tell this rule from another one of its shape."""
        values = rule.match.values
        kept = values if self.pick is None else self.pick(values)
        return (kept, rule.priority) if self.honours_priority else kept


def make_verdict(
    state: TableState,
    bank: Bank,
    flow_type: FlowType,
    rule: FlowRule,
    *,
    values: Mapping[str, Value],
    targets: Targets,
    rivals: tuple[tuple[str, Bank], ...],
) -> Verdict:
    """Judge a rule, as an example of all of its shape and actions, against one flow type.

    Args:
        state: The table.
        bank: What it shares with others.
        flow_type: One of the table's.
        rule: The rule.
        values: Values of the fields that some flow type fixes, and of those with a range.
        targets: What rules can deliver to.
        rivals: Tables that must be empty while this one holds rules or the other way round, with their banks.
    """
    table = state.table
    shape = rule.match.shape
    judged = Judged(state=state, flow_type=flow_type, shape=shape, values=values)
    reasons = [*_blocked(state), *field_reasons(judged), *action_reasons(table, rule.actions, targets)]
    reasons += _priority(table, rule)
    limited = {limit.field for limit in table.limits}
    kept = [index for index, (name, _) in enumerate(shape) if name not in table.duplicate.ignores]
    return Verdict(
        state=state,
        bank=bank,
        flow_type=flow_type,
        reasons=tuple(reasons),
        checks=tuple(_checks(flow_type, shape)),
        shape=shape,
        compared=judged.compared,
        pick=None if len(kept) == len(shape) else _picker(kept),
        copies=bank.copies_of(tuple(shape[index] for index in kept)),
        copies_max=None if table.duplicate.answer == "allowed" else table.duplicate.allowed_copies,
        caveats=tuple(_caveats(state, flow_type, shape, rule)),
        hash_from=_hash_from(state),
        table_name=table.name,
        type_name=flow_type.name,
        rows_per_rule=table.rows_per_rule,
        picks_slot=table.picker == "caller",
        by_priority=table.priority == "slot_ascending",
        honours_priority=table.priority == "honoured",
        mask_model=table.mask_model,
        shares_masks=table.mask_model in ("one_mask_per_port", "one_input_set_per_flow_type"),
        limits=tuple(name for name, _ in shape if name in limited),
        rivals=rivals,
    )


def _picker(kept: Sequence[int]) -> Pick:
    if not kept:
        return lambda _values: ()
    return itemgetter(*kept)


def _blocked(state: TableState) -> list[Reason]:
    if state.enable is None:
        return list(state.blocked)
    cost = (
        "costs those who use the NIC nothing"
        if state.enable.value == "none"
        else f"costs a {state.enable.value}"
    )
    enabled = f"after table {state.table.name} is enabled, which {cost}"
    return [
        Reason(
            code=reason.code,
            path=reason.path,
            message=reason.message,
            accepted="; ".join(filter(None, [reason.accepted, enabled])),
            source=reason.source,
            errno=reason.errno,
        )
        for reason in state.blocked
    ]


def _priority(table: Table, rule: FlowRule) -> list[Reason]:
    if rule.priority is None or table.priority in ("honoured", "slot_ascending"):
        return []
    return [
        Reason(
            code="priority.unsupported",
            path="/priority",
            message=f"table {table.name} has no priorities: {_DECIDES[table.priority]}",
            accepted="no priority, for a rule that no other one overlaps",
            source=table.source,
        )
    ]


def _checks(flow_type: FlowType, shape: Shape) -> list[tuple[int, str, FieldRule]]:
    found = []
    for index, (name, mask) in enumerate(shape):
        rule = flow_type.fields.get(name)
        limited = rule is not None and (
            rule.values is not None or rule.min is not None or rule.max is not None
        )
        if rule is not None and (limited or name == "in_port") and mask != RANGE_MASK:
            found.append((index, name, rule))
    return found


def value_reason(verdict: Verdict, name: str, value: Value, rule: FieldRule) -> Reason | None:
    """Return why a flow type does not take a value; None where it does."""
    assert isinstance(value, int), "a range is refused by its shape"
    accepted = []
    if rule.values is not None and value not in rule.values:
        accepted.append("one of " + ", ".join(map(str, sorted(rule.values))))
    if rule.min is not None and value < rule.min:
        accepted.append(f"{rule.min} or more")
    if rule.max is not None and value > rule.max:
        accepted.append(f"{rule.max} or less")
    if not accepted:
        return None
    return Reason(
        code="value.unsupported",
        path=f"/match/{name}",
        message=f"{text_name(name)} can't be {value} in table {verdict.table_name}"
        + (f" ({rule.note})" if rule.note else ""),
        accepted=", ".join(accepted),
        source=verdict.flow_type.source or verdict.table.source,
        errno=rule.value_errno or answer(verdict.table.errors, "value")[0],
    )


def _caveats(state: TableState, flow_type: FlowType, shape: Shape, rule: FlowRule) -> list[str]:
    table = state.table
    caveats = []
    present = {name for name, _ in shape}
    implied = [name for name in flow_type.implicit if name not in present]
    if implied:
        caveats.append(f"the NIC compares {names(implied)} on its own: the rule catches less than it says")
    if state.rows is None:
        caveats.append(f"how many rules table {table.name} holds is not known: the NIC may refuse this one")
    if table.needs.vf_driver_on_host and _delivers_to_vf(rule):
        caveats.append("it works only while the VF's driver is bound on this host")
    return caveats


def _delivers_to_vf(rule: FlowRule) -> bool:
    return any(isinstance(action, ToVf) for action in rule.actions)


def _hash_from(state: TableState) -> int | None:
    facts = state.table.hash
    if facts is None or state.rows is None:
        return None
    # A probe finds a taken row with the chance used / rows; a rule is refused when all probes do.
    return int(state.rows * NEAR_FULL ** (1 / facts.search_depth))


def key_values(match: Match, wanted: frozenset[str]) -> dict[str, Value]:
    """Return the values of some fields and of all ranges."""
    return {
        name: value
        for (name, mask), value in zip(match.shape, match.values, strict=True)
        if name in wanted or mask == RANGE_MASK
    }


def key_picker(shape: Shape, wanted: frozenset[str]) -> Pick:
    """Return what takes from a rule's values those that tell flow types apart, and its ranges."""
    return _picker(
        [index for index, (name, mask) in enumerate(shape) if name in wanted or mask == RANGE_MASK]
    )
