"""The journal's own text for rules and settings: made for writing 100,000 of them at once, not for people."""

from __future__ import annotations

import dataclasses
import enum
import json
import uuid
from functools import lru_cache
from typing import Any

from nicoffload.errors import JournalError, NicOffloadError
from nicoffload.model import (
    ACTION_NAMES,
    RANGE_MASK,
    Action,
    FlowRule,
    LinkState,
    Masked,
    Match,
    PortRange,
    RateLimit,
    Shape,
    VfConfig,
    VlanTag,
)
from nicoffload.model.match import FieldValue

_ACTIONS: dict[str, type[Any]] = {name: kind for kind, name in ACTION_NAMES.items()}


def encode_rule(rule: FlowRule) -> str:
    """Return match, actions and priority as text; the id is not part of it."""
    priority = "null" if rule.priority is None else str(rule.priority)
    return f"[{priority},{_shape_text(rule.match.shape)},{json.dumps(rule.match.values)},{_actions_text(rule.actions)}]"


def decode_rule(text: str, rule_id: uuid.UUID) -> FlowRule:
    """Return the rule that `encode_rule` wrote.

    Raises:
        JournalError: The text is damaged.
    """
    try:
        priority, shape, values, actions = json.loads(text)
        fields: dict[str, FieldValue] = {
            name: PortRange(*value) if mask == RANGE_MASK else Masked(value, mask)
            for (name, mask), value in zip(shape, values, strict=True)
        }
        return FlowRule(
            match=Match(**fields),
            actions=tuple(_action(name, arguments) for name, arguments in actions),
            priority=priority,
            rule_id=rule_id,
        )
    except (ValueError, TypeError, KeyError, AttributeError, NicOffloadError) as cause:
        raise JournalError(f"the record of rule {rule_id} is damaged: {cause}") from cause


def encode_setting(value: VfConfig | RateLimit | int | None) -> str:
    """Return a VF's settings, its rates or a number as text."""
    return json.dumps(_plain(value) if dataclasses.is_dataclass(value) else value)


def decode_config(text: str) -> VfConfig:
    """Return the settings that `encode_setting` wrote.

    Raises:
        JournalError: The text is damaged.
    """
    try:
        found = json.loads(text)
        if found.get("vlan") is not None:
            found["vlan"] = VlanTag(**found["vlan"])
        if found.get("link_state") is not None:
            found["link_state"] = LinkState(found["link_state"])
        return VfConfig(**found)
    except (ValueError, TypeError, AttributeError, NicOffloadError) as cause:
        raise JournalError(f"the record of a VF's settings is damaged: {cause}") from cause


def decode_rate(text: str) -> RateLimit | None:
    """Return the rates that `encode_setting` wrote, None where none were known.

    Raises:
        JournalError: The text is damaged.
    """
    try:
        found = json.loads(text)
        return None if found is None else RateLimit(**found)
    except (ValueError, TypeError, NicOffloadError) as cause:
        raise JournalError(f"the record of a VF's rates is damaged: {cause}") from cause


def decode_count(text: str) -> int:
    """Return the number that `encode_setting` wrote.

    Raises:
        JournalError: The text is damaged.
    """
    try:
        return int(text)
    except ValueError as cause:
        raise JournalError(f"the record of a number of VFs is damaged: {cause}") from cause


@lru_cache(maxsize=1024)
def _shape_text(shape: Shape) -> str:
    return json.dumps(shape)


@lru_cache(maxsize=4096)
def _actions_text(actions: tuple[Action, ...]) -> str:
    return json.dumps([[ACTION_NAMES[type(action)], _plain(action)] for action in actions])


def _action(name: str, arguments: dict[str, Any]) -> Action:
    if name == "set_field":
        arguments = {**arguments, "value": Masked(**arguments["value"])}
    action: Action = _ACTIONS[name](**arguments)
    return action


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value
