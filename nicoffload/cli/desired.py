"""The file of ``nicoffload plan`` and ``apply``: YAML or JSON to a desired state."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nicoffload.codec import (
    RuleTextError,
    format_rule,
    load_document,
    parse_rule,
    rule_from_json,
    vf_config_from_json,
)
from nicoffload.codec.state import rate_bound_from_json
from nicoffload.errors import InvalidRequestError
from nicoffload.schema import Fault, raise_faults, validate

if TYPE_CHECKING:
    from nicoffload.model import FlowRule, RateLimit, VfConfig
    from nicoffload.nic import DesiredState, Nic

_NAMESPACE = uuid.UUID("5b1f8a0e-6c60-5d0c-9f0e-2f1b8a3f6f57")
"""Of the ids of rules that a file does not name: the same rule has the same id in every run."""


def load_desired(text: str, source: str) -> Mapping[str, Any]:
    """Return the document of a file, once it keeps to its schema.

    Raises:
        InvalidRequestError: It breaks its form or the schema; every fault is listed.
    """
    document = load_document(text, source)
    validate(document, "desired-state", source=source)
    found: Mapping[str, Any] = document
    return found


def to_desired(document: Mapping[str, Any], nic: Nic, source: str) -> DesiredState:
    """Return the desired state that a document says.

    Args:
        document: What `load_desired` returned.
        nic: The NIC; it tells the rates that the document leaves as they are.
        source: Name of the file, for errors.

    Raises:
        InvalidRequestError: A value is wrong, or something is said twice.
    """
    from nicoffload.nic import DesiredState

    try:
        return DesiredState(
            vf_count=document.get("vf_count"),
            vfs=_configs(document.get("vfs", ())),
            rates=_rates(document.get("rates", ()), nic),
            flows=_flows(document.get("flows", ())),
            exact=document.get("exact", False),
        )
    except RuleTextError as cause:
        raise RuleTextError(
            f"{source}: {cause.reason}",
            text=cause.text,
            column=cause.column,
            path=cause.path,
            hint=cause.hint,
        ) from cause
    except InvalidRequestError as cause:
        raise InvalidRequestError(
            f"{source}: {cause.message}", path=cause.path, hint=cause.hint, device=cause.device
        ) from cause


def _configs(documents: Sequence[Any]) -> tuple[VfConfig, ...]:
    _once(documents, "/vfs")
    return tuple(vf_config_from_json(document, f"/vfs/{index}") for index, document in enumerate(documents))


def _rates(documents: Sequence[Any], nic: Nic) -> dict[int, RateLimit]:
    from nicoffload.cli.rate import limit_with_kept_bound

    _once(documents, "/rates")
    rates = {}
    for index, document in enumerate(documents):
        path = f"/rates/{index}"
        bounds = {
            name: rate_bound_from_json(document[name], f"{path}/{name}")
            for name in ("min_tx_bps", "max_tx_bps")
            if name in document
        }
        try:
            rates[document["vf"]] = limit_with_kept_bound(nic, document["vf"], bounds)
        except InvalidRequestError as cause:
            raise InvalidRequestError(cause.message, path=path + cause.path, hint=cause.hint) from cause
    return rates


def _flows(documents: Sequence[Any]) -> tuple[FlowRule, ...]:
    places: dict[uuid.UUID, int] = {}
    rules: list[FlowRule] = []
    faults: list[InvalidRequestError] = []
    for index, document in enumerate(documents):
        path = f"/flows/{index}"
        try:
            rule = _flow(document, path)
        except InvalidRequestError as fault:
            faults.append(fault)
            continue
        if rule.rule_id in places:
            same = f"is the same as /flows/{places[rule.rule_id]}"
            faults.append(InvalidRequestError(same, path=path))
        places.setdefault(rule.rule_id, index)
        rules.append(rule)
    if len(faults) == 1:
        raise faults[0]
    found = [Fault(path=fault.path, message=fault.message, hint=fault.hint) for fault in faults]
    raise_faults(found, error=InvalidRequestError)
    return tuple(rules)


def _flow(document: Any, path: str) -> FlowRule:
    unnamed = uuid.UUID(int=0)
    try:
        if isinstance(document, str):
            rule = parse_rule(document, rule_id=unnamed)
        else:
            rule = rule_from_json(document, rule_id=unnamed)
        if rule.rule_id != unnamed:
            return rule
        return dataclasses.replace(rule, rule_id=uuid.uuid5(_NAMESPACE, format_rule(rule)))
    except RuleTextError as cause:
        raise RuleTextError(
            cause.reason, text=cause.text, column=cause.column, path=path + cause.path, hint=cause.hint
        ) from cause
    except InvalidRequestError as cause:
        raise InvalidRequestError(cause.message, path=path + cause.path, hint=cause.hint) from cause


def _once(documents: Sequence[Any], path: str) -> None:
    seen: dict[int, int] = {}
    for index, document in enumerate(documents):
        vf = document["vf"]
        if vf in seen:
            raise InvalidRequestError(f"vf {vf} is named in {path}/{seen[vf]} too", path=f"{path}/{index}/vf")
        seen[vf] = index
