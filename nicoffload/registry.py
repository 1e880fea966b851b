"""Finds plugins and keeps each apart from the others: one that fails is shown, and never stops the rest."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Any

import pluggy

from nicoffload import hookspecs
from nicoffload.driver.contract import API_VERSION, Driver, DriverFactory, OpenContext
from nicoffload.errors import (
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    PluginContractError,
    PluginError,
    PluginLoadError,
)
from nicoffload.hookspecs import ENTRY_POINT_GROUP, PROJECT, PluginCommand, PluginDescription
from nicoffload.kernel.seam import Kernel
from nicoffload.model.device import DeviceInfo
from nicoffload.profiles.load import Catalog

ENVIRONMENT = "NICOFFLOAD_PLUGINS"
"""Environment variable that restricts which plugins are loaded: names with commas between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginStatus:
    """What became of one plugin.

    Args:
        name: Name of its entry point.
        distribution: The distribution that brought it; empty where it was handed in by the program.
        version: Version of that distribution.
        ok: Whether it is in use.
        error: Why it is not.
        title: What it says of itself.
        hooks: The hooks that it implements.
        families: The NIC profiles that it brings.
        commands: What it adds to the command line, such as ``soft create``.
    """

    name: str
    distribution: str = ""
    version: str = ""
    ok: bool = False
    error: PluginError | None = None
    title: str = ""
    hooks: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    status: PluginStatus
    profiles: tuple[Traversable, ...]
    drivers: tuple[DriverFactory, ...]
    commands: tuple[PluginCommand, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    status: PluginStatus
    load: Callable[[], object]
    entry_point: bool


class Registry:
    """The plugins that are installed, their profiles and their NICs.

    Args:
        plugins: Every plugin found, also those that failed, by name.
        profiles: The profiles of those in use.
        factories: Plugin name and what it opens NICs with.
        kernel: What plugins reach hardware through; None for the one that this process runs on.
        commands: What they add to the command line.
    """

    def __init__(
        self,
        plugins: Sequence[PluginStatus],
        profiles: Catalog,
        factories: Sequence[tuple[str, DriverFactory]],
        kernel: Kernel | None = None,
        commands: Sequence[PluginCommand] = (),
    ) -> None:
        self.plugins = tuple(plugins)
        self.profiles = profiles
        # Those that take what is left come last, whatever their names.
        self._factories = tuple(sorted(factories, key=lambda each: each[1].last))
        self.commands = tuple(commands)
        self._kernel = kernel

    def on(self, kernel: Kernel) -> Registry:
        """Return the same plugins and profiles on another kernel, such as a fake one. Loads nothing anew."""
        return Registry(self.plugins, self.profiles, self._factories, kernel)

    @property
    def failed(self) -> tuple[PluginStatus, ...]:
        """The plugins that are not in use, each with its error."""
        return tuple(status for status in self.plugins if not status.ok)

    def check_profiles(self) -> tuple[PluginStatus, ...]:
        """Read every profile, which otherwise happens when it is asked for, and return the plugins' states anew."""
        return tuple(self._with_profiles_checked(status) for status in self.plugins)

    def devices(self) -> Sequence[DeviceInfo]:
        """Return the NICs of this machine that the plugins can open; a plugin whose search fails finds none."""
        return self.discover()[0]

    def discover(self) -> tuple[tuple[DeviceInfo, ...], tuple[PluginError, ...]]:
        """Return the NICs of this machine, and what failed while looking for them, plugin by plugin."""
        found: list[DeviceInfo] = []
        errors: list[PluginError] = []
        context = self.context()
        for name, factory in self._factories:
            try:
                seen = _of_type(factory.discover(context), DeviceInfo, name, "discover")
                known = {one.pci_address for one in found if one.pci_address} if factory.last else frozenset()
                found += [one for one in seen if one.pci_address not in known]
            except (Exception, SystemExit) as cause:  # noqa: BLE001 - a plugin's fault is not the others'
                errors.append(_as_plugin_error(name, "can't look for NICs", cause))
        return tuple(found), tuple(errors)

    def open(
        self,
        name: str,
        *,
        wall_clock_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep_s: Callable[[float], None] = time.sleep,
    ) -> Driver:
        """Open a NIC.

        Args:
            name: PCI address, interface name, or ``mock:FAMILY``.
            wall_clock_s: Seconds since the epoch, for the driver.
            monotonic_s: Seconds since some moment, likewise.
            sleep_s: Waits that many seconds, likewise.

        Raises:
            NotFoundError: No plugin that is in use knows the name; the hint tells near names and what plugins failed.
            PluginContractError: The plugin raised what is no error of this package, or returned no driver.
        """
        context = self.context(wall_clock_s=wall_clock_s, monotonic_s=monotonic_s, sleep_s=sleep_s)
        missing: NotFoundError | None = None
        for plugin, factory in self._factories:
            if not _claims(plugin, factory, name):
                continue
            try:
                return _opened(plugin, factory, name, context)
            except NotFoundError as cause:
                missing = missing or cause
        if missing is not None:
            missing.hint = missing.hint or self._hint(name)
            raise missing
        raise NotFoundError("no plugin knows such a NIC", device=name, hint=self._hint(name))

    def context(
        self,
        *,
        wall_clock_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep_s: Callable[[float], None] = time.sleep,
    ) -> OpenContext:
        """Return what plugins get when they open a NIC or run a command."""
        if self._kernel is None:
            # Whoever lists plugins or opens an emulated NIC in a test of their own needs no sockets.
            from nicoffload.kernel.linux import LinuxKernel  # noqa: PLC0415

            self._kernel = LinuxKernel()
        return OpenContext(
            profiles=self.profiles,
            kernel=self._kernel,
            wall_clock_s=wall_clock_s,
            monotonic_s=monotonic_s,
            sleep_s=sleep_s,
        )

    def _hint(self, name: str) -> str:
        parts = []
        known = [device.name for device in self.devices()]
        emulated = any(status.name == "mock" and status.ok for status in self.plugins)
        known += [f"mock:{family}" for family in self.profiles.families()] if emulated else []
        near = difflib.get_close_matches(name, dict.fromkeys(known), n=3)
        if near:
            parts.append(f"near: {', '.join(near)}")
        parts += [f"plugin {status.name} is not in use: {status.error}" for status in self.failed]
        return "; ".join(parts) or "`nicoffload devices` lists the NICs, `nicoffload plugins` the plugins"

    def _with_profiles_checked(self, status: PluginStatus) -> PluginStatus:
        for family in status.families if status.ok else ():
            try:
                self.profiles.get(family)
            except NicOffloadError as cause:
                error = PluginContractError(
                    f"plugin {status.name}: profile {family}: {cause}", hint=cause.hint
                )
                error.__cause__ = cause
                return replace(status, error=error)
        return status


def load_registry(
    *, only: Collection[str] | None = None, extra: Sequence[object] = (), kernel: Kernel | None = None
) -> Registry:
    """Load the plugins that are installed.

    Args:
        only: Names of the plugins to load; None for those that the environment variable NICOFFLOAD_PLUGINS names
            (separated by commas), and for all where it is not set.
        extra: Plugins that are no entry points: modules or objects with hooks. They are always loaded.
        kernel: What plugins reach hardware through, such as a fake kernel; None for the one that this process runs on.

    Returns:
        The registry. No plugin makes this fail; `Registry.plugins` shows what became of each.
    """
    wanted = _wanted(only)
    candidates = [*_installed(wanted), *(_handed_in(plugin) for plugin in extra)]
    statuses: list[PluginStatus] = []
    paths: list[Traversable] = []
    factories: list[tuple[str, DriverFactory]] = []
    commands: list[PluginCommand] = []
    owners: dict[str, str] = {}
    for candidate in candidates:
        try:
            loaded = _load(candidate, statuses, owners)
        except PluginError as error:
            statuses.append(replace(candidate.status, error=error))
            continue
        statuses.append(loaded.status)
        owners.update(dict.fromkeys(loaded.status.families, loaded.status.name))
        paths += loaded.profiles
        factories += [(loaded.status.name, factory) for factory in loaded.drivers]
        commands += loaded.commands
    statuses += _not_installed(wanted, {status.name for status in statuses})
    return Registry(statuses, Catalog(paths), factories, kernel, commands)


def _wanted(only: Collection[str] | None) -> frozenset[str] | None:
    if only is not None:
        if isinstance(only, str):
            raise InvalidRequestError("takes a list of names, not one text", path="only")
        return frozenset(only)
    text = os.environ.get(ENVIRONMENT)
    return None if text is None else frozenset(name.strip() for name in text.split(",") if name.strip())


def _installed(wanted: frozenset[str] | None) -> Iterable[_Candidate]:
    """Yield the entry points that are wanted, by name, so that the order does not depend on the machine."""
    seen: set[tuple[str, str, str]] = set()
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    for point in sorted(points, key=lambda each: (each.name, each.value)):
        distribution = point.dist.name if point.dist else ""
        key = (point.name, point.value, distribution)
        if key in seen or (wanted is not None and point.name not in wanted):
            continue  # an editable install can be on the path twice
        seen.add(key)
        version = point.dist.version if point.dist else ""
        status = PluginStatus(name=point.name, distribution=distribution, version=version)
        yield _Candidate(status=status, load=point.load, entry_point=True)


def _handed_in(plugin: object) -> _Candidate:
    name = getattr(plugin, "__name__", type(plugin).__name__)
    return _Candidate(status=PluginStatus(name=name), load=lambda: plugin, entry_point=False)


def _not_installed(wanted: frozenset[str] | None, found: set[str]) -> list[PluginStatus]:
    missing = []
    for name in sorted((wanted or frozenset()) - found):
        near = difflib.get_close_matches(name, found, n=1)
        hint = f"did you mean {near[0]}?" if near else "`pip list` shows what is installed"
        missing.append(
            PluginStatus(name=name, error=PluginLoadError(f"no plugin is called {name!r}", hint=hint))
        )
    return missing


def _load(candidate: _Candidate, before: Sequence[PluginStatus], owners: dict[str, str]) -> _Loaded:
    """Import a plugin and ask its hooks, in a plugin manager of its own so that nothing of it can touch another."""
    name = candidate.status.name
    manager, hooks = _registered(candidate)
    description = _describe(manager, name)
    if candidate.entry_point and description.name != name:
        raise PluginContractError(
            f"plugin {name} calls itself {description.name!r}",
            hint="the entry point and nicoffload_describe() give one name",
        )
    name = description.name
    if any(status.name == name and status.ok for status in before):
        raise PluginContractError(f"a plugin called {name} is loaded already", hint="remove one of the two")
    profiles = _collect(manager.hook.nicoffload_profiles, Traversable, name, "nicoffload_profiles")
    drivers = _collect(manager.hook.nicoffload_drivers, DriverFactory, name, "nicoffload_drivers")
    commands = _collect(manager.hook.nicoffload_commands, PluginCommand, name, "nicoffload_commands")
    families = tuple(sorted(PurePosixPath(path.name).stem for path in profiles))
    _check_families(name, families, profiles, owners)
    status = replace(
        candidate.status,
        name=name,
        title=description.title,
        ok=True,
        hooks=hooks,
        families=families,
        commands=tuple(f"{command.group} {command.name}" for command in commands),
    )
    return _Loaded(status=status, profiles=tuple(profiles), drivers=tuple(drivers), commands=tuple(commands))


def _registered(candidate: _Candidate) -> tuple[pluggy.PluginManager, tuple[str, ...]]:
    name = candidate.status.name
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        plugin = candidate.load()
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as cause:
        raise PluginLoadError(f"plugin {name}: {cause}", hint=_near_hook(str(cause))) from cause
    except (Exception, SystemExit) as cause:
        raise PluginLoadError(f"plugin {name} can't be imported: {_text(cause)}") from cause
    callers = manager.get_hookcallers(plugin) or []
    return manager, tuple(sorted(caller.name for caller in callers))


def _near_hook(message: str) -> str:
    known = [name for name in vars(hookspecs) if name.startswith("nicoffload_")]
    if "unknown hook" not in message:
        return "nicoffload.hookspecs gives the signature of each hook"
    wrong = message.split("'")[1] if "'" in message else ""
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {near[0]}?" if near else f"the hooks are {', '.join(known)}"


def _describe(manager: pluggy.PluginManager, name: str) -> PluginDescription:
    try:
        answers: list[Any] = manager.hook.nicoffload_describe()
    except (Exception, SystemExit) as cause:
        raise _as_plugin_error(name, "nicoffload_describe failed", cause) from cause
    if len(answers) != 1:
        raise PluginContractError(
            f"plugin {name} does not say who it is",
            hint="it needs a function nicoffload_describe, marked with @hookimpl",
        )
    found = answers[0]
    if not isinstance(found, PluginDescription) or not isinstance(found.name, str) or not found.name:
        raise PluginContractError(
            f"plugin {name}: nicoffload_describe returned {found!r}, no PluginDescription"
        )
    if found.api_version != API_VERSION:
        raise PluginLoadError(
            f"plugin {name} was written for API version {found.api_version}; this is {API_VERSION}",
            hint="install a release of the plugin that fits this nicoffload",
        )
    return found


def _collect(hook: Callable[[], Any], kind: type[Any], name: str, hook_name: str) -> list[Any]:
    try:
        answers = hook()
        return [item for answer in answers for item in _of_type(answer, kind, name, hook_name)]
    except (Exception, SystemExit) as cause:
        raise _as_plugin_error(name, f"{hook_name} failed", cause) from cause


def _check_families(
    name: str, families: Sequence[str], profiles: Sequence[Traversable], owners: dict[str, str]
) -> None:
    for path in profiles:
        if not path.is_file() or not path.name.endswith(".json"):
            raise PluginContractError(f"plugin {name}: {path} is no JSON file", path="nicoffload_profiles")
    for family in families:
        if family in owners:
            raise PluginContractError(
                f"plugin {name} brings family {family}, which plugin {owners[family]} brings already",
                hint=f"leave one out with {ENVIRONMENT}",
            )
    if len(set(families)) != len(families):
        raise PluginContractError(f"plugin {name} brings one family twice: {', '.join(families)}")


def _claims(plugin: str, factory: DriverFactory, name: str) -> bool:
    try:
        return bool(factory.claims(name))
    except (Exception, SystemExit) as cause:
        raise PluginContractError(
            f"plugin {plugin}: claims({name!r}) raised {_text(cause)}",
            hint=f"leave the plugin out with {ENVIRONMENT}",
        ) from cause


def _opened(plugin: str, factory: DriverFactory, name: str, context: OpenContext) -> Driver:
    try:
        driver: object = factory.open(name, context)
    except NicOffloadError:
        raise
    except (Exception, SystemExit) as cause:
        raise PluginContractError(f"plugin {plugin} can't open it: {_text(cause)}", device=name) from cause
    if not isinstance(driver, Driver):
        raise PluginContractError(f"plugin {plugin} returned {driver!r}, no driver", device=name)
    return driver


def _of_type(found: Any, kind: type[Any], name: str, what: str) -> list[Any]:
    items = list(found)
    for item in items:
        # Traversable is a protocol whose check looks at every attribute; a Path is the usual case.
        if not isinstance(item, Path) and not isinstance(item, kind):
            raise PluginContractError(f"plugin {name}: {what} returned {item!r}, no {kind.__name__}")
    return items


def _as_plugin_error(name: str, what: str, cause: BaseException) -> PluginError:
    if isinstance(cause, PluginError):
        return cause
    error = PluginContractError(f"plugin {name}: {what}: {_text(cause)}")
    error.__cause__ = cause
    return error


def _text(cause: BaseException) -> str:
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
