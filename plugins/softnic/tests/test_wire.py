"""A VF's link state `auto`: as it is set, while somebody keeps the NIC up, and as the NIC is opened."""

from __future__ import annotations

import contextlib

import pytest
import softrig

from nicoffload.model import LinkState, VfConfig
from nicoffload_softnic import names

softrig.skip_without_root()
pytestmark = [pytest.mark.root, pytest.mark.xdist_group("softnic")]

ENOUGH_S = 10.0


@pytest.fixture(params=["ebpf", "u32"])
def rig(request, tmp_path):
    with softrig.rig(tmp_path, data_path=request.param) as made:
        yield made


def set_wire(rig, state):
    softrig.run(f"ip -n {rig.home} link set dev {names.wire(rig.name)} {state}")


def has_carrier(rig, vf):
    return "NO-CARRIER" not in softrig.run(f"ip -n {rig.vms[vf]} link show dev {names.vf(rig.name, vf)}")


def keep_up(upkeep, wanted):
    """Return what was mended once something was, in the way of a program that keeps a NIC up."""
    for _ in range(20):
        if upkeep.wait(ENOUGH_S) and (mended := upkeep.mend()):
            return [(each.target, each.error) for each in mended]
    pytest.fail(f"nothing was told of the wire, which is {wanted}")


def test_auto_follows_the_wire_while_somebody_keeps_the_nic_up(rig):
    with contextlib.closing(rig.driver()) as driver:
        driver.virtual_functions.configure_many([VfConfig(vf=1, link_state=LinkState.ENABLE)])
        assert driver.upkeep.wait(0)  # nobody listened before
        assert driver.upkeep.mend() == []
        set_wire(rig, "down")
        assert keep_up(driver.upkeep, "down") == [("vf:0/link", None)]
        assert (has_carrier(rig, 0), has_carrier(rig, 1)) == (False, True)
        assert driver.upkeep.mend() == []
        set_wire(rig, "up")
        assert keep_up(driver.upkeep, "up") == [("vf:0/link", None)]
        assert has_carrier(rig, 0)


def test_auto_is_the_wires_as_it_is_set_and_an_open_brings_it_up(rig):
    set_wire(rig, "down")
    with rig.open() as nic:
        assert has_carrier(rig, 0)  # an open takes no link down
        nic.configure_vfs([VfConfig(vf=0, link_state=LinkState.AUTO)])
        assert not has_carrier(rig, 0)
        nic.configure_vfs([VfConfig(vf=0, link_state=LinkState.ENABLE)])
        assert has_carrier(rig, 0)
        nic.configure_vfs([VfConfig(vf=0, link_state=LinkState.AUTO)])
    set_wire(rig, "up")
    with rig.open():
        assert has_carrier(rig, 0)
