"""Any Linux NIC, asked what it can do, as a plugin of nicoffload."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources.abc import Traversable

from nicoffload.driver import DriverFactory
from nicoffload.hookspecs import PluginDescription, hookimpl, profiles_of


@hookimpl
def nicoffload_describe() -> PluginDescription:
    """Return who this plugin is."""
    return PluginDescription(
        name="generic",
        title="Any Linux NIC, asked what it can do",
        api_version=1,
    )


@hookimpl
def nicoffload_profiles() -> Sequence[Traversable]:
    """Return the NIC profiles, by name."""
    return profiles_of(__name__)


@hookimpl
def nicoffload_drivers() -> Sequence[DriverFactory]:
    """Return what opens live NICs."""
    # Listing plugins must not load NumPy.
    from nicoffload_generic.factory import GenericFactory  # noqa: PLC0415

    return (GenericFactory(),)
