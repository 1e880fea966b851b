"""The Tin One, as a plugin of nicoffload."""

from importlib.resources import files

from nicoffload.hookspecs import PluginDescription, hookimpl


@hookimpl
def nicoffload_describe():
    return PluginDescription(name="tin", title="The Tin One, a NIC that is a file", api_version=1)


@hookimpl
def nicoffload_profiles():
    return [files(__name__).joinpath("profiles/tin_one.json")]


@hookimpl
def nicoffload_drivers():
    from nicoffload_tin.driver import TinFactory  # listing plugins should not load what opens NICs

    return [TinFactory()]
