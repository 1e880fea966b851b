"""What the kit is given: a NIC, how to open it, and on what ground it stands."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from nicoffload.driver import Driver, Placement

Packet = Mapping[str, int]
"""Field of `nicoffload.model.FIELDS` to value; a field that the packet does not have is left out."""


class Ground(enum.Enum):
    """What a plugin was tried on. What passed on one ground is never said of another."""

    EMULATOR = "emulator"
    """An emulator or a fake kernel of `nicoffload.testing`: no kernel was involved."""
    SOFTWARE = "software"
    """A NIC in software behind a real kernel."""
    EMULATED_DEVICE = "emulated_device"
    """A real kernel and its real driver, on an emulated device (netdevsim, a NIC of QEMU)."""
    HARDWARE = "hardware"
    """A physical NIC."""


class PacketSource(Protocol):
    """Sends packets into the NIC's port from outside."""

    def send(self, driver: Driver, packets: Sequence[Packet]) -> None:
        """Send each packet once and return when the NIC has seen it.

        Args:
            driver: The NIC that they go into.
            packets: Headers; what is not named is up to the source.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class NicUnderTest:
    """A NIC for the kit.

    Args:
        name: As a user names it.
        open_driver: Opens it.
        disposable: Whether each call of `open_driver` gives a NIC of its own in its first state, which nobody uses.
            A NIC that is not is put back into the state in which it was found, behaviour by behaviour.
        ground: What it stands on; None for an emulator where `DeviceInfo.emulated` says so, else hardware.
        packets: Sends packets; None where `Driver.packet_path` does, or nothing can.
        foreign_rule: Puts a rule into the NIC as another program would, without a cookie of ours, and returns what
            takes it out again (`foreign.through_tc`); None where that can't be done. Tables with locations need none.
        sleep_s: Waits that many seconds, while the NIC is busy.
        most_rows: Larger tables are not filled to show what a full one does.
    """

    name: str
    open_driver: Callable[[], Driver]
    disposable: bool = False
    ground: Ground | None = None
    packets: PacketSource | None = None
    foreign_rule: Callable[[Driver, Placement], Callable[[], None]] | None = None
    sleep_s: Callable[[float], None] = time.sleep
    most_rows: int = 16_384

    def ground_of(self, driver: Driver) -> Ground:
        """Return what it stands on."""
        if self.ground is not None:
            return self.ground
        return Ground.EMULATOR if driver.info.emulated else Ground.HARDWARE
