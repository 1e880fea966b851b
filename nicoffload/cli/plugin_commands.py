"""The commands that plugins add: ``nicoffload GROUP NAME``. The program knows none of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nicoffload.cli.arguments import add_common
from nicoffload.cli.session import Session

if TYPE_CHECKING:
    from nicoffload.hookspecs import CommandAnswer, PluginCommand

_WITH_VALUE = frozenset({"--state-dir"})
"""Options of the program itself that take a value, which is no command."""


def installed() -> Sequence[PluginCommand]:
    """Return the commands of the plugins that are installed."""
    from nicoffload.registry import load_registry

    return load_registry().commands


def may_be_meant(words: Sequence[str], parser: argparse.ArgumentParser) -> bool:
    """Tell whether a command line names a command, and none of the program itself.

    Args:
        words: The command line, without the program's name.
        parser: Of the program's own commands.
    """
    own = {name for action in parser._actions for name in action.choices or ()}  # noqa: SLF001  no public way
    rest = iter(words)
    for word in rest:
        if word in _WITH_VALUE:
            next(rest, None)
        elif not word.startswith("-"):
            return word not in own
    return False


def add(commands: Any, added: Sequence[PluginCommand]) -> None:
    """Add the parsers of plugins' commands; a plugin that takes a word of another one's is left out."""
    groups: dict[str, Any] = {}
    for command in added:
        if command.group in groups or command.group not in commands.choices:
            if command.group not in groups:
                parser = commands.add_parser(
                    command.group, help=command.group_help, description=f"{command.group_help}."
                )
                add_common(parser)
                groups[command.group] = parser.add_subparsers(
                    title="commands", metavar="COMMAND", required=True
                )
            _add_one(groups[command.group], command)


def _add_one(group: Any, command: PluginCommand) -> None:
    if command.name in group.choices:
        return
    parser = group.add_parser(command.name, help=command.help, description=command.description)
    command.add_arguments(parser)
    add_common(parser)
    parser.set_defaults(command=lambda args, session: _run(args, session, command))


def _run(args: argparse.Namespace, session: Session, command: PluginCommand) -> int:
    answer = command.run(args, session.registry().context())
    if session.output.as_json:
        session.answer("plugin command", _document(command, answer))
        return 0
    for line in answer.lines:
        session.output.line(line)
    if answer.columns and (answer.rows or not answer.lines):
        session.output.table(
            [name.replace("_", " ") for name in answer.columns],
            [["-" if value is None else str(value) for value in row] for row in answer.rows],
            right=[
                name.replace("_", " ")
                for at, name in enumerate(answer.columns)
                if answer.rows and all(isinstance(row[at], int | None) for row in answer.rows)
            ],
        )
    return 0


def _document(command: PluginCommand, answer: CommandAnswer) -> dict[str, Any]:
    return {
        "name": f"{command.group} {command.name}",
        "lines": list(answer.lines),
        "rows": [dict(zip(answer.columns, row, strict=True)) for row in answer.rows],
    }
