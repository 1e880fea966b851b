"""The harness itself: a skip without a reason and a wrong golden file must fail a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(repo_root: Path, tmp_path: Path, source: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run one test file in a pytest of its own, with the harness and a budget of one skip."""
    (tmp_path / "test_inner.py").write_text(source)
    (tmp_path / "pytest.ini").write_text("[pytest]\nskip_budget = 1\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.harness", "-p", "no:cacheprovider", "-q"]
    return subprocess.run(
        [*command, "--rootdir", str(tmp_path), *args, str(tmp_path)],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import pytest\n@pytest.mark.skip\ndef test_a(): pass\n", "skipped without a reason"),
        ("import pytest\ndef test_a(): pytest.skip()\n", "skipped without a reason"),
        (
            "import pytest\ndef test_a(): pytest.skip('dull')\ndef test_b(): pytest.skip('dull')\n",
            "the budget is 1",
        ),
    ],
)
def test_a_skip_that_breaks_the_rules_fails_the_run(repo_root, tmp_path, source, fault):
    done = run(repo_root, tmp_path, source)
    assert done.returncode == 1, done.stdout + done.stderr
    assert fault in done.stdout


def test_a_skip_with_a_reason_is_shown_and_passes(repo_root, tmp_path):
    done = run(
        repo_root, tmp_path, "import pytest\ndef test_a(): pytest.skip('no such NIC')\ndef test_b(): pass\n"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no such NIC" in done.stdout
    assert "FAULT" not in done.stdout


def test_golden_files_are_compared_and_rewritten(repo_root, tmp_path):
    source = "def test_a(golden): golden.check_json('data/a.json', {'b': 1, 'a': [2]})\n"
    assert run(repo_root, tmp_path, source).returncode == 1, "a missing file must fail"
    assert run(repo_root, tmp_path, source, "--golden").returncode == 0
    assert (tmp_path / "data/a.json").read_text() == '{\n  "a": [\n    2\n  ],\n  "b": 1\n}\n'
    assert run(repo_root, tmp_path, source).returncode == 0
    assert run(repo_root, tmp_path, source.replace("1", "3")).returncode == 1
