"""Counts what a flow loses, gets twice or gets late while its path is switched under load."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import fmean
from typing import Any

from examples.lab.bench import Lab, answer
from examples.lab.flows import client_port
from examples.lab.iperf import IperfLoad, Received
from examples.lab.rates import LEAD_S, RATE_BPS
from examples.lab.records import GSO, MTU, TcpSwitching, UdpSwitching
from examples.lab.shell import LabError
from examples.lab.topology import HOST, NIC, WIRE

MARGIN_S = 1.0
"""The load begins so much before the first switch, and goes on so much after the last one is due."""


def _switcher(lab: Lab, protocol: str, switches: int, seconds: float) -> subprocess.Popen[str]:
    times = ["--switches", str(switches), "--seconds", str(seconds)]
    if protocol == "tcp":  # iperf3 does not wait for us
        times.append("--no-longer")
    return lab.program("switch", "--nic", NIC, "--protocol", protocol, *times, netns=HOST)


def measure_udp(lab: Lab, *, switches: int, seconds: float) -> UdpSwitching:
    """Switch a UDP flow of 100 Mbit/s.

    Args:
        lab: The lab.
        switches: How often; 0 shows what the virtual switch loses by itself.
        seconds: Over which time.

    Raises:
        LabError: A program failed.
    """
    lab.use(MTU)
    vm = lab.topology.vms[0]
    receiver = lab.program("udp", "receive", netns=vm.netns)
    switcher = _switcher(lab, "udp", switches, seconds) if switches else None
    before, dropped = lab.through_vswitch(), lab.vswitch.dropped()
    words = ("--target", vm.ip, "--source-port", str(client_port(vm)), "--rate-bps", str(RATE_BPS))
    report: dict[str, Any] = {"seconds": seconds, "median_ms": 0.0}
    with lab.vswitch.prompt():
        sender = lab.processes.start([sys.executable, "-m", "examples.lab.udp", "send", *words], WIRE)
        time.sleep(MARGIN_S)
        if switcher is None:
            time.sleep(seconds)
        else:
            report = answer(switcher, "the switching", 10 * seconds + 30, say="go\n")
        time.sleep(MARGIN_S)
        load = answer(sender, "the sender", 30, say="stop\n")
        sent = load["sent"]
        found = answer(receiver, "the receiver", 30, say=f"{sent}\n")
    through = lab.through_vswitch().since(before)
    return UdpSwitching(
        vswitch=lab.vswitch.name,
        switches=switches,
        seconds=report["seconds"],
        rate_bps=load["rate_bps"],
        sent=sent,
        received=found["received"],
        lost=found["lost"],
        duplicated=found["duplicated"],
        reordered=found["reordered"],
        dropped_by_vswitch=lab.vswitch.dropped() - dropped,
        nic_packets=max(sent - through.rx_packets, 0),
        switch_ms=report["median_ms"],
    )


def measure_tcp(lab: Lab, *, switches: int, seconds: float, rounds: int) -> TcpSwitching:
    """Compare a TCP flow of 100 Mbit/s whose path is switched with one whose path is not, in turn.

    Args:
        lab: The lab.
        switches: How often in each round, at most; as many as fit.
        seconds: Duration of each of the two flows of a round.
        rounds: How many rounds.

    Raises:
        LabError: A program failed.
    """
    lab.use(GSO)
    still: list[Received] = []
    switched: list[Received] = []
    done = 0
    with lab.vswitch.prompt():
        for _ in range(rounds):
            still.append(_tcp_flow(lab, 0, seconds)[0])
            flow, count = _tcp_flow(lab, switches, seconds)
            switched.append(flow)
            done += count
    return TcpSwitching(
        vswitch=lab.vswitch.name,
        switches=done,
        still_bps=fmean(flow.goodput_bps for flow in still),
        switched_bps=fmean(flow.goodput_bps for flow in switched),
        retransmits_still=sum(flow.retransmits for flow in still),
        retransmits_switched=sum(flow.retransmits for flow in switched),
    )


def _tcp_flow(lab: Lab, switches: int, seconds: float) -> tuple[Received, int]:
    """Return what a flow received, and how often it was switched meanwhile."""
    load = IperfLoad(lab.processes, lab.topology.vms[:1])
    switcher = _switcher(lab, "tcp", switches, seconds) if switches else None
    load.start(rate_bps=RATE_BPS, lead_s=LEAD_S, seconds=seconds)
    time.sleep(LEAD_S)
    done = 0
    if switcher is not None:
        done = answer(switcher, "the switching", 3 * seconds + 30, say="go\n")["switches"]
    (flow,) = load.finish(timeout_s=seconds + 20)
    if flow.error:
        raise LabError(f"iperf3: {flow.error}")
    return flow, done
