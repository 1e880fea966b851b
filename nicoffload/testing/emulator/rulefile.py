"""A rule as JSON text in a state file, in a form of its own that no other program reads."""

from __future__ import annotations

import dataclasses
import json
import uuid
from typing import Any

from nicoffload.model import ACTION_NAMES, Action, FlowRule, Masked, Match, SetField

_ACTIONS: dict[str, type[Any]] = {name: kind for kind, name in ACTION_NAMES.items()}


def dump_rule(rule: FlowRule) -> str:
    """Return the text of a rule; rules with ranges never get into the hardware."""
    match = [
        [name, value, mask] for (name, mask), value in zip(rule.match.shape, rule.match.values, strict=True)
    ]
    actions = [[ACTION_NAMES[type(action)], dataclasses.asdict(action)] for action in rule.actions]
    return json.dumps([str(rule.rule_id), rule.priority, match, actions], separators=(",", ":"))


def load_rule(text: str) -> FlowRule:
    """Return the rule of a text from `dump_rule`."""
    rule_id, priority, match, actions = json.loads(text)
    fields: dict[str, Any] = {name: Masked(value, mask) for name, value, mask in match}
    return FlowRule(
        match=Match(**fields),
        actions=tuple(_load_action(name, values) for name, values in actions),
        priority=priority,
        rule_id=uuid.UUID(rule_id),
    )


def _load_action(name: str, values: dict[str, Any]) -> Action:
    kind = _ACTIONS[name]
    if kind is SetField:
        values["value"] = Masked(**values["value"])
    action: Action = kind(**values)
    return action
