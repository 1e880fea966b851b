"""Where filters hang: blocks of chains, chains of prefs, and what every classifier has to offer."""

from __future__ import annotations

import errno
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from nicoffload.testing.fake_kernel.route.actions import Action, Actions, Counted
from nicoffload.testing.fake_kernel.route.hardware import Hardware, Placed, Where
from nicoffload.testing.fake_kernel.route.meaning import check_offload
from nicoffload.testing.fake_kernel.route.wire import Rejected, u32_of
from nicoffload.testing.fake_kernel.world import FakeNetdev, World

if TYPE_CHECKING:
    from nicoffload.testing.fake_kernel.route.driver import Driver
    from nicoffload.testing.fake_kernel.route.simulated import SimulatedTable
    from nicoffload.testing.fake_kernel.route.u32 import U32Common

SKIP_HW, SKIP_SW, IN_HW, NOT_IN_HW, VERBOSE = 1, 2, 4, 8, 16
MAX_CHAIN = 0x0FFF_FFFF
HOST = sys.byteorder


@dataclass(slots=True, eq=False)
class Filter:
    """One filter, of whatever classifier.

    Args:
        handle: Its number.
        flags: Who is to run it, and who does.
        classid: Class, or traffic class of the hardware; 0 for none.
        actions: What it does.
        counted: What it has counted.
        placed: Where the hardware has it, one a device.
    """

    handle: int
    flags: int
    classid: int
    actions: list[Action]
    counted: Counted
    placed: list[Placed] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Change:
    """A request to make a filter, or to put another in its place.

    Args:
        handle: As asked; 0 lets the classifier choose.
        options: The classifier's attributes; None where there are none.
        ingress: Whether the hook is at ingress.
    """

    handle: int
    options: bytes | None
    ingress: bool


@dataclass(frozen=True, slots=True)
class Shared:
    """What all classifiers work with.

    Args:
        world: Where devices are.
        actions: All actions.
        hardware: The drivers beneath.
        warnings: What the request at hand succeeds with all the same, for an owner who asked for words.
    """

    world: World
    actions: Actions
    hardware: Hardware
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Bound:
    """A device that a block hangs on.

    Args:
        netdev: The device.
        ingress: On which side.
    """

    netdev: FakeNetdev
    ingress: bool


@dataclass(slots=True, eq=False)
class Block:
    """A block of chains; of one side of one device, or shared.

    Args:
        index: Its number where it is shared, else 0.
        bound: The devices that it hangs on.
        chains: In the order in which they came to be.
        classid: Handle of the hook that last asked for it.
        u32: What all prefs of u32 share; None without one.
    """

    index: int = 0
    bound: list[Bound] = field(default_factory=list)
    chains: dict[int, Chain] = field(default_factory=dict)
    classid: int = 0
    u32: U32Common | None = None

    def chain(self, index: int, *, create: bool) -> Chain | None:
        """Return a chain, made if need be and wanted."""
        found = self.chains.get(index)
        if found is None and create:
            found = self.chains[index] = Chain(self, index)
        return found

    def tidy(self, chain: Chain) -> None:
        """Forget a chain that nobody needs."""
        if not chain.protos and not chain.led_to:
            self.chains.pop(chain.index, None)

    def protos(self) -> Iterator[Proto[Filter]]:
        """Yield the prefs of all chains."""
        for chain in self.chains.values():
            yield from chain.protos


@dataclass(slots=True, eq=False)
class Chain:
    """A chain.

    Args:
        block: Whose.
        index: Its number.
        protos: Its prefs, in their order.
        led_to: How many actions lead here.
    """

    block: Block
    index: int
    protos: list[Proto[Filter]] = field(default_factory=list)
    led_to: int = 0

    def find(self, pref: int, protocol: int, *, allocate: bool = False) -> Proto[Filter] | None:
        """Return a pref; None for none.

        Raises:
            Rejected: It is there with another protocol.
        """
        for proto in self.protos:
            if proto.pref == pref:
                if allocate or (protocol and proto.protocol != protocol):
                    raise Rejected(errno.EINVAL, "Filter with specified priority/protocol not found")
                return proto
        return None

    def free_pref(self) -> int:
        """Return the pref that a filter without one gets (``tcf_auto_prio``).

        Prefs are asked for in the upper half of 32 bits; one below the pref that stands at the place where 0x8000
        would go, or 0xc000.
        """
        behind = next((proto.pref for proto in self.protos if proto.pref >= 0x8000), None)
        return (0xC000_0000 if behind is None else (behind << 16) - 1) >> 16

    def insert(self, proto: Proto[Filter]) -> None:
        """Put a new pref in its place."""
        self.protos.append(proto)
        self.protos.sort(key=lambda one: one.pref)


F = TypeVar("F", bound=Filter)


class Proto(ABC, Generic[F]):
    """One pref of a chain: filters of one classifier and one protocol.

    Args:
        shared: What classifiers work with.
        chain: Whose.
        pref: Its pref.
        protocol: Ethernet type as the message has it, in network order.
    """

    kind: str
    act: int
    flags: int

    def __init__(self, shared: Shared, chain: Chain, pref: int, protocol: int) -> None:
        self.shared = shared
        self.chain = chain
        self.pref = pref
        self.protocol = protocol

    @abstractmethod
    def get(self, handle: int) -> F | None:
        """Return a filter by its handle; None for none."""

    @abstractmethod
    def change(self, request: Change, old: F | None) -> F | None:
        """Make a filter, or put it in the place of an old one; None where nothing was to be made.

        Raises:
            Rejected: As the classifier does.
        """

    @abstractmethod
    def delete(self, item: F) -> bool:
        """Remove a filter; return whether the pref is empty now.

        Raises:
            Rejected: It can't be removed.
        """

    @abstractmethod
    def walk(self) -> Iterable[F]:
        """Return the filters in the order of a dump."""

    def walk_terse(self) -> Iterable[F]:
        """Return the filters that a terse dump comes to: without a terse form, the first of them ends it."""
        return self.walk()

    @abstractmethod
    def write(self, item: F, *, terse: bool) -> bytes:
        """Return a filter's options as a dump has them.

        Raises:
            Rejected: The classifier has no terse form.
        """

    def is_empty(self) -> bool:
        """Return whether a request that failed takes a pref with it that was there before."""
        return False

    @abstractmethod
    def replay(self, item: F) -> list[Placed]:
        """Put a filter into the hardware of the devices that its block hangs on.

        Raises:
            Rejected: One refused a filter that is for the hardware only.
        """

    @property
    def where(self) -> Where:
        """Where its filters are, as a driver is told."""
        return Where(self.chain.index, self.pref, int.from_bytes(self.protocol.to_bytes(2, HOST), "big"))

    def destroy(self) -> None:
        """Remove everything."""
        for item in list(self.walk()):
            self.release(item)

    # For the classifiers --------------------------------------------------------------------------------------------

    def read_flags(self, found: Mapping[int, bytes], words: str = "") -> int:
        """Return a filter's flags.

        Raises:
            Rejected: They are none (``tc_flags_valid``).
        """
        flags = u32_of(found[self.flags]) if self.flags in found else 0
        if flags & ~(SKIP_HW | SKIP_SW | VERBOSE) or (flags & SKIP_HW and flags & SKIP_SW):
            raise Rejected(errno.EINVAL, words)
        return flags

    def read_actions(self, found: Mapping[int, bytes], flags: int, request: Change) -> list[Action]:
        """Return a filter's actions.

        Raises:
            Rejected: One is none, or names a device that is not there.
        """
        data = found.get(self.act)
        if data is None:
            return []
        actions = self.shared.actions.read(
            data,
            skip_sw=bool(flags & SKIP_SW),
            skip_hw=bool(flags & SKIP_HW),
            ingress=request.ingress,
            exists=self.shared.world.netdevs,
        )
        for action in actions:
            if action.leads_to is not None:
                target = self.chain.block.chain(action.leads_to, create=True)
                assert target is not None
                target.led_to += 1
        return actions

    def offload(self, item: Filter, request: Callable[[Driver | SimulatedTable], Placed]) -> list[Placed]:
        """Ask the drivers for a filter of flower or matchall.

        Args:
            item: The filter.
            request: What to ask.

        Raises:
            Rejected: One refused a filter that is for the hardware only.
        """
        skip_sw = bool(item.flags & SKIP_SW)
        try:
            check_offload(item.actions)
        except Rejected as answer:
            if skip_sw:
                raise
            self._warn(item, answer)
            return []
        placed, refusal = self.shared.hardware.put(self.chain.block.bound, request, skip_sw=skip_sw)
        self._warn(item, refusal)
        return placed

    def _warn(self, item: Filter, refusal: Rejected | None) -> None:
        if refusal is not None and refusal.text and item.flags & VERBOSE:
            self.shared.warnings.append(refusal.text)

    def counted(self) -> Counted:
        """Return the counters of a new filter."""
        now_ns = self.shared.world.now_ns
        return Counted(installed_ns=now_ns, last_used_ns=now_ns)

    def drop_actions(self, actions: list[Action]) -> None:
        """Give back what actions hold."""
        self.shared.actions.release(actions)
        for action in actions:
            if action.leads_to is None:
                continue
            target = self.chain.block.chains.get(action.leads_to)
            if target is not None:
                target.led_to -= 1
                self.chain.block.tidy(target)

    def release(self, item: Filter) -> None:
        """Take a filter out of the hardware, and give back what it holds."""
        self.shared.hardware.remove(item.placed)
        item.placed = []
        self.drop_actions(item.actions)
