"""The conformance kit on netdevsim, driven by the generic plugin; the kit goes through the modes of its switch."""

from __future__ import annotations

from pathlib import Path

EXPECTED = Path(__file__).with_name("netdevsim-expected.toml")


def test_netdevsim_does_what_every_nic_does(simulated_nic, conformance, sh):
    nic = simulated_nic()
    sh(f"tc qdisc del dev {nic.netdevs[0]} clsact")
    nic.set_vfs(2)
    report = conformance("netdevsim", nic.handle, "--expected", EXPECTED)
    bad = [case for case in report["cases"] if case["verdict"] in {"failed", "stale"}]
    assert [f"{case['behaviour']}[{case['part']}]: {case['reason']}" for case in bad] == []
    assert report["residue"] == []
    assert report["exit_status"] == 0
    tried = {case["part"] for case in report["cases"] if case["verdict"] == "passed"}
    assert tried >= {"flower_legacy", "flower_switchdev"}
    assert report["ground"] == "emulated_device"
