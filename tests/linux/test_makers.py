"""Waiting for VFs that come late, whatever their number."""

from __future__ import annotations

import pytest

from nicoffload.errors import DeviceBusyError
from nicoffload.kernel.pci import PciFunction
from tests.linux.plugged import live


@pytest.fixture
def late(monkeypatch):
    """Return a NIC with eight VFs, of which one more is there whenever so many seconds have gone."""

    def make(seconds_each):
        nic = live("ice")
        functions = nic.driver.virtual_functions
        functions.set_count(8)
        order = {state.pci_address: number for number, state in enumerate(functions.states())}
        start_s, told = nic.kernel.monotonic_s(), PciFunction.physical_function

        def physical_function(function):
            there_s = start_s + seconds_each * order[function.address]
            return told(function) if nic.kernel.monotonic_s() >= there_s else ""

        monkeypatch.setattr(PciFunction, "physical_function", physical_function)
        return nic

    return make


def test_vfs_are_waited_for_as_long_as_they_come(late):
    nic = late(seconds_each=4)
    start_s = nic.kernel.monotonic_s()
    nic.driver.virtual_functions.set_count(8)
    assert 28 <= nic.kernel.monotonic_s() - start_s < 30
    nic.driver.close()


def test_vfs_that_come_no_more_are_told_of_at_every_call(late):
    nic = late(seconds_each=6)
    for there in (1, 2):  # the number is right, and asking again makes no success of it
        with pytest.raises(DeviceBusyError, match=f"8 VFs were made, {there} are there"):
            nic.driver.virtual_functions.set_count(8)
    nic.driver.close()
