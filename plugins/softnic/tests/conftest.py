"""Fixtures of the software NIC's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folder is no package

import softrig


@pytest.fixture(scope="module")
def softnic(tmp_path_factory):
    """A software NIC with two VFs, each in a VM's namespace; the tests of a module share it."""
    with softrig.rig(tmp_path_factory.mktemp("state")) as made:
        yield made


@pytest.fixture
def nic(softnic):
    """The same, open and as it was made."""
    with softnic.open() as opened:
        opened.remove_flows([each.rule.rule_id for each in opened.flows()])
        softrig.reset_settings(opened)
        yield opened
