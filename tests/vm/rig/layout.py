"""The guests, what each proves, and where things are."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
VM = CHECKOUT / "tests/vm"
GUEST_SCRIPTS = VM / "guest"
KERNEL_INPUTS = VM / "kernel"
GUEST_TESTS = VM / "guest_tests"
BOOT_TESTS = VM / "boot_tests"
RESULTS = CHECKOUT / "build/vm"
KERNEL_SERIES = "6.12"


class RigError(Exception):
    """The rig can't do its work; the message is one line that says why, and what would help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """One kind of guest.

    Args:
        name: What `VM=` and the folder of its tests are called.
        level: What a pass there is worth, for people.
        memory_mb: Memory of the guest, in MiB.
        time_limit_s: Longest run, in seconds, if the caller names none.
    """

    name: str
    level: str
    memory_mb: int
    time_limit_s: float


UML = Guest(
    name="uml",
    level="real kernel (user-mode Linux), simulated NIC (netdevsim)",
    memory_mb=1536,
    time_limit_s=900,
)
QEMU = Guest(
    name="qemu", level="distribution's kernel (QEMU), emulated NIC (igb)", memory_mb=2048, time_limit_s=1800
)
GUESTS = {guest.name: guest for guest in (UML, QEMU)}


def cache_root() -> Path:
    """Return the folder that holds what was built, outside the tree."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "nicoffload" / "vm"


def for_command_line(path: Path) -> Path:
    """Return the path, refused where a kernel's or QEMU's command line would take it apart.

    Raises:
        RigError: It holds white space, a comma or a quote.
    """
    if re.search(r"[\s,'\"]", str(path)):
        raise RigError(
            f"{path}: a guest can't be given a path with white space, a comma or a quote; move the checkout"
        )
    return path
