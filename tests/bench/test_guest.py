"""Which figures of the guest `make bench` takes, and what it says where there are none."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def guest():
    """The module: the folder is no package, since its scripts are run as such."""
    spec = importlib.util.spec_from_file_location("bench_guest", Path(__file__).with_name("guest.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leave(folder: Path, flower: float, age_s: float = 0.0) -> None:
    """Leave figures as a run of the guest does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figures in (
        ("flower.json", {"flower_bulk_over_tc_batch": flower}),
        ("rss.json", {"rss_mb_100k_rules": 100}),
        ("vendor.json", {"nic_over_driver": 2}),
    ):
        (folder / name).write_text(json.dumps(figures), "ascii")
        os.utime(folder / name, (1000 - age_s, 1000 - age_s))


def test_the_newest_run_counts_and_all_its_files(guest, tmp_path):
    old, new = tmp_path / "uml", tmp_path / "figures"
    leave(old, 20, age_s=100)
    leave(new, 30)
    found = guest.read([old, new], 0)
    assert found == {"flower_bulk_over_tc_batch": 30, "rss_mb_100k_rules": 100, "nic_over_driver": 2}
    (new / "vendor.json").unlink()
    assert guest.read([old, new], 0)["flower_bulk_over_tc_batch"] == 20


def test_figures_of_other_code_do_not_count(guest, tmp_path):
    leave(tmp_path / "uml", 20)
    assert guest.read([tmp_path / "uml"], 1001) == {}
    assert guest.read([tmp_path / "none"], 0) == {}


def test_what_was_measured_is_the_code_from_the_kernel_layer_up(guest, repo_root):
    newest = guest.newest_source(repo_root)
    assert newest >= (repo_root / "nicoffload/kernel/tc/filters.py").stat().st_mtime
    assert newest >= (repo_root / "nicoffload/nic/facade.py").stat().st_mtime
    assert newest >= (repo_root / "tests/bench/kernel.py").stat().st_mtime


def test_what_is_missing_is_named_with_the_reason(guest, tmp_path, monkeypatch):
    monkeypatch.setattr(guest, "FOLDERS", [tmp_path])
    monkeypatch.setattr(guest, "newest_source", lambda root: 0.0)

    class Done:
        returncode, stderr = 77, "test-vm: missing: qemu\n"

    monkeypatch.setattr(guest.subprocess, "run", lambda *words, **options: Done())
    found, missing = guest.figures(tmp_path)
    assert found == {}
    assert missing.endswith("(missing: qemu)")
    assert all(name in missing for name in guest.NAMES)
