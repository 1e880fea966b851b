"""The kit as pytest classes, one a capability: a plugin's author subclasses `Conformance` and gives a NIC.

.. code-block:: python

    class TestMyNic(Conformance):
        @pytest.fixture
        def nic_under_test(self):
            return NicUnderTest(name="my:0", open_driver=lambda: REGISTRY.open("my:0"), disposable=True)

A behaviour that does not apply passes, one that can't be tried here is skipped with its reason, and one that the file
of expected failures names must fail.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from nicoffload.testing.conformance.behaviour import Behaviour
from nicoffload.testing.conformance.catalogue import select
from nicoffload.testing.conformance.expected import ExpectedFailure, judged, load_expected_failures
from nicoffload.testing.conformance.outcome import CaseResult, Verdict
from nicoffload.testing.conformance.runner import try_behaviour
from nicoffload.testing.conformance.under_test import NicUnderTest

YOURS = frozenset({"nic_under_test", "expected_failures"})
"""What a subclass may define of what this module has; everything else is the kit's."""


class Suite:
    """What the classes share. A subclass that redefines a standard test is refused when it is made."""

    groups: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, standard: bool = False, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if standard:
            return
        kit = {name for name in vars(Suite) if not name.startswith("__")} - YOURS
        others = [base for base in cls.__mro__ if base.__module__ != __name__]
        taken = {name for base in others for name in vars(base) if name in kit}
        if taken:
            raise TypeError(
                f"{cls.__name__} redefines {', '.join(sorted(taken))}, which the conformance kit defines: a standard "
                "test can't be replaced. What your NIC can't do yet goes into the file of expected failures."
            )

    @pytest.fixture
    def nic_under_test(self) -> NicUnderTest:
        """Return the NIC; every plugin has its own."""
        raise NotImplementedError("a subclass gives the fixture nic_under_test")

    @pytest.fixture
    def expected_failures(self) -> Path | None:
        """Return the plugin's file of expected failures; None for none."""
        return None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test of each behaviour; pytest asks the class."""
        if "behaviour" in metafunc.fixturenames:
            chosen = select(self.groups)
            metafunc.parametrize("behaviour", chosen, ids=[each.number for each in chosen])

    def test_behaviour(
        self,
        behaviour: Behaviour,
        nic_under_test: NicUnderTest,
        expected_failures: Path | None,
        record_property: Callable[[str, object], None],
    ) -> None:
        """Try one behaviour on each of its parts."""
        driver = nic_under_test.open_driver()
        profile = driver.profile
        driver.close()
        entries = load_expected_failures(expected_failures) if expected_failures is not None else ()
        results, residue = try_behaviour(nic_under_test, behaviour, profile)
        cases, unused = judged(results, _about(entries, behaviour), profile.family)
        for case in cases:
            record_property(case.name, f"{case.verdict.value}: {case.reason}")
        _conclude(behaviour, cases, residue, unused)


def _about(entries: tuple[ExpectedFailure, ...], behaviour: Behaviour) -> tuple[ExpectedFailure, ...]:
    return tuple(each for each in entries if each.case.partition("[")[0] == behaviour.number)


def _conclude(
    behaviour: Behaviour, cases: tuple[CaseResult, ...], residue: list[str], unused: tuple[str, ...]
) -> None:
    bad = [f"{case.name}: {case.reason}" for case in cases if case.verdict in (Verdict.FAILED, Verdict.STALE)]
    bad += [f"left behind: {text}" for text in residue]
    bad += [f"expected to fail, and there is no such part: remove the entry {text}" for text in unused]
    if bad:
        pytest.fail(f"{behaviour.number} {behaviour.title}\n" + "\n".join(bad), pytrace=False)
    verdicts = {case.verdict for case in cases}
    reasons = "; ".join(dict.fromkeys(case.reason for case in cases if case.reason))
    if verdicts == {Verdict.EXPECTED_FAILURE}:
        pytest.xfail(reasons)
    if Verdict.NOT_SHOWN in verdicts and Verdict.PASSED not in verdicts:
        pytest.skip(f"{behaviour.number} was not shown: {reasons}")


class Conformance(Suite, standard=True):
    """Every behaviour of every capability. This is the one that proves a plugin."""


class DriverContract(Suite, standard=True):
    """Who the NIC is, what it claims, and what its errors say."""

    groups = ("DR", "CP", "ER")


class FlowFilters(Suite, standard=True):
    """Flow filters."""

    groups = ("FL",)


class VirtualFunctions(Suite, standard=True):
    """VFs: number, settings, resets, drivers."""

    groups = ("VF",)


class Rates(Suite, standard=True):
    """Transmit rates of VFs."""

    groups = ("RT",)


class Statistics(Suite, standard=True):
    """Counters of port and VFs."""

    groups = ("ST",)


class Changes(Suite, standard=True):
    """Plans, changes and leases through `open_nic`; interrupted, undone, adopted."""

    groups = ("NIC", "LS")
