"""The programs of examples/ run, and say what their reader is to learn."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from nicoffload import load_registry


@dataclass(frozen=True, slots=True)
class Ran:
    """What a program printed, and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(repo_root, tmp_path):
    def start(name, *words):
        done = subprocess.run(
            [sys.executable, str(repo_root / "examples" / name), *words],
            cwd=tmp_path,
            env={
                "PATH": os.environ.get("PATH", ""),
                "HOME": str(tmp_path),
                "NICOFFLOAD_STATE_DIR": str(tmp_path / "journal"),
                "COLUMNS": "200",
                "LC_ALL": "C.UTF-8",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    return start


def test_offload_a_flow_on_a_nic_that_counts(run):
    ran = run("offload_a_flow.py")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "tcp,nw_dst=10.0.0.5,tp_dst=443 actions=vf:2 is in table flower_fdb\npackets so far: 0\nremoved\n"
    )


def test_offload_a_flow_takes_a_coarser_rule_where_there_is_one(run):
    ran = run(
        "offload_a_flow.py", "mock:sfn5122f", "tcp,nw_src=10.0.0.9,nw_dst=10.0.0.5,tp_dst=443 actions=vf:2"
    )
    assert (ran.code, ran.err) == (0, "")
    assert "taking the 3-tuple rule instead, which catches all TCP to 10.0.0.5 port 443" in ran.out
    assert "tcp,nw_dst=10.0.0.5,tp_dst=443 actions=vf:2 is in table rx_ip" in ran.out
    assert "not counted by this NIC" in ran.out


def test_offload_a_flow_says_why_where_there_is_none(run):
    ran = run("offload_a_flow.py", "mock:sfc_siena")
    assert ran.code == 3
    assert "delivers to receive queues of the PF, not to a VF" in ran.out


def test_lease_a_vf_tells_how_the_nic_rounds(run):
    ran = run("lease_a_vf.py", "mock:ixgbe")
    assert (ran.code, ran.err) == (0, "")
    assert "asked for 102500000 bit/s, enforced 102000000" in ran.out
    assert ran.out.endswith("released\n")


def test_lease_a_vf_goes_on_without_rates(run):
    ran = run("lease_a_vf.py", "mock:sfn5122f")
    assert (ran.code, ran.err) == (0, "")
    assert "no rate limits" in ran.out


def test_choose_a_nic_asks_every_nic(run):
    ran = run("choose_a_nic.py")
    assert (ran.code, ran.err) == (0, "")
    verdicts = {line.split()[0]: line.split()[1] for line in ran.out.splitlines() if " mock:" in line}
    assert set(verdicts) == {f"mock:{family}" for family in load_registry().profiles.families()}
    assert {name for name, verdict in verdicts.items() if verdict == "yes"} == {
        "mock:ice",
        "mock:ixgbe",
        "mock:mlx5",
        "mock:netdevsim",
        "mock:sfc_ef100",
        "mock:softnic",
        "mock:softnic_u32",
    }


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("offload_a_flow.py", ("mock:nothing",), 4),
        ("offload_a_flow.py", ("mock:mlx5", "tcp,tp_dts=1 actions=vf:1"), 2),
        ("lease_a_vf.py", ("mock:igb_i210",), 3),
        ("choose_a_nic.py", ("nonsense",), 2),
        ("choose_a_nic.py", ("tcp,tun_id=7 actions=vf:99",), 3),
    ],
)
def test_a_fault_of_the_user_is_told_in_words(run, name, words, code):
    ran = run(name, *words)
    assert ran.code == code
    assert ran.err or code == 3
