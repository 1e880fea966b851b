"""The drivers beneath a block, asked in turn: which took a filter, and what they count."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.fake_kernel.drivers import has_tc_offload
from nicoffload.testing.fake_kernel.route.actions import DELAYED
from nicoffload.testing.fake_kernel.route.driver import Adapter, Driver, Placed, Where
from nicoffload.testing.fake_kernel.route.simulated import SimulatedTable
from nicoffload.testing.fake_kernel.route.u32_hardware import U32Graph
from nicoffload.testing.fake_kernel.route.wire import Rejected
from nicoffload.testing.fake_kernel.world import FakeNetdev, FakeNic, NetdevKind, World

if TYPE_CHECKING:
    from nicoffload.testing.fake_kernel.route.block import Bound, Filter

__all__ = ["Hardware", "Placed", "Where"]


class Hardware:
    """All drivers of the fake kernel.

    Args:
        world: Where NICs and devices are.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._adapters: dict[FakeNic, Adapter] = {}
        self._drivers: dict[FakeNetdev, Driver | SimulatedTable] = {}
        self._cookies = itertools.count(1)

    def takes(self, bound: Bound) -> bool:
        """Return whether a device's driver takes filters of a block, on that side of it."""
        nic = bound.netdev.nic
        if (
            nic is None
            or not bound.ingress
            or bound.netdev.kind not in {NetdevKind.PF, NetdevKind.REPRESENTOR}
        ):
            return False
        # igb takes filters of all its NICs and lets the feature say which can (igb_main.c:igb_setup_tc_block).
        return nic.profile.driver == "igb" or has_tc_offload(nic.profile)

    def put(
        self,
        bound: Iterable[Bound],
        request: Callable[[Driver | SimulatedTable], Placed],
        *,
        skip_sw: bool,
    ) -> tuple[list[Placed], Rejected | None]:
        """Ask each driver for a filter (``tc_setup_cb_add``); return where it is, and the last silent refusal.

        Args:
            bound: The devices that its block hangs on.
            request: What to ask.
            skip_sw: Whether a refusal is an error, rather than silent.

        Raises:
            Rejected: A driver refused, or none took it.
        """
        found: list[Placed] = []
        refused: Rejected | None = None
        for one in bound:
            if not self.takes(one):
                if skip_sw:
                    self.remove(found)
                    raise Rejected(errno.EOPNOTSUPP)
                continue
            try:
                found.append(request(self.driver(one.netdev)))
            except Rejected as answer:
                if skip_sw:
                    self.remove(found)
                    raise
                refused = answer
        if skip_sw and not found:
            raise Rejected(errno.EINVAL)
        return found, refused

    def remove(self, placed: Sequence[Placed]) -> None:
        """Take a filter out of every NIC; what a driver says to that nobody hears."""
        for one in placed:
            try:
                one.remove()
            except Refused:
                continue

    def refresh(self, filters: Iterable[Filter]) -> None:
        """Ask the drivers what filters have counted, and add it to what the kernel knows."""
        rows: dict[FakeNic, list[tuple[Filter, int]]] = {}
        for item in filters:
            for one in item.placed:
                if one.counts is not None:
                    one.counts(item.counted)
                elif one.entry is not None and one.entry.counter >= 0 and _counts(one):
                    rows.setdefault(one.nic, []).append((item, one.entry.counter))
        for nic, found in rows.items():
            device = nic.device
            if device.faults.active:
                try:
                    device.faults.check("flow_counters", device)
                except Refused:
                    continue
            places = np.array([row for _, row in found], np.int64)
            packets, sizes, last, _ = device.rules.read(places, device.now_ns)
            shift = 64 - (device.faults.width("rule") or 64)
            for (item, _), count, size, used in zip(
                found, packets.tolist(), sizes.tolist(), last.tolist(), strict=True
            ):
                counted = item.counted
                counted.hw_packets = counted.packets = count << shift >> shift & _MAX_64 >> shift
                counted.hw_bytes = counted.bytes = size << shift >> shift & _MAX_64 >> shift
                counted.used_hw_stats = DELAYED
                counted.last_used_ns = max(counted.last_used_ns, used)

    def driver(self, netdev: FakeNetdev) -> Driver | SimulatedTable:
        """Return the driver of a device."""
        found = self._drivers.get(netdev)
        if found is None:
            nic = netdev.nic
            assert nic is not None, "only devices of NICs have drivers here"
            if nic.bus == "netdevsim":
                found = SimulatedTable(netdev, nic)
            else:
                adapter = self._adapters.get(nic)
                if adapter is None:
                    adapter = self._adapters[nic] = Adapter(nic, U32Graph(), self._cookies)
                found = Driver(netdev, adapter, self._world)
            self._drivers[netdev] = found
        return found

    def forget(self, netdev: FakeNetdev) -> None:
        """Forget a device that is gone."""
        self._drivers.pop(netdev, None)
        if netdev.kind is NetdevKind.PF and netdev.nic is not None:
            self._adapters.pop(netdev.nic, None)


_MAX_64 = (1 << 64) - 1


def _counts(placed: Placed) -> bool:
    table = placed.nic.device.table(placed.table)
    return table is not None and table.spec.counters is not None
