"""Policy documents: text to `Policy`, with every fault found at once, each with line, column and pointer."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nicoffload.codec import parse_rate, parse_rule, parse_size
from nicoffload.errors import InvalidRequestError, PolicyError
from nicoffload.flexivoffload.headers import COMPARABLE_FIELDS
from nicoffload.flexivoffload.policy.contradictions import contradictions
from nicoffload.flexivoffload.policy.marks import BrokenTextError, Fault, Marked, read_marked
from nicoffload.flexivoffload.policy.types import (
    HYSTERESIS,
    Granularity,
    Limits,
    Measure,
    Policy,
    PolicyRule,
    RuleKind,
    Threshold,
)
from nicoffload.model import FIELDS, FieldInput, Match
from nicoffload.schema import find_faults

MAX_BYTES = 4 << 20
"""Far more than a policy of a thousand rules takes."""


def load_policy(path: Path) -> Policy:
    """Read a policy from a YAML or JSON file.

    Raises:
        PolicyError: It can't be read, breaks its schema, or contradicts itself; the message lists every fault.
    """
    try:
        raw = path.read_bytes()
    except OSError as cause:
        raise PolicyError(cause.strerror or str(cause), path=str(path)) from cause
    if len(raw) > MAX_BYTES:
        raise PolicyError(f"{len(raw):,} bytes are no policy", path=str(path))
    try:
        return parse_policy(raw.decode("utf-8-sig"), source=str(path))
    except UnicodeDecodeError as cause:
        raise PolicyError(f"not UTF-8 text: {cause.reason} at byte {cause.start}", path=str(path)) from cause


def parse_policy(text: str, *, source: str = "policy") -> Policy:
    """Return the policy that a YAML or JSON text holds.

    Args:
        text: The document.
        source: File name, for messages.

    Raises:
        PolicyError: The text breaks its schema or contradicts itself; the message lists every fault.
    """
    try:
        marked = read_marked(text)
    except BrokenTextError as cause:
        raise PolicyError(
            f"{source}:{cause.line}:{cause.column}: neither YAML nor JSON: {cause.message}", path=""
        ) from cause
    if not isinstance(marked.value, dict):
        raise PolicyError(
            f"{source}:1:1: a policy is a mapping", path="", hint="the smallest one is: version: 1"
        )
    faults = [*marked.faults, *_schema_faults(marked.value)]
    if faults:
        raise _error(faults, marked, source)
    builder = _Builder(marked.value, source)
    policy = builder.policy()
    faults = builder.faults or list(contradictions(policy.rules))
    if faults:
        raise _error(faults, marked, source)
    return policy


def _schema_faults(document: object) -> Iterator[Fault]:
    for fault in find_faults(document, "policy"):
        hint = f" ({fault.hint})" if fault.hint else ""
        yield Fault(pointer=fault.path, message=f"{fault.message}{hint}")


def _error(faults: Sequence[Fault], marked: Marked, source: str) -> PolicyError:
    places = sorted((*marked.place(fault.pointer), fault.pointer, fault.message) for fault in faults)
    lines = [f"{source}:{line}:{column}: {at or '/'}: {what}" for line, column, at, what in places]
    many = "" if len(lines) == 1 else f"{len(lines)} faults\n"
    return PolicyError(many + "\n".join(lines), hint="docs/reference/policy.md lists every key")


class _Builder:
    """Makes values of a document that fits its schema, and collects what the schema can't see."""

    def __init__(self, document: Mapping[str, Any], source: str) -> None:
        self._document = document
        self._source = source
        self.faults: list[Fault] = []

    def policy(self) -> Policy:
        seen: dict[str, int] = {}
        rules = []
        for index, entry in enumerate(self._document.get("rules", [])):
            name = entry["id"]
            if name in seen:
                self._fault(
                    f"/rules/{index}/id", f"{name!r} names rule {seen[name]} already (counted from 0)"
                )
            seen.setdefault(name, index)
            rule = self._rule(entry, index)
            if rule is not None:
                rules.append(rule)
        limits = self._document.get("limits", {})
        order = list(Granularity)
        return Policy(
            rules=tuple(rules),
            default_offload=self._document.get("default", "onload") == "offload",
            granularity=tuple(
                sorted(
                    (Granularity(name) for name in self._document.get("granularity", ["flow"])),
                    key=order.index,
                )
            ),
            limits=Limits(**{name: float(value) for name, value in limits.items()}),
            source=self._source,
        )

    def _fault(self, pointer: str, message: str) -> None:
        self.faults.append(Fault(pointer=pointer, message=message))

    def _rule(self, entry: Mapping[str, Any], index: int) -> PolicyRule | None:
        at = f"/rules/{index}"
        kind = self._kind(entry, at)
        match, vm = self._match(entry, at)
        if kind is None or match is None:
            return None
        thresholds: tuple[Threshold, ...] = ()
        if kind in (RuleKind.PROMOTE, RuleKind.DEMOTE):
            found = self._thresholds(entry[kind.value], kind, f"{at}/{kind.value}")
            if not found:
                return None
            thresholds = tuple(found)
        return PolicyRule(
            rule_id=entry["id"],
            kind=kind,
            match=match,
            vm=vm,
            priority=entry.get("priority", 0),
            is_ranked="priority" in entry,
            pin=entry.get("pin", False),
            thresholds=thresholds,
            hold_s=float(entry.get("hold_s", 0.0)),
            min_residence_s=float(entry.get("min_residence_s", 0.0)),
            index=index,
        )

    def _kind(self, entry: Mapping[str, Any], at: str) -> RuleKind | None:
        deciders = [name for name in ("action", "promote", "demote") if name in entry]
        if len(deciders) != 1:
            found = " and ".join(deciders) if deciders else "none"
            self._fault(at, f"a rule has exactly one of action, promote and demote; found {found}")
            return None
        decider = deciders[0]
        when = entry.get("when", "first_packet" if decider == "action" else "statistics")
        if (when == "first_packet") != (decider == "action"):
            right = "first_packet" if decider == "action" else "statistics"
            self._fault(f"{at}/when", f"a rule with {decider} is decided {right}, not {when}")
        for name in ("pin",) if decider != "action" else ("hold_s", "min_residence_s"):
            if name in entry:
                what = "the first packet" if decider == "action" else "statistics"
                self._fault(f"{at}/{name}", f"means nothing in a rule on {what}")
        return RuleKind(entry["action"] if decider == "action" else decider)

    def _match(self, entry: Mapping[str, Any], at: str) -> tuple[Match | None, str]:
        given = entry.get("match", "")
        vm = entry.get("vm", "")
        at = f"{at}/match"
        try:
            if isinstance(given, str):
                match = _match_of_text(given)
            else:
                fields = dict(given)
                vm = str(fields.pop("vm", vm))
                match = _match_of_fields(fields)
        except InvalidRequestError as error:
            below = error.path.removeprefix("/match") if isinstance(given, dict) else ""
            hint = f" ({error.hint})" if error.hint else ""
            self._fault(at + below, f"{error.message}{hint}")
            return None, vm
        blind = [name for name, _ in match.items() if name not in COMPARABLE_FIELDS]
        if blind:
            self._fault(
                at, f"{', '.join(blind)}: packets are not looked into tunnels, so this matches no flow"
            )
            return None, vm
        return match, vm

    def _thresholds(self, conditions: Mapping[str, Any], kind: RuleKind, at: str) -> list[Threshold]:
        found = []
        for name, entry in conditions.items():
            measure = Measure(name)
            values = {side: self._number(entry[side], measure, f"{at}/{name}/{side}") for side in entry}
            if any(value is None for value in values.values()):
                continue
            faults = list(_threshold_faults(values, measure, kind))
            for side, message in faults:
                self._fault(f"{at}/{name}{side}", message)
            if not faults:
                found.append(_threshold(values, measure))
        return found

    def _number(self, given: float | str, measure: Measure, at: str) -> float | None:
        try:
            value = float(given) if not isinstance(given, str) else _parse_number(given, measure)
        except InvalidRequestError as error:
            self._fault(at, error.message + (f" ({error.hint})" if error.hint else ""))
            return None
        if not math.isfinite(value) or value <= 0:
            self._fault(at, f"{given} is not above 0")
            return None
        return value


def _parse_number(text: str, measure: Measure) -> float:
    if measure is Measure.BPS:
        rate = parse_rate(text)
        if rate is None:
            raise InvalidRequestError("'none' is no threshold", hint="leave the measure out")
        return float(rate)
    if measure is Measure.BYTES:
        return float(parse_size(text))
    raise InvalidRequestError(f"{text!r} is no number", hint="only bps and bytes take text, such as 100M")


def _threshold_faults(
    values: Mapping[str, float | None], measure: Measure, kind: RuleKind
) -> Iterator[tuple[str, str]]:
    up, down = values.get("up"), values.get("down")
    name = measure.value
    if not measure.is_rate and down is not None:
        yield "/down", f"{name} never falls, so it has no down"
    needed = "down" if kind is RuleKind.DEMOTE and measure.is_rate else "up"
    if values.get(needed) is None:
        yield "", f"{kind.value} on {name} needs {needed}"
    if up is None or down is None:
        return
    if down > up:
        yield "/down", f"down {down:,.10g} exceeds up {up:,.10g}: a flow would go round in circles"
    elif down > HYSTERESIS * up:
        yield (
            "/down",
            f"down {down:,.10g} is to be at most {HYSTERESIS} of up {up:,.10g}, which is {HYSTERESIS * up:,.10g}",
        )


def _threshold(values: Mapping[str, float | None], measure: Measure) -> Threshold:
    up, down = values.get("up"), values.get("down")
    if measure.is_rate and down is None and up is not None:
        down = up / 2
    if up is None:
        assert down is not None
        up = down / HYSTERESIS
    return Threshold(measure=measure, up=up, down=down)


def _match_of_text(text: str) -> Match:
    if "actions=" in text:
        raise InvalidRequestError("a match has no actions", hint="the rule's own keys say what to do")
    return parse_rule(f"{text} actions=pf").match if text.strip() else Match()


_NAMES: Mapping[str, str] = {text: name for name, spec in FIELDS.items() for text in (name, *spec.texts)}
"""Each name of a field, as people write it, and its name in the model."""


def _match_of_fields(given: Mapping[str, int | str]) -> Match:
    fields: dict[str, FieldInput] = {}
    for name, value in given.items():
        if name == "protocol":
            fields |= dict(_protocol(str(value)).items())
        elif name in _NAMES:
            fields[_NAMES[name]] = value
        else:
            known = [*_NAMES, "protocol", "vm"]
            # Two letters that changed places are the commonest slip, and difflib ranks them low.
            swapped = [other for other in known if sorted(other) == sorted(name)]
            near = swapped or difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(FIELDS)}"
            raise InvalidRequestError("no such match field", path=f"/match/{name}", hint=hint)
    return Match.of(**fields)


def _protocol(word: str) -> Match:
    try:
        if word.isalnum():
            return parse_rule(f"{word} actions=pf").match
    except InvalidRequestError as cause:
        raise InvalidRequestError(f"no protocol {word!r}", path="/match/protocol", hint=cause.hint) from cause
    raise InvalidRequestError(f"no protocol {word!r}", path="/match/protocol", hint="write tcp, udp6, icmp")
