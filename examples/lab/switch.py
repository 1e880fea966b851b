"""Moves one flow between the paths and back, again and again, as a program of its own.

Run as ``python -m examples.lab.switch``; it says that it is ready in a line of JSON, and begins when a line comes in.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

from examples.lab.flows import IDLE_PORT, SERVER_PORT, TCP, UDP, UDP_PORT, from_vm, to_vm
from examples.lab.topology import LabVm
from nicoffload import Nic, open_nic
from nicoffload.model import FlowRule


def switch(
    nic: Nic, vm: LabVm, protocol: int, port: int, *, switches: int, seconds: float, no_longer: bool
) -> list[float]:
    """Switch a flow's path again and again; return how long each switch took, in seconds.

    The flow ends on the virtual switch.

    Args:
        nic: The NIC.
        vm: Whose flow.
        protocol: Of IP.
        port: The VM's.
        switches: How often.
        seconds: Over which time, evenly; longer if a switch takes longer.
        no_longer: Whether to leave out rather than take longer.
    """
    took: list[float] = []
    start_s = time.perf_counter()
    installed: list[FlowRule] = []
    for number in range(switches):
        if no_longer and time.perf_counter() - start_s > seconds:
            break
        time.sleep(max(0.0, start_s + number * seconds / switches - time.perf_counter()))
        begin_s = time.perf_counter()
        if installed:
            nic.remove_flows([rule.rule_id for rule in installed])
            installed = []
        else:
            installed = both_ways(vm, protocol, port)
            nic.add_flows(installed)
        took.append(time.perf_counter() - begin_s)
    nic.remove_flows([rule.rule_id for rule in installed])
    return took


def both_ways(vm: LabVm, protocol: int, port: int) -> list[FlowRule]:
    """Return the rules of a flow: TCP is answered, our UDP is not."""
    there = to_vm(vm, protocol, port)
    return [there, from_vm(vm, protocol, port)] if protocol == TCP else [there]


def main() -> None:
    """Switch, and print how long it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nic", required=True)
    parser.add_argument("--protocol", choices=("tcp", "udp"), required=True)
    parser.add_argument("--switches", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--no-longer", action="store_true")
    options = parser.parse_args()
    protocol, port = (TCP, SERVER_PORT) if options.protocol == "tcp" else (UDP, UDP_PORT)
    vm = LabVm(number=1, mac="", pid=0)
    with open_nic(options.nic) as nic:
        # As on a NIC in use, other flows of the same kind are there all the time.
        others = both_ways(vm, protocol, IDLE_PORT)
        nic.add_flows(others)
        print(json.dumps({"ready": True}), flush=True)
        sys.stdin.readline()
        start_s = time.perf_counter()
        took = switch(
            nic,
            vm,
            protocol,
            port,
            switches=options.switches,
            seconds=options.seconds,
            no_longer=options.no_longer,
        )
        nic.remove_flows([rule.rule_id for rule in others])
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
