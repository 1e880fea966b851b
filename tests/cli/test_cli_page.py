"""docs/reference/cli.md is the help of every command of both programs; `make golden` rewrites it."""

from __future__ import annotations

import argparse

from nicoffload.cli import flexiv, main
from nicoffload.registry import load_registry

INTRODUCTION = """\
# The commands `nicoffload` and `flexivoffload`

This page is made from the programs' own help. {doc}`/howto/use-the-command-line` shows them at work; {doc}`rules`
has the form of a rule, and {doc}`errors` what each exit code means. `flow check` ends with 3 where the NIC can't
hold one of the rules; `flow add --best-effort` with the code of the first that was refused; `doctor` with 1 where
there is a problem.

`nicoffload soft` comes from the plugin `softnic`; other plugins may add more commands.

With `--json`, every command answers with one document on stdout, of the form that `schemas/cli-output.schema.json`
gives for its `command`. An error is such a document too, on stderr. A number that is null is unknown, never zero.

| variable | meaning |
|---|---|
| `NICOFFLOAD_STATE_DIR` | folder of the journal, where `--state-dir` names none |
| `NICOFFLOAD_PLUGINS` | the plugins that are loaded, with commas between them; all where it is not set |
| `NICOFFLOAD_DEBUG` | show the traceback of a bug |
| `NO_COLOR` | no colour in tables |
"""


def parsers(parser):
    """Yield every command that does something, and the program itself."""
    subs = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not subs or parser.prog.count(" ") == 0:
        yield parser
    for action in subs:
        for sub in action.choices.values():
            yield from parsers(sub)


def all_parsers():
    """Yield the commands of both programs."""
    yield from parsers(main.build_parser(load_registry().commands))
    yield from parsers(flexiv.build_parser())


def page():
    parts = [INTRODUCTION]
    for parser in all_parsers():
        text = parser.format_help().rstrip()
        if parser.prog.startswith("nicoffload "):  # the common options are said once, with the program
            text, _, common = text.partition("\n\ncommon options:")
            assert common, f"{parser.prog} lacks the common options"
        parts.append(f"## {parser.prog}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def test_the_page_is_current(repo_root, golden, monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")
    golden.check_text(repo_root / "docs/reference/cli.md", page())


def test_every_command_says_what_it_does():
    for parser in all_parsers():
        assert parser.description, parser.prog
        for action in parser._actions:
            assert action.help or isinstance(action, argparse._SubParsersAction), (
                f"{parser.prog} {action.dest}"
            )
