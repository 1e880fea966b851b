"""The scenarios on a real kernel with netdevsim: what the fake kernel answers is what this one does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicoffload.kernel.linux import LinuxKernel
from tests.kernel.namespaces import simulated_namespaces
from tests.kernel.scenarios import SIMULATED, Subject
from tests.vm.guest_tests.transcripts import hold_against_golden

_BUS = Path("/sys/bus/netdevsim")
_numbers = itertools.count(500)


@pytest.fixture
def subject() -> Iterator[Subject]:
    """A netdevsim as it comes: down, without VFs, nothing turned on."""
    number = next(_numbers)
    (_BUS / "new_device").write_text(f"{number} 1", "ascii")
    yield Subject(kernel=LinuxKernel(), bus="netdevsim", name=f"netdevsim{number}")
    (_BUS / "del_device").write_text(str(number), "ascii")


@pytest.mark.parametrize("scenario", [*SIMULATED, simulated_namespaces], ids=lambda one: one.__name__)
def test_a_real_kernel_answers_as_the_fake_one_does(scenario, subject):
    hold_against_golden(scenario, subject)
