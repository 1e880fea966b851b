"""The FlexivOffload manager on the lab's NIC, as a program of its own: its CPU time counts, and can be told apart.

Run as ``python -m examples.lab.manage`` in the namespace of the virtual switch. It says that it is ready in a line of
JSON, runs until its input ends, takes its rules out, and prints what it knows of both paths.
"""

from __future__ import annotations

import argparse
import json
import select
import sys
from typing import Any

from nicoffload import open_nic
from nicoffload.flexivoffload.accounts import FlowReport
from nicoffload.flexivoffload.live import LiveReport, LiveSession
from nicoffload.flexivoffload.policy import parse_policy
from nicoffload.flexivoffload.tap import PacketTap
from nicoffload.flexivoffload.vms import Vm

POLICY = """
version: 1
description: Whatever sends much goes to the NIC; the rest stays where it can be seen.
default: onload
granularity: [flow]
limits: {max_vm_share: 1.0}
rules:
  - id: busy
    when: statistics
    promote:
      pps: {up: 100, down: 10}
    min_residence_s: 2
"""


def main() -> None:
    """Run until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nic", required=True)
    parser.add_argument("--ports", nargs="+", required=True, help="of the virtual switch")
    parser.add_argument("--vms", required=True, help="JSON: name, vf, mac and ip of each")
    options = parser.parse_args()
    vms = [
        Vm(name=vm["name"], vf=vm["vf"], macs=(vm["mac"],), ips=(vm["ip"],)) for vm in json.loads(options.vms)
    ]
    with open_nic(options.nic) as nic, PacketTap(options.ports) as tap:
        session = LiveSession(nic, parse_policy(POLICY), vms, tap)
        print(json.dumps({"ready": True}), flush=True)
        try:
            session.run(lambda: not select.select([sys.stdin], [], [], 0)[0])
        finally:
            session.finish()
        print(json.dumps(as_json(session.report())))


def as_json(report: LiveReport) -> dict[str, Any]:
    """Return a report as JSON holds it."""
    return {
        "duration_s": round(report.duration_s, 3),
        "missed": report.missed,
        "uncounted": report.uncounted,
        "adds": report.operations.adds,
        "removes": report.operations.removes,
        "refused": report.operations.refused,
        "notes": list(report.notes),
        "flows": [_flow(flow) for flow in report.flows],
    }


def _flow(flow: FlowReport) -> dict[str, Any]:
    return {
        "flow": flow.flow,
        "vm": flow.vm,
        "direction": flow.direction,
        "vswitch_packets": flow.onloaded.packets,
        "vswitch_bytes": flow.onloaded.bytes,
        "nic_packets": flow.offloaded.packets,
        "nic_bytes": flow.offloaded.bytes,
        "moves": flow.moves,
    }


if __name__ == "__main__":
    main()
