"""NICs in a fake kernel, for tests."""

from __future__ import annotations

from nicoffload.errors import errno_name
from nicoffload.registry import load_registry
from nicoffload.testing import FakeKernel
from nicoffload.testing.emulator.config import Config
from nicoffload.testing.fake_kernel import FakeNic

PROFILES = load_registry().profiles
FAMILIES = [name for name in PROFILES.families() if name not in {"netdevsim", "softnic", "softnic_u32"}]
"""Those of the PCI bus."""
PF = "0000:03:00.0"


def plugged(family: str, *, faults=(), **config) -> tuple[FakeKernel, FakeNic]:
    """Return a kernel with one NIC, prepared for nothing unless asked otherwise."""
    kernel = FakeKernel()
    config.setdefault("prepared", False)
    return kernel, kernel.plug(PROFILES.get(family), config=Config(**config), faults=faults)


def refused(call, *arguments) -> str:
    """Return the name of the errno that a call raises."""
    try:
        call(*arguments)
    except OSError as answer:
        return errno_name(answer.errno)
    return "nothing"
