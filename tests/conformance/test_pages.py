"""The pages that are made from the kit; `make golden` rewrites them."""

from __future__ import annotations

import re

from nicoffload.testing.conformance import CATALOGUE
from nicoffload.testing.conformance.pages import behaviours_page


def test_the_page_of_behaviours_is_current(repo_root, golden):
    golden.check_text(repo_root / "docs/reference/behaviours.md", behaviours_page())


def test_every_behaviour_is_on_the_page(repo_root):
    page = (repo_root / "docs/reference/behaviours.md").read_text("utf-8")
    assert re.findall(r"^### ([A-Z]+-[0-9]+): ", page, re.MULTILINE) == [each.number for each in CATALOGUE]
