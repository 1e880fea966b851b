"""Names of emulated NICs: ``mock:FAMILY[,key=value]...``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nicoffload.codec.documents import load_json
from nicoffload.driver import Driver, DriverFactory, OpenContext
from nicoffload.errors import InvalidRequestError, NotFoundError, errno_number
from nicoffload.model import DeviceInfo
from nicoffload.profiles.types import NicProfile
from nicoffload.schema import validate
from nicoffload.testing.emulator import assumptions
from nicoffload.testing.emulator.config import Config
from nicoffload.testing.emulator.device import Device
from nicoffload.testing.emulator.faults import Faults
from nicoffload.testing.emulator.state import Store
from nicoffload_mock.driver import MockDriver

PREFIX = "mock:"
_KEYS = ("state", "seed", "vfs", "mode", "faults", "link_bps", "pf_queues", "prepared", "rows.TABLE")
_MAX_ROWS = 1 << 24


@dataclass(frozen=True, slots=True)
class Options:
    """A name, taken apart.

    Args:
        family: The profile.
        config: How the NIC is at first.
        state: File that keeps it; None for memory.
        faults: File with its faults; None for none.
    """

    family: str
    config: Config = field(default_factory=Config)
    state: Path | None = None
    faults: Path | None = None


class MockFactory(DriverFactory):
    """Opens emulated NICs; there is one for every installed profile."""

    def discover(self, context: OpenContext) -> Sequence[DeviceInfo]:
        """Return one NIC a family."""
        return [
            make_info(PREFIX + family, context.profiles.get(family)) for family in context.profiles.families()
        ]

    def claims(self, name: str) -> bool:
        """Tell whether a name is an emulated NIC's."""
        return name.startswith(PREFIX)

    def open(self, name: str, context: OpenContext) -> Driver:
        """Make, or open again, the NIC of a name.

        Raises:
            NotFoundError: No profile of that family is installed.
            InvalidRequestError: The name, its fault script or its state file is wrong.
        """
        options = parse_name(name)
        families = context.profiles.families()
        if options.family not in families:
            near = difflib.get_close_matches(options.family, families, 3)
            raise NotFoundError(
                f"no profile of a family {options.family!r} is installed",
                device=name,
                hint=f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(families)}",
            )
        profile = context.profiles.get(options.family)
        script = () if options.faults is None else read_faults(options.faults, profile, name)
        return open_device(profile, options, script, name)


def open_device(
    profile: NicProfile, options: Options, script: Sequence[Mapping[str, Any]], name: str
) -> MockDriver:
    """Return the driver of a NIC.

    Args:
        profile: Its profile.
        options: From `parse_name`.
        script: Faults, already checked.
        name: As the user wrote it.

    Raises:
        InvalidRequestError: An option does not fit the family, or the state file is unusable.
    """
    _check_fit(profile, options.config, name)
    store = None if options.state is None else Store(options.state, profile.family, name)
    try:
        device = Device(profile.document, options.config, Faults(script), store)
        with device.session():
            if store is not None:
                _let_resets_end(device)
            return MockDriver(device, profile, make_info(name, profile), options.state, store)
    except BaseException:
        if store is not None:
            store.close()
        raise


def _let_resets_end(device: Device) -> None:
    """Move the clock of a NIC from a file past the resets of earlier processes: time passes between processes."""
    until = max((vf.ready_ns for vf in device.sriov.vfs), default=0)
    device.advance(min(until, device.now_ns + assumptions.WAIT_LIMIT_NS))


def make_info(name: str, profile: NicProfile) -> DeviceInfo:
    """Return what discovery says of an emulated NIC."""
    return DeviceInfo(
        name=name, family=profile.family, title=f"Emulated {profile.title}", plugin="mock", emulated=True
    )


def parse_name(name: str) -> Options:
    """Return the parts of a name.

    Raises:
        InvalidRequestError: A key is unknown or stands twice, or a value is not of its kind.
    """
    family, *parts = name.removeprefix(PREFIX).split(",")
    if not family:
        raise InvalidRequestError(
            "names no family", device=name, hint="write mock:FAMILY, such as mock:ixgbe"
        )
    values: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise InvalidRequestError(f"{part!r} is not key=value", device=name)
        if key in values:
            raise InvalidRequestError(f"{key} stands twice", device=name)
        values[key] = value
    rows = {
        key.removeprefix("rows."): _number(name, key, values.pop(key), 1, _MAX_ROWS)
        for key in tuple(values)
        if key.startswith("rows.")
    }
    for key in values:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(_KEYS)}"
            raise InvalidRequestError(f"there is no option {key!r}", device=name, hint=hint)
    config = Config(
        seed=_number(name, "seed", values.get("seed", "0"), 0, 1 << 63),
        link_bps=_number(name, "link_bps", values.get("link_bps", str(assumptions.LINK_BPS)), 1, 10**13),
        vfs=_number(name, "vfs", values["vfs"], 0, 4096) if "vfs" in values else None,
        mode=_choice(name, "mode", values.get("mode", ""), ("", "legacy", "switchdev")),
        prepared=_choice(name, "prepared", values.get("prepared", "yes"), ("yes", "no")) == "yes",
        pf_queues=_number(name, "pf_queues", values.get("pf_queues", str(assumptions.PF_QUEUES)), 1, 65_536),
        rows=rows,
    )
    state, faults = (Path(values[key]) if key in values else None for key in ("state", "faults"))
    return Options(family, config, state, faults)


def read_faults(path: Path, profile: NicProfile, name: str) -> Sequence[Mapping[str, Any]]:
    """Return the faults of a script.

    Raises:
        InvalidRequestError: The file can't be read, is no JSON, breaks the schema, or names what the NIC lacks.
    """
    try:
        document = load_json(path.read_text("utf-8"), f"fault script {path}")
    except OSError as cause:
        raise InvalidRequestError(
            f"fault script {path}: {cause.strerror}", path="faults", device=name
        ) from cause
    except InvalidRequestError as cause:
        raise InvalidRequestError(cause.message, path="faults", device=name) from cause
    except ValueError as cause:
        raise InvalidRequestError(
            f"fault script {path} is no JSON: {cause}", path="faults", device=name
        ) from cause
    return check_faults(document, profile, name, source=str(path))


def check_faults(
    document: Any, profile: NicProfile, name: str, source: str = ""
) -> Sequence[Mapping[str, Any]]:
    """Return the faults of a document by ``mock-faults.schema.json``.

    Raises:
        InvalidRequestError: It breaks the schema, or names an errno or a table that there is not.
    """
    validate(document, "mock-faults", error=InvalidRequestError, source=source)
    tables = [table.name for table in profile.tables]
    for at, fault in enumerate(document["faults"]):
        effect = fault["effect"]
        if effect["kind"] == "answer":
            errno_number(effect["errno"])
        if effect["kind"] == "table_full" and effect["table"] not in tables:
            raise InvalidRequestError(
                f"{profile.family} has no table {effect['table']!r}",
                path=f"/faults/{at}/effect/table",
                device=name,
                hint=f"one of: {', '.join(tables)}",
            )
    faults: list[Mapping[str, Any]] = document["faults"]
    return faults


def _check_fit(profile: NicProfile, config: Config, name: str) -> None:
    tables = [table.name for table in profile.tables]
    for table in config.rows:
        if table not in tables:
            hint = f"one of: {', '.join(tables)}"
            raise InvalidRequestError(
                f"{profile.family} has no table {table!r}", device=name, path="rows", hint=hint
            )
    limit = 0 if profile.sriov is None else profile.sriov.max_vfs or assumptions.MAX_VFS
    if config.vfs is not None and config.vfs > limit:
        raise InvalidRequestError(f"{profile.family} has at most {limit} VFs", device=name, path="vfs")
    modes = profile.eswitch.modes if profile.eswitch else ("legacy",)
    if config.mode and config.mode not in modes:
        hint = f"one of: {', '.join(modes)}"
        raise InvalidRequestError(
            f"{profile.family} has no mode {config.mode}", device=name, path="mode", hint=hint
        )


def _number(name: str, key: str, text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise InvalidRequestError(f"{text!r} is no whole number from {low} to {high}", device=name, path=key)
    return int(text)


def _choice(name: str, key: str, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        hint = f"one of: {', '.join(filter(None, choices))}"
        raise InvalidRequestError(f"{text!r} is no value of it", device=name, path=key, hint=hint)
    return text
