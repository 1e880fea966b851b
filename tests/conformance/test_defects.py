"""The kit is itself tested: each planted defect is found by the behaviour meant for it, and by no accident."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from nicoffload import load_registry
from nicoffload.testing.conformance import CATALOGUE, NicUnderTest, Verdict
from nicoffload.testing.conformance.runner import try_behaviour


def _load(name):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


DEFECTS = _load("defects").DEFECTS
REGISTRY = load_registry()
BEHAVIOURS = {each.number: each for each in CATALOGUE}


def tried(nic, number, plant=None):
    """Return what becomes of a behaviour on a NIC, with a fault or without."""

    def opened():
        driver = REGISTRY.open(nic)
        if plant is not None:
            plant(driver)
        return driver

    under_test = NicUnderTest(name=nic, open_driver=opened, disposable=True, sleep_s=lambda seconds: None)
    profile = REGISTRY.profiles.get(nic.removeprefix("mock:").partition(",")[0])
    return {each.part: each for each in try_behaviour(under_test, BEHAVIOURS[number], profile)[0]}


@pytest.mark.parametrize("defect", DEFECTS, ids=[each.name for each in DEFECTS])
def test_a_planted_defect_is_caught_by_the_behaviour_meant_for_it(defect):
    good = tried(defect.nic, defect.caught_by)
    found = tried(defect.nic, defect.caught_by, defect.plant)
    caught = [
        each for part, each in found.items() if defect.part in ("", part) and each.verdict is Verdict.FAILED
    ]
    assert caught, {part: (each.verdict, each.reason) for part, each in found.items()}
    for each in caught:
        assert good[each.part].verdict is Verdict.PASSED, "a good driver breaks this behaviour as well"
        assert len(each.reason) > 20, "the report does not say what broke"


def test_there_are_defects_of_every_kind():
    assert len(DEFECTS) >= 40
    assert len({each.name for each in DEFECTS}) == len(DEFECTS)
    assert {each.caught_by.partition("-")[0] for each in DEFECTS} == {each.group for each in CATALOGUE}


def test_behaviours_without_a_defect_are_known():
    """Shrink this list; a new behaviour brings its defect."""
    covered = {each.caught_by for each in DEFECTS}
    assert {each.number for each in CATALOGUE} - covered == {
        "CP-05",  # what `Nic` says of a facet that is not there: no driver can spoil it
        "DR-02",  # a broken profile is no driver's fault, and does not load
    }
