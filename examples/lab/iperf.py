"""iperf3 between the wire and the VMs: each VM receives one TCP flow, at a rate of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.lab.flows import SERVER_PORT, client_port
from examples.lab.shell import Processes, wait_for
from examples.lab.topology import WIRE, LabVm

START_S = 0.8
"""How long the clients may take until all of them send."""

TAIL_S = 0.7
"""How much longer than measured they send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What one VM received of its flow.

    Args:
        goodput_bps: TCP payload.
        retransmits: Segments that the sender had to send again.
        error: What iperf3 said; empty where all was well.
    """

    goodput_bps: float = 0.0
    retransmits: int = 0
    error: str = ""


def parse_client(text: str) -> Received:
    """Return what an iperf3 client reports."""
    try:
        report = json.loads(text)
    except ValueError:
        said = text.strip().splitlines()
        return Received(error=said[-1] if said else "iperf3 said nothing")
    if "error" in report:
        return Received(error=str(report["error"]))
    end = report["end"]
    return Received(
        goodput_bps=float(end["sum_received"]["bits_per_second"]),
        retransmits=int(end["sum_sent"].get("retransmits") or 0),
    )


class IperfLoad:
    """One TCP flow to each VM.

    Args:
        processes: Where they run.
        vms: Who receives.
    """

    def __init__(self, processes: Processes, vms: Sequence[LabVm]) -> None:
        self._processes = processes
        self._vms = tuple(vms)
        self._servers: list[subprocess.Popen[str]] = []
        self._clients: list[subprocess.Popen[str]] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """Its processes."""
        return tuple(process.pid for process in (*self._servers, *self._clients))

    def start(self, *, rate_bps: int, lead_s: float, seconds: float) -> None:
        """Start to send.

        Args:
            rate_bps: To each VM.
            lead_s: How long before it counts.
            seconds: How long it counts.
        """
        self._servers = [
            self._processes.start(
                ["iperf3", "-s", "-4", "-1", "-p", str(SERVER_PORT)], vm.netns, out=subprocess.DEVNULL
            )
            for vm in self._vms
        ]
        for server in self._servers:
            wait_for(lambda pid=server.pid: _listens(pid), "iperf3 does not listen")  # type: ignore[misc]
        whole = f"{seconds + TAIL_S:.1f}"
        self._clients = [
            self._processes.start(
                [
                    *("iperf3", "-c", vm.ip, "-4", "-p", str(SERVER_PORT), "--cport", str(client_port(vm))),
                    *("-b", str(rate_bps), "-t", str(round(float(whole))), "-O", str(round(lead_s)), "-J"),
                    *("--connect-timeout", "5000"),
                ],
                WIRE,
            )
            for vm in self._vms
        ]

    def finish(self, timeout_s: float) -> list[Received]:
        """Wait until all is sent, and return what each VM received."""
        found = []
        for client in self._clients:
            try:
                text, _ = client.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                client.kill()
                client.communicate()
                text = "iperf3 did not end in time"
            found.append(parse_client(text))
        for server in self._servers:
            if server.poll() is None:
                server.kill()
            server.wait()
        return found


def _listens(pid: int) -> bool:
    """Tell whether a server listens, by the sockets of its namespace (/proc/net/tcp, state 0A)."""
    try:
        lines = Path(f"/proc/{pid}/net/tcp").read_text("ascii").splitlines()[1:]
    except OSError:
        return False
    wanted = f":{SERVER_PORT:04X}"
    return any(line.split()[1].endswith(wanted) and line.split()[3] == "0A" for line in lines)
