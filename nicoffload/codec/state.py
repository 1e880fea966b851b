"""Virtual functions, rates, statistics, devices as JSON values; and back, where a user writes them."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from nicoffload.codec.rules import action_to_json, match_to_json, rule_to_json
from nicoffload.codec.units import parse_rate
from nicoffload.errors import InvalidRequestError
from nicoffload.model.action import ACTION_NAMES
from nicoffload.model.match import Match
from nicoffload.model.rule import FlowRule
from nicoffload.model.values import format_mac, parse_mac
from nicoffload.model.vf import LinkState, RateLimit, VfConfig, VlanTag

_CONFIG_KEYS = frozenset({"vf", "mac", "vlan", "spoof_check", "trust", "link_state"})


def to_json(value: Any) -> Any:
    """Return any value of the model as a JSON value: field names as keys, MAC addresses and enums as text.

    Args:
        value: A value of `nicoffload.model`, or one that is made of them.

    Raises:
        TypeError: It is made of something else.
    """
    for kinds, convert in _FORMS:
        if isinstance(value, kinds):
            return convert(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _member(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise TypeError(f"{value!r} has no JSON form")


def vf_config_from_json(document: Any, path: str = "") -> VfConfig:
    """Return the settings of a VF; what is left out stays as it is.

    Args:
        document: ``{"vf": 1, "mac": "02:00:00:00:00:01", "vlan": {"vid": 100}, "trust": true}``.
        path: JSON pointer to it, for the error.

    Raises:
        InvalidRequestError: A value is wrong.
    """
    given = _known(document, _CONFIG_KEYS, path)
    mac, vlan, link = given.get("mac"), given.get("vlan"), given.get("link_state")
    with_vlan = None if vlan is None else _known(vlan, frozenset({"vid", "pcp", "protocol"}), f"{path}/vlan")
    try:
        return VfConfig(
            vf=given.get("vf", -1),
            mac=None if mac is None else parse_mac(mac),
            vlan=None if with_vlan is None else VlanTag(**with_vlan),
            spoof_check=given.get("spoof_check"),
            trust=given.get("trust"),
            link_state=None if link is None else _link_state(link),
        )
    except InvalidRequestError as cause:
        raise InvalidRequestError(cause.message, path=path + cause.path, hint=cause.hint) from cause
    except TypeError as cause:
        raise InvalidRequestError(f"wrong type: {cause}", path=path) from cause


def rate_bound_from_json(value: int | str | None, path: str = "") -> int | None:
    """Return one bound of a rate in bit/s: a number, text as `parse_rate` takes it, or null for none.

    Raises:
        InvalidRequestError: The text is no rate.
    """
    return parse_rate(value, path) if isinstance(value, str) else value


def rate_limit_from_json(document: Any, path: str = "") -> RateLimit:
    """Return both rates of a VF; one that is left out is none.

    Args:
        document: ``{"min_tx_bps": "10M", "max_tx_bps": 100000000}``.
        path: JSON pointer to it, for the error.

    Raises:
        InvalidRequestError: A rate is wrong.
    """
    given = _known(document, frozenset({"min_tx_bps", "max_tx_bps"}), path)
    bounds = {name: rate_bound_from_json(value, f"{path}/{name}") for name, value in given.items()}
    try:
        return RateLimit(**bounds)
    except InvalidRequestError as cause:
        raise InvalidRequestError(cause.message, path=path + cause.path, hint=cause.hint) from cause


def _member(name: str, value: Any) -> Any:
    return format_mac(value) if name == "mac" and value is not None else to_json(value)


def _known(document: Any, keys: frozenset[str], path: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise InvalidRequestError(f"expected an object, found {type(document).__name__}", path=path)
    if unknown := [key for key in document if key not in keys]:
        raise InvalidRequestError(
            "no such key", path=f"{path}/{unknown[0]}", hint=f"one of: {', '.join(sorted(keys))}"
        )
    return document


def _link_state(text: str) -> LinkState:
    try:
        return LinkState(text)
    except ValueError as cause:
        known = ", ".join(state.value for state in LinkState)
        raise InvalidRequestError(
            f"{text!r} is no link state", path="/link_state", hint=f"one of: {known}"
        ) from cause


_FORMS: tuple[tuple[tuple[type, ...], Callable[[Any], Any]], ...] = (
    ((type(None), bool, int, float, str), lambda value: value),
    ((FlowRule,), rule_to_json),
    ((Match,), match_to_json),
    (tuple(ACTION_NAMES), action_to_json),
    ((enum.Enum,), lambda value: value.value),
    ((uuid.UUID,), str),
    ((Mapping,), lambda value: {str(key): to_json(item) for key, item in value.items()}),
    ((tuple, list), lambda value: [to_json(item) for item in value]),
)
