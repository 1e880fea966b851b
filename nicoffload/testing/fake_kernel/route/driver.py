"""A driver's answer to the filters that hang on one of its devices, with the emulated NIC beneath."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nicoffload.errors import InvalidRequestError
from nicoffload.model import Action, FlowRule, Match, ToQueue
from nicoffload.model.values import FIRST_VF_PORT
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.entry import Entry
from nicoffload.testing.fake_kernel.drivers import TC_OFFLOAD
from nicoffload.testing.fake_kernel.netdevs import in_switchdev
from nicoffload.testing.fake_kernel.route.actions import Action as TcAction
from nicoffload.testing.fake_kernel.route.actions import Counted
from nicoffload.testing.fake_kernel.route.flower_keys import Keys
from nicoffload.testing.fake_kernel.route.meaning import PF, UPLINK, Meanings, match_of, unsupported
from nicoffload.testing.fake_kernel.route.police import Police
from nicoffload.testing.fake_kernel.route.u32_hardware import U32Graph, U32Rule
from nicoffload.testing.fake_kernel.route.wire import Rejected
from nicoffload.testing.fake_kernel.world import FakeNetdev, FakeNic, NetdevKind, World

_HW_TC = 0xFFFF_FFE0
_NOT_CHAIN_0 = "Driver supports only offload of chain 0"
_DISABLED = "TC offload is disabled on net device"
_ICE_DISABLED = "ice: can't apply TC flower filters, turn ON hw-tc-offload and try again"
_MAX_PREF = 0xFFFF
_MBPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Where:
    """Where a filter is among those of its block.

    Args:
        chain: Its chain.
        pref: Its pref.
        protocol: Its Ethernet type.
    """

    chain: int
    pref: int
    protocol: int


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A filter in a NIC.

    Args:
        netdev: The device whose driver put it there.
        nic: Which.
        table: Which table; empty for what is no row of a table.
        entry: What the NIC has; None for what is no row.
        remove: Takes it out.
        counts: Adds what it has counted since the last time; None where the NIC's counters do.
    """

    netdev: FakeNetdev
    nic: FakeNic
    table: str
    entry: Entry | None
    remove: Callable[[], None]
    counts: Callable[[Counted], None] | None = None


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a driver keeps of one NIC.

    Args:
        nic: The NIC.
        graph: The tables of u32 that it knows.
        cookies: Numbers of filters: a driver knows one by where the kernel keeps it, never by its owner's cookie.
    """

    nic: FakeNic
    graph: U32Graph
    cookies: Iterator[int]


class Driver:
    """A driver's answer to the filters of one of its devices.

    Args:
        netdev: The device that filters hang on.
        adapter: Its NIC.
        world: Where other devices are.
    """

    def __init__(self, netdev: FakeNetdev, adapter: Adapter, world: World) -> None:
        self._netdev = netdev
        self._nic = adapter.nic
        self._adapter = adapter
        self._world = world
        self._meanings = Meanings(self._port_of)
        self._name = adapter.nic.profile.driver

    def flower(self, where: Where, keys: Keys, actions: Sequence[TcAction], classid: int) -> Placed:
        """Put a filter of flower into the NIC.

        Raises:
            Rejected: As the driver does.
        """
        self._check_enabled(where)
        table = self._table("flower")
        try:
            match = match_of(keys, self._in_port())
            fate = self._fate(table, actions, classid)
        except (
            InvalidRequestError
        ) as cause:  # the kernel takes keys that contradict each other; no driver does
            raise Rejected(errno.EINVAL, f"{self._name}: {cause}") from cause
        except Rejected as cause:
            raise Rejected(cause.number, f"{self._name}: {cause.text}" if cause.text else "") from cause
        return self._create(table, match, fate, where, None)

    def matchall(self, where: Where, actions: Sequence[TcAction]) -> Placed:
        """Put a filter of matchall into the NIC: mlx5 makes the rate of a VF of it.

        Raises:
            Rejected: As the driver does.
        """
        self._check_enabled(where)
        if self._name != "mlx5_core":
            raise Rejected(errno.EOPNOTSUPP)
        if where.pref != 1:
            raise Rejected(errno.EINVAL, "mlx5_core: only priority 1 is supported")
        if not actions:
            raise Rejected(errno.EINVAL, "mlx5_core: matchall called with no action")
        if len(actions) > 1:
            raise unsupported("mlx5_core: matchall policing support only a single action")
        value = actions[0].value
        if not isinstance(value, Police) or value.rate is None:
            raise unsupported("mlx5_core: mlx5 supports only police action for matchall")
        if self._netdev.kind is not NetdevKind.REPRESENTOR or self._netdev.vf is None:
            words = "Ingress rate limit is supported only for Eswitch ports connected to VFs"
            raise unsupported(f"mlx5_core: {words}")
        vf, sriov = self._netdev.vf, self._nic.device.sriov
        mbps = max((value.rate.bytes_per_s * 8 + _MBPS // 2) // _MBPS, 1)
        self._ask(lambda: sriov.set_rate(vf, "max_tx", mbps * _MBPS))
        return Placed(self._netdev, self._nic, "", None, lambda: sriov.set_rate(vf, "max_tx", 0))

    def u32(self, where: Where, rule: U32Rule, actions: Sequence[TcAction]) -> Placed:
        """Put a filter of u32 into the NIC.

        Raises:
            Rejected: As the driver does.
        """
        self._check_enabled(where)
        table = self._table("u32")
        graph, device = self._adapter.graph, self._nic.device
        found = graph.rule(rule, where.protocol)
        if found is None:  # leads to a table, and is no row itself

            def unlink() -> None:
                for place in graph.unlink(rule.handle):
                    device.destroy(table, None, place)

            return Placed(self._netdev, self._nic, "", None, unlink)
        match, slot = found
        placed = self._create(table, match, self._first(actions), where, slot)
        graph.filled(rule.handle)

        def remove() -> None:
            graph.emptied(rule.handle)
            placed.remove()

        return Placed(self._netdev, self._nic, table, placed.entry, remove)

    def u32_table(self, where: Where, handle: int, divisor: int) -> None:
        """Tell the driver of a hash table.

        Raises:
            Rejected: As the driver does.
        """
        self._check_enabled(where)
        self._table("u32")
        self._adapter.graph.add(handle, divisor)

    # The driver's own -----------------------------------------------------------------------------------------------

    def _check_enabled(self, where: Where) -> None:
        feature = self._netdev.features.get(TC_OFFLOAD)
        if feature is None or not feature.active:
            if self._name == "ice":
                raise Rejected(errno.EINVAL, _ICE_DISABLED)
            raise unsupported(_DISABLED)
        if where.chain:
            raise Rejected(errno.EOPNOTSUPP, "" if self._name == "ice" else _NOT_CHAIN_0)

    def _table(self, mechanism: str) -> str:
        """Return the table that such a filter goes into in the present mode."""
        device = self._nic.device
        names = [table.name for table in self._nic.profile.tables if table.mechanism == mechanism]
        if not names:
            raise Rejected(errno.EOPNOTSUPP)
        for name in names:
            table = device.table(name)
            if table is not None and table.spec.needs.get("eswitch_mode", device.mode) == device.mode:
                return name
        return names[0]

    def _in_port(self) -> int | None:
        if self._netdev.kind is NetdevKind.REPRESENTOR and self._netdev.vf is not None:
            return FIRST_VF_PORT + self._netdev.vf
        return None

    def _fate(self, table: str, actions: Sequence[TcAction], classid: int) -> tuple[Action, ...]:
        found = self._nic.device.table(table)
        assert found is not None
        hw_tc = classid - _HW_TC if _HW_TC <= classid < _HW_TC + 16 else None
        if found.spec.actions == {"queue"}:  # igb and i40e: actions are not even looked at
            if hw_tc is None:
                if self._name == "igb":
                    raise Rejected(errno.EINVAL, "Invalid traffic class")
                raise Rejected(errno.EOPNOTSUPP)
            return (ToQueue(queue=hw_tc),)
        if hw_tc is not None and not actions:
            return (ToQueue(queue=hw_tc),)
        return self._meanings.actions(actions)

    def _first(self, actions: Sequence[TcAction]) -> tuple[Action, ...]:
        """Return the fate of the first action: ``ixgbe_main.c:parse_tc_actions`` looks at no other."""
        try:
            return self._meanings.actions(actions[:1])
        except (Rejected, InvalidRequestError) as cause:
            raise Rejected(errno.EINVAL) from cause

    def _create(
        self, table: str, match: Match, actions: tuple[Action, ...], where: Where, slot: int | None
    ) -> Placed:
        device = self._nic.device
        rule = FlowRule(
            match=match,
            actions=actions,
            priority=_MAX_PREF - where.pref,
            rule_id=uuid.UUID(int=next(self._adapter.cookies)),
        )
        entry = self._ask(lambda: device.create(table, rule, "", slot))
        return Placed(
            self._netdev, self._nic, table, entry, lambda: device.destroy(table, rule.rule_id, entry.slot)
        )

    def _ask(self, request: Callable[[], T]) -> T:
        try:
            return request()
        except Refused as answer:
            number = getattr(errno, answer.errno, None) or _OTHER_ERRNOS.get(answer.errno, errno.EINVAL)
            raise Rejected(number, f"{self._name}: {answer.text}") from answer

    def _port_of(self, ifindex: int) -> int | None:
        target = self._world.netdev(ifindex)
        if target is None or target.nic is not self._nic:
            return None
        switched = in_switchdev(self._nic)
        if target.kind is NetdevKind.PF:
            return UPLINK if switched else PF
        if target.vf is None or switched != (target.kind is NetdevKind.REPRESENTOR):
            return None
        return FIRST_VF_PORT + target.vf


_OTHER_ERRNOS = {"ENOTSUPP": 524}
