"""What every experiment needs: the lab's network, its NIC, and the virtual switch that runs."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from examples.lab.counters import Traffic, softirq_threads, traffic
from examples.lab.records import MTU
from examples.lab.shell import LabError, Processes, output_of, run
from examples.lab.topology import HOST, NIC, PF_PORT, STATE, WIRE_IP, LabVm, Topology, cut_segments
from examples.lab.vswitch import VSwitch
from nicoffload import Nic
from nicoffload.model import FlowRule

READY_S = 30


@dataclass(slots=True, kw_only=True)
class Lab:
    """A lab that is up.

    Args:
        topology: Its network.
        nic: Its NIC, open.
        processes: What runs in it.
        vswitch: The virtual switch that runs.
        softirqs: The kernel's threads for packets.
    """

    topology: Topology
    nic: Nic
    processes: Processes
    vswitch: VSwitch
    softirqs: tuple[int, ...] = field(default_factory=softirq_threads)

    def introduce(self) -> None:
        """Let every VM say a word, so that the virtual switch knows where it is, and need not flood what is sent to it.

        Raises:
            LabError: A VM does not reach the wire.
        """
        for vm in self.topology.vms:
            run("ping", "-c", "1", "-w", "10", "-i", "0.2", WIRE_IP, netns=vm.netns)

    def use(self, segments: str) -> None:
        """Let the ends send packets of the MTU's size, or bigger ones."""
        cut_segments(self.topology, on=segments == MTU)

    @contextlib.contextmanager
    def offloaded(self, rules: Sequence[FlowRule]) -> Iterator[None]:
        """Have rules in the NIC for a while."""
        self.nic.add_flows(rules)
        try:
            yield
        finally:
            self.nic.remove_flows([rule.rule_id for rule in rules])

    def through_vswitch(self) -> Traffic:
        """Return what came from the wire and no rule took: it enters the virtual switch by the PF."""
        return traffic(self.topology.host_pid)[PF_PORT]

    def by_vswitch(self, vms: Sequence[LabVm]) -> int:
        """Return the bytes that the virtual switch has sent to VMs: into their representors."""
        ports = traffic(self.topology.host_pid)
        return sum(ports[vm.representor].tx_bytes for vm in vms)

    @staticmethod
    def received(vms: Sequence[LabVm]) -> list[Traffic]:
        """Return what each VM received."""
        return [traffic(vm.pid)[vm.port] for vm in vms]

    def program(self, name: str, *words: str, netns: str) -> subprocess.Popen[str]:
        """Start one of the lab's own programs, and wait until it says that it is ready.

        Raises:
            LabError: It ends before, or says nothing for 30 s.
        """
        process = self.processes.start(
            [sys.executable, "-m", f"examples.lab.{name}", *words], netns, environment=STATE
        )
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], READY_S)[0]:
            raise LabError(f"{name} did not say within {READY_S} s that it is ready")
        first = process.stdout.readline()
        if first.strip() != json.dumps({"ready": True}):
            text = first + output_of(process, name, 30)
            raise LabError(f"{name} did not start: {text.strip().splitlines()[-1:]}")
        return process

    def manager(self, vms: Sequence[LabVm]) -> subprocess.Popen[str]:
        """Start the FlexivOffload manager."""
        each = [{"name": vm.as_vm().name, "vf": vm.vf, "mac": vm.as_vm().macs[0], "ip": vm.ip} for vm in vms]
        ports = self.topology.switch_ports
        return self.program("manage", "--nic", NIC, "--vms", json.dumps(each), "--ports", *ports, netns=HOST)


def answer(process: subprocess.Popen[str], what: str, timeout_s: float, *, say: str = "") -> dict[str, Any]:
    """Return what one of the lab's programs prints in its last line, after a last word to it."""
    lines = output_of(process, what, timeout_s, say=say).strip().splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError) as cause:
        raise LabError(f"{what} ended without a result: {lines[-1:]}") from cause
    return found
