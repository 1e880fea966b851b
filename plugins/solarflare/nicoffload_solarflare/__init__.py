"""Solarflare and Xilinx adapters (Falcon, Siena, EF10, EF100), as a plugin of nicoffload."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources.abc import Traversable

from nicoffload.driver import DriverFactory
from nicoffload.hookspecs import PluginDescription, hookimpl, profiles_of


@hookimpl
def nicoffload_describe() -> PluginDescription:
    """Return who this plugin is."""
    return PluginDescription(
        name="solarflare",
        title="Solarflare (Falcon, Siena, EF10, EF100): drivers and NIC profiles",
        api_version=1,
    )


@hookimpl
def nicoffload_profiles() -> Sequence[Traversable]:
    """Return the NIC profiles, by name."""
    return profiles_of(__name__)


@hookimpl
def nicoffload_drivers() -> Sequence[DriverFactory]:
    """Return what finds and opens them."""
    # Whoever only reads profiles needs no kernel layer.
    from nicoffload_solarflare.driver import FACTORY  # noqa: PLC0415

    return [FACTORY]
