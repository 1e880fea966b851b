"""Intel adapters (igb, ixgbe, i40e, ice), as a plugin of nicoffload."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources.abc import Traversable

from nicoffload.driver import DriverFactory
from nicoffload.hookspecs import PluginDescription, hookimpl, profiles_of


@hookimpl
def nicoffload_describe() -> PluginDescription:
    """Return who this plugin is."""
    return PluginDescription(
        name="intel", title="Intel (igb, ixgbe, i40e, ice): drivers and NIC profiles", api_version=1
    )


@hookimpl
def nicoffload_profiles() -> Sequence[Traversable]:
    """Return the NIC profiles, by name."""
    return profiles_of(__name__)


@hookimpl
def nicoffload_drivers() -> Sequence[DriverFactory]:
    """Return what finds and opens them."""
    # Whoever only reads profiles needs no kernel layer.
    from nicoffload_intel.driver import FACTORY  # noqa: PLC0415

    return [FACTORY]
