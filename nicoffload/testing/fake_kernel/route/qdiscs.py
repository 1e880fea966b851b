"""The qdiscs that filters hang on: clsact and ingress, one a device, with blocks of their own or shared ones."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from nicoffload.testing.fake_kernel.route.block import IN_HW, NOT_IN_HW, SKIP_HW, Block, Bound
from nicoffload.testing.fake_kernel.route.hardware import Hardware
from nicoffload.testing.fake_kernel.route.messages import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_MULTI,
    NLM_F_REPLACE,
    Request,
    header_too_short,
)
from nicoffload.testing.fake_kernel.route.wire import (
    Rejected,
    parse,
    put,
    put_text,
    put_u8,
    put_u32,
    text_of,
    u32_of,
)
from nicoffload.testing.fake_kernel.world import FakeNetdev, NetdevKind, World

TCMSG = struct.Struct("=BxxxiIII")
KIND, OPTIONS, CHAIN = 1, 2, 11
_STATS, _HW_OFFLOAD, _STATS2, _INGRESS_BLOCK, _EGRESS_BLOCK = 3, 12, 7, 13, 14
LEAST = {CHAIN: 4, _INGRESS_BLOCK: 4, _EGRESS_BLOCK: 4}
RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
MAGIC_BLOCK = -1
_INGRESS_PARENT, _HANDLE, _ROOT = 0xFFFF_FFF1, 0xFFFF_0000, 0xFFFF_FFFF
_MIN_INGRESS, _MIN_EGRESS = 0xFFF2, 0xFFF3
_KINDS = frozenset({"clsact", "ingress"})
_KIND_BYTES = 16
_EMPTY_STATS = put(1, bytes(16)) + put(3, bytes(20))
_EMPTY_OLD_STATS = bytes(40)


@dataclass(slots=True, eq=False)
class Qdisc:
    """A clsact or ingress.

    Args:
        kind: Which.
        netdev: Whose.
        ingress: Block of what comes in.
        egress: Block of what goes out; None for kind ``ingress``.
    """

    kind: str
    netdev: FakeNetdev
    ingress: Block
    egress: Block | None


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a request's filters hang.

    Args:
        block: The block.
        qdisc: The qdisc that it was reached by; None for a block that was named by its number.
        parent: As asked for.
    """

    block: Block
    qdisc: Qdisc | None
    parent: int

    @property
    def at_ingress(self) -> bool:
        """Whether the kernel knows from the parent that packets come in here (``is_qdisc_ingress``)."""
        return self.parent & 0xFFFF == _MIN_INGRESS


class Qdiscs:
    """All of them.

    Args:
        world: Where devices are.
        hardware: The drivers beneath.
    """

    def __init__(self, world: World, hardware: Hardware) -> None:
        self._world = world
        self._hardware = hardware
        self._by_netdev: dict[FakeNetdev, Qdisc] = {}
        self._shared: dict[int, Block] = {}
        # A device keeps the queue that a qdisc once hung on.
        self._with_queue: set[FakeNetdev] = set()

    def of(self, netdev: FakeNetdev) -> Qdisc | None:
        """Return a device's; None for none."""
        return self._by_netdev.get(netdev)

    def change(self, request: Request) -> Qdisc | None:  # noqa: C901  (in the order of tc_modify_qdisc)
        """Add one, as ``tc_modify_qdisc`` does, and return it; None where nothing changed.

        Raises:
            Rejected: There is one, or it is of another kind.
        """
        netdev, handle, parent, found = self._read(request)
        if parent != _INGRESS_PARENT:
            raise Rejected(errno.EOPNOTSUPP, "fake kernel: only clsact and ingress are modelled")
        self._with_queue.add(netdev)
        old = self._by_netdev.get(netdev)
        kind = text_of(found[KIND]) if KIND in found else None
        if old is not None:
            if self._is_old(old, handle, kind, request.flags):
                if OPTIONS in found:
                    raise Rejected(errno.EINVAL, "Change operation not supported by specified qdisc")
                return None
        elif handle & 0xFFFF:
            raise Rejected(errno.EINVAL, "Invalid minor handle")
        if not request.flags & NLM_F_CREATE:
            raise Rejected(errno.ENOENT, "Qdisc not found. To create specify NLM_F_CREATE flag")
        if kind not in _KINDS:
            if kind is None or kind in _OTHER_KINDS:
                text = "Specified parent ID is reserved for ingress and clsact Qdiscs"
                raise Rejected(errno.EINVAL, text)
            raise Rejected(errno.ENOENT, "Specified qdisc kind is unknown")
        numbers = [u32_of(found[place]) if place in found else 0 for place in (_INGRESS_BLOCK, _EGRESS_BLOCK)]
        self._check_blocks(kind, found, numbers)
        if old is not None:
            self.remove(netdev)
        qdisc = Qdisc(kind, netdev, Block(), None)
        bound: list[tuple[Block, Bound]] = []
        try:
            qdisc.ingress = self._bind(numbers[0], Bound(netdev, ingress=True), bound)
            if kind == "clsact":
                qdisc.egress = self._bind(numbers[1], Bound(netdev, ingress=False), bound)
        except Rejected:
            for block, one in bound:
                block.bound.remove(one)
                self._tidy(block)
            raise
        self._by_netdev[netdev] = qdisc
        return qdisc

    def get(self, request: Request) -> Qdisc:
        """Return the one that a request names (``tc_get_qdisc``).

        Raises:
            Rejected: There is none.
        """
        netdev, handle, parent, found = self._read(request)
        qdisc = self._by_netdev.get(netdev)
        if parent:
            if parent & 0xFFFF_0000 != _HANDLE:
                raise Rejected(errno.ENOENT, "Failed to find qdisc with specified classid")
            if qdisc is None and netdev not in self._with_queue:
                raise Rejected(errno.ENOENT, "Cannot find specified qdisc on specified device")
            if handle and (qdisc is None or handle != _HANDLE):
                raise Rejected(errno.EINVAL, "Invalid handle")
            if qdisc is None:
                raise Rejected(errno.ENOENT, "Cannot delete qdisc with handle of zero")
        elif qdisc is None or handle != _HANDLE:
            raise Rejected(errno.ENOENT, "Failed to find qdisc with specified handle")
        if KIND in found and text_of(found[KIND]) != qdisc.kind:
            raise Rejected(errno.EINVAL, "Invalid qdisc name")
        if request.kind == RTM_DELQDISC and not parent:
            raise Rejected(errno.EINVAL, "Classid cannot be zero")
        return qdisc

    def forget(self, netdev: FakeNetdev) -> None:
        """Forget a device that is gone, with all that hung on it. Repeatable."""
        self.remove(netdev)
        self._with_queue.discard(netdev)

    def remove(self, netdev: FakeNetdev) -> None:
        """Remove a device's, with the filters of its own blocks. Repeatable."""
        qdisc = self._by_netdev.pop(netdev, None)
        if qdisc is None:
            return
        for block in (qdisc.ingress, qdisc.egress):
            if block is not None:
                self._unbind(block, netdev)

    def all(self) -> Iterator[Qdisc]:
        """Yield all, in the order of their devices."""
        for netdev in self._world.netdevs.values():
            if netdev in self._by_netdev:
                yield self._by_netdev[netdev]

    def hook(self, ifindex: int, parent: int) -> Hook:
        """Return where filters hang (``__tcf_qdisc_find``, ``__tcf_block_find``).

        Raises:
            Rejected: There is no such device, qdisc, class or block.
        """
        if ifindex == MAGIC_BLOCK:
            block = self._shared.get(parent)
            if block is None:
                raise Rejected(errno.EINVAL, "Block of given index was not found")
            return Hook(block, None, parent)
        netdev = self._world.netdev(ifindex)
        if netdev is None:
            raise Rejected(errno.ENODEV)
        if not parent:
            raise Rejected(errno.EINVAL, "Qdisc not classful")
        qdisc = self._by_netdev.get(netdev)
        if parent & 0xFFFF_0000 != _HANDLE or qdisc is None:
            raise Rejected(errno.EINVAL, "Parent Qdisc doesn't exists")
        minor = parent & 0xFFFF
        if qdisc.kind == "clsact" and minor and minor not in {_MIN_INGRESS, _MIN_EGRESS}:
            raise Rejected(errno.ENOENT, "Specified class doesn't exist")
        found = qdisc.ingress if qdisc.kind == "ingress" or minor == _MIN_INGRESS else qdisc.egress
        if found is None or (qdisc.kind == "clsact" and not minor):
            raise Rejected(errno.EINVAL)
        if found.index:
            text = "This filter block is shared. Please use the block index to manipulate the filters"
            raise Rejected(errno.EOPNOTSUPP, text)
        return Hook(found, qdisc, parent)

    def write(self, qdisc: Qdisc) -> bytes:
        """Return one as ``tc_fill_qdisc`` writes it."""
        body = TCMSG.pack(0, qdisc.netdev.ifindex, _HANDLE, _INGRESS_PARENT, 1) + put_text(KIND, qdisc.kind)
        if qdisc.ingress.index:
            body += put_u32(_INGRESS_BLOCK, qdisc.ingress.index)
        if qdisc.egress is not None and qdisc.egress.index:
            body += put_u32(_EGRESS_BLOCK, qdisc.egress.index)
        body += put(OPTIONS, b"") + put_u8(_HW_OFFLOAD, 0)
        return body + put(_STATS2, _EMPTY_STATS) + put(_STATS, _EMPTY_OLD_STATS)

    def dump(self, request: Request) -> Iterator[bytes]:
        """Yield the messages of a dump: of each device the root, and its clsact or ingress."""
        if len(request.payload) < TCMSG.size:
            raise header_too_short()
        for netdev in self._world.netdevs.values():
            # A port of a NIC has a root with a number of its own; what needs no queue has one that is not shown.
            if netdev.kind is not NetdevKind.OTHER:
                yield request.reply(RTM_NEWQDISC, _root(netdev), NLM_F_MULTI)
            qdisc = self._by_netdev.get(netdev)
            if qdisc is not None:
                yield request.reply(RTM_NEWQDISC, self.write(qdisc), NLM_F_MULTI)

    def _read(self, request: Request) -> tuple[FakeNetdev, int, int, dict[int, bytes]]:
        if len(request.payload) < TCMSG.size:
            raise header_too_short()
        _, ifindex, handle, parent, _ = TCMSG.unpack_from(request.payload)
        found = parse(request.payload, TCMSG.size, least=LEAST, words=True)
        netdev = self._world.netdev(ifindex)
        if netdev is None:
            raise Rejected(errno.ENODEV)
        return netdev, handle, parent, found

    def _is_old(self, old: Qdisc, handle: int, kind: str | None, flags: int) -> bool:
        """Return whether a request is about the qdisc that is there, and not for another in its place."""
        if handle and handle != _HANDLE:
            if not flags & NLM_F_REPLACE:
                raise Rejected(errno.EEXIST, "NLM_F_REPLACE needed to override")
            if handle & 0xFFFF:
                raise Rejected(errno.EINVAL, "Invalid minor handle")
            return False
        creates = flags & NLM_F_CREATE and flags & (NLM_F_REPLACE | NLM_F_EXCL)
        if not handle and kind is not None and kind != old.kind and creates:
            return False
        if flags & NLM_F_EXCL:
            raise Rejected(errno.EEXIST, "Exclusivity flag on, cannot modify")
        if kind is not None and kind != old.kind:
            raise Rejected(errno.EINVAL, "Invalid qdisc name")
        return True

    def _check_blocks(self, kind: str, found: dict[int, bytes], numbers: list[int]) -> None:
        for place, name in ((_INGRESS_BLOCK, "Ingress"), (_EGRESS_BLOCK, "Egress")):
            if place in found and not u32_of(found[place]):
                raise Rejected(errno.EINVAL, f"{name} block index cannot be 0")
        if numbers[1] and kind == "ingress":
            raise Rejected(errno.EOPNOTSUPP, "Egress block sharing is not supported")

    def _bind(self, number: int, bound: Bound, made: list[tuple[Block, Bound]]) -> Block:
        """Return a block that now hangs on a device as well, with its filters in that device's hardware."""
        block = self._shared.setdefault(number, Block(index=number)) if number else Block()
        items = [(proto, item) for proto in block.protos() for item in proto.walk()]
        if any(item.placed for _, item in items) and not self._hardware.takes(bound):
            raise Rejected(errno.EOPNOTSUPP)
        others = block.bound
        block.bound = [bound]
        try:
            for proto, item in items:
                if not item.flags & SKIP_HW:
                    item.placed += proto.replay(item)
                    if item.placed:
                        item.flags = item.flags & ~NOT_IN_HW | IN_HW
        finally:
            block.bound = [*others, bound]
            made.append((block, bound))
        return block

    def _unbind(self, block: Block, netdev: FakeNetdev) -> None:
        block.bound = [one for one in block.bound if one.netdev is not netdev]
        if block.index and block.bound:
            for proto in block.protos():
                for item in proto.walk():
                    gone = [one for one in item.placed if one.netdev is netdev]
                    self._hardware.remove(gone)
                    item.placed = [one for one in item.placed if one.netdev is not netdev]
                    if not item.placed and item.flags & IN_HW:
                        item.flags = item.flags & ~IN_HW | NOT_IN_HW
            return
        for chain in list(block.chains.values()):
            for proto in chain.protos:
                proto.destroy()
        block.chains.clear()
        self._tidy(block)

    def _tidy(self, block: Block) -> None:
        if block.index and not block.bound:
            self._shared.pop(block.index, None)

    def find_block(self, ifindex: int, parent: int) -> tuple[Block, Qdisc | None] | None:
        """Return the block whose filters a dump asks for; None where it is silent (``tc_dump_tfilter``)."""
        if ifindex == MAGIC_BLOCK:
            block = self._shared.get(parent)
            return None if block is None else (block, None)
        netdev = self._world.netdev(ifindex)
        qdisc = None if netdev is None else self._by_netdev.get(netdev)
        if qdisc is None or parent & 0xFFFF_0000 != _HANDLE:
            return None
        minor = parent & 0xFFFF
        if qdisc.kind == "ingress":
            found: Block | None = qdisc.ingress
        else:
            found = {_MIN_INGRESS: qdisc.ingress, _MIN_EGRESS: qdisc.egress}.get(minor)
        if found is None:
            return None
        return found, None if found.index else qdisc


_OTHER_KINDS = frozenset({"pfifo", "bfifo", "pfifo_fast", "mq", "noqueue", "fq_codel", "htb", "prio"})


def _root(netdev: FakeNetdev) -> bytes:
    body = TCMSG.pack(0, netdev.ifindex, 0, _ROOT, 2) + put_text(KIND, "mq")
    return body + put_u8(_HW_OFFLOAD, 0) + put(_STATS2, _EMPTY_STATS) + put(_STATS, _EMPTY_OLD_STATS)
