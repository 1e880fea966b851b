"""Rules as JSON values, in the form of ``schemas/flow-rule.schema.json``."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from nicoffload.codec.near import did_you_mean
from nicoffload.codec.text import format_field
from nicoffload.errors import InvalidRequestError
from nicoffload.model.action import (
    ACTION_NAMES,
    Action,
    Mirror,
    SetField,
)
from nicoffload.model.fields import FIELDS, Kind
from nicoffload.model.match import FieldValue, Masked, Match, field_value
from nicoffload.model.rule import FlowRule
from nicoffload.model.values import PORT_HINT, format_switch_port, parse_switch_port
from nicoffload.schema import validate

_MAX_EXACT_JSON = (1 << 53) - 1
"""Largest whole number that every JSON reader keeps; what is larger is written as text."""

_RULE_KEYS = frozenset({"rule_id", "priority", "match", "actions"})


def rule_to_json(rule: FlowRule) -> dict[str, Any]:
    """Return a rule as a JSON value; `rule_from_json` gives the same rule back."""
    document: dict[str, Any] = {"rule_id": str(rule.rule_id)}
    if rule.priority is not None:
        document["priority"] = rule.priority
    document["match"] = match_to_json(rule.match)
    document["actions"] = [action_to_json(action) for action in rule.actions]
    return document


def rule_from_json(document: Any, *, rule_id: uuid.UUID | None = None, source: str = "") -> FlowRule:
    """Return the rule that a JSON value says.

    Args:
        document: A value of the form of ``schemas/flow-rule.schema.json``.
        rule_id: The rule's id where the document names none; None makes a new one.
        source: Where the document is from, for the error.

    Raises:
        InvalidRequestError: The document breaks the schema (every fault is listed) or contradicts itself.
    """
    # A sound document is built at once, as there can be 100,000. Only one that can't be is held against the schema,
    # which finds every fault. A test holds that nothing is built that the schema refuses.
    try:
        return _rule(document, rule_id)
    except InvalidRequestError:
        validate(document, "flow-rule", error=InvalidRequestError, source=source)
        raise


def match_to_json(match: Match) -> dict[str, int | str]:
    """Return a match as a JSON value: field name to number, or to text where there is a mask, a range or an address."""
    return {name: _value_to_json(name, value) for name, value in match.items()}


def match_from_json(document: Any) -> Match:
    """Return the match that a JSON value says.

    Raises:
        InvalidRequestError: No such field, or a value that does not fit it.
    """
    fields = _object(document, "/match")
    for name, given in fields.items():
        path = f"/match/{name}"
        if name not in FIELDS:
            hint = did_you_mean(name, FIELDS) or f"one of: {', '.join(FIELDS)}"
            raise InvalidRequestError("no such match field", path=path, hint=hint)
        if type(given) is not int and type(given) is not str:
            raise InvalidRequestError(f"takes a whole number or text, not {given!r}", path=path)
        if type(given) is int and FIELDS[name].kind is Kind.SWITCH_PORT:
            raise InvalidRequestError(f"{given} is a number, and no port of a NIC", path=path, hint=PORT_HINT)
    return Match.of(**fields)


def action_to_json(action: Action) -> dict[str, Any]:
    """Return an action as a JSON value: its name as ``type``, and its arguments."""
    document: dict[str, Any] = {"type": ACTION_NAMES[type(action)]}
    match action:
        case Mirror(port=port):
            document["port"] = format_switch_port(port)
        case SetField(field=name, value=value):
            document |= {"field": name, "value": format_field(name, value)}
        case _:
            # Every other argument is a number or text, and has the same name here and there.
            document |= {name: getattr(action, name) for name in _ARGUMENTS[document["type"]]}
    return document


def action_from_json(document: Any, path: str = "/action") -> Action:
    """Return the action that a JSON value says.

    Args:
        document: ``{"type": "vf", "vf": 2}``.
        path: JSON pointer to it, for the error.

    Raises:
        InvalidRequestError: No such action, or its arguments are wrong.
    """
    given = dict(_object(document, path))
    name = given.pop("type", None)
    if not isinstance(name, str) or name not in _TYPES:
        hint = did_you_mean(name, _TYPES) if isinstance(name, str) else ""
        known = f"one of: {', '.join(_TYPES)}"
        raise InvalidRequestError(f"no action has the type {name!r}", path=f"{path}/type", hint=hint or known)
    arguments, optional = _ARGUMENTS[name], _OPTIONAL.get(name, frozenset())
    for key in given:
        if key not in arguments:
            hint = did_you_mean(key, arguments) or f"it takes: {', '.join(arguments) or 'nothing'}"
            raise InvalidRequestError(f"the action {name} has no {key!r}", path=f"{path}/{key}", hint=hint)
    if missing := [key for key in arguments if key not in given and key not in optional]:
        raise InvalidRequestError(f"the action {name} lacks {' and '.join(missing)}", path=path)
    for key, value in given.items():
        _check_argument(key, value, f"{path}/{key}")
    try:
        return _build(name, given)
    except InvalidRequestError as cause:
        raise InvalidRequestError(cause.message, path=path, hint=cause.hint) from cause


def _rule(document: Any, rule_id: uuid.UUID | None) -> FlowRule:
    given = _object(document, "")
    if unknown := [key for key in given if key not in _RULE_KEYS]:
        hint = did_you_mean(unknown[0], _RULE_KEYS)
        raise InvalidRequestError("no such key in a rule", path=f"/{unknown[0]}", hint=hint)
    actions, priority = given.get("actions"), given.get("priority")
    if type(actions) is not list:
        raise InvalidRequestError("a rule has a list of actions", path="/actions")
    if "priority" in given and type(priority) is not int:
        raise InvalidRequestError(f"{priority!r} is no priority", path="/priority", hint="0 to 65535")
    named = _uuid(given["rule_id"]) if "rule_id" in given else rule_id
    return FlowRule(
        match=match_from_json(given.get("match", {})),
        actions=tuple(
            [action_from_json(action, f"/actions/{index}") for index, action in enumerate(actions)]
        ),
        priority=priority,
        rule_id=named or uuid.uuid4(),
    )


def _value_to_json(name: str, value: FieldValue) -> int | str:
    spec = FIELDS[name]
    if spec.kind in (Kind.INT, Kind.PORT) and isinstance(value, Masked) and value.mask == spec.full_mask:
        return value.value if value.value <= _MAX_EXACT_JSON else str(value.value)
    return format_field(name, value)


def _object(document: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise InvalidRequestError(f"expected an object, found {type(document).__name__}", path=path)
    return document


def _uuid(text: Any) -> uuid.UUID:
    try:
        found = uuid.UUID(text)
    except (ValueError, AttributeError, TypeError) as cause:
        raise InvalidRequestError(f"{text!r} is no UUID", path="/rule_id") from cause
    if str(found) != text.lower():
        raise InvalidRequestError(f"{text!r} is no UUID", path="/rule_id", hint=f"write {found}")
    return found


def _check_argument(key: str, value: Any, path: str) -> None:
    if key in _TEXT_ARGUMENTS:
        if type(value) is not str:
            raise InvalidRequestError(f"takes text, not {value!r}", path=path)
    elif key != "value" and type(value) is not int:
        raise InvalidRequestError(f"takes a whole number, not {value!r}", path=path)
    elif type(value) is not int and type(value) is not str:
        raise InvalidRequestError(f"takes a whole number or text, not {value!r}", path=path)


def _build(name: str, given: Mapping[str, Any]) -> Action:
    if name == "mirror":
        return Mirror(port=parse_switch_port(given["port"]))
    if name == "set_field":
        value = field_value(given["field"], given["value"])
        if not isinstance(value, Masked):
            raise InvalidRequestError("a field is set to one value, under a mask that is not empty")
        return SetField(field=given["field"], value=value)
    return _TYPES[name](**given)


_TYPES: Mapping[str, Callable[..., Action]] = MappingProxyType(
    {name: kind for kind, name in ACTION_NAMES.items()}
)
_ARGUMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: tuple(kind.__dataclass_fields__) for kind, name in ACTION_NAMES.items()}
)
_OPTIONAL: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "vf": frozenset({"queue"}),
        "push_vlan": frozenset({"pcp", "tpid"}),
        "mod_vlan": frozenset({"pcp"}),
        "tunnel_set": frozenset({"tp_dst"}),
    }
)
_TEXT_ARGUMENTS = frozenset({"field", "src", "dst", "port"})
