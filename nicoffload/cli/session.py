"""What every command gets: where to write, and how to reach NICs and plugins."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicoffload.cli.output import Output

if TYPE_CHECKING:
    from nicoffload.nic import Nic
    from nicoffload.registry import Registry

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

        nic = open_nic(name, registry=registry or self.registry(), state_dir=self.state_dir, owner=OWNER)
        if not nic.recovery.clean:
            from nicoffload.cli.show import recovery_lines

            for line in recovery_lines(nic.recovery):
                self.output.note(line)
        return nic

    def answer(self, command: str, document: dict[str, Any]) -> None:
        """Print the answer of a command as JSON."""
        self.output.json(SCHEMA, {"command": command, **document})


Command = Callable[[argparse.Namespace, Session], int]
"""What a parser has as ``command``: it does the work and returns the exit code."""
