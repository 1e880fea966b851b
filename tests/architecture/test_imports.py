"""Rules about imports that import-linter can't say."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

PUBLIC = {
    "nicoffload",
    "nicoffload.codec",
    "nicoffload.errors",
    "nicoffload.model",
    "nicoffload.packets",
    "nicoffload.profiles",
    "nicoffload.schema",
}
"""What FlexivOffload may use of the SDK: the same that anybody may."""

OWN = "nicoffload.flexivoffload"


def imported_modules(tree: ast.AST, package: str) -> set[str]:
    """Return the absolute name of every module that an import statement names."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            found.add(".".join([*base, *([node.module] if node.module else [])]))
    return found


def private_imports(tree: ast.AST, package: str) -> set[str]:
    """Return the modules of the SDK that are imported and are not public, and private names taken from public ones."""
    modules = {m for m in imported_modules(tree, package) if m.split(".")[0].startswith("nicoffload")}
    bad = {m for m in modules if m not in PUBLIC and m != OWN and not m.startswith(OWN + ".")}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "") in PUBLIC:
            bad |= {f"{node.module}.{alias.name}" for alias in node.names if alias.name.startswith("_")}
            if node.module == "nicoffload":  # `from nicoffload import compiler` names a module
                submodules = {f"nicoffload.{alias.name}" for alias in node.names}
                known = {"driver", "hookspecs", "registry", "compiler", "kernel", "testing", "cli"}
                bad |= {name for name in submodules if name.split(".")[1] in known}
    return bad


def test_flexivoffload_uses_only_the_public_sdk(repo_root):
    files = sorted((repo_root / "nicoffload/flexivoffload").rglob("*.py"))
    assert files
    for path in files:
        package = ".".join(path.parent.relative_to(repo_root).parts)
        bad = private_imports(ast.parse(path.read_text("utf-8")), package)
        assert bad == set(), f"{path.relative_to(repo_root)} uses what is not public: {sorted(bad)}"


@pytest.mark.parametrize(
    "line",
    [
        "import nicoffload.compiler",
        "from nicoffload.compiler.lower import lower",
        "from nicoffload import registry",
        "from ..registry import load",
        "from nicoffload.model import _secret",
        "import nicoffload_mock",
        "from nicoffload.model.flow import FlowRule",
    ],
)
def test_the_rule_above_can_fail(line):
    assert private_imports(ast.parse(line), OWN)


@pytest.mark.parametrize(
    "line", ["from nicoffload.model import Match", "from . import ledger", "import numpy"]
)
def test_the_rule_above_can_pass(line):
    assert not private_imports(ast.parse(line), OWN)


@pytest.mark.parametrize("module", ["nicoffload", "nicoffload.model", "nicoffload.errors"])
def test_the_heavy_libraries_are_not_loaded_before_they_are_needed(module):
    heavy = "{'pyroute2', 'pyudev', 'jsonschema', 'sqlite3', 'matplotlib', 'jinja2', 'yaml'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
