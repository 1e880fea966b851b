"""The pages that are made from the kit; `make golden` rewrites them."""

from __future__ import annotations

import json
import re

from nicoffload import load_registry
from nicoffload.testing.conformance import CATALOGUE, Ground
from nicoffload.testing.conformance.pages import behaviours_page, row_from_json, row_to_json, support_page
from tests.conformance import support

REGISTRY = load_registry()


def test_the_page_of_behaviours_is_current(repo_root, golden):
    golden.check_text(repo_root / "docs/reference/behaviours.md", behaviours_page())


def test_every_behaviour_is_on_the_page(repo_root):
    page = (repo_root / "docs/reference/behaviours.md").read_text("utf-8")
    assert re.findall(r"^### ([A-Z]+-[0-9]+): ", page, re.MULTILINE) == [each.number for each in CATALOGUE]


def test_the_support_matrix_is_made_from_the_reports(repo_root, golden):
    golden.check_text(repo_root / "docs/reference/support.md", support_page(support.known()))


def test_every_family_that_is_installed_is_in_the_matrix():
    rows = support.known()
    for family in REGISTRY.profiles.families():
        for mode in support.modes(REGISTRY, family):
            assert ("mock", family, "emulator", mode) in {row.key for row in rows}, "run: make support"


def test_no_row_is_older_than_the_behaviours():
    for row in support.known():
        if row.ground is Ground.EMULATOR:
            groups = {each.group for each in CATALOGUE}
            assert {letters for letters, counts in row.cells.items() if counts} == groups
            assert row.tried >= len(CATALOGUE), f"{row.key}: run: make support"


def test_the_grounds_are_apart():
    page = support_page(support.known())
    hardware = page.partition("## On hardware")[2].partition("## ")[0]
    assert "| mock |" not in hardware
    kernel = page.partition("## On a real kernel, with an emulated device")[2].partition("## ")[0]
    assert "| mock |" not in kernel
    for row in support.known():
        assert bool(row.kernel) == (row.ground is not Ground.EMULATOR)
        assert bool(row.date) == (row.ground is not Ground.EMULATOR)


def test_a_row_outlives_being_written():
    for row in support.known():
        assert row_from_json(json.loads(json.dumps(row_to_json(row)))) == row
