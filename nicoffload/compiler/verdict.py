"""What is known of a rule from its shape and actions alone, worked out once and kept for all rules like it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from nicoffload.compiler.bank import Bank, Copies
from nicoffload.compiler.fields import Value
from nicoffload.compiler.words import names, text_name
from nicoffload.driver.contract import TableState
from nicoffload.errors import Reason
from nicoffload.model import ACTION_NAMES, FIELDS, FIRST_VF_PORT, RANGE_MASK, FlowRule, Match, Shape, ToVf
from nicoffload.profiles.types import FieldRule, FlowType, OneTarget, Table

NEAR_FULL = 1e-3
"""Chance of a refusal by a hash table from which on the user is told."""

_ANY = sys.maxsize
"""Stands for no limit, so that the one comparison of the hot path needs no special case."""

_NO_REFUSAL = frozenset({"allowed", "unknown"})

Values = tuple[Value, ...]
Pick = Callable[[Values], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A limit on the values of one field.

    Args:
        index: Position of the field in the rule's shape.
        field: Its name.
        low: Smallest value.
        high: Largest value.
        allowed: The only values; None for all between.
        rule: Where the profile says so.
    """

    index: int
    field: str
    low: int
    high: int
    allowed: frozenset[int] | None
    rule: FieldRule


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """A rule of one shape, with given actions, in one flow type of one table.

    Args:
        state: The table.
        bank: What it shares with others.
        flow_type: The flow type.
        reasons: Everything against it that does not depend on values or on other rules.
        checks: The values that are limited.
        enters: Position of the ingress port among the values; None where the rule names none.
        bounds: Position, lowest and highest of the values that are to be looked at; one value out of bounds does not
            say no, it says to look closer.
        shape: The shape of the rule.
        compared: Fields compared beyond those that the flow type fixes.
        pick: What of the values tells two rules apart; None: all of them.
        copies: The rules that it could be a duplicate of.
        copies_max: How many rules with one match there may be.
        caveats: What to tell the user.
        hash_caveats: What to tell the user from `hash_from` on.
        copy_caveat: What to tell the user where a rule with the same match is there.
        hash_from: Rows in use from which on the table may refuse by its hash.
        last_used: Rows in use at which one more rule still fits.
        depends: Whether masks, narrower limits, targets or other tables can speak against it.
    """

    state: TableState
    bank: Bank
    flow_type: FlowType
    reasons: tuple[Reason, ...]
    checks: tuple[Check, ...]
    enters: int | None
    bounds: tuple[tuple[int, int, int], ...]
    shape: Shape
    compared: frozenset[str]
    pick: Pick | None
    copies: Copies
    copies_max: int
    caveats: tuple[str, ...]
    hash_caveats: tuple[str, ...]
    copy_caveat: str
    hash_from: int
    last_used: int
    depends: bool
    # Copied from the table: they are looked at once for each of 100,000 rules.
    table_name: str
    type_name: str
    rows_per_rule: int
    picks_slot: bool
    first_slot: int
    by_priority: bool
    one_mask: bool
    one_input_set: bool
    limits: tuple[str, ...]
    one_target: tuple[tuple[int, OneTarget], ...]
    rivals: tuple[tuple[str, Bank], ...]

    @property
    def table(self) -> Table:
        """What the profile says of the table."""
        return self.state.table

    def key(self, rule: FlowRule) -> object:
        """Return what a driver compares to tell this rule from another one of its shape."""
        values = rule.match.values
        return values if self.pick is None else (self.type_name, self.pick(values))


def make_verdict(
    state: TableState,
    bank: Bank,
    flow_type: FlowType,
    rule: FlowRule,
    *,
    reasons: Sequence[Reason],
    vfs: int,
    queues: int | None,
    rivals: tuple[tuple[str, Bank], ...],
) -> Verdict:
    """Prepare what is asked of each rule of a kind in one flow type.

    Args:
        state: The table.
        bank: What it shares with others.
        flow_type: One of the table's.
        rule: A rule of the kind.
        reasons: What speaks against the kind.
        vfs: VFs that exist.
        queues: Receive queues of the PF; None where unknown.
        rivals: Tables that must be empty while this one holds rules or the other way round, with their banks.
    """
    table = state.table
    shape = rule.match.shape
    checks = tuple(_checks(flow_type, shape))
    enters = next((index for index, (name, _) in enumerate(shape) if name == "in_port"), None)
    one_mask = table.mask_model == "one_mask_per_port"
    one_input_set = table.mask_model == "one_input_set_per_flow_type"
    caveats = (*_caveats(state, flow_type, shape, rule), *_reaches_other(table, rule, vfs, queues))
    limited = {limit.field for limit in table.limits}
    limits = tuple(name for name, _ in shape if name in limited)
    places = {name: index for index, (name, _) in enumerate(shape)}
    one_target = tuple((places[one.field], one) for one in table.one_target_per_value if one.field in places)
    ignored = table.duplicate.ignores | flow_type.duplicate_ignores
    kept = [index for index, (name, _) in enumerate(shape) if name not in ignored]
    return Verdict(
        state=state,
        bank=bank,
        flow_type=flow_type,
        reasons=tuple(reasons),
        checks=checks,
        enters=enters,
        bounds=tuple(_bounds(shape, checks, enters, vfs)),
        shape=shape,
        compared=frozenset(name for name, _ in shape if name not in flow_type.fixed),
        pick=None if len(kept) == len(shape) else _picker(kept),
        copies=bank.copies_of(tuple(shape[index] for index in kept)),
        copies_max=_ANY if table.duplicate.answer in _NO_REFUSAL else table.duplicate.allowed_copies,
        caveats=caveats,
        hash_caveats=(*caveats, *_hash_caveat(table)),
        copy_caveat=_copy_caveat(table),
        hash_from=_hash_from(state),
        last_used=_ANY if bank.rows is None else bank.rows - table.rows_per_rule,
        depends=one_mask or one_input_set or bool(limits) or bool(one_target) or bool(rivals),
        table_name=table.name,
        type_name=flow_type.name,
        rows_per_rule=table.rows_per_rule,
        picks_slot=table.picker == "caller",
        first_slot=table.first_slot,
        by_priority=table.priority == "slot_ascending",
        one_mask=one_mask,
        one_input_set=one_input_set,
        limits=limits,
        one_target=one_target,
        rivals=rivals,
    )


def _picker(kept: Sequence[int]) -> Pick:
    if not kept:
        return lambda _values: ()
    return itemgetter(*kept)


def table_reasons(state: TableState) -> list[Reason]:
    """Return why a table takes no rules at present, and what it would cost to mend that."""
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


def _checks(flow_type: FlowType, shape: Shape) -> list[Check]:
    found = []
    for index, (name, mask) in enumerate(shape):
        rule = flow_type.fields.get(name)
        if (
            rule is None
            or mask == RANGE_MASK
            or (rule.values is None and rule.min is None and rule.max is None)
        ):
            continue
        full = FIELDS[name].full_mask
        found.append(
            Check(
                index=index,
                field=name,
                low=0 if rule.min is None else rule.min,
                high=full if rule.max is None else rule.max,
                allowed=rule.values,
                rule=rule,
            )
        )
    return found


def _bounds(
    shape: Shape, checks: Sequence[Check], enters: int | None, vfs: int
) -> Iterator[tuple[int, int, int]]:
    for check in checks:
        # A list of values fits no bounds: an empty interval always asks for a closer look.
        low, high = (check.low, check.high) if check.allowed is None else (1, 0)
        yield check.index, low, high
    if enters is not None and shape[enters][1] != RANGE_MASK:
        yield enters, 0, FIRST_VF_PORT + vfs - 1


def value_reason(verdict: Verdict, check: Check, value: int) -> Reason:
    """Return why a flow type does not take a value, which `check` found wanting."""
    accepted = []
    if check.allowed is not None:
        accepted.append("one of " + ", ".join(map(str, sorted(check.allowed))))
    if check.rule.min is not None:
        accepted.append(f"{check.rule.min} or more")
    if check.rule.max is not None:
        accepted.append(f"{check.rule.max} or less")
    name = text_name(check.field)
    note = f" ({check.rule.note})" if check.rule.note else ""
    return Reason(
        code="value.unsupported",
        path=f"/match/{check.field}",
        message=f"{name} can't be {value} in table {verdict.table_name}{note}",
        accepted=", ".join(accepted),
        source=verdict.flow_type.source or verdict.table.source,
        errno=check.rule.value_errno,
    )


def _caveats(state: TableState, flow_type: FlowType, shape: Shape, rule: FlowRule) -> list[str]:
    table = state.table
    caveats = []
    present = {name for name, _ in shape}
    implied = [name for name in flow_type.implicit if name not in present]
    if implied:
        caveats.append(f"the NIC compares {names(implied)} on its own: the rule catches less than it says")
    if table.mechanism == "flower" and "in_port" in flow_type.fields and "in_port" not in present:
        caveats.append(
            "a live NIC hangs it on the uplink: it catches what comes from the wire, not what a VF sends"
        )
    if state.rows is None:
        caveats.append(f"how many rules table {table.name} holds is not known: the NIC may refuse this one")
    if table.needs.vf_driver_on_host and _delivers_to_vf(rule):
        caveats.append("it works only while the VF's driver is bound on this host")
    does = {ACTION_NAMES[type(action)] for action in rule.actions}
    caveats += [
        one.text
        for one in table.caveats
        if (not one.actions or one.actions & does) and (not one.fields or one.fields & present)
    ]
    return caveats


def _reaches_other(table: Table, rule: FlowRule, vfs: int, queues: int | None) -> Iterator[str]:
    """Yield what to tell of a rule to a VF that reaches another one."""
    if table.vf_stride is None or queues is None:
        return
    for action in rule.actions:
        if isinstance(action, ToVf):
            reached = table.vf_stride.reached(action.vf, action.queue, vfs=vfs, pf_queues=queues)
            if reached != action.vf:
                yield (
                    f"the driver counts queues of VFs by the {queues} that the PF has, and the NIC keeps more for "
                    f"each: by the driver's source the packets reach VF {reached}, not VF {action.vf}"
                )


def _delivers_to_vf(rule: FlowRule) -> bool:
    return any(isinstance(action, ToVf) for action in rule.actions)


def _hash_from(state: TableState) -> int:
    facts = state.table.hash
    if facts is None or state.rows is None:
        return _ANY
    # A probe finds a taken row with the chance used / rows; a rule is refused when all probes do.
    return int(state.rows * NEAR_FULL ** (1 / facts.search_depth))


def _hash_caveat(table: Table) -> list[str]:
    if table.hash is None:
        return []
    depth = table.hash.search_depth
    looks = f"table {table.name} is nearly full and looks for a row at {depth} places only"
    return [f"{looks}: the NIC may refuse this rule with {table.hash.errno} although rows are free"]


def _copy_caveat(table: Table) -> str:
    if table.duplicate.answer == "unknown":
        return f"a rule with the same match is in table {table.name}: what the NIC makes of a second one is not known"
    return f"a rule with the same match is in table {table.name}: which of them a packet meets is not defined"


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
