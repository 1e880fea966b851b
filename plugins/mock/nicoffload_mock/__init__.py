"""An emulated NIC that takes on any installed profile, for testing without hardware or root: a plugin of nicoffload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nicoffload.hookspecs import PluginDescription, hookimpl

if TYPE_CHECKING:
    from nicoffload.driver import DriverFactory


@hookimpl
def nicoffload_describe() -> PluginDescription:
    """Return who the plugin is."""
    return PluginDescription(name="mock", title="Emulated NICs of every installed profile; no hardware", api_version=1)


@hookimpl
def nicoffload_drivers() -> Sequence[DriverFactory]:
    """Return what opens ``mock:FAMILY``."""
    from nicoffload_mock.factory import MockFactory

    return (MockFactory(),)
