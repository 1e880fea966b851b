"""The documentation names what the code has."""

from __future__ import annotations

import re

from nicoffload import errors


def family(base: type[errors.NicOffloadError]) -> list[type[errors.NicOffloadError]]:
    return [base, *(member for kind in base.__subclasses__() for member in family(kind))]


def test_every_error_has_its_row_with_code_and_exit_code(repo_root):
    page = (repo_root / "docs/reference/errors.md").read_text("utf-8")
    rows = {
        (m[1], m[2], int(m[3]))
        for m in re.finditer(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \|", page, re.MULTILINE)
    }
    ours = {kind for kind in family(errors.NicOffloadError) if kind.__module__ == errors.__name__}
    assert rows == {(kind.__name__, kind.code, kind.exit_code) for kind in ours}


def test_every_module_of_the_sdk_is_in_the_reference(repo_root):
    page = (repo_root / "docs/reference/index.md").read_text("utf-8")
    children = {
        path.stem
        for path in (repo_root / "nicoffload").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    children = {name for name in children if not name.startswith("_")} - {"cli"}
    assert children - set(re.findall(r"^   nicoffload\.(\w+)$", page, re.MULTILINE)) == set()


def test_every_make_target_is_documented(repo_root):
    targets = set(
        re.findall(r"^([a-z-]+):.*##", (repo_root / "Makefile").read_text("utf-8"), re.MULTILINE)
    ) - {"help"}
    page = (repo_root / "docs/reference/make.md").read_text("utf-8")
    assert set(re.findall(r"^\| `make ([a-z-]+)`", page, re.MULTILINE)) == targets


def test_nothing_committed_names_a_path_of_a_machine(repo_root):
    suffixes = {".py", ".md", ".toml", ".json", ".yaml", ".sh"}
    for folder in ("nicoffload", "plugins", "schemas", "docs", "examples"):
        for path in (repo_root / folder).rglob("*"):
            if path.suffix in suffixes and path.is_file():
                found = re.search(r"(?<![\w.])/(work|home|root)/\w", path.read_text("utf-8"))
                assert not found, f"{path.relative_to(repo_root)} names {found[0]}"
