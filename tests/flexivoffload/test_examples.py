"""The examples run."""

from __future__ import annotations

import subprocess
import sys


def test_replay_a_capture(repo_root, bench):
    path = bench.capture(bench.two_way(200))
    command = [sys.executable, "examples/replay_a_capture.py", str(path), "examples/policies/everything.yaml"]
    done = subprocess.run(
        [*command, "mock:sfn5122f", "mock:mlx5"], cwd=repo_root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shares = [float(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(shares) == 2
    assert all(share > 50 for share in shares)
