"""The scenarios on a real kernel with an emulated 82576: what the fake kernel answers is what this one does."""

from __future__ import annotations

import time

import pytest

from nicoffload.kernel.linux import LinuxKernel
from tests.kernel.scenarios import IGB, Subject
from tests.vm.guest_tests.transcripts import hold_against_golden


@pytest.mark.parametrize("scenario", IGB, ids=lambda one: one.__name__)
def test_a_real_kernel_answers_as_the_fake_one_does(scenario, emulated_nics, sh):
    nic = emulated_nics[0]
    deadline = time.monotonic() + 30
    while "LOWER_UP" not in sh(f"ip link show dev {nic.netdev}"):
        assert time.monotonic() < deadline, "the port stays down"
    sh("modprobe vfio-pci")
    hold_against_golden(scenario, Subject(kernel=LinuxKernel(), bus="pci", name=nic.address))
