"""JSON and YAML from outside: every fault with line and column, no key twice, nothing that JSON could not say."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

from nicoffload.errors import InvalidRequestError


def load_json(text: str, source: str = "", *, error: type[InvalidRequestError] = InvalidRequestError) -> Any:
    """Return the value of a JSON text.

    Args:
        text: One JSON document.
        source: Where it is from, for the error.
        error: What to raise.

    Raises:
        InvalidRequestError: It is no JSON, or an object has a key twice; or `error` in its place.
    """
    return load_json_at(text, 0, source, error=error)[0]


def load_json_at(
    text: str,
    start: int,
    source: str = "",
    *,
    error: type[InvalidRequestError] = InvalidRequestError,
    alone: bool = True,
) -> tuple[Any, int]:
    """Return the JSON value that starts at an offset, and the offset behind it and the white space that follows.

    Args:
        text: One JSON document, or several one after the other.
        start: Where to start; white space is skipped.
        source: Where it is from, for the error.
        error: What to raise.
        alone: Whether nothing may follow.

    Raises:
        InvalidRequestError: It is no JSON, or an object has a key twice; or `error` in its place.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs, parse_constant=_no_constant)
    begin = _skip_space(text, start)
    try:
        raw, end = decoder.raw_decode(text, begin)
        value = _plain(raw, "")
    except json.JSONDecodeError as cause:
        raise error(f"{_at(source, cause.lineno, cause.colno)}: no JSON: {cause.msg}") from cause
    except RecursionError as cause:
        raise error(f"{source or 'JSON'}: nested too deeply") from cause
    except ValueError as cause:
        raise error(f"{source or 'JSON'}: {cause}") from cause
    after = _skip_space(text, end)
    if alone and after != len(text):
        line, column = position(text, after)
        raise error(f"{_at(source, line, column)}: something follows the JSON document")
    return value, after


def load_yaml(text: str, source: str = "", *, error: type[InvalidRequestError] = InvalidRequestError) -> Any:
    """Return the value of a YAML text, which says no more than JSON can: text, numbers, true, false, null.

    ``no``, ``on`` and ``12:30`` are text, as in YAML 1.2. Anchors are refused, so a document is as large as it looks.

    Args:
        text: One YAML document.
        source: Where it is from, for the error.
        error: What to raise.

    Raises:
        InvalidRequestError: It is no YAML, a mapping has a key twice, or a key is no text; or `error` in its place.
    """
    import yaml  # noqa: PLC0415  only who reads YAML pays for it

    from nicoffload.codec._yaml import Loader  # noqa: PLC0415  likewise

    try:
        return yaml.load(text, Loader)  # noqa: S506  made from SafeLoader
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark or cause.context_mark
        where = _at(source, mark.line + 1, mark.column + 1) if mark else source or "YAML"
        raise error(f"{where}: {cause.problem or cause.context or 'no YAML'}") from cause
    except yaml.YAMLError as cause:  # a character that YAML does not allow
        raise error(f"{source or 'YAML'}: {' '.join(str(cause).split())}") from cause
    except RecursionError as cause:
        raise error(f"{source or 'YAML'}: nested too deeply") from cause


def load_document(
    text: str, source: str = "", *, error: type[InvalidRequestError] = InvalidRequestError
) -> Any:
    """Return the value of a JSON or YAML text: JSON where the name ends so or the text starts so, else YAML.

    Args:
        text: The text of the file.
        source: Its name, which tells the form by its ending.
        error: What to raise.

    Raises:
        InvalidRequestError: The text is empty or breaks its form; or `error` in its place.
    """
    if not text.strip():
        raise error(f"{source or 'the document'}: holds nothing")
    yaml_by_name = source.endswith((".yaml", ".yml"))
    if source.endswith(".json") or (not yaml_by_name and text.lstrip()[0] in "{["):
        return load_json(text, source, error=error)
    return load_yaml(text, source, error=error)


def position(text: str, offset: int) -> tuple[int, int]:
    """Return line and column of an offset, both from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


class _Pairs(list[tuple[Hashable, Any]]):
    """An object as read: its pairs, so that a key given twice is seen."""


def _plain(value: Any, path: str) -> Any:
    """Return the value with objects as dicts.

    Raises:
        ValueError: An object has a key twice.
    """
    if isinstance(value, _Pairs):
        found: dict[Hashable, Any] = {}
        for key, item in value:
            if key in found:
                raise ValueError(f"the key {path}/{key} is given twice")
            found[key] = _plain(item, f"{path}/{key}")
        return found
    if isinstance(value, list):
        return [_plain(item, f"{path}/{index}") for index, item in enumerate(value)]
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start] in " \t\r\n":
        start += 1
    return start


def _at(source: str, line: int, column: int) -> str:
    place = f"line {line}, column {column}"
    return f"{source}: {place}" if source else place
