"""The Tin One does what every plugin does."""

import pytest

from nicoffload import load_registry
from nicoffload.testing.conformance import NicUnderTest
from nicoffload.testing.conformance.suites import Conformance


class TestTinOne(Conformance):
    @pytest.fixture
    def nic_under_test(self, tmp_path):
        registry = load_registry(only=["tin"])
        name = f"tin:{tmp_path / 'nic.json'}"
        return NicUnderTest(name=name, open_driver=lambda: registry.open(name))
