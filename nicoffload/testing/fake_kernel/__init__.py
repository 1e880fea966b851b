"""A Linux kernel in memory with emulated NICs beneath, behind the seam of the real one."""

from nicoffload.testing.fake_kernel.kernel import FakeKernel, Request
from nicoffload.testing.fake_kernel.world import (
    FakeFunction,
    FakeNetdev,
    FakeNic,
    FeatureState,
    NetdevKind,
    Watcher,
    World,
)

__all__ = [
    "FakeFunction",
    "FakeKernel",
    "FakeNetdev",
    "FakeNic",
    "FeatureState",
    "NetdevKind",
    "Request",
    "Watcher",
    "World",
]
