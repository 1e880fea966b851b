"""The snippets of the how-to for users run as they stand there."""

from __future__ import annotations

import re

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def page(repo_root):
    return (repo_root / "docs/howto/test-without-hardware.md").read_text("utf-8")


def test_its_snippets_are_tests_that_pass(page, pytester):
    snippets = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(snippets) == 4
    pytester.makepyfile(**{f"test_snippet_{at}": text for at, text in enumerate(snippets)})
    pytester.runpytest("-p", "no:randomly").assert_outcomes(passed=4)


def test_it_names_every_effect(page, repo_root):
    schema = (repo_root / "schemas/mock-faults.schema.json").read_text("utf-8")
    kinds = re.search(r'"kind": \{"enum": \[(.*?)\]', schema)[1]
    assert [kind for kind in re.findall(r"\w+", kinds) if f"`{kind}`" not in page] == []


def test_two_nics_of_one_test_are_apart(mock_nic):
    first, second = mock_nic("ixgbe", vfs=2), mock_nic("ixgbe", rows={"fdir": 3})
    assert (len(first.vfs()), len(second.vfs())) == (2, 8)
    assert second.tables()[0].rows == 3
