"""Tables, rules and compilers to test with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicoffload.compiler import Compiler
from nicoffload.driver.contract import Placement, RuleRef, TableState
from nicoffload.model import Action, FlowRule, Match, ToVf
from nicoffload.profiles.types import (
    ActionRules,
    Duplicate,
    FieldRule,
    FlowType,
    Needs,
    Table,
    TableShape,
)

FOUR = ("ipv4_src", "ipv4_dst", "tp_src", "tp_dst")


def field(mask: str = "exact", **more: Any) -> FieldRule:
    return FieldRule(mask=mask, **more)


def flow_type(
    name: str = "tcp4",
    *,
    fixed: Mapping[str, tuple[int, ...]] | None = None,
    fields: Mapping[str, str | FieldRule] | None = None,
    **more: Any,
) -> FlowType:
    rules = dict.fromkeys(FOUR, "exact") if fields is None else fields
    return FlowType(
        name=name,
        fixed={"eth_type": (0x800,), "ip_proto": (6,)} if fixed is None else fixed,
        fields={key: field(rule) if isinstance(rule, str) else rule for key, rule in rules.items()},
        field_errors=more.pop("field_errors", {}),
        **more,
    )


def table(name: str = "rx", **changes: Any) -> Table:
    values: dict[str, Any] = {
        "name": name,
        "mechanism": "ntuple",
        "bank": name,
        "rows": 16,
        "rows_per_rule": 1,
        "limits": (),
        "capacity_note": "",
        "picker": "none",
        "occupied": "refuse",
        "erases_old": True,
        "mask_model": "free",
        "flow_types": (flow_type(),),
        "shapes": (),
        "combine": "and",
        "empty_rule": None,
        "priority": "none",
        "duplicate": Duplicate(answer="EEXIST"),
        "actions": frozenset({"vf", "queue", "drop"}),
        "vf_queue": False,
        "action_rules": ActionRules(at_most={}),
        "counters": None,
        "errors": {
            "field": "EINVAL",
            "partial_mask": "EINVAL",
            "combination": "EPROTONOSUPPORT",
            "flow_type": "EINVAL",
            "full": "ENOSPC",
            "action": "EINVAL",
            "second_mask": "EINVAL",
        },
        "source": "test",
        "needs": Needs(),
    }
    return Table(**(values | changes))


def shape(*fields: str, types: Sequence[str] = ("tcp4",), rank: int = 0) -> TableShape:
    return TableShape(name="+".join(fields), flow_types=frozenset(types), fields=frozenset(fields), rank=rank)


def state(of: Table | None = None, **changes: Any) -> TableState:
    of = of or table()
    return TableState(**({"table": of, "rows": of.rows, "in_use": 0} | changes))


def compiler(*tables: Table, vfs: int = 8, **more: Any) -> Compiler:
    return Compiler([state(one) for one in tables or (table(),)], vfs=vfs, **more)


def rule(*actions: Action, priority: int | None = None, **match: Any) -> FlowRule:
    return FlowRule(match=Match.of(**match), actions=actions or (ToVf(vf=1),), priority=priority)


def tcp(*actions: Action, priority: int | None = None, **match: Any) -> FlowRule:
    return rule(*actions, priority=priority, **({"eth_type": 0x800, "ip_proto": 6} | match))


def five_tuple(number: int, *actions: Action) -> FlowRule:
    """Return the rule of one TCP connection; each number is another one."""
    return tcp(
        *actions,
        ipv4_src=0x0A000001 + (number >> 14),
        ipv4_dst=0x0A010001,
        tp_src=1024 + (number & 0x3FFF),
        tp_dst=443,
    )


def refs(*placements: Placement) -> list[RuleRef]:
    """Return where placed rules are, as a driver would after installing them."""
    return [RuleRef(rule_id=one.rule.rule_id, table=one.table, slot=one.slot) for one in placements]
