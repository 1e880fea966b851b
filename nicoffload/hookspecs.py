"""What a plugin says to the registry. A hook only registers; the classes that it returns do the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable

import pluggy

from nicoffload.driver.contract import DriverFactory

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


@hookspec
def nicoffload_describe() -> PluginDescription:
    """Return who the plugin is. Every plugin has this hook."""
    raise NotImplementedError


@hookspec
def nicoffload_profiles() -> Sequence[Traversable]:
    """Return the NIC profiles that the plugin brings: JSON files, each named after its family."""
    raise NotImplementedError


@hookspec
def nicoffload_drivers() -> Sequence[DriverFactory]:
    """Return what finds and opens the NICs that the plugin drives. Touches no NIC."""
    raise NotImplementedError
