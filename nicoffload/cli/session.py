"""What every command gets: where to write, and how to reach NICs and plugins."""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicoffload.cli.output import Output
from nicoffload.errors import NotFoundError

if TYPE_CHECKING:
    from nicoffload.nic import Nic
    from nicoffload.registry import Registry

NO_LIVE = (
    "no plugin that is in use drives live NICs (nicoffload-generic drives any); "
    "emulated ones: mock:FAMILY, see `nicoffload profiles`"
)
"""What to say to who names a NIC of this machine."""

_PCI_ADDRESS = re.compile(r"(?:[0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")

SCHEMA = "cli-output"
"""The schema of everything that ``nicoffload --json`` prints."""

OWNER = "nicoffload"
"""Who holds the journal while a command runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One run of the program.

    Args:
        output: Where answers go.
        state_dir: Folder of the journal; None for the usual one.
    """

    output: Output
    state_dir: Path | None = None

    def registry(self) -> Registry:
        """Return the plugins that are installed."""
        from nicoffload.registry import load_registry

        return load_registry()

    def resolved_state_dir(self) -> Path:
        """Return the folder of the journal."""
        from nicoffload.nic.opening import default_state_dir

        return self.state_dir or default_state_dir()

    def open(self, name: str, *, registry: Registry | None = None) -> Nic:
        """Open a NIC and tell on stderr what was found left over from a crash.

        Raises:
            NotFoundError: There is no such NIC.
        """
        from nicoffload.nic import open_nic

        plugins = registry or self.registry()
        try:
            nic = open_nic(name, registry=plugins, state_dir=self.state_dir, owner=OWNER)
        except NotFoundError as cause:
            if cause.device != name or not is_live_name(name) or drives_live(plugins):
                raise
            raise NotFoundError(cause.message, device=name, hint=NO_LIVE) from cause
        if not nic.recovery.clean:
            from nicoffload.cli.show import recovery_lines

            for line in recovery_lines(nic.recovery):
                self.output.note(line)
        return nic

    def answer(self, command: str, document: dict[str, Any]) -> None:
        """Print the answer of a command as JSON."""
        self.output.json(SCHEMA, {"command": command, **document})


def is_live_name(name: str) -> bool:
    """Return whether a name is a PCI address, or that of an interface of this machine."""
    return bool(_PCI_ADDRESS.fullmatch(name)) or name in {ifname for _, ifname in socket.if_nameindex()}


def drives_live(registry: Registry) -> bool:
    """Return whether a plugin that is in use knows a NIC that is not emulated."""
    return any(not device.emulated for device in registry.devices())


Command = Callable[[argparse.Namespace, Session], int]
"""What a parser has as ``command``: it does the work and returns the exit code."""
