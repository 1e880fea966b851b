"""Writes docs/reference/profile-schema.md from the descriptions in schemas/nic-profile.schema.json."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from tests.docs.markdown import code, page, table

# "condition: what it means." as the descriptions of enumerations and errors have it.
_TERM = re.compile(r"(?:^|(?<=[.,;] ))([a-z][a-z0-9_-]+): ")
INTRODUCTION = """\
Made from `schemas/nic-profile.schema.json` by `make golden`. {doc}`/howto/add-a-nic-profile` shows how to write a
profile; {doc}`nics` has what those of this repository say."""
LABELS = {"mask_model": "profile-mask-model", "table_errors": "profile-table-errors"}
TITLES = {
    "field_rule": "Which masks and values a field takes",
    "flow_type": "Flow types",
    "table": "Tables",
    "counters": "Counters",
    "rate": "Rates",
    "setting": "A setting of a VF",
    "vf": "Settings of a VF",
}
ERRORS = ("table_errors", "sriov_errors", "eswitch_errors", "devlink_rate_errors", "vf_errors")


def schema_page(schema: dict[str, Any]) -> str:
    """Return the page."""
    parts = [
        "# The form of a NIC profile",
        INTRODUCTION,
        schema["description"],
        "## The document",
        properties(schema),
    ]
    for path, nested in objects(schema):
        parts += [f"### `{path}`", nested.get("description", ""), properties(nested)]
    for name, title in TITLES.items():
        definition = alternatives(schema["$defs"][name])[-1]
        parts += [
            f"(profile-{name.replace('_', '-')})=\n## {title}",
            schema["$defs"][name].get("description", ""),
        ]
        below = [key for key, value in definition["properties"].items() if len(terms(value)) > 2]
        parts += [properties(definition, below)]
        parts += [explained(key, definition["properties"][key]) for key in below]
        for path, nested in objects(definition):
            parts += [f"### `{path}`", nested.get("description", ""), properties(nested)]
        if name == "field_rule":
            parts += [explained("mask_rule", schema["$defs"]["mask_rule"])]
    parts += [
        "## Errnos by condition",
        "Each part of the document names the errnos that its calls answer with, by a closed list of conditions.",
    ]
    for name in ERRORS:
        parts += [explained(name, schema["$defs"][name])]
    parts += [
        "## Names",
        "Fields: " + code(schema["$defs"]["field"]["enum"]) + ".",
        "Actions: " + code(schema["$defs"]["action"]["enum"]) + ".",
        "{doc}`rules` says what each means.",
    ]
    return page(*parts)


def alternatives(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a value may be."""
    return spec.get("oneOf", [spec])


def objects(spec: dict[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects within an object, with their paths."""
    for name, value in spec.get("properties", {}).items():
        for each in alternatives(value):
            inner, path = (each["items"], f"{above}{name}[]") if "items" in each else (each, f"{above}{name}")
            if "properties" in inner:
                yield path, {"description": value.get("description", ""), **inner}
                yield from objects(inner, f"{path}.")


def properties(spec: dict[str, Any], below: Sequence[str] = ()) -> str:
    """Return the table of an object's keys; those of `below` are explained by themselves."""
    required = spec.get("required", ())
    rows = []
    for name, value in spec["properties"].items():
        meaning = "see below" if name in below else value.get("description", "")
        rows.append((f"`{name}`", "yes" if name in required else "", kind(value), meaning))
    return table(("key", "required", "value", "meaning"), rows)


def kind(spec: dict[str, Any]) -> str:
    """Return what a value is, in a word or two."""
    if "oneOf" in spec:
        return " or ".join(dict.fromkeys(kind(each) for each in spec["oneOf"]))
    if "$ref" in spec:
        return spec["$ref"].rpartition("/")[2].replace("_", " ")
    if "enum" in spec:
        return " or ".join("null" if word is None else f"`{word}`" for word in spec["enum"])
    if "const" in spec:
        return f"`{spec['const']}`"
    if spec.get("type") == "array":
        return f"list of {kind(spec['items'])}"
    if spec.get("type") == "object":
        inner = spec.get("additionalProperties")
        return f"object: name to {kind(inner)}" if isinstance(inner, dict) else "object"
    types = spec.get("type", "any")
    return types if isinstance(types, str) else " or ".join(types)


def terms(spec: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the words of an enumeration that its description explains, each with what it says."""
    text = spec.get("description", "")
    known = spec.get("enum") or spec.get("propertyNames", {}).get("enum") or ()
    found = [each for each in _TERM.finditer(text) if each[1] in known]
    ends = [*(each.start() for each in found[1:]), len(text)]
    return [(each[1], text[each.end() : ends[place]].strip(" ;,")) for place, each in enumerate(found)]


def explained(name: str, spec: dict[str, Any]) -> str:
    """Return the words of an enumeration with their meaning."""
    found = terms(spec)
    intro = spec["description"][: spec["description"].index(found[0][0] + ": ")].strip()
    label = f"({LABELS[name]})=\n" if name in LABELS else ""
    rows = [(f"`{word}`", meaning[:1].upper() + meaning[1:]) for word, meaning in found]
    return page(f"{label}### `{name}`", intro, table(("word", "meaning"), rows)).rstrip()
