"""The page that explains the compiler says what the compiler does."""

from __future__ import annotations

import doctest


def test_examples_of_the_page(repo_root):
    path = repo_root / "docs/explanation/compiler.md"
    found = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    assert found.attempted > 5
    assert found.failed == 0
