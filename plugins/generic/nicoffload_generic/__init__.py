"""Any Linux NIC, asked what it can do, as a plugin of nicoffload."""

from __future__ import annotations

from nicoffload.hookspecs import PluginDescription, hookimpl


@hookimpl
def nicoffload_describe() -> PluginDescription:
    """Return who this plugin is."""
    return PluginDescription(
        name="generic",
        title="Any Linux NIC, asked what it can do",
        api_version=1,
    )
