"""An emulated NIC that takes on any installed profile, for testing without hardware or root: a plugin of nicoffload."""

from __future__ import annotations

from collections.abc import Sequence

from nicoffload.driver import DriverFactory
from nicoffload.hookspecs import PluginDescription, hookimpl


@hookimpl
def nicoffload_describe() -> PluginDescription:
    """Return who the plugin is."""
    return PluginDescription(
        name="mock", title="Emulated NICs of every installed profile; no hardware", api_version=1
    )


@hookimpl
def nicoffload_drivers() -> Sequence[DriverFactory]:
    """Return what opens ``mock:FAMILY``."""
    # Listing plugins must not load NumPy and SQLite.
    from nicoffload_mock.factory import MockFactory  # noqa: PLC0415

    return (MockFactory(),)
