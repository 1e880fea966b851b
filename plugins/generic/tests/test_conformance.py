"""The conformance kit on Linux's simulated NIC, in each of its modes, on the fake kernel."""

from __future__ import annotations

import pytest

from tests.linux.conforming import PROFILES, check

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", PROFILES.get("netdevsim").eswitch.modes)
def test_the_plugin_has_every_behaviour(mode):
    check("netdevsim", mode)
