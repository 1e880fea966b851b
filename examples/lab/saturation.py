"""Measures how many packets of 64 bytes a second go through."""

from __future__ import annotations

import contextlib
import sys
import time

from examples.lab.bench import Lab, answer
from examples.lab.counters import CpuMeter
from examples.lab.flows import FLOOD_IP, FLOOD_PORT, UDP, client_port, to_vm
from examples.lab.records import GSO, OFFLOADED, Peak
from examples.lab.shell import attempt, run
from examples.lab.topology import WIRE, WIRE_PORT

LEAD_S = 0.7
TAIL_S = 0.5


def measure_peak(lab: Lab, mode: str, *, seconds: float) -> Peak:
    """Flood one VM with one flow, and count what its interface receives.

    Args:
        lab: The lab.
        mode: ``vswitch`` or ``offloaded``.
        seconds: How long to measure.
    """
    lab.use(GSO)
    vm = lab.topology.vms[0]
    # The kernel is to cut the sender's messages before the wire: from there on each packet is to be one for everybody.
    attempt("ethtool", "-K", WIRE_PORT, "tx-udp-segmentation", "off", netns=WIRE)
    run("ip", "-n", WIRE, "route", "replace", FLOOD_IP, "via", vm.ip, "dev", WIRE_PORT)
    whole_s = LEAD_S + seconds + TAIL_S
    with contextlib.ExitStack() as stack:
        if mode == OFFLOADED:
            stack.enter_context(lab.offloaded([to_vm(vm, UDP, FLOOD_PORT, FLOOD_IP)]))
        words = ("--source-port", str(client_port(vm)), "--seconds", str(whole_s))
        flood = lab.processes.start([sys.executable, "-m", "examples.lab.flood", *words], WIRE)
        time.sleep(LEAD_S)
        meter = CpuMeter({"all": (flood.pid, *lab.softirqs, *lab.vswitch.pids)})
        begin_s = time.perf_counter()
        (before,) = lab.received([vm])
        time.sleep(seconds)
        (after,) = lab.received([vm])
        took_s, cpu_s = time.perf_counter() - begin_s, meter.seconds()["all"]
        sent = answer(flood, "the flood", seconds + 20)["sent"]
    received = after.since(before).rx_packets
    return Peak(
        vswitch=lab.vswitch.name,
        mode=mode,
        sent_pps=sent / whole_s,
        received_pps=received / took_s,
        cpu_ns_per_packet=cpu_s * 1e9 / max(received, 1),
    )
