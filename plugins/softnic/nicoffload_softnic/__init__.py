"""A software NIC in the kernel, with real packets, as a plugin of nicoffload."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources.abc import Traversable

from nicoffload.driver import DriverFactory
from nicoffload.hookspecs import PluginCommand, PluginDescription, hookimpl, profiles_of


@hookimpl
def nicoffload_describe() -> PluginDescription:
    """Return who this plugin is."""
    return PluginDescription(
        name="softnic", title="A software NIC in the kernel, with real packets", api_version=1
    )


@hookimpl
def nicoffload_profiles() -> Sequence[Traversable]:
    """Return the profiles of the software NIC, one a data path."""
    return profiles_of(__name__)


@hookimpl
def nicoffload_drivers() -> Sequence[DriverFactory]:
    """Return what opens ``soft:NAME``."""
    # Listing plugins must not load NumPy.
    from nicoffload_softnic.factory import SoftFactory  # noqa: PLC0415

    return (SoftFactory(),)


@hookimpl
def nicoffload_commands() -> Sequence[PluginCommand]:
    """Return ``nicoffload soft create|destroy|list``."""
    from nicoffload_softnic.commands import COMMANDS  # noqa: PLC0415

    return COMMANDS
