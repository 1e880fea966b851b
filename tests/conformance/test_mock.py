"""Every family of NICs, emulated, has every behaviour."""

from __future__ import annotations

import pytest

from nicoffload import load_registry
from nicoffload.testing.conformance import CATALOGUE, NicUnderTest, run
from nicoffload.testing.conformance.report import lines

REGISTRY = load_registry()
FAMILIES = REGISTRY.profiles.families()


def names():
    """Yield every family in each of its modes."""
    for family in FAMILIES:
        eswitch = REGISTRY.profiles.get(family).eswitch
        modes = eswitch.modes if eswitch else ()
        yield from [f"mock:{family},mode={mode}" for mode in modes] or [f"mock:{family}"]


@pytest.mark.parametrize("name", [*names()])
def test_every_family_passes(name):
    def opened():
        return REGISTRY.open(name)

    report = run(NicUnderTest(name=name, open_driver=opened, disposable=True, sleep_s=lambda seconds: None))
    assert report.ok, "\n".join(lines(report))
    assert {case.behaviour for case in report.cases} == {each.number for each in CATALOGUE}
