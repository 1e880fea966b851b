"""Rules as one line of text, in Open vSwitch's vocabulary: ``tcp,nw_dst=10.0.0.5,tp_dst=443 actions=vf:2``."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from nicoffload.codec.actions import format_action, parse_action
from nicoffload.codec.errors import RuleTextError
from nicoffload.codec.foreign import FOREIGN_FIELDS
from nicoffload.codec.near import did_you_mean
from nicoffload.errors import InvalidRequestError
from nicoffload.model.action import Action
from nicoffload.model.fields import FIELDS, FIELDS_BY_TEXT, TEXT_PROTOCOLS
from nicoffload.model.match import FieldInput, FieldValue, Masked, Match, PortRange, field_value
from nicoffload.model.rule import FlowRule
from nicoffload.model.values import format_value

_ACTIONS = re.compile(r"(?:^|(?<=[\s,]))actions?=")
_WORD = re.compile(r"[^\s,]+")
_NUMBER = re.compile(r"[0-9]{1,9}")
_FLAG = re.compile(r"([+-])([a-z]+)")
_FLAG_BITS: Mapping[str, int] = MappingProxyType(
    {
        name: 1 << bit
        for bit, name in enumerate(("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"))
    }
)
_OF_PROTOCOL: Mapping[str, int] = MappingProxyType({"tcp_src": 6, "tcp_dst": 6, "udp_src": 17, "udp_dst": 17})
"""Names of a port that also say the protocol, which must then be that one."""
_WORDS = frozenset({*FIELDS_BY_TEXT, *TEXT_PROTOCOLS, "priority", "id", "ip_dscp", "actions"})

# The most specific word first: ``tcp`` says more than ``ip``.
_PROTOCOL_WORDS: Mapping[tuple[int, int | None], str] = MappingProxyType(
    {(fields["eth_type"], fields.get("ip_proto")): word for word, fields in TEXT_PROTOCOLS.items()}
)


def parse_rule(text: str, *, rule_id: uuid.UUID | None = None) -> FlowRule:
    """Return the rule that a line of text says.

    Args:
        text: Match fields and protocol words, separated by commas or spaces, then ``actions=`` and the actions:
            ``priority=10,tcp,nw_dst=10.0.0.5,tp_dst=443 actions=push_vlan:100,vf:2``.
        rule_id: The rule's id where the text names none; None makes a new one.

    Raises:
        RuleTextError: The text is wrong; the error knows the column.
    """
    return _Parser(text).rule(rule_id)


def format_rule(rule: FlowRule, *, with_id: bool = False) -> str:
    """Return the line of text of a rule; `parse_rule` gives the same rule back (with its id only `with_id`)."""
    head = [f"priority={rule.priority}"] if rule.priority is not None else []
    if with_id:
        head.append(f"id={rule.rule_id}")
    matched = ",".join((*head, *_match_words(rule.match)))
    actions = "actions=" + ",".join(map(format_action, rule.actions))
    return f"{matched} {actions}" if matched else actions


def format_match(match: Match) -> str:
    """Return the match part of a rule's text; empty where it matches anything."""
    return ",".join(_match_words(match))


def format_field(name: str, value: FieldValue) -> str:
    """Return the text of one field's value: ``10.0.0.0/8``, ``1000-2000``."""
    if isinstance(value, PortRange):
        return f"{value.first}-{value.last}"
    return format_value(FIELDS[name], value.value, value.mask)


def _match_words(match: Match) -> Iterator[str]:
    word, said = _protocol_word(match)
    if word:
        yield word
    for name, value in match.items():
        if name not in said:
            yield f"{FIELDS[name].texts[0]}={format_field(name, value)}"


def _protocol_word(match: Match) -> tuple[str, tuple[str, ...]]:
    eth_type, ip_proto = _exact(match, "eth_type"), _exact(match, "ip_proto")
    if eth_type is None:
        return "", ()
    if ip_proto is not None and (word := _PROTOCOL_WORDS.get((eth_type, ip_proto))):
        return word, ("eth_type", "ip_proto")
    word = _PROTOCOL_WORDS.get((eth_type, None), "")
    return word, ("eth_type",) if word else ()


def _exact(match: Match, name: str) -> int | None:
    value: FieldValue | None = getattr(match, name)
    return value.value if isinstance(value, Masked) and value.mask == FIELDS[name].full_mask else None


@dataclass(slots=True, kw_only=True)
class _Said:
    """What the words before ``actions=`` said so far, and at which column each thing was said."""

    fields: dict[str, FieldInput] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    columns: dict[str, int] = field(default_factory=dict)
    priority: int | None = None
    rule_id: uuid.UUID | None = None


class _Parser:
    """Reads one line; every fault it finds names its column."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._said = _Said()

    def rule(self, rule_id: uuid.UUID | None) -> FlowRule:
        found = _ACTIONS.search(self._text)
        head = self._text[: found.start()] if found else self._text
        for word in _WORD.finditer(head):
            self._word(word[0], word.start() + 1)
        if found is None:
            raise self._error(
                "the rule has no actions=",
                len(self._text) + 1,
                path="/actions",
                hint="end it with: actions=vf:0",
            )
        match = self._match()
        actions = self._actions(found.end())
        chosen = self._said.rule_id or rule_id or uuid.uuid4()
        try:
            return FlowRule(match=match, actions=actions, priority=self._said.priority, rule_id=chosen)
        except InvalidRequestError as cause:
            column = self._said.columns.get(cause.path, found.start() + 1)
            raise self._error(cause.message, column, path=cause.path, hint=cause.hint) from cause

    def _word(self, word: str, column: int) -> None:
        key, equals, value = word.partition("=")
        if not equals:
            self._bare(word, column)
        elif not value:
            raise self._error(f"{key}= has no value", column, hint="leave it out to match anything")
        elif key == "priority":
            self._once("/priority", key, column)
            if not _NUMBER.fullmatch(value):
                raise self._error(f"{value!r} is no priority", column, path="/priority", hint="0 to 65535")
            self._said.priority = int(value)
        elif key == "id":
            self._once("/rule_id", key, column)
            self._said.rule_id = self._uuid(value, column)
        else:
            self._field(key, value, column)

    def _bare(self, word: str, column: int) -> None:
        if word in TEXT_PROTOCOLS:
            for name, number in TEXT_PROTOCOLS[word].items():
                self._set(name, Masked(number, FIELDS[name].full_mask), word, column)
        elif word in _WORDS:
            raise self._error(f"{word} needs a value", column, hint=f"write {word}=...")
        else:
            raise self._unknown(word, column)

    def _field(self, key: str, value: str, column: int) -> None:
        name, given = (
            ("ip_tos", self._dscp(value, column)) if key == "ip_dscp" else self._named(key, value, column)
        )
        self._set(name, given, key, column)

    def _named(self, key: str, value: str, column: int) -> tuple[str, FieldInput]:
        spec = FIELDS_BY_TEXT.get(key)
        if spec is None:
            raise self._unknown(key, column)
        if spec.name == "tcp_flags" and value[0] in "+-":
            return spec.name, self._flags(value, column)
        return spec.name, value

    def _set(self, name: str, given: FieldInput, key: str, column: int) -> None:
        """Note a field; two words may say the same (``ip,tcp``), and no two may differ."""
        path = f"/match/{name}"
        try:
            value = field_value(name, given)
        except InvalidRequestError as cause:
            raise self._error(f"{key}: {cause.message}", column, path=path, hint=cause.hint) from cause
        if value is None:  # a mask of all zeros: anything
            return
        before = self._said.words.get(name)
        if before is not None:
            protocol = key in TEXT_PROTOCOLS or before in TEXT_PROTOCOLS
            if not protocol or key == before:
                raise self._error(f"{key} says what {before} has said already", column, path=path)
            if value != self._said.fields[name]:
                raise self._error(
                    f"{key} contradicts {before}", column, path=path, hint=_protocol_hint(key, before)
                )
        self._said.fields[name] = value
        self._said.words[name] = key
        self._said.columns[path] = column

    def _match(self) -> Match:
        said = self._said
        for name, word in said.words.items():
            protocol = said.fields.get("ip_proto")
            needed = _OF_PROTOCOL.get(word)
            if needed is not None and isinstance(protocol, Masked) and protocol.value != needed:
                column = said.columns[f"/match/{name}"]
                other = said.words["ip_proto"]
                raise self._error(
                    f"{word} contradicts {other}",
                    column,
                    path=f"/match/{name}",
                    hint=f"write {FIELDS[name].texts[0]}",
                )
        try:
            return Match.of(**said.fields)
        except InvalidRequestError as cause:
            name = cause.path.rpartition("/")[2]
            message = f"{said.words.get(name, name)} {cause.message}"
            raise self._error(
                message, said.columns.get(cause.path, 1), path=cause.path, hint=cause.hint
            ) from cause

    def _actions(self, start: int) -> tuple[Action, ...]:
        actions = []
        for index, (word, column) in enumerate(_split_actions(self._text, start)):
            try:
                actions.append(parse_action(word))
            except InvalidRequestError as cause:
                message = cause.message if word else "an action is missing"
                raise self._error(message, column, path=f"/actions/{index}", hint=cause.hint) from cause
        return tuple(actions)

    def _dscp(self, value: str, column: int) -> Masked:
        if not _NUMBER.fullmatch(value) or int(value) > 63:
            raise self._error(f"{value!r} is no DSCP", column, path="/match/ip_tos", hint="0 to 63")
        return Masked(int(value) << 2, 0xFC)

    def _flags(self, value: str, column: int) -> Masked:
        bits = mask = end = 0
        for found in _FLAG.finditer(value):
            bit = _FLAG_BITS.get(found[2], 0)
            if found.start() != end or not bit or mask & bit:
                break
            end = found.end()
            mask |= bit
            bits |= bit if found[1] == "+" else 0
        if end != len(value):
            known = ", ".join(_FLAG_BITS)
            raise self._error(
                f"{value!r} names no TCP flags",
                column,
                path="/match/tcp_flags",
                hint=f"write +syn-ack; flags: {known}",
            )
        return Masked(bits, mask)

    def _uuid(self, value: str, column: int) -> uuid.UUID:
        try:
            found = uuid.UUID(value)
        except ValueError as cause:
            raise self._error(f"{value!r} is no UUID", column, path="/rule_id") from cause
        if str(found) != value.lower():
            raise self._error(f"{value!r} is no UUID", column, path="/rule_id", hint=f"write {found}")
        return found

    def _once(self, path: str, key: str, column: int) -> None:
        if path in self._said.columns:
            raise self._error(f"{key} is given twice", column, path=path)
        self._said.columns[path] = column

    def _unknown(self, word: str, column: int) -> RuleTextError:
        near = FOREIGN_FIELDS.get(word) or did_you_mean(word, _WORDS)
        hint = near or "see docs/reference/rules.md for the match fields"
        return self._error(f"no match field is called {word!r}", column, path="/match", hint=hint)

    def _error(self, message: str, column: int, *, path: str = "", hint: str = "") -> RuleTextError:
        return RuleTextError(message, text=self._text, column=column, path=path, hint=hint)


def _protocol_hint(key: str, before: str) -> str:
    """Say which word is meant where IPv6 meets a word that means IPv4."""
    for word in (key, before):
        if {key, before} == {"ipv6", word} and f"{word}6" in TEXT_PROTOCOLS:
            return f"{word} is IPv4; write {word}6 alone"
    return ""


def _split_actions(text: str, start: int) -> Iterator[tuple[str, int]]:
    """Yield each action with its column; commas within brackets belong to the action."""
    depth, begin = 0, start
    for position in range(start, len(text) + 1):
        character = text[position] if position < len(text) else ","
        depth += {"(": 1, ")": -1}.get(character, 0)
        if position == len(text) or (character == "," and depth <= 0):
            part = text[begin:position]
            yield part.strip(), begin + 1 + len(part) - len(part.lstrip())
            begin = position + 1
