"""The simulated NIC."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_BUS = Path("/sys/bus/netdevsim")
_numbers = itertools.count(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedNic:
    """One netdevsim device.

    Args:
        number: Its number on the bus.
    """

    number: int

    @property
    def handle(self) -> str:
        """Its name for devlink."""
        return f"netdevsim/netdevsim{self.number}"

    @property
    def sysfs(self) -> Path:
        """Its folder in sysfs."""
        return _BUS / f"devices/netdevsim{self.number}"

    @property
    def netdevs(self) -> list[str]:
        """Names of its network devices, in the order of their ports."""
        nets = sorted(
            (self.sysfs / "net").iterdir(), key=lambda net: int((net / "ifindex").read_text("ascii"))
        )
        return [net.name for net in nets]

    def flow(self, knob: str, port: int = 0) -> Path:
        """Return the debugfs file of a port's flow table: `count`, `max`, `reject_keys` and so on."""
        return Path(f"/sys/kernel/debug/netdevsim/netdevsim{self.number}/ports/{port}/flow/{knob}")

    def set_vfs(self, count: int) -> None:
        """Set the number of its VFs."""
        (self.sysfs / "sriov_numvfs").write_text(str(count), "ascii")


@pytest.fixture
def simulated_nic(sh: Callable[[str], str]) -> Iterator[Callable[..., SimulatedNic]]:
    """Make NICs: `simulated_nic(ports=1)`. Ports are up, take offloads, have a clsact; they go when the test ends."""
    made: list[SimulatedNic] = []

    def make(ports: int = 1) -> SimulatedNic:
        nic = SimulatedNic(number=next(_numbers))
        (_BUS / "new_device").write_text(f"{nic.number} {ports}", "ascii")
        made.append(nic)
        for netdev in nic.netdevs:
            sh(f"ethtool -K {netdev} hw-tc-offload on")
            sh(f"ip link set {netdev} up")
            sh(f"tc qdisc add dev {netdev} clsact")
        return nic

    yield make
    for nic in made:
        (_BUS / "del_device").write_text(str(nic.number), "ascii")
