"""Reads what the kernel counts: packets of interfaces, CPU time of processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What an interface received and sent since it was made."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0

    def since(self, before: Traffic) -> Traffic:
        """Return what came on top."""
        return Traffic(
            rx_bytes=self.rx_bytes - before.rx_bytes,
            rx_packets=self.rx_packets - before.rx_packets,
            rx_dropped=self.rx_dropped - before.rx_dropped,
            tx_bytes=self.tx_bytes - before.tx_bytes,
            tx_packets=self.tx_packets - before.tx_packets,
        )


def parse_net_dev(text: str) -> dict[str, Traffic]:
    """Return the interfaces of a /proc/net/dev."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        columns = [int(number) for number in numbers.split()]
        found[name.strip()] = Traffic(
            rx_bytes=columns[0],
            rx_packets=columns[1],
            rx_dropped=columns[3],
            tx_bytes=columns[8],
            tx_packets=columns[9],
        )
    return found


def traffic(pid: int) -> dict[str, Traffic]:
    """Return the interfaces of the network namespace that a process is in."""
    return parse_net_dev(Path(f"/proc/{pid}/net/dev").read_text("ascii"))


def cpu_ns(pid: int) -> int:
    """Return the CPU time that the threads of a process have had; 0 for one that is gone."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text("ascii").split()[0])
    except OSError:  # a thread that ends while we look
        return total
    return total


def softirq_threads() -> tuple[int, ...]:
    """Return the ksoftirqd threads, which carry packets when there are many."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name = (folder / "comm").read_text("ascii", errors="replace")
            except OSError:
                continue
            if name.startswith("ksoftirqd/"):
                found.append(int(folder.name))
    return tuple(found)


class CpuMeter:
    """CPU time of some processes by group, from one point in time to another.

    Args:
        groups: Process numbers, by what they are.
    """

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._groups = {name: tuple(pids) for name, pids in groups.items()}
        self._before = self._read()

    def _read(self) -> dict[str, int]:
        return {name: sum(cpu_ns(pid) for pid in pids) for name, pids in self._groups.items()}

    def seconds(self) -> dict[str, float]:
        """Return the seconds of CPU since this meter was made, by group."""
        now = self._read()
        return {name: (now[name] - before) / 1e9 for name, before in self._before.items()}
