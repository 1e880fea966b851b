"""The conformance kit: numbered behaviours that every plugin has, and what tries them on a NIC.

`run` tries them without a test framework, as ``nicoffload conformance NIC`` does; `suites` has pytest test classes by
capability, which a plugin's author subclasses.
"""

from nicoffload.testing.conformance.behaviour import Behaviour, Check, Parts
from nicoffload.testing.conformance.catalogue import CATALOGUE, GROUPS, select
from nicoffload.testing.conformance.expected import ExpectedFailure, load_expected_failures
from nicoffload.testing.conformance.outcome import CaseResult, Verdict
from nicoffload.testing.conformance.report import Report
from nicoffload.testing.conformance.runner import run
from nicoffload.testing.conformance.under_test import Ground, NicUnderTest, Packet, PacketSource

__all__ = [
    "CATALOGUE",
    "GROUPS",
    "Behaviour",
    "CaseResult",
    "Check",
    "ExpectedFailure",
    "Ground",
    "NicUnderTest",
    "Packet",
    "PacketSource",
    "Parts",
    "Report",
    "Verdict",
    "load_expected_failures",
    "run",
    "select",
]
