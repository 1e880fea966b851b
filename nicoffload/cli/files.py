"""Files that a command reads: rules as lines of text or as JSON, one line or many thousand."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nicoffload.codec import RuleTextError, parse_rule, rule_from_json
from nicoffload.codec.documents import load_json_at, position
from nicoffload.errors import AccessDeniedError, InvalidRequestError, NotFoundError
from nicoffload.model import FlowRule


def read_text(name: str) -> str:
    """Return the text of a file; ``-`` is standard input.

    Raises:
        NotFoundError: There is no such file.
        AccessDeniedError: It may not be read.
        InvalidRequestError: It is a folder, is not UTF-8, or can't be read.
    """
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode("utf-8-sig")
    except FileNotFoundError as cause:
        raise NotFoundError(f"{name}: no such file", hint="- reads standard input") from cause
    except IsADirectoryError as cause:
        raise InvalidRequestError(f"{name} is a folder, not a file") from cause
    except PermissionError as cause:
        raise AccessDeniedError(f"{name} may not be read") from cause
    except UnicodeDecodeError as cause:
        raise InvalidRequestError(f"{name}: byte {cause.start} is no UTF-8 text") from cause
    except (OSError, ValueError) as cause:
        raise InvalidRequestError(f"{name!r} can't be read: {cause}") from cause


def read_rules(texts: Sequence[str], files: Sequence[str]) -> tuple[FlowRule, ...]:
    """Return the rules of the command line: those that are arguments, then those of files.

    Args:
        texts: Rules, each as one line of text.
        files: Names of files with lines of text, a JSON array, or JSON objects one after the other.

    Raises:
        InvalidRequestError: A rule is wrong, there is none, or two have one id; the error names file and line.
    """
    check_quoted(texts)
    placed = [
        (f"rule {number}" if len(texts) > 1 else "", parse_rule(text)) for number, text in enumerate(texts, 1)
    ]
    for name in files:
        placed += parse_rules(read_text(name), "standard input" if name == "-" else name)
    if not placed:
        raise InvalidRequestError(
            "no rule is given", hint='write one: "tcp,tp_dst=443 actions=vf:0", or --file FILE'
        )
    seen: dict[uuid.UUID, str] = {}
    for place, rule in placed:
        if rule.rule_id in seen:
            raise InvalidRequestError(
                f"{place or 'the rule'} has the id of {seen[rule.rule_id]}: {rule.rule_id}",
                path="/rule_id",
                hint="a rule's id is its own; leave it out to get a new one",
            )
        seen[rule.rule_id] = place or "the rule"
    return tuple(rule for _, rule in placed)


def check_quoted(texts: Sequence[str]) -> None:
    """Raise where the shell has cut a rule in two at its space.

    Raises:
        InvalidRequestError: Match and actions are two arguments.
    """
    for index, text in enumerate(texts[1:], 1):
        if text.startswith(("actions=", "action=")) and "actions=" not in texts[index - 1]:
            raise InvalidRequestError(
                "a rule is one argument, and its actions are another here",
                hint=f'quote the rule: "{texts[index - 1]} {text}"',
            )


def parse_rules(text: str, source: str) -> Iterator[tuple[str, FlowRule]]:
    """Yield place and rule of each rule in a file's text.

    Args:
        text: Lines of text (blank ones and those that begin with # are skipped), one JSON array, the answer of
            ``nicoffload flow list --json``, or JSON objects one after the other.
        source: Name of the file.

    Raises:
        InvalidRequestError: The file is empty or a rule is wrong.
    """
    if not text.strip():
        raise InvalidRequestError(f"{source}: holds nothing")
    if text.lstrip()[0] in "[{":
        yield from _from_json(text, source)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            place = f"{source}, line {number}"
            try:
                yield place, parse_rule(line)
            except RuleTextError as cause:
                raise RuleTextError(
                    f"{place}: {cause.reason}",
                    text=line,
                    column=cause.column,
                    path=cause.path,
                    hint=cause.hint,
                ) from cause


def _from_json(text: str, source: str) -> Iterator[tuple[str, FlowRule]]:
    start = 0
    while start < len(text):
        line = position(text, start)[0]
        document, start = load_json_at(text, start, source, alone=False)
        for pointer, rule in _documents(document):
            place = f"{source}, line {line}{pointer and f', {pointer}'}"
            yield place, _rule_at(place, rule)


def _documents(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield each rule of a document with its JSON pointer: an array, an object with ``rules``, or one rule."""
    if isinstance(document, list):
        yield from ((f"/{index}", rule) for index, rule in enumerate(document))
    elif isinstance(document, dict) and isinstance(document.get("rules"), list):
        for index, row in enumerate(document["rules"]):
            yield f"/rules/{index}", row["rule"] if isinstance(row, dict) and "rule" in row else row
    else:
        yield "", document


def _rule_at(place: str, document: Any) -> FlowRule:
    try:
        return rule_from_json(document, source=place)
    except InvalidRequestError as cause:
        message = cause.message if place in cause.message else f"{place}: {cause.message}"
        raise InvalidRequestError(message, path=cause.path, hint=cause.hint) from cause
