"""The scenarios on the fake kernel: its answers are those that real kernels gave, which are kept in golden/scenarios.

`make test-vm` holds the same scenarios on the real kernels against the same files.
"""

from __future__ import annotations

import pytest

from nicoffload.registry import load_registry
from nicoffload.testing import FakeKernel
from nicoffload.testing.emulator.config import Config
from tests.kernel.namespaces import simulated_namespaces
from tests.kernel.scenarios import IGB, SIMULATED, Subject, run

PROFILES = load_registry().profiles
GIGABIT = 1_000_000_000


def simulated() -> Subject:
    """Return a fake netdevsim, and what every kernel has besides."""
    kernel = FakeKernel()
    kernel.plug(
        PROFILES.get("netdevsim"),
        pci_address="netdevsim10",
        ifname="eth0",
        up=False,
        config=Config(prepared=False),
    )
    return Subject(kernel=kernel, bus="netdevsim", name="netdevsim10")


def igb() -> Subject:
    """Return a fake 82576."""
    kernel = FakeKernel()
    kernel.plug(
        PROFILES.get("igb_82576"), pci_address="0000:01:00.0", config=Config(prepared=False, link_bps=GIGABIT)
    )
    return Subject(kernel=kernel, bus="pci", name="0000:01:00.0")


CASES = [*((one, simulated) for one in (*SIMULATED, simulated_namespaces)), *((one, igb) for one in IGB)]


@pytest.mark.parametrize(("scenario", "make"), CASES, ids=lambda one: getattr(one, "__name__", ""))
def test_the_fake_kernel_answers_as_a_real_one_did(scenario, make, golden):
    golden.check_text(f"golden/scenarios/{scenario.__name__}.txt", run(scenario, make()))
