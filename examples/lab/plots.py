"""Draws what the lab measured. Colours are those of the replay's report, safe for the colour-blind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from examples.lab.records import GSO, MANAGER, MODES, MTU, OFFLOADED, VSWITCH, RatePoint, Results

COLORS = {VSWITCH: "#E69F00", OFFLOADED: "#0072B2", MANAGER: "#009E73"}
LABELS = {VSWITCH: "all on the virtual switch", OFFLOADED: "all offloaded", MANAGER: "the manager decides"}
MARKERS = {VSWITCH: "s", OFFLOADED: "o", MANAGER: "^"}
SWITCHES = {"ovs": "Open vSwitch", "bridge": "Linux bridge"}
INK, GRID, IDEAL = "#3d4752", "#e3e8ed", "#d3d9e0"
PARTS = (
    ("ends_s_per_gb", "iperf3 and its kernel work", "#56B4E9"),
    ("softirq_s_per_gb", "ksoftirqd", "#8a96a3"),
    ("vswitch_s_per_gb", "ovs-vswitchd", "#E69F00"),
    ("manager_s_per_gb", "FlexivOffload manager", "#009E73"),
)

_FOOT = 0.25
"""Height of the line below the plots, in inches."""

Draw = Callable[[Any, Results], None]


def throughput(axes: Any, results: Results, vswitch: str = "ovs") -> None:
    """Goodput against the number of VMs, with the ideal."""
    counts = sorted({point.vms for point in results.rates if point.vswitch == vswitch})
    ideal = {point.vms: point.ideal_bps / 1e9 for point in results.rates}
    # Broad and pale, so that it can be seen below the lines that lie on it.
    most = [ideal[count] for count in counts]
    axes.plot(counts, most, color=IDEAL, linewidth=7, solid_capstyle="round", label="ideal")
    _lines(axes, results, vswitch, lambda point: point.goodput_bps / 1e9)
    axes.set_title(f"Throughput, {SWITCHES[vswitch]}")
    axes.set_ylabel("TCP goodput, Gbit/s")
    _by_vms(axes, counts)


def cpu(axes: Any, results: Results, vswitch: str = "ovs") -> None:
    """CPU seconds for a gigabyte against the number of VMs."""
    counts = sorted({point.vms for point in results.rates if point.vswitch == vswitch})
    _lines(axes, results, vswitch, lambda point: point.cpu_s_per_gb)
    axes.set_title(f"CPU, {SWITCHES[vswitch]}")
    axes.set_ylabel("CPU seconds per GB received")
    _by_vms(axes, counts)


def _lines(axes: Any, results: Results, vswitch: str, value: Callable[[RatePoint], float]) -> None:
    for mode in MODES:
        points = sorted(
            (
                point
                for point in results.rates
                if (point.vswitch, point.mode, point.segments) == (vswitch, mode, GSO)
            ),
            key=lambda point: point.vms,
        )
        if points:
            axes.plot(
                [point.vms for point in points],
                [value(point) for point in points],
                color=COLORS[mode],
                marker=MARKERS[mode],
                markersize=5,
                linewidth=1.8,
                label=LABELS[mode],
            )


def _by_vms(axes: Any, counts: Sequence[int]) -> None:
    axes.set_xlabel("VMs, each sent 100 Mbit/s")
    axes.set_xticks(counts)
    axes.set_xlim(0, max(counts, default=1) + 0.5)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8.5)


def segments(axes: Any, results: Results) -> None:
    """CPU seconds for a gigabyte by part, GSO beside packets of the MTU's size."""
    most = max((point.vms for point in results.rates), default=0)
    bars = [
        point
        for vswitch in SWITCHES
        for size in (GSO, MTU)
        for mode in MODES
        if (point := results.rate(vswitch, mode, size, most)) is not None
    ]
    names = [_bar_name(point) for point in bars]
    base = [0.0] * len(bars)
    for part, label, color in PARTS:
        values = [float(getattr(point, part)) for point in bars]
        if any(value > 0.005 for value in values):
            axes.barh(names, values, left=base, color=color, label=label, height=0.68)
            base = [low + value for low, value in zip(base, values, strict=True)]
    for place, whole in enumerate(base):
        axes.text(whole, place, f" {whole:.1f}", va="center", fontsize=8.5, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, max(base, default=1) * 1.15)
    axes.set_title(f"Where the CPU time goes, {most} VMs")
    axes.set_xlabel("CPU seconds per GB received")
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    axes.tick_params(axis="y", labelsize=8.5)


def _bar_name(point: RatePoint) -> str:
    short = {VSWITCH: "switch", OFFLOADED: "offloaded", MANAGER: "manager"}
    size = "GSO" if point.segments == GSO else "MTU-sized"
    return f"{'OVS' if point.vswitch == 'ovs' else 'bridge'}, {size}, {short[point.mode]}"


def saturation(axes: Any, results: Results) -> None:
    """Packets of 64 bytes a second."""
    names, values, colors = [], [], []
    costs = [peak.cpu_ns_per_packet for peak in results.peaks]
    for peak in results.peaks:
        names.append(f"{SWITCHES[peak.vswitch]}\n{'switch' if peak.mode == VSWITCH else 'offloaded'}")
        values.append(peak.received_pps / 1e6)
        colors.append(COLORS[peak.mode])
    axes.bar(names, values, color=colors, width=0.6)
    for place, (value, cost) in enumerate(zip(values, costs, strict=True)):
        told = f"{value:.2f}\n{cost / 1e3:.1f} µs CPU each"
        axes.text(place, value, told, ha="center", va="bottom", fontsize=8.5, color=INK)
    axes.set_ylim(0, max(values, default=1) * 1.25)
    axes.set_title("Packets per second at saturation")
    axes.set_ylabel("million packets of 64 bytes a second")
    axes.tick_params(axis="x", labelsize=8.5)


def timeline(axes: Any, results: Results) -> None:
    """What reached the VMs, by path, while the manager moves the flows."""
    (view, *_) = results.paths
    times = [moment.time_s for moment in view.moments]
    switch = [moment.vswitch_bps / 1e9 for moment in view.moments]
    nic = [moment.nic_bps / 1e9 for moment in view.moments]
    axes.stackplot(
        times,
        nic,
        switch,
        colors=[COLORS[OFFLOADED], COLORS[VSWITCH]],
        labels=["NIC", "virtual switch"],
        linewidth=0,
    )
    axes.set_title(f"The manager moves flows, {SWITCHES[view.vswitch]}")
    axes.set_xlabel("seconds after the load has begun")
    axes.set_ylabel("to the VMs with all headers, Gbit/s")
    axes.set_xlim(0, max(times, default=1))
    axes.set_ylim(0, max((low + high for low, high in zip(nic, switch, strict=True)), default=1) * 1.2)
    axes.legend(frameon=False, fontsize=8.5, loc="upper right", ncols=2)


def one_view(axes: Any, results: Results) -> None:
    """The largest flows to VMs, both paths of each in one line."""
    (view, *_) = results.paths
    flows = [flow for flow in view.flows if flow.direction == "rx"][:12]
    flows.sort(key=lambda flow: (len(flow.vm), flow.vm))
    names = [flow.vm for flow in flows]
    nic = [flow.nic_packets / 1e3 for flow in flows]
    axes.barh(names, nic, color=COLORS[OFFLOADED], label="NIC", height=0.68)
    switch = [flow.vswitch_packets / 1e3 for flow in flows]
    axes.barh(names, switch, left=nic, color=COLORS[VSWITCH], label="virtual switch", height=0.68)
    axes.invert_yaxis()
    axes.set_title("Both paths in one view: packets of each flow")
    axes.set_xlabel("thousand packets")
    longest = max((low + high for low, high in zip(nic, switch, strict=True)), default=1)
    axes.set_xlim(0, longest * 1.02)
    axes.legend(frameon=False, fontsize=8.5, ncols=2, loc="lower center", bbox_to_anchor=(0.5, -0.32))


def available(results: Results) -> dict[str, list[Draw]]:
    """Return the pictures that can be drawn: file name without ending, and its plots from left to right."""
    vswitches = [name for name in SWITCHES if any(point.vswitch == name for point in results.rates)]
    found: dict[str, list[Draw]] = {}
    if vswitches:
        found["throughput"] = [_on(throughput, name) for name in vswitches]
        found["cpu"] = [_on(cpu, name) for name in vswitches]
        found["cpu-parts"] = [segments]
    if results.peaks:
        found["saturation"] = [saturation]
    if results.paths:
        found["paths"] = [timeline, one_view]
    return found


def _on(draw: Callable[[Any, Results, str], None], vswitch: str) -> Draw:
    return lambda axes, results: draw(axes, results, vswitch)


def overview(results: Results) -> list[Draw]:
    """Return the plots of the one picture that shows all."""
    pictures = available(results)
    return [pictures[name][0] for name in ("throughput", "cpu", "saturation", "paths") if name in pictures]


def conditions(results: Results) -> str:
    """Return in a line where it was measured: a figure is one of its machine."""
    about = results.about
    told = [
        about.get("processor", ""),
        f"{about['cpus']} CPUs" if "cpus" in about else "",
        f"Linux {about['kernel']}" if "kernel" in about else "",
        about.get("vswitches", ""),
        about.get("time", "")[:10],
    ]
    return " · ".join(one for one in told if one)


def draw(
    plots: Sequence[Draw], results: Results, path: Path, *, columns: int = 2, width: float = 5.2
) -> Path:
    """Draw plots side by side into a PNG file."""
    from matplotlib import rc_context  # noqa: PLC0415 - an extra, and slow to import
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - likewise
    from matplotlib.figure import Figure  # noqa: PLC0415 - likewise

    columns = min(columns, len(plots))
    rows = -(-len(plots) // columns)
    settings: Any = {"font.family": "sans-serif", "font.size": 10, "axes.titlesize": 11}
    with rc_context(settings):
        height = 3.7 * rows + _FOOT
        figure = Figure(figsize=(width * columns, height), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        for place, plot in enumerate(plots):
            axes = figure.add_subplot(rows, columns, place + 1)
            plot(axes, results)
            _dress(axes)
        figure.supxlabel(conditions(results), fontsize=8, color=INK)
        figure.savefig(path, dpi=120, metadata={"Software": None})
    return path


def _dress(axes: Any) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(INK)


def draw_all(results: Results, folder: Path) -> list[Path]:
    """Draw all that can be drawn; return the files, the overview first."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = overview(results)
    written = [draw(plots, results, folder / "lab.png")] if plots else []
    for name, plots in available(results).items():
        width = 8.5 if name == "cpu-parts" else 5.2
        written.append(draw(plots, results, folder / f"{name}.png", width=width))
    return written
