"""The journal's own text for settings and actions."""

from __future__ import annotations

import dataclasses
import enum
import json
from typing import Any

from nicoffload.errors import JournalError, NicOffloadError
from nicoffload.model import (
    ACTION_NAMES,
    Action,
    LinkState,
    Masked,
    RateLimit,
    VfConfig,
    VlanTag,
)

_ACTIONS: dict[str, type[Any]] = {name: kind for kind, name in ACTION_NAMES.items()}


def plain_actions(actions: tuple[Action, ...]) -> object:
    """Return actions as JSON holds them."""
    return [[ACTION_NAMES[type(action)], _plain(action)] for action in actions]


def read_actions(found: Any) -> tuple[Action, ...]:
    """Return the actions that `plain_actions` was given.

    Raises:
        ValueError, TypeError, KeyError, NicOffloadError: They are damaged.
    """
    return tuple(_action(name, arguments) for name, arguments in found)


def encode_setting(value: VfConfig | RateLimit | int | str | None) -> str:
    """Return a VF's settings, its rates, a number or a mode as text."""
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


def decode_mode(text: str) -> str:
    """Return the mode that `encode_setting` wrote.

    Raises:
        JournalError: The text is damaged.
    """
    try:
        found = json.loads(text)
    except ValueError as cause:
        raise JournalError(f"the record of a mode is damaged: {cause}") from cause
    if not isinstance(found, str):
        raise JournalError(f"the record of a mode is damaged: {text}")
    return found


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
