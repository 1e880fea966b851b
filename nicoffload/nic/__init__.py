"""One NIC, open: every change is planned, journalled, applied, read back, and undone if it failed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nicoffload.nic.opening import open_nic

if TYPE_CHECKING:
    from nicoffload.nic.facade import Nic as Nic
    from nicoffload.nic.values import ApplyReport as ApplyReport
    from nicoffload.nic.values import DesiredState as DesiredState
    from nicoffload.nic.values import FlowReport as FlowReport
    from nicoffload.nic.values import Lease as Lease
    from nicoffload.nic.values import LeaseRelease as LeaseRelease
    from nicoffload.nic.values import OwnedRule as OwnedRule
    from nicoffload.nic.values import Plan as Plan
    from nicoffload.nic.values import Recovery as Recovery
    from nicoffload.nic.values import Step as Step

__all__ = [
    "ApplyReport",
    "DesiredState",
    "FlowReport",
    "Lease",
    "LeaseRelease",
    "Nic",
    "OwnedRule",
    "Plan",
    "Recovery",
    "Step",
    "open_nic",
]


def __getattr__(name: str) -> Any:
    """Import the rest on first use: who names `open_nic` pays for compiler and journal when opening a NIC."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "nicoffload.nic.facade" if name == "Nic" else "nicoffload.nic.values"
    value: Any = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
