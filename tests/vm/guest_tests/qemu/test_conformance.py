"""The conformance kit on an igb of PCI, driven by the plugin for Intel's NICs on the distribution's kernel."""

from __future__ import annotations


def test_the_82576_does_what_every_nic_does(emulated_nics, conformance):
    nic = emulated_nics[0]
    report = conformance("igb_82576", nic.address)
    bad = [case for case in report["cases"] if case["verdict"] in {"failed", "stale"}]
    assert [f"{case['behaviour']}[{case['part']}]: {case['reason']}" for case in bad] == []
    assert report["residue"] == []
    assert report["exit_status"] == 0
    assert report["family"] == "igb_82576"
    assert report["counts"]["passed"] > 5
    assert report["ground"] == "emulated_device"
