"""Lets the manager decide, and holds its one view of both paths against what the VMs' interfaces counted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from examples.lab.bench import Lab, answer
from examples.lab.counters import Traffic
from examples.lab.iperf import IperfLoad
from examples.lab.rates import RATE_BPS
from examples.lab.records import MTU, FlowLine, Moment, PathsView
from examples.lab.topology import LabVm

INTERVAL_S = 0.25


def measure_paths(lab: Lab, *, vms: int, seconds: float) -> PathsView:
    """Start a flow to each VM under the manager, and watch it move them.

    Packets are of the MTU's size, so that everybody who counts one counts the same.

    Args:
        lab: The lab.
        vms: How many receive.
        seconds: How long.

    Raises:
        LabError: A program failed.
    """
    lab.use(MTU)
    chosen = lab.topology.vms[:vms]
    manager = lab.manager(chosen)
    before, dropped = lab.received(chosen), lab.vswitch.dropped()
    load = IperfLoad(lab.processes, chosen)
    load.start(rate_bps=RATE_BPS, lead_s=0, seconds=seconds)
    moments = _watch(lab, chosen, seconds)
    load.finish(timeout_s=seconds + 15)
    report = answer(manager, "the manager", 20, say="stop\n")
    received = sum(now.since(old).rx_packets for now, old in zip(lab.received(chosen), before, strict=True))
    flows = tuple(_line(flow) for flow in report["flows"])
    to_vms = [flow for flow in flows if flow.direction == "rx"]
    return PathsView(
        vswitch=lab.vswitch.name,
        flows=flows,
        moments=tuple(moments),
        counted_packets=sum(flow.vswitch_packets + flow.nic_packets for flow in to_vms),
        received_packets=received,
        missed=report["missed"],
        dropped_by_vswitch=lab.vswitch.dropped() - dropped,
    )


def _line(flow: dict[str, Any]) -> FlowLine:
    return FlowLine(**{each.name: flow[each.name] for each in fields(FlowLine)})


def _watch(lab: Lab, vms: Sequence[LabVm], seconds: float) -> list[Moment]:
    """Read the interfaces' counters again and again; the load has just begun."""
    start_s = last_s = time.perf_counter()
    through, whole = lab.through_vswitch(), _bytes(lab.received(vms))
    moments = []
    while last_s < start_s + seconds:
        time.sleep(INTERVAL_S)
        now_s, now_through, now_whole = time.perf_counter(), lab.through_vswitch(), _bytes(lab.received(vms))
        took_s = now_s - last_s
        vswitch_bps = (now_through.rx_bytes - through.rx_bytes) * 8 / took_s
        whole_bps = (now_whole - whole) * 8 / took_s
        moments.append(
            Moment(
                time_s=now_s - start_s,
                vswitch_bps=min(vswitch_bps, whole_bps),
                nic_bps=max(whole_bps - vswitch_bps, 0.0),
            )
        )
        last_s, through, whole = now_s, now_through, now_whole
    return moments


def _bytes(each: Sequence[Traffic]) -> int:
    return sum(traffic.rx_bytes for traffic in each)
