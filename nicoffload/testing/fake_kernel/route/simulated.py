"""The flow table that netdevsim has in the tests' user-mode Linux: it takes whatever it is not told to refuse."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from nicoffload.testing.fake_kernel.drivers import TC_OFFLOAD
from nicoffload.testing.fake_kernel.route.actions import IMMEDIATE, Action, Counted
from nicoffload.testing.fake_kernel.route.driver import Placed, Where
from nicoffload.testing.fake_kernel.route.flower_keys import Keys
from nicoffload.testing.fake_kernel.route.u32_hardware import U32Rule
from nicoffload.testing.fake_kernel.route.wire import Rejected
from nicoffload.testing.fake_kernel.world import FakeNetdev, FakeNic

FLOWER, MATCHALL, U32 = 1, 2, 4


class SimulatedTable:
    """One port's flow table. Its attributes are the files of debugfs.

    Args:
        netdev: The port.
        nic: Its NIC.
    """

    def __init__(self, netdev: FakeNetdev, nic: FakeNic) -> None:
        self._netdev = netdev
        self._nic = nic
        self.count = 0
        """Flows in the table."""
        self.max = 0
        """Most flows that it holds; 0 is no limit."""
        self.max_chain = 0
        """Highest chain that it takes."""
        self.reject_kinds = 0
        """Bits: 1 flower, 2 matchall, 4 u32."""
        self.hit_packets = 0
        """What every reading of a flow adds to its packets."""
        self.hit_bytes = 0
        """What every reading of a flow adds to its bytes."""

    def flower(self, where: Where, keys: Keys, actions: Sequence[Action], classid: int) -> Placed:
        """Take a filter of flower.

        Raises:
            Rejected: The table is full, or told to refuse it.
        """
        del keys, actions, classid
        return self._add(where, FLOWER)

    def matchall(self, where: Where, actions: Sequence[Action]) -> Placed:
        """Take a filter of matchall.

        Raises:
            Rejected: The table is full, or told to refuse it.
        """
        del actions
        return self._add(where, MATCHALL)

    def u32(self, where: Where, rule: U32Rule, actions: Sequence[Action]) -> Placed:
        """Take a filter of u32.

        Raises:
            Rejected: The table is full, or told to refuse it.
        """
        del rule, actions
        placed = self._add(where, U32)
        return Placed(placed.netdev, placed.nic, "", None, placed.remove)

    def u32_table(self, where: Where, handle: int, divisor: int) -> None:
        """Take a hash table of u32.

        Raises:
            Rejected: The table is told to refuse it.
        """
        del handle, divisor
        self._check(where, U32)

    def _check(self, where: Where, kind: int) -> None:
        feature = self._netdev.features.get(TC_OFFLOAD)
        if feature is None or not feature.active:
            raise Rejected(errno.EOPNOTSUPP, "TC offload is disabled on net device")
        if self.reject_kinds & kind:
            raise Rejected(errno.EOPNOTSUPP, "netdevsim: unsupported classifier")
        if where.chain > self.max_chain:
            raise Rejected(errno.EOPNOTSUPP, "netdevsim: unsupported chain")

    def _add(self, where: Where, kind: int) -> Placed:
        self._check(where, kind)
        if self.max and self.count >= self.max:
            raise Rejected(errno.ENOSPC, "netdevsim: flow table is full")
        self.count += 1
        return Placed(self._netdev, self._nic, "", None, self._remove, self._hit)

    def _remove(self) -> None:
        self.count -= 1

    def _hit(self, counted: Counted) -> None:
        counted.packets += self.hit_packets
        counted.bytes += self.hit_bytes
        counted.hw_packets += self.hit_packets
        counted.hw_bytes += self.hit_bytes
        counted.used_hw_stats = IMMEDIATE
        if self.hit_packets:
            counted.last_used_ns = max(counted.last_used_ns, self._nic.device.now_ns)
