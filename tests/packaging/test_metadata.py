"""What the pyproject.toml files of the distributions must agree on."""

from __future__ import annotations

import re
import tomllib

import pytest

PLUGINS = ["generic", "intel", "mellanox", "mock", "softnic", "solarflare"]


def project(path):
    return tomllib.loads((path / "pyproject.toml").read_text("utf-8"))["project"]


def test_every_plugin_folder_is_known_to_make_and_to_this_test(repo_root):
    folders = sorted(p.parent.name for p in repo_root.glob("plugins/*/pyproject.toml"))
    assert folders == PLUGINS
    listed = re.search(r"^PLUGINS := (.*)$", (repo_root / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert listed
    assert listed[1].split() == PLUGINS


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_has_the_version_of_the_core_and_asks_for_it(repo_root, name):
    core, plugin = project(repo_root), project(repo_root / "plugins" / name)
    assert plugin["name"] == f"nicoffload-{name}"
    assert plugin["version"] == core["version"]
    assert plugin["requires-python"] == core["requires-python"]
    assert f"nicoffload=={core['version']}" in plugin["dependencies"]
    assert plugin["entry-points"]["nicoffload.plugins"] == {name: f"nicoffload_{name}"}


def test_constraints_pin_all_that_is_declared(repo_root):
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (repo_root / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    core = project(repo_root)
    declared = [
        *core["dependencies"],
        *(r for extra in core["optional-dependencies"].values() for r in extra),
    ]
    names = {re.split(r"[><=!~\[; ]", requirement)[0].lower() for requirement in declared}
    assert names - pinned == set()
