from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from nicoffload.profiles import Catalog

FILES = sorted((Path(__file__).parents[2] / "plugins").glob("*/nicoffload_*/profiles/*.json"))


@pytest.fixture(scope="session")
def catalog():
    return Catalog(FILES)


@pytest.fixture(scope="session")
def documents():
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FILES}


@pytest.fixture
def document(documents):
    return copy.deepcopy(documents["ixgbe"])
