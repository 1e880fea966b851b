"""What the lab measured, as values, and their way into files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

VSWITCH, OFFLOADED, MANAGER = "vswitch", "offloaded", "manager"
MODES = (VSWITCH, OFFLOADED, MANAGER)
"""All flows on the virtual switch; all on the NIC; where the FlexivOffload manager puts each."""

GSO, MTU = "gso", "mtu"
"""The ends hand over up to 64 KiB at a time, cut late or never; or packets of the MTU's size, as a wire has them."""

LEAST_TCP_SWITCHES = 100
"""Fewer say nothing of TCP under switches: half of what the shortest run asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePoint:
    """One measurement at a fixed rate for each VM.

    Args:
        vswitch: ``ovs`` or ``bridge``.
        mode: See `MODES`.
        segments: See `GSO`, `MTU`.
        vms: How many receive.
        ideal_bps: What they were sent.
        goodput_bps: TCP payload that they received.
        nic_share: Part of the bytes that did not pass the virtual switch, 0 to 1.
        cpu_s_per_gb: CPU seconds for 10⁹ bytes of payload.
        ends_s_per_gb: Of that, iperf3 at both ends, and what the kernel did on its account.
        softirq_s_per_gb: Of that, ksoftirqd.
        vswitch_s_per_gb: Of that, Open vSwitch; a bridge has no process.
        manager_s_per_gb: Of that, the FlexivOffload manager.
        retransmits: TCP segments sent again.
        seconds: How long it was measured.
        error: What went wrong with some flow; empty for nothing.
    """

    vswitch: str
    mode: str
    segments: str
    vms: int
    ideal_bps: float
    goodput_bps: float
    nic_share: float
    cpu_s_per_gb: float
    ends_s_per_gb: float
    softirq_s_per_gb: float
    vswitch_s_per_gb: float
    manager_s_per_gb: float
    retransmits: int
    seconds: float
    error: str = ""

    @property
    def of_ideal(self) -> float:
        """Goodput as a part of what was sent."""
        return self.goodput_bps / self.ideal_bps


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Packets of 64 bytes, as many as go through.

    Args:
        vswitch: ``ovs`` or ``bridge``.
        mode: ``vswitch`` or ``offloaded``.
        sent_pps: Offered.
        received_pps: Delivered to the VM's interface.
        cpu_ns_per_packet: CPU time for each that was delivered.
    """

    vswitch: str
    mode: str
    sent_pps: float
    received_pps: float
    cpu_ns_per_packet: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpSwitching:
    """A UDP flow while its path is switched.

    Args:
        vswitch: ``ovs`` or ``bridge``.
        switches: From path to path, there and back being two.
        seconds: How long it took.
        rate_bps: What was sent.
        sent: Packets.
        received: Packets.
        lost: Packets.
        duplicated: Packets.
        reordered: Packets that came after a later one.
        dropped_by_vswitch: Packets of those lost that the virtual switch did not take from its port in time.
        nic_packets: Packets that did not pass the virtual switch.
        switch_ms: Median duration of a switch, journal and reading back included.
    """

    vswitch: str
    switches: int
    seconds: float
    rate_bps: float
    sent: int
    received: int
    lost: int
    duplicated: int
    reordered: int
    dropped_by_vswitch: int
    nic_packets: int
    switch_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSwitching:
    """TCP flows of one rate, one with its path switched, one without.

    Args:
        vswitch: ``ovs`` or ``bridge``.
        switches: In all runs together.
        still_bps: Goodput without switching.
        switched_bps: Goodput with switching.
        retransmits_still: Segments sent again without switching.
        retransmits_switched: Segments sent again with switching.
    """

    vswitch: str
    switches: int
    still_bps: float
    switched_bps: float
    retransmits_still: int
    retransmits_switched: int

    @property
    def loss_of_goodput(self) -> float:
        """How much less goodput there was with switching, 0.01 for one percent; negative for more."""
        return 1 - self.switched_bps / self.still_bps


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLine:
    """One flow in the view of both paths."""

    flow: str
    vm: str
    direction: str
    vswitch_packets: int
    vswitch_bytes: int
    nic_packets: int
    nic_bytes: int
    moves: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What reached the VMs in an interval, by path.

    Args:
        time_s: Its end, from the begin of the load on.
        vswitch_bps: Through the virtual switch.
        nic_bps: Past it.
    """

    time_s: float
    vswitch_bps: float
    nic_bps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PathsView:
    """A run under the manager, and what it knows of both paths afterwards.

    Args:
        vswitch: ``ovs`` or ``bridge``.
        flows: Its view.
        moments: Over time, from the interfaces' counters.
        counted_packets: Packets to VMs, both paths, by the view.
        received_packets: Packets to VMs, by their interfaces.
        missed: Packets that the tap missed.
        dropped_by_vswitch: Packets that were seen to reach the virtual switch, and that it did not take in time.
    """

    vswitch: str
    flows: tuple[FlowLine, ...]
    moments: tuple[Moment, ...]
    counted_packets: int
    received_packets: int
    missed: int
    dropped_by_vswitch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One figure that the product is held to.

    Args:
        name: Stable.
        text: What it says.
        value: What was measured.
        limit: What it may be.
        is_least: Whether `limit` is the least, rather than the most.
    """

    name: str
    text: str
    value: float
    limit: float
    is_least: bool

    @property
    def held(self) -> bool:
        """Whether it was reached."""
        return self.value >= self.limit if self.is_least else self.value <= self.limit


@dataclass(slots=True, kw_only=True)
class Results:
    """All that a run found.

    Args:
        about: The machine and the programs, as text.
        rates: Fixed rates.
        peaks: Saturation.
        udp: UDP while switching.
        tcp: TCP while switching.
        paths: The view of both paths.
    """

    about: dict[str, str] = field(default_factory=dict)
    rates: list[RatePoint] = field(default_factory=list)
    peaks: list[Peak] = field(default_factory=list)
    udp: list[UdpSwitching] = field(default_factory=list)
    tcp: list[TcpSwitching] = field(default_factory=list)
    paths: list[PathsView] = field(default_factory=list)

    def rate(self, vswitch: str, mode: str, segments: str, vms: int) -> RatePoint | None:
        """Return one measurement; None where there is none."""
        for point in self.rates:
            if (point.vswitch, point.mode, point.segments, point.vms) == (vswitch, mode, segments, vms):
                return point
        return None

    def goals(self) -> list[Goal]:
        """Return the figures that can be told from what was measured."""
        return [*self._rate_goals(), *self._switch_goals(), *self._view_goals()]

    def _view_goals(self) -> list[Goal]:
        return [
            Goal(
                name=f"view_{view.vswitch}_difference",
                text=f"one view of both paths ({view.vswitch}): packets that it has too many or too few",
                value=abs(view.counted_packets - view.dropped_by_vswitch - view.received_packets),
                limit=0,
                is_least=False,
            )
            for view in self.paths
        ]

    def _rate_goals(self) -> list[Goal]:
        most = max((point.vms for point in self.rates), default=0)
        switched = self.rate("ovs", VSWITCH, GSO, most)
        offloaded = self.rate("ovs", OFFLOADED, GSO, most)
        if switched is None or offloaded is None:
            return []
        return [
            Goal(
                name="offloaded_over_ideal",
                text=f"{most} VMs, Open vSwitch, offloaded: part of the ideal throughput",
                value=offloaded.of_ideal,
                limit=0.97,
                is_least=True,
            ),
            Goal(
                name="offloaded_cpu_over_vswitch",
                text=f"{most} VMs, Open vSwitch: CPU per GB, offloaded over all on the virtual switch",
                value=offloaded.cpu_s_per_gb / switched.cpu_s_per_gb,
                limit=0.25,
                is_least=False,
            ),
        ]

    def _switch_goals(self) -> list[Goal]:
        lost = [
            Goal(
                name=f"switch_{udp.vswitch}_{name}",
                text=f"{udp.switches:,} switches of a UDP flow ({udp.vswitch}): packets {name}",
                value=value,
                limit=0,
                is_least=False,
            )
            for udp in self.udp
            if udp.switches
            for name, value in (("lost", udp.lost), ("duplicated", udp.duplicated))
        ]
        goodput = [
            Goal(
                name=f"switch_{tcp.vswitch}_goodput",
                text=f"TCP under {tcp.switches:,} switches ({tcp.vswitch}): part of its goodput without",
                value=1 - tcp.loss_of_goodput,
                limit=0.97,
                is_least=True,
            )
            for tcp in self.tcp
        ]
        often = [
            Goal(
                name=f"switch_{tcp.vswitch}_tcp_switches",
                text=f"TCP under switches ({tcp.vswitch}): how many there were",
                value=tcp.switches,
                limit=LEAST_TCP_SWITCHES,
                is_least=True,
            )
            for tcp in self.tcp
        ]
        return [*lost, *goodput, *often]


def as_document(results: Results) -> dict[str, Any]:
    """Return results as JSON holds them."""
    return {
        "schema": "nicoffload-lab/1",
        **asdict(results),
        "goals": [{**asdict(goal), "held": goal.held} for goal in results.goals()],
    }


def write(results: Results, folder: Path) -> list[Path]:
    """Write ``lab.json`` and a CSV for each kind of measurement; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    document = folder / "lab.json"
    document.write_text(json.dumps(as_document(results), indent=2) + "\n", "utf-8")
    written = [document]
    tables: Mapping[str, Sequence[Any]] = {
        "rates": results.rates,
        "saturation": results.peaks,
        "switching-udp": results.udp,
        "switching-tcp": results.tcp,
        "flows": [line for view in results.paths for line in view.flows],
        "timeline": [moment for view in results.paths for moment in view.moments],
    }
    for name, rows in tables.items():
        if rows:
            written.append(_write_csv(folder / f"{name}.csv", rows))
    return written


def _write_csv(path: Path, rows: Sequence[Any]) -> Path:
    names = [each.name for each in fields(rows[0])]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([getattr(row, name) for name in names] for row in rows)
    return path


def read(path: Path) -> Results:
    """Return the results that `write` wrote."""
    found = json.loads(path.read_text("utf-8"))
    return Results(
        about=found["about"],
        rates=[RatePoint(**row) for row in found["rates"]],
        peaks=[Peak(**row) for row in found["peaks"]],
        udp=[UdpSwitching(**row) for row in found["udp"]],
        tcp=[TcpSwitching(**row) for row in found["tcp"]],
        paths=[
            PathsView(
                **{
                    **row,
                    "flows": tuple(FlowLine(**line) for line in row["flows"]),
                    "moments": tuple(Moment(**moment) for moment in row["moments"]),
                }
            )
            for row in found["paths"]
        ],
    )
