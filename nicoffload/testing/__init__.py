"""For tests of whoever uses or extends nicoffload: emulated NICs, a fake kernel, and the conformance kit."""

from nicoffload.testing.emulator.config import Config
from nicoffload.testing.fake_kernel import (
    FakeFunction,
    FakeKernel,
    FakeNetdev,
    FakeNic,
    FeatureState,
    Namespace,
    NetdevKind,
    Request,
    Watcher,
    World,
    WouldWaitForeverError,
)

__all__ = [
    "Config",
    "FakeFunction",
    "FakeKernel",
    "FakeNetdev",
    "FakeNic",
    "FeatureState",
    "Namespace",
    "NetdevKind",
    "Request",
    "Watcher",
    "World",
    "WouldWaitForeverError",
]
