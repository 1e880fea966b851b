"""What a plugin says to the registry. A hook only registers; the classes that it returns do the work."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

import pluggy

from nicoffload.driver.contract import DriverFactory, OpenContext

PROJECT = "nicoffload"
ENTRY_POINT_GROUP = "nicoffload.plugins"
"""Where a distribution names its plugin: ``[project.entry-points."nicoffload.plugins"]``."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of the same name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginDescription:
    """Who a plugin is.

    Args:
        name: The same as the name of its entry point, such as ``intel``.
        title: For people; says what the plugin brings and what it does not.
        api_version: The `nicoffload.driver.API_VERSION` that it was written for, as a number of its own: a plugin
            that hands back the constant of the core claims to fit every core.
    """

    name: str
    title: str
    api_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandAnswer:
    """What a command of a plugin answers; the program prints it for people or as JSON.

    Args:
        lines: Sentences for people, one a line.
        columns: Headings of a table, which are the names of its values in JSON: lower case, underscores.
        rows: Its rows; None is shown as a dash, and is null in JSON.
    """

    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str | int | None, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginCommand:
    """A command that a plugin adds to ``nicoffload``: ``nicoffload GROUP NAME ...``.

    Args:
        group: The first word, which no command of nicoffload has; the same for all commands that belong together.
        group_help: What the group is for, in one line; of the first command of the group.
        name: The second word.
        help: What it does, in one line.
        description: What ``--help`` says of it.
        add_arguments: Adds its arguments to a parser, each with a help text.
        run: Does the work. Raises `NicOffloadError` where it can't.
    """

    group: str
    group_help: str
    name: str
    help: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, OpenContext], CommandAnswer]


@hookspec
def nicoffload_describe() -> PluginDescription:
    """Return who the plugin is. Every plugin has this hook."""
    raise NotImplementedError


@hookspec
def nicoffload_profiles() -> Sequence[Traversable]:
    """Return the NIC profiles that the plugin brings: JSON files, each named after its family."""
    raise NotImplementedError


def profiles_of(package: str) -> Sequence[Traversable]:
    """Return the profiles in the folder ``profiles`` of a plugin's package, by name: for `nicoffload_profiles`."""
    folder = files(package).joinpath("profiles")
    return sorted(
        (path for path in folder.iterdir() if path.name.endswith(".json")), key=lambda path: path.name
    )


@hookspec
def nicoffload_drivers() -> Sequence[DriverFactory]:
    """Return what finds and opens the NICs that the plugin drives. Touches no NIC."""
    raise NotImplementedError


@hookspec
def nicoffload_commands() -> Sequence[PluginCommand]:
    """Return the commands that the plugin adds to ``nicoffload``. Does nothing but name them."""
    raise NotImplementedError
