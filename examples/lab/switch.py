"""Moves one flow between the paths and back, again and again, as a program of its own.

Run as ``python -m examples.lab.switch``; it says that it is ready in a line of JSON, and begins when a line comes in.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

from examples.lab.flows import SERVER_PORT, TCP, UDP, UDP_PORT, from_vm, to_vm
from examples.lab.topology import LabVm
from nicoffload import Nic, open_nic
from nicoffload.model import FlowRule


def switch(nic: Nic, vm: LabVm, protocol: int, port: int, *, switches: int, seconds: float) -> list[float]:
    """Switch a flow's path so many times, evenly over some time; return how long each took, in seconds.

    The flow ends on the path that it began on, if the number is even.
    """
    took: list[float] = []
    start_s = time.perf_counter()
    installed: list[FlowRule] = []
    for number in range(switches):
        time.sleep(max(0.0, start_s + number * seconds / switches - time.perf_counter()))
        begin_s = time.perf_counter()
        if installed:
            nic.remove_flows([rule.rule_id for rule in installed])
            installed = []
        else:
            installed = [to_vm(vm, protocol, port)]
            if protocol == TCP:
                installed.append(from_vm(vm, protocol, port))
            nic.add_flows(installed)
        took.append(time.perf_counter() - begin_s)
    if installed:
        nic.remove_flows([rule.rule_id for rule in installed])
    return took


def main() -> None:
    """Switch, and print how long it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nic", required=True)
    parser.add_argument("--protocol", choices=("tcp", "udp"), required=True)
    parser.add_argument("--switches", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    protocol, port = (TCP, SERVER_PORT) if options.protocol == "tcp" else (UDP, UDP_PORT)
    vm = LabVm(number=1, mac="", pid=0)
    with open_nic(options.nic) as nic:
        print(json.dumps({"ready": True}), flush=True)
        sys.stdin.readline()
        start_s = time.perf_counter()
        took = switch(nic, vm, protocol, port, switches=options.switches, seconds=options.seconds)
        print(
            json.dumps(
                {
                    "switches": len(took),
                    "seconds": time.perf_counter() - start_s,
                    "median_ms": 1000 * statistics.median(took),
                    "worst_ms": 1000 * max(took),
                }
            )
        )


if __name__ == "__main__":
    main()
