"""A software NIC in the kernel, with real packets, as a plugin of nicoffload."""

from __future__ import annotations

from nicoffload.hookspecs import PluginDescription, hookimpl


@hookimpl
def nicoffload_describe() -> PluginDescription:
    """Return who this plugin is."""
    return PluginDescription(
        name="softnic", title="A software NIC in the kernel, with real packets", api_version=1
    )
