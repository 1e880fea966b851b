"""Decision records have unique, unbroken numbers, a status, and a line in the index."""

from __future__ import annotations

import re


def records(repo_root):
    return sorted(p for p in (repo_root / "docs/adr").glob("*.md") if p.name != "index.md")


def test_names_are_numbered_from_one_without_gap(repo_root):
    names = [path.name for path in records(repo_root)]
    assert names
    assert [name for name in names if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name)] == []
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


def test_each_has_title_status_and_the_three_parts(repo_root):
    for path in records(repo_root):
        text = path.read_text("utf-8")
        assert text.startswith(f"# {int(path.name[:4])}. "), f"{path.name}: the title starts with the number"
        assert re.search(r"^Status: (accepted|superseded by \d{4})$", text, re.MULTILINE), (
            f"{path.name}: no status"
        )
        for part in ("Context", "Decision", "Consequences"):
            assert f"\n## {part}\n" in text, f"{path.name}: no part called {part}"


def test_each_has_its_line_in_the_index(repo_root):
    index = (repo_root / "docs/adr/index.md").read_text("utf-8")
    for path in records(repo_root):
        assert re.search(rf"^{path.stem}$", index, re.MULTILINE), (
            f"docs/adr/index.md does not list {path.stem}"
        )
