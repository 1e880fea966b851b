"""A vendor-neutral SDK for NIC offload: flow filters, virtual functions, rates and statistics, in one vocabulary."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nicoffload.nic import Nic as Nic
    from nicoffload.nic import open_nic as open_nic
    from nicoffload.registry import load_registry as load_registry

__all__ = ["Nic", "__version__", "load_registry", "open_nic"]

_HOME = {"Nic": "nicoffload.nic", "open_nic": "nicoffload.nic", "load_registry": "nicoffload.registry"}


def __getattr__(name: str) -> Any:
    """Import what is asked for on first use: a program pays for no more than it needs (PEP 562)."""
    if name in _HOME:
        value: Any = getattr(importlib.import_module(_HOME[name]), name)
    elif name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - as slow to import as all the rest of this module

        value = version("nicoffload")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
