"""The conformance kit on netdevsim, driven by the generic plugin, in each mode of its switch."""

from __future__ import annotations

from pathlib import Path

import pytest

EXPECTED = Path(__file__).with_name("netdevsim-expected.toml")


@pytest.mark.parametrize("mode", ["legacy", "switchdev"])
def test_netdevsim_does_what_every_nic_does(simulated_nic, conformance, sh, mode):
    nic = simulated_nic()
    sh(f"tc qdisc del dev {nic.netdevs[0]} clsact")
    nic.set_vfs(2)
    sh(f"devlink dev eswitch set {nic.handle} mode {mode}")
    report = conformance(f"netdevsim-{mode}", nic.handle, "--expected", EXPECTED)
    bad = [case for case in report["cases"] if case["verdict"] in {"failed", "stale"}]
    assert [f"{case['behaviour']}[{case['part']}]: {case['reason']}" for case in bad] == []
    assert report["residue"] == []
    assert report["exit_status"] == 0
    assert report["counts"]["passed"] > 10
    assert report["ground"] == "emulated_device"
