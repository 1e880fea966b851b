"""Which measurements a run has, and their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from examples.lab.records import GSO, MANAGER, MTU, OFFLOADED, VSWITCH


@dataclass(frozen=True, slots=True, kw_only=True)
class RateStep:
    """A fixed rate for each VM; see `rates.measure_rate`."""

    mode: str
    vms: int
    seconds: float
    segments: str = GSO


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakStep:
    """Saturation; see `saturation.measure_peak`."""

    mode: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpStep:
    """UDP while switching; see `switching.measure_udp`."""

    switches: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpStep:
    """TCP while switching; see `switching.measure_tcp`."""

    switches: int
    seconds: float
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PathsStep:
    """The view of both paths; see `paths.measure_paths`."""

    vms: int
    seconds: float


Step = RateStep | PeakStep | UdpStep | TcpStep | PathsStep


def steps(vswitch: str, *, quick: bool, vms: int) -> Iterator[Step]:
    """Yield the measurements with one virtual switch.

    Args:
        vswitch: ``ovs``, which has all of them, or ``bridge``.
        quick: Fewer of them, and shorter.
        vms: The most VMs.
    """
    is_main = vswitch == "ovs"
    seconds = 2.0 if quick else 3.0
    yield from _rates(is_main, quick, vms, seconds)
    if is_main or not quick:
        for mode in (VSWITCH, OFFLOADED):
            yield RateStep(mode=mode, vms=vms, seconds=seconds, segments=MTU)
    for mode in (VSWITCH, OFFLOADED):
        yield PeakStep(mode=mode, seconds=seconds)
    if is_main or not quick:
        yield PathsStep(vms=vms, seconds=5 if quick else 8)
    if not quick:
        yield UdpStep(switches=0, seconds=5)
        yield UdpStep(switches=2000, seconds=15)
    elif is_main:
        yield UdpStep(switches=200, seconds=2)
    if is_main:
        rounds = 1 if quick else 3
        yield TcpStep(switches=200, seconds=3 if quick else 6, rounds=rounds)


def _rates(is_main: bool, quick: bool, vms: int, seconds: float) -> Iterator[Step]:  # noqa: FBT001 - of this file only
    if quick:
        counts = sorted({1, vms}) if is_main else [vms]
        managed = [vms] if is_main else []
    else:
        counts = (
            list(range(1, vms + 1))
            if is_main
            else sorted({count for count in (1, 4, 8, vms) if count <= vms})
        )
        managed = sorted({count for count in (1, 4, 8, vms) if count <= vms}) if is_main else [vms]
    for count in counts:
        for mode in (VSWITCH, OFFLOADED, *([MANAGER] if count in managed else [])):
            yield RateStep(mode=mode, vms=count, seconds=seconds)


def duration_s(step: Step) -> float:
    """Return about how long a measurement takes, for the progress that is shown."""
    match step:
        case RateStep(mode=mode, seconds=seconds):
            return seconds + (9.0 if mode == MANAGER else 4.0)
        case PeakStep(seconds=seconds):
            return seconds + 3.0
        case UdpStep(seconds=seconds):
            return seconds + 8.0
        case TcpStep(seconds=seconds, rounds=rounds):
            return rounds * 2 * (seconds + 4.0)
        case PathsStep(seconds=seconds):
            return seconds + 5.0
