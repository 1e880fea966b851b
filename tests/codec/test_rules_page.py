"""docs/reference/rules.md has every field, protocol word and action; `make golden` rewrites its tables."""

from __future__ import annotations

import re

from nicoffload.codec import parse_rule, rule_from_json
from nicoffload.codec.actions import FORMS
from nicoffload.codec.foreign import FOREIGN_ACTIONS, FOREIGN_FIELDS
from nicoffload.model import ACTION_NAMES, FIELDS
from nicoffload.model.fields import TEXT_PROTOCOLS

DOCS = {name: (kind.__doc__ or "").partition("\n")[0] for kind, name in ACTION_NAMES.items()}


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def numbers(allowed):
    return " or ".join(f"`{number:#x}`" if number > 255 else f"`{number}`" for number in allowed)


def tables():
    protocols = [
        (f"`{word}`", ", ".join(f"`{FIELDS[name].texts[0]}={number:#x}`" for name, number in fields.items()))
        for word, fields in TEXT_PROTOCOLS.items()
    ]
    fields = [
        (
            ", ".join(f"`{text}`" for text in spec.texts),
            f"`{spec.name}`",
            str(spec.bits),
            spec.kind.value.replace("_", " "),
            ", ".join(f"`{needed}` {numbers(allowed)}" for needed, allowed in spec.needs.items()),
            spec.doc,
        )
        for spec in FIELDS.values()
    ]
    actions = [(f"`{form}`", DOCS[name]) for name, form in FORMS.items()]
    foreign = [(f"`{word}`", hint) for word, hint in (FOREIGN_FIELDS | FOREIGN_ACTIONS).items()]
    return {
        "foreign": table(("in Open vSwitch", "here"), foreign),
        "protocols": table(("word", "stands for"), protocols),
        "fields": table(("text", "JSON", "bits", "value", "needs", "meaning"), fields),
        "actions": table(("text", "what it does"), actions),
    }


def filled(page):
    for name, text in tables().items():
        begin = f"<!-- generated: {name} (make golden) -->"
        page, found = re.subn(
            rf"({re.escape(begin)}\n).*?(<!-- end -->)",
            lambda m, text=text: f"{m[1]}\n{text}\n\n{m[2]}",
            page,
            flags=re.DOTALL,
        )
        assert found == 1, f"the page has no place for {name}"
    return page


def test_the_tables_are_current(repo_root, golden):
    path = repo_root / "docs/reference/rules.md"
    golden.check_text(path, filled(path.read_text("utf-8")))


def test_the_page_shows_one_rule_twice(repo_root):
    page = (repo_root / "docs/reference/rules.md").read_text("utf-8")
    text, document = re.findall(r"```(?:json)?\n(.*?)```", page, re.DOTALL)[:2]
    import json

    shown = parse_rule(text.strip())
    assert rule_from_json(json.loads(document), rule_id=shown.rule_id) == shown
