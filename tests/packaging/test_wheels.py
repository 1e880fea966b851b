"""The wheels, as a stranger gets them: built, installed in an empty environment, and used from an empty folder."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.packaging.environment import call, declared_needs, link_distribution

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheels")]

PLUGINS = ["generic", "intel", "mellanox", "mock", "softnic", "solarflare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """An environment that holds our wheels and what they declare to need, nothing else."""

    wheels: dict[str, Path]
    bin_dir: Path
    cwd: Path

    def run(self, *command: str) -> str:
        """Run a command of the environment and return what it printed."""
        done = subprocess.run(
            [str(self.bin_dir / command[0]), *command[1:]],
            cwd=self.cwd,
            env={"PATH": f"{self.bin_dir}:/usr/bin:/bin", "HOME": str(self.cwd), "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def installed(repo_root, tmp_path_factory):
    work = tmp_path_factory.mktemp("wheels")
    # The core by way of its source distribution: what a packager of a Linux distribution does.
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", work, repo_root)
    for name in PLUGINS:
        call(
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--wheel",
            "--outdir",
            work,
            repo_root / "plugins" / name,
        )
    wheels = {path.name.split("-")[0]: path for path in work.glob("*.whl")}
    assert sorted(wheels) == ["nicoffload", *(f"nicoffload_{name}" for name in PLUGINS)]

    venv.create(work / "env", with_pip=False, symlinks=True)
    env_python = work / "env/bin/python"
    site = Path(
        sysconfig.get_path("purelib", vars={"base": str(work / "env"), "platbase": str(work / "env")})
    )
    requires = {
        Requirement(line).name
        for path in wheels.values()
        for line in wheel_requires(path)
        if "extra ==" not in line and not line.startswith("nicoffload")
    }
    for name in declared_needs(requires):
        link_distribution(name, site)
    call(
        *(sys.executable, "-m", "pip", "--python", env_python, "--disable-pip-version-check", "install"),
        *("--no-index", "--no-deps", *wheels.values()),
    )
    empty = work / "empty"
    empty.mkdir()
    return Installed(wheels=wheels, bin_dir=work / "env/bin", cwd=empty)


def wheel_requires(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as wheel:
        (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
        lines = wheel.read(name).decode().splitlines()
    return [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]


def strings(value: object) -> set[str]:
    """Return every string of a JSON value, keys included."""
    if isinstance(value, dict):
        return set(value).union(*(strings(v) for v in value.values()))
    if isinstance(value, list):
        return set().union(*(strings(v) for v in value))
    return {value} if isinstance(value, str) else set()


def profile_names(path: Path) -> set[str]:
    """Return the names of the profiles that a wheel, or a folder of the tree, holds."""
    if path.is_dir():
        return {p.stem for p in path.glob("nicoffload_*/profiles/*.json")}
    with zipfile.ZipFile(path) as wheel:
        return {Path(n).stem for n in wheel.namelist() if "/profiles/" in n and n.endswith(".json")}


def test_the_core_holds_schemas_as_files_and_nothing_foreign(repo_root, installed):
    with zipfile.ZipFile(installed.wheels["nicoffload"]) as wheel:
        names = set(wheel.namelist())
        for schema in (repo_root / "schemas").glob("*.json"):
            assert wheel.read(f"nicoffload/schemas/{schema.name}") == schema.read_bytes()
    assert "nicoffload/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"nicoffload", "nicoffload-0.1.0.dist-info"}
    assert [name for name in names if name.endswith(".pyc")] == []
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_holds_its_profiles_and_types(repo_root, installed, name):
    path = installed.wheels[f"nicoffload_{name}"]
    with zipfile.ZipFile(path) as wheel:
        assert f"nicoffload_{name}/py.typed" in wheel.namelist()
        assert not [n for n in wheel.namelist() if "tests" in n]
    assert profile_names(path) == profile_names(repo_root / "plugins" / name)


def test_the_installed_package_is_the_one_in_the_wheel(installed):
    where = installed.run(
        "python", "-c", "import nicoffload.errors; print(nicoffload.errors.__file__)"
    ).strip()
    assert Path(where).is_relative_to(installed.bin_dir.parent)


def test_schemas_are_found(repo_root, installed):
    code = (
        "import importlib.resources as r, json\n"
        "found = {p.name: json.loads(p.read_text('utf-8')) for p in (r.files('nicoffload') / 'schemas').iterdir()}\n"
        "print(json.dumps(sorted(found)))"
    )
    found = json.loads(installed.run("python", "-c", code))
    assert found == sorted(p.name for p in (repo_root / "schemas").glob("*.json"))
    assert found


def test_profiles_of_every_plugin_are_found(installed):
    expected = set().union(*(profile_names(path) for path in installed.wheels.values()))
    assert {"sfn5122f", "mlx5", "ixgbe"} <= expected
    assert expected <= strings(json.loads(installed.run("nicoffload", "profiles", "--json")))


def test_every_plugin_is_found(installed):
    assert set(PLUGINS) <= strings(json.loads(installed.run("nicoffload", "plugins", "--json")))


@pytest.mark.parametrize("program", ["nicoffload", "flexivoffload"])
def test_the_programs_start(installed, program):
    assert program in installed.run(program, "--help")
