"""What the tests of the nic layer share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from nicoffload.model import Drop, FlowRule, Match, ToVf
from nicoffload.nic import open_nic
from nicoffload.registry import Registry


def _load(name: str):
    # Test folders are not packages; the fake driver is loaded once, by path, under a name that pickle finds again.
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


_load("fake_driver")
_load("crash_scenario")


class NoProfiles:
    """A catalog without profiles."""

    def families(self):
        return ()


class Clock:
    """A wall clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Sleeper:
    """Sleeps without waiting, and remembers how long."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.slept_s.append(seconds)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sleeper():
    return Sleeper()


@pytest.fixture
def open_fake(tmp_path, clock, sleeper):
    """Open a NIC on a fake driver (or on what makes one), with a journal below the test's folder."""
    from fake_driver import FakeFactory

    opened = []

    def opener(driver, **keywords):
        make = driver if callable(driver) else lambda: driver
        registry = Registry((), NoProfiles(), [("fake", FakeFactory(make))])
        keywords.setdefault("state_dir", tmp_path / "state")
        nic = open_nic("fake:0", registry=registry, wall_clock_s=clock, sleep_s=sleeper, **keywords)
        opened.append(nic)
        return nic

    yield opener
    for nic in opened:
        nic.close()


@pytest.fixture
def rule():
    """Make a rule: TCP to a port, and so to a VF or nowhere."""

    def make(port: int, *, vf: int | None = 0, priority: int | None = None, **fields):
        action = Drop() if vf is None else ToVf(vf=vf)
        match = Match.of(eth_type=0x0800, ip_proto=6, tp_dst=port, **fields)
        return FlowRule(match=match, actions=(action,), priority=priority)

    return make
