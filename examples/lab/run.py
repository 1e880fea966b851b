"""Runs the plan: builds the lab, measures step by step, and takes it down whatever happens."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from examples.lab import topology
from examples.lab.bench import Lab
from examples.lab.paths import measure_paths
from examples.lab.plan import PathsStep, PeakStep, RateStep, Step, TcpStep, UdpStep, duration_s, steps
from examples.lab.rates import measure_rate
from examples.lab.records import Results
from examples.lab.saturation import measure_peak
from examples.lab.shell import Processes, attempt, run
from examples.lab.switching import measure_tcp, measure_udp
from examples.lab.vswitch import LinuxBridge, OpenVSwitch, VSwitch
from nicoffload import open_nic

Say = Callable[[str], None]

END_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""What asks us to end, beside Ctrl-C: `kill`, and a terminal that is closed."""


@contextlib.contextmanager
def lab_network(
    switches: Sequence[VSwitch], vms: int, say: Say
) -> Iterator[tuple[topology.Topology, Processes]]:
    """Have the lab's network for a while; what a killed run left is removed first.

    Args:
        switches: Every virtual switch that may have been left running.
        vms: How many VMs.
        say: Told what is being done.

    Raises:
        LabError: There is something of the lab's names that the lab did not make; or something failed.
    """

    def take_down() -> bool:
        found = False

        def remove() -> None:
            nonlocal found
            found = topology.clean_up()

        with contextlib.ExitStack() as steps:
            steps.callback(remove)
            for switch in switches:
                steps.callback(switch.stop)
        return found

    with topology.only_one(), Processes() as processes:
        topology.refuse_others()
        if take_down():
            say("removed what an earlier run had left")
        os.environ.update(topology.STATE)  # for the NIC that we open ourselves
        try:
            yield topology.build(processes, vms), processes
        finally:
            # A second Ctrl-C must not leave half of it.
            with contextlib.ExitStack() as steps:  # the last one comes first, and each is taken
                for number in (signal.SIGINT, *END_SIGNALS):
                    steps.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
                steps.callback(take_down)
                steps.callback(processes.stop)


def end_in_order() -> None:
    """Take requests to end as Ctrl-C is taken; one that was ignored before, as below nohup, stays so."""
    for number in END_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, ends_with_us)


def ends_with_us(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
    """Take a request to end as Ctrl-C is taken: in order."""
    raise KeyboardInterrupt


def measure(
    plans: Sequence[tuple[VSwitch, Sequence[Step]]], *, vms: int, say: Say, keep: Callable[[Results], None]
) -> Results:
    """Run measurements.

    Args:
        plans: The virtual switches, each with what is to be measured with it.
        vms: The most VMs.
        say: Told the progress.
        keep: Given the results so far after each virtual switch.

    Raises:
        LabError: Something failed; the lab is taken down.
    """
    switches = [switch for switch, _ in plans]
    results = Results(about=about(switches, vms))
    whole_s = sum(duration_s(step) for _, plan in plans for step in plan)
    done_s, begin_s = 0.0, time.monotonic()
    with lab_network(switches, vms, say) as (network, processes), open_nic(topology.NIC) as nic:
        say(f"{vms} VMs are up; about {whole_s / 60:.0f} minutes to go")
        for switch, plan in plans:
            switch.start(network.switch_ports)
            lab = Lab(topology=network, nic=nic, processes=processes, vswitch=switch)
            lab.introduce()
            for step in plan:
                line = take(lab, step, results)
                done_s += duration_s(step)
                minutes, seconds = divmod(round(time.monotonic() - begin_s), 60)
                say(f"{100 * done_s / whole_s:3.0f} % {minutes:2}:{seconds:02}  {switch.name:<6} {line}")
            switch.stop()
            keep(results)
    return results


def take(lab: Lab, step: Step, results: Results) -> str:
    """Take one measurement, enter it into the results, and return it in a line."""
    match step:
        case RateStep():
            point = measure_rate(lab, step.mode, vms=step.vms, seconds=step.seconds, segments=step.segments)
            results.rates.append(point)
            note = f"  [{point.error}]" if point.error else ""
            return (
                f"{point.vms:2} VMs, {point.segments}, {point.mode:<9} {point.goodput_bps / 1e6:6.0f} of "
                f"{point.ideal_bps / 1e6:.0f} Mbit/s, {point.cpu_s_per_gb:5.2f} CPU s/GB, "
                f"{100 * point.nic_share:3.0f} % past the switch{note}"
            )
        case PeakStep():
            peak = measure_peak(lab, step.mode, seconds=step.seconds)
            results.peaks.append(peak)
            return f"64 bytes, {peak.mode:<9} {peak.received_pps / 1e6:.2f} Mpps, {peak.cpu_ns_per_packet:.0f} ns each"
        case UdpStep():
            udp = measure_udp(lab, switches=step.switches, seconds=step.seconds)
            results.udp.append(udp)
            return (
                f"{udp.switches:,} switches under UDP: of {udp.sent:,} packets {udp.lost} lost, "
                f"{udp.duplicated} twice, {udp.reordered} late"
            )
        case TcpStep():
            tcp = measure_tcp(lab, switches=step.switches, seconds=step.seconds, rounds=step.rounds)
            results.tcp.append(tcp)
            return (
                f"{tcp.switches:,} switches under TCP: {tcp.switched_bps / 1e6:.1f} Mbit/s, "
                f"{tcp.still_bps / 1e6:.1f} without"
            )
        case PathsStep():
            view = measure_paths(lab, vms=step.vms, seconds=step.seconds)
            results.paths.append(view)
            return f"both paths: {view.counted_packets:,} of {view.received_packets:,} packets in one view"


def about(switches: Sequence[VSwitch], vms: int) -> dict[str, str]:
    """Return what somebody who reads the figures has to know."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": str(os.cpu_count()),
        "processor": _processor(),
        "vms": str(vms),
        "vswitches": ", ".join(switch.version() for switch in switches),
        "iperf3": run("iperf3", "--version").split("\n", 1)[0] if attempt("iperf3", "--version") else "",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return ""


def all_plans(root: Path, *, quick: bool, vms: int) -> list[tuple[VSwitch, list[Step]]]:
    """Return the plans of a whole run, that of the main virtual switch first.

    Args:
        root: Where Open vSwitch is.
        quick: Fewer measurements, and shorter.
        vms: The most VMs.
    """
    switches = (OpenVSwitch(root), LinuxBridge())
    return [(switch, list(steps(switch.name, quick=quick, vms=vms))) for switch in switches]
