"""Measures a fixed rate for each VM: on the virtual switch, offloaded, and as the manager decides."""

from __future__ import annotations

import contextlib
import time

from examples.lab.bench import Lab, answer
from examples.lab.counters import CpuMeter
from examples.lab.flows import SERVER_PORT, TCP, rules
from examples.lab.iperf import IperfLoad
from examples.lab.records import GSO, MANAGER, OFFLOADED, RatePoint
from examples.lab.shell import LabError

RATE_BPS = 100_000_000
LEAD_S = 1.0
MANAGER_LEAD_S = 4.0
"""The manager has to see a flow's rate before it moves it."""


def measure_rate(lab: Lab, mode: str, *, vms: int, seconds: float, segments: str = GSO) -> RatePoint:
    """Measure one point.

    Args:
        lab: The lab.
        mode: See `records.MODES`.
        vms: How many receive.
        seconds: How long to measure.
        segments: See `records.GSO`.

    Raises:
        LabError: Nothing was received, or a program failed.
    """
    lab.use(segments)
    chosen = lab.topology.vms[:vms]
    load = IperfLoad(lab.processes, chosen)
    lead_s = MANAGER_LEAD_S if mode == MANAGER else LEAD_S
    with contextlib.ExitStack() as stack:
        if mode == OFFLOADED:
            stack.enter_context(lab.offloaded(rules(chosen, TCP, SERVER_PORT)))
        manager = lab.manager(chosen) if mode == MANAGER else None
        load.start(rate_bps=RATE_BPS, lead_s=lead_s, seconds=seconds)
        time.sleep(lead_s)
        groups = {
            "ends": load.pids,
            "softirq": lab.softirqs,
            "vswitch": lab.vswitch.pids,
            "manager": () if manager is None else (manager.pid,),
        }
        meter, begin_s = CpuMeter(groups), time.perf_counter()
        by_vswitch, received = lab.by_vswitch(chosen), lab.received(chosen)
        time.sleep(seconds)
        by_vswitch = lab.by_vswitch(chosen) - by_vswitch
        whole = sum(now.since(old).rx_bytes for now, old in zip(lab.received(chosen), received, strict=True))
        cpu_s, took_s = meter.seconds(), time.perf_counter() - begin_s
        flows = load.finish(timeout_s=lead_s + seconds + 15)
        if manager is not None:
            answer(manager, "the manager", 20)
    goodput_bps = sum(flow.goodput_bps for flow in flows)
    if not goodput_bps:
        raise LabError(f"nothing was received: {next(flow.error for flow in flows)}")
    gigabytes = goodput_bps / 8 * took_s / 1e9
    per_gb = {name: used / gigabytes for name, used in cpu_s.items()}
    return RatePoint(
        vswitch=lab.vswitch.name,
        mode=mode,
        segments=segments,
        vms=vms,
        ideal_bps=vms * RATE_BPS,
        goodput_bps=goodput_bps,
        nic_share=max(0.0, 1 - by_vswitch / whole) if whole else 0.0,
        cpu_s_per_gb=sum(per_gb.values()),
        ends_s_per_gb=per_gb["ends"],
        softirq_s_per_gb=per_gb["softirq"],
        vswitch_s_per_gb=per_gb["vswitch"],
        manager_s_per_gb=per_gb["manager"],
        retransmits=sum(flow.retransmits for flow in flows),
        seconds=took_s,
        error="; ".join(sorted({flow.error for flow in flows if flow.error})),
    )
