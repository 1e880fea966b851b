"""What a live NIC tells of its VFs, and what it does not."""

from __future__ import annotations

import pytest

from tests.linux.plugged import live

HIDES_VFS = {"effect": {"kind": "answer", "operation": "vf_read", "errno": "EBUSY"}}


@pytest.mark.parametrize(("family", "ready"), [("ice", False), ("i40e", False), ("ixgbe", None)])
def test_a_vf_that_the_driver_leaves_out_is_resetting_where_its_driver_is_busy_then(family, ready):
    states = live(family, vfs=2, faults=[HIDES_VFS]).driver.virtual_functions.states()
    assert [state.ready for state in states] == [ready, ready]
    assert [state.mac for state in states] == [None, None]


@pytest.mark.parametrize("family", ["ice", "ixgbe", "mlx5"])
def test_of_a_vf_that_is_told_nobody_knows_whether_its_reset_is_over(family):
    states = live(family, vfs=2).driver.virtual_functions.states()
    assert [state.ready for state in states] == [None, None]
