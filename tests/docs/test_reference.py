"""The pages on NICs and on profiles are made from the profiles and their schema; `make golden` rewrites them."""

from __future__ import annotations

import json

import pytest

from nicoffload import load_registry
from tests.docs import nic_pages
from tests.docs.schema_page import schema_page, terms

PLUGINS = ("intel", "mellanox", "softnic", "solarflare")
CATALOG = load_registry(only=PLUGINS).profiles
FAMILIES = CATALOG.families()


def test_the_support_matrix_is_current(repo_root, golden):
    text = nic_pages.overview([CATALOG.get(family) for family in FAMILIES])
    golden.check_text(repo_root / "docs/reference/nics.md", text)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_of_a_family_is_current(family, repo_root, golden):
    golden.check_text(repo_root / f"docs/reference/nics/{family}.md", nic_pages.family(CATALOG.get(family)))


def test_no_page_is_of_a_family_that_is_gone(repo_root):
    assert sorted(path.stem for path in (repo_root / "docs/reference/nics").iterdir()) == list(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_page_of_a_family_has_every_fact_that_a_person_needs(family):
    profile = CATALOG.get(family)
    text = nic_pages.family(profile)
    for fact in [*profile.quirks, *profile.tables]:
        assert fact.source.replace("<", "&lt;") in text or fact.source in text
    for quirk in profile.quirks:
        assert quirk.text in text


def test_the_page_on_the_schema_is_current(repo_root, golden):
    schema = json.loads((repo_root / "schemas/nic-profile.schema.json").read_text("utf-8"))
    golden.check_text(repo_root / "docs/reference/profile-schema.md", schema_page(schema))


def test_the_page_on_the_schema_has_every_description(repo_root):
    schema = json.loads((repo_root / "schemas/nic-profile.schema.json").read_text("utf-8"))
    text = schema_page(schema)
    for spec in specs(schema):
        if isinstance(spec.get("description"), str):
            assert spec["description"] in text or len(terms(spec)) > 2
            assert all(meaning[1:] in text for word, meaning in terms(spec))
        for condition in spec.get("propertyNames", {}).get("enum", ()):
            assert f"`{condition}`" in text


def specs(value):
    """Yield every object of a schema."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from specs(each)
