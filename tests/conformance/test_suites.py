"""The pytest classes: what a subclass may define, and that standard tests can't be replaced."""

from __future__ import annotations

import pytest

from nicoffload.testing.conformance import CATALOGUE, select
from nicoffload.testing.conformance.suites import Conformance, FlowFilters

pytest_plugins = ["pytester"]

ADOPTION = """
import pytest
from nicoffload import load_registry
from nicoffload.testing.conformance import NicUnderTest
from nicoffload.testing.conformance.suites import Rates

REGISTRY = load_registry()

class TestMine(Rates):
    @pytest.fixture
    def nic_under_test(self):
        name = "mock:{family}"
        return NicUnderTest(name=name, open_driver=lambda: REGISTRY.open(name), disposable=True)
    {more}
"""

FILE = """
    @pytest.fixture
    def expected_failures(self):
        import pathlib
        return pathlib.Path("expected.toml")
"""


def outcomes(pytester, family, more=""):
    pytester.makepyfile(ADOPTION.format(family=family, more=more))
    return pytester.runpytest_inprocess("-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-rA")


def test_a_good_driver_passes(pytester):
    result = outcomes(pytester, "ixgbe")
    result.assert_outcomes(passed=len(select(["RT"])))
    result.stdout.fnmatch_lines(["*test_behaviour?RT-01?*"])


def test_what_is_not_shown_is_skipped_with_its_reason(pytester):
    result = outcomes(pytester, "igb_82576")
    assert result.parseoutcomes()["skipped"] >= 5
    result.stdout.fnmatch_lines(["*RT-01 was not shown: rates work at a link of*"])


def test_an_expected_failure_that_does_not_fail_is_reported(pytester):
    (pytester.path / "expected.toml").write_text(
        '[[failure]]\ncase = "RT-11[max_tx]"\nreason = "the NIC forgets"\n'
    )
    result = outcomes(pytester, "ixgbe", FILE)
    result.assert_outcomes(passed=len(select(["RT"])) - 1, failed=1)
    result.stdout.fnmatch_lines(["*RT-11?max_tx?: expected to fail (the NIC forgets), and it does not*"])


def test_an_expected_failure_of_a_part_that_is_gone_is_reported(pytester):
    (pytester.path / "expected.toml").write_text(
        '[[failure]]\ncase = "RT-11[gone]"\nreason = "the NIC forgets"\n'
    )
    result = outcomes(pytester, "ixgbe", FILE)
    result.assert_outcomes(passed=len(select(["RT"])) - 1, failed=1)
    result.stdout.fnmatch_lines(
        ["expected to fail, and there is no such part: *RT-11?gone?: the NIC forgets"]
    )


@pytest.mark.parametrize("name", ["test_behaviour", "groups", "pytest_generate_tests"])
def test_a_standard_test_can_not_be_replaced(name):
    with pytest.raises(TypeError, match=f"redefines {name}"):
        type("TestMine", (Conformance,), {name: lambda self: None})


def test_not_by_way_of_a_class_between_either():
    between = type("Between", (FlowFilters,), {})
    with pytest.raises(TypeError, match="can't be replaced"):
        type("TestMine", (between,), {"test_behaviour": lambda self: None})


def test_a_mixin_can_not_shadow_a_standard_test():
    class Shadow:
        def test_behaviour(self):
            """Pass."""

    with pytest.raises(TypeError, match="can't be replaced"):
        type("TestMine", (Shadow, Conformance), {})


def test_own_tests_and_fixtures_are_welcome():
    made = type("TestMine", (Conformance,), {"nic_under_test": None, "test_mine": lambda self: None})
    assert made.groups == ()


def test_the_classes_together_have_every_behaviour():
    from nicoffload.testing.conformance import suites

    classes = [
        each for each in vars(suites).values() if isinstance(each, type) and getattr(each, "groups", ())
    ]
    groups = [group for each in classes for group in each.groups]
    assert sorted(groups) == sorted({each.group for each in CATALOGUE})
