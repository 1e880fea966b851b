"""Results as a run would have them, for those who read, draw and tell them."""

from __future__ import annotations

import pytest

from examples.lab import records


def rate(vswitch="ovs", mode="vswitch", segments="gso", vms=12, *, goodput_bps=1.2e9, cpu=20.0):
    return records.RatePoint(
        vswitch=vswitch,
        mode=mode,
        segments=segments,
        vms=vms,
        ideal_bps=vms * 1e8,
        goodput_bps=goodput_bps * vms / 12,
        nic_share=0.0 if mode == "vswitch" else 1.0,
        cpu_s_per_gb=cpu,
        ends_s_per_gb=cpu / 2,
        softirq_s_per_gb=0.0,
        vswitch_s_per_gb=cpu / 2,
        manager_s_per_gb=0.0,
        retransmits=3,
        seconds=3.0,
    )


def flow(vm, vswitch_packets, nic_packets, direction="rx"):
    return records.FlowLine(
        flow=f"tcp,nw_dst=10.97.1.{vm}",
        vm=f"vm{vm}",
        direction=direction,
        vswitch_packets=vswitch_packets,
        vswitch_bytes=1514 * vswitch_packets,
        nic_packets=nic_packets,
        nic_bytes=1514 * nic_packets,
        moves=1,
    )


@pytest.fixture
def results():
    found = records.Results(about={"kernel": "6.1"})
    for vms in (1, 4, 12):
        found.rates += [
            rate(vms=vms, goodput_bps=5e8),
            rate(mode="offloaded", vms=vms, goodput_bps=1.19e9, cpu=2.8),
            rate(mode="manager", vms=vms, goodput_bps=1.18e9, cpu=3.1),
        ]
    found.rates += [
        rate(segments="mtu"),
        rate(mode="offloaded", segments="mtu", cpu=4.0),
        rate(vswitch="bridge", cpu=6.0),
        rate(vswitch="bridge", mode="offloaded", cpu=2.9),
    ]
    found.peaks = [
        records.Peak(vswitch=vswitch, mode=mode, sent_pps=9e5, received_pps=pps, cpu_ns_per_packet=1e9 / pps)
        for vswitch, mode, pps in (
            ("ovs", "vswitch", 8e4),
            ("ovs", "offloaded", 9e5),
            ("bridge", "vswitch", 4e5),
        )
    ]
    udp = {
        "vswitch": "ovs",
        "seconds": 9.0,
        "rate_bps": 1e8,
        "sent": 90_000,
        "received": 90_000,
        "duplicated": 0,
        "dropped_by_vswitch": 0,
    }
    found.udp = [
        records.UdpSwitching(**udp, switches=0, lost=5, reordered=0, nic_packets=0, switch_ms=0.0),
        records.UdpSwitching(**udp, switches=2000, lost=0, reordered=4, nic_packets=45_000, switch_ms=1.2),
    ]
    found.tcp = [
        records.TcpSwitching(
            vswitch="ovs",
            switches=600,
            still_bps=1e8,
            switched_bps=9.9e7,
            retransmits_still=0,
            retransmits_switched=7,
        )
    ]
    found.paths = [
        records.PathsView(
            vswitch="ovs",
            flows=(flow(1, 900, 60_000), flow(2, 850, 61_000), flow(1, 10, 0), flow(1, 400, 30_000, "tx")),
            moments=tuple(
                records.Moment(time_s=step / 10, vswitch_bps=1e8 * (step < 10), nic_bps=1e9 * (step >= 10))
                for step in range(30)
            ),
            counted_packets=122_760,
            received_packets=122_760,
            missed=0,
            dropped_by_vswitch=0,
        )
    ]
    return found
