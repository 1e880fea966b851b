"""A plugin of a stranger: built, installed beside the core in an environment of its own, and held against the kit."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.packaging.environment import call, declared_needs, link_distribution

PUBLIC = {
    "nicoffload",
    "nicoffload.driver",
    "nicoffload.errors",
    "nicoffload.hookspecs",
    "nicoffload.model",
    "nicoffload.testing.conformance",
    "nicoffload.testing.conformance.suites",
}
"""What a plugin may use: the packages that the reference describes."""


def folder(repo_root):
    return repo_root / "tests/external_plugin"


def sources(repo_root):
    return sorted(folder(repo_root).rglob("*.py"))


def test_it_uses_only_public_names(repo_root):
    for path in sources(repo_root):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else [n.name for n in node.names]
            for module in named:
                ours = module.split(".")[0] == "nicoffload"
                assert not ours or module in PUBLIC, f"{path.name} imports {module}"
            assert not any(alias.name.startswith("_") for alias in node.names), path.name


def test_its_adoption_of_the_kit_is_short(repo_root):
    text = (folder(repo_root) / "tests/test_conformance.py").read_text("utf-8")
    assert len(text.splitlines()) < 30


def test_the_tutorial_is_this_plugin(repo_root):
    """Each file stands on the page as it is here."""
    page = (repo_root / "docs/tutorial/write-a-plugin.md").read_text("utf-8")
    shown = dict(
        re.findall(r"`nicoffload-tin/([\w./-]+)`:\n\n```\w*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    )
    files = [path for path in folder(repo_root).rglob("*") if path.is_file() and path.name != "README.md"]
    mine = {
        path.relative_to(folder(repo_root)).as_posix(): path.read_text("utf-8")
        for path in files
        if path.suffix in {".py", ".toml", ".json"}
    }
    assert shown == mine


@pytest.mark.slow
@pytest.mark.xdist_group("wheels")
def test_it_passes_the_kit_in_an_environment_of_its_own(repo_root, tmp_path):
    source = tmp_path / "source"
    call("cp", "-r", folder(repo_root), source)
    for project in (repo_root, source):
        call(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, project)
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env/bin/python"
    base = {"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}
    site = Path(sysconfig.get_path("purelib", vars=base))
    for name in declared_needs(
        {"jsonschema", "numpy", "pluggy", "pyroute2", "pyudev", "PyYAML", "rich", "pytest"}
    ):
        link_distribution(name, site)
    call(
        *(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install"),
        *("--no-index", "--no-deps", *tmp_path.glob("*.whl")),
    )
    work = tmp_path / "work"
    work.mkdir()
    (work / "test_conformance.py").write_text((source / "tests/test_conformance.py").read_text("utf-8"))
    (work / "pytest.ini").write_text("[pytest]\n")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(work), "LC_ALL": "C.UTF-8"}

    def run(*words):
        return subprocess.run(
            [str(python), *words], cwd=work, env=environment, capture_output=True, text=True, check=False
        )

    where = run(
        "-c", "import nicoffload, nicoffload_tin; print(nicoffload.__file__, nicoffload_tin.__file__)"
    )
    assert all(Path(path).is_relative_to(site) for path in where.stdout.split()), where.stdout + where.stderr
    tests = run("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider")
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "skipped" not in tests.stdout, tests.stdout
    command = run("-m", "nicoffload.cli.main", "conformance", "tin:nic.json", "--json")
    assert command.returncode == 0, command.stdout[-2000:] + command.stderr
    report = json.loads(command.stdout)
    assert report["ok"]
    assert report["plugin"] == "tin"
    assert report["counts"]["passed"] > 80
    assert json.loads((work / "nic.json").read_text("utf-8")) == {"rows": {}, "vfs": []}, (
        "the NIC is left as it was"
    )
