"""Checks documents against the schemas of this package, and says every fault in words that help.

A fault names its place by JSON pointer, what was found there, and what would be accepted; a misspelt word gets the one
that was probably meant. jsonschema is imported only when a document is checked.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from nicoffload.errors import InvalidRequestError, NicOffloadError

if TYPE_CHECKING:
    import jsonschema
    from jsonschema.exceptions import ValidationError
    from referencing import Resource

_LONGEST_LIST = 24
_LONGEST_VALUE = 60
_TYPE_WORDS = {
    "object": "an object",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong with a document.

    Args:
        path: JSON pointer to it; empty for the document as a whole.
        message: What was found, and what is accepted.
        hint: What was probably meant; empty where nothing is near.
    """

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message}{f' ({self.hint})' if self.hint else ''}"


def validate(
    document: object,
    schema_name: str,
    *,
    error: type[NicOffloadError] = InvalidRequestError,
    source: str = "",
) -> None:
    """Check a document against one of the schemas of this package.

    Args:
        document: JSON values: mappings, lists, texts, numbers, booleans, None.
        schema_name: Name of the schema, such as ``nic-profile``.
        error: What to raise; it must take the arguments that all errors of the family take.
        source: Where the document comes from, for the message: a file name.

    Raises:
        NicOffloadError: Of the class `error`: the document breaks the schema; the message lists every fault.
    """
    raise_faults(find_faults(document, schema_name), error=error, source=source)


def raise_faults(faults: Sequence[Fault], *, error: type[NicOffloadError], source: str = "") -> None:
    """Raise one error that lists all faults; return if there are none."""
    if not faults:
        return
    within = f" (in {source})" if source else ""
    if len(faults) == 1:
        fault = faults[0]
        raise error(f"{fault.message}{within}", path=fault.path, hint=fault.hint)
    lines = "".join(f"\n  {fault}" for fault in faults)
    hint = next((fault.hint for fault in faults if fault.hint), "")
    raise error(
        f"{len(faults)} faults{within}:{lines}", path=_common([fault.path for fault in faults]), hint=hint
    )


def find_faults(document: object, schema_name: str) -> tuple[Fault, ...]:
    """Return everything that is wrong with a document, in the order of its places."""
    found: dict[Fault, None] = {}
    for problem in _validator(schema_name).iter_errors(document):
        for fault in _explain(problem):
            found[fault] = None
    return tuple(sorted(found, key=lambda fault: (fault.path, fault.message)))


@cache
def load_schema(schema_name: str) -> Any:
    """Return a schema of this package as JSON values; not to be changed."""
    from importlib.resources import files  # noqa: PLC0415 - as slow to import as all the rest of this module

    path = files("nicoffload").joinpath("schemas", f"{schema_name}.schema.json")
    return json.loads(path.read_text(encoding="utf-8"))


def pointer(parts: Iterable[object]) -> str:
    """Return the JSON pointer of a place in a document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _common(paths: Sequence[str]) -> str:
    """Return the pointer to the smallest part of a document that holds all of the places."""
    steps = zip(*(path.split("/") for path in paths), strict=False)
    return "/".join(step[0] for step in takewhile(lambda step: len(set(step)) == 1, steps))


@cache
def _validator(schema_name: str) -> jsonschema.Draft202012Validator:
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - only who checks a document pays for it
    from referencing import Registry  # noqa: PLC0415 - likewise

    registry: Registry[Any] = Registry(retrieve=_retrieve)  # type: ignore[call-arg]  # attrs hides the name from mypy
    return Draft202012Validator(load_schema(schema_name), registry=registry)


def _retrieve(uri: str) -> Resource[Any]:
    from referencing import Resource  # noqa: PLC0415 - likewise
    from referencing.exceptions import NoSuchResource  # noqa: PLC0415 - likewise

    name, found, _ = uri.rpartition("/")[2].partition(".schema.json")
    if not found:
        raise NoSuchResource(uri)
    return Resource.from_contents(load_schema(name))


def _explain(problem: ValidationError) -> Iterator[Fault]:
    """Turn one finding of jsonschema into faults that a person understands."""
    where = list(problem.absolute_path)
    kind = problem.validator
    found: Any = problem.instance
    if "propertyNames" in problem.relative_schema_path and kind != "propertyNames":
        yield _unknown_key(where, found, _wanted_value(problem) if kind == "enum" else ())
    elif kind == "additionalProperties":
        schema: Any = problem.schema
        known = schema.get("properties", {})
        for key in found:
            if key not in known:
                yield _unknown_key(where, key, known)
    elif kind == "required":
        for key in _wanted_value(problem):
            if key not in found:
                yield Fault(path=pointer(where), message=f"the key {key!r} is missing")
    elif kind in ("oneOf", "anyOf"):
        yield from _explain_choice(problem)
    else:
        yield _explain_value(where, problem)


def _explain_value(where: Sequence[object], problem: ValidationError) -> Fault:
    value: object = problem.instance
    wanted = _wanted_value(problem)
    found = short(value)
    hint = ""
    match problem.validator:
        case "type":
            message = f"{found} is {_type_of(value)}, not {_type_words(wanted)}"
        case "enum":
            message = f"{found} is none of {_listed(wanted)}"
            hint = _near(value, wanted)
        case "const":
            message = f"{found} is not {short(wanted)}"
        case "minimum":
            message = f"{found} is below {wanted}"
        case "maximum":
            message = f"{found} is above {wanted}"
        case "minItems" | "minLength" | "minProperties":
            message = f"{found} is too short: at least {wanted}"
        case "maxItems" | "maxLength" | "maxProperties":
            message = f"{found} is too long: at most {wanted}"
        case "pattern":
            message = f"{found} does not have the form {wanted}"
        case "uniqueItems":
            message = f"{found} holds something twice"
        case _:
            message = (
                problem.message if len(problem.message) < 2 * _LONGEST_VALUE else f"{found} is not accepted"
            )
    return Fault(path=pointer(where), message=message, hint=hint)


def _explain_choice(problem: ValidationError) -> Iterator[Fault]:
    """Explain the branch that was probably meant, or what all branches together accept."""
    where = list(problem.absolute_path)
    branches: dict[object, list[ValidationError]] = {}
    for inner in problem.context or ():
        branches.setdefault(inner.relative_schema_path[0], []).append(inner)
    if not branches:
        yield Fault(path=pointer(where), message=f"{short(problem.instance)} fits more than one form")
        return
    meant = [branch for branch in branches.values() if not any(_at_root(inner) for inner in branch)]
    if not meant:
        accepted = [word for branch in branches.values() for inner in branch for word in _wanted(inner)]
        words = [option for branch in branches.values() for inner in branch for option in _options(inner)]
        message = (
            f"{short(problem.instance)} is not accepted; accepted: {' or '.join(dict.fromkeys(accepted))}"
        )
        yield Fault(path=pointer(where), message=message, hint=_near(problem.instance, words))
        return
    tags = [_tag(branch) for branch in meant]
    if len(meant) > 1 and all(tags):
        tag = next(inner for inner in tags if inner is not None)
        options = [option for inner in tags if inner is not None for option in _options(inner)]
        message = f"{short(tag.instance)} is none of {_listed(options)}"
        yield Fault(path=pointer(tag.absolute_path), message=message, hint=_near(tag.instance, options))
        return
    best = min(meant, key=lambda branch: (_tag(branch) is not None, len(branch)))
    for inner in best:
        yield from _explain(inner)


def _wanted_value(problem: ValidationError) -> Any:
    """Return the value of the schema's keyword, which jsonschema's types call perhaps unset."""
    return problem.validator_value


def _at_root(inner: ValidationError) -> bool:
    """Whether a branch fails by what the value is, not by something within it."""
    root = len(inner.relative_path) == 0
    return root and inner.validator not in (
        "required",
        "additionalProperties",
        "propertyNames",
        "oneOf",
        "anyOf",
    )


def _tag(branch: Sequence[ValidationError]) -> ValidationError | None:
    """Return the failure of a branch by the key that tells the branches apart."""
    for inner in branch:
        if inner.validator == "const" and len(inner.relative_path) == 1:
            return inner
    return None


def _wanted(inner: ValidationError) -> list[str]:
    match inner.validator:
        case "type":
            return [_type_words(_wanted_value(inner))]
        case "enum":
            return [_listed(_wanted_value(inner))]
        case "const":
            return [short(_wanted_value(inner))]
        case "pattern":
            return [f"a text of the form {_wanted_value(inner)}"]
        case _:
            return [str(inner.message)] if len(inner.message) < 2 * _LONGEST_VALUE else []


def _options(inner: ValidationError) -> list[object]:
    if inner.validator == "enum":
        return list(_wanted_value(inner))
    return [_wanted_value(inner)] if inner.validator == "const" else []


def _unknown_key(where: Sequence[object], key: object, known: Iterable[object]) -> Fault:
    names = list(known)
    accepted = f"; accepted: {_listed(names)}" if names else ""
    return Fault(path=pointer([*where, key]), message=f"no such key{accepted}", hint=_near(key, names))


def _near(word: object, known: Iterable[object]) -> str:
    words = [other for other in known if isinstance(other, str)]
    if not isinstance(word, str) or not words:
        return ""
    # Two letters that changed places are the commonest slip, and difflib ranks them low.
    swapped = [other for other in words if sorted(other) == sorted(word)]
    near = swapped or difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""


def _listed(values: Iterable[object]) -> str:
    texts = [value if isinstance(value, str) else short(value) for value in values]
    if len(texts) > _LONGEST_LIST:
        texts = [*texts[:_LONGEST_LIST], f"and {len(texts) - _LONGEST_LIST} more"]
    return ", ".join(texts)


def short(value: object) -> str:
    """Return a value as JSON writes it, cut where it is long."""
    if isinstance(value, dict | list | tuple) and value:
        return f"{_type_of(value)} of {len(value)}"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _type_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"


def _type_words(wanted: str | Sequence[str]) -> str:
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    return " or ".join(_TYPE_WORDS[name] for name in names)
