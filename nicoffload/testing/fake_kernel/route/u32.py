"""The u32 classifier: words under masks, in hash tables that lead to each other."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from nicoffload.testing.fake_kernel.route.actions import Counted, write_actions
from nicoffload.testing.fake_kernel.route.block import (
    IN_HW,
    NOT_IN_HW,
    SKIP_HW,
    SKIP_SW,
    Chain,
    Change,
    Filter,
    Proto,
    Shared,
)
from nicoffload.testing.fake_kernel.route.hardware import Placed
from nicoffload.testing.fake_kernel.route.u32_hardware import U32Rule, is_plain_jump
from nicoffload.testing.fake_kernel.route.wire import Rejected, parse, put, put_u32, u32_of

_CLASSID, _HASH, _LINK, _DIVISOR, _SEL, _POLICE, _ACT, _INDEV, _PCNT, _MARK, _FLAGS = range(1, 12)
_SELECTOR = struct.Struct(">BBBxHHhhI")
"""struct tc_u32_sel: flags, offshift, nkeys, offmask, off, offoff, hoff, hmask; off, offoff and hoff in host order."""
_KEY_BYTES = 16
_LEAST = {_CLASSID: 4, _HASH: 4, _LINK: 4, _DIVISOR: 4, _SEL: _SELECTOR.size, _MARK: 12, _FLAGS: 4}
_ROOT = 0xFFF0_0000
_FIRST_ROOT = 0x8000_0000
_MAX_BUCKETS = 0x100
_TABLE, _BUCKET, _NODE = 0xFFF0_0000, 0x000F_F000, 0x0000_0FFF


@dataclass(slots=True, eq=False, kw_only=True)
class Table(Filter):
    """A hash table, which the kernel dumps among the filters.

    Args:
        pref: Whose it is.
        divisor: Its buckets, less one.
        root: Whether it is where a pref begins.
        users: How many filters lead to it.
        left_ns: When filters that led to it were removed.
        nodes: Its filters by handle.
    """

    pref: int
    divisor: int
    root: bool
    users: int = 0
    left_ns: list[int] = field(default_factory=list)
    nodes: dict[int, Node] = field(default_factory=dict)


@dataclass(slots=True, eq=False, kw_only=True)
class Node(Filter):
    """A filter in a table.

    Args:
        table: The table.
        selector: The selector as it was sent.
        link: The table that it leads to; None for none.
        mark: The packet's mark that it wants; empty for any.
    """

    table: Table
    selector: bytes
    link: Table | None
    mark: bytes


@dataclass(slots=True, eq=False)
class U32Common:
    """What all prefs of u32 in a block share (``tc_u_common``): the tables, and their numbers.

    Args:
        tables: By handle.
        users: How many prefs.
        nodes: How many filters.
        last: Number of the last table that the kernel chose.
    """

    tables: dict[int, Table] = field(default_factory=dict)
    users: int = 0
    nodes: int = 0
    last: int = 0

    def choose(self) -> int:
        """Return a handle for a new table: 0x801 and up (``gen_new_htid``)."""
        for step in range(1, 0x7FE):
            number = (self.last + step - 1) % 0x7FE + 1
            if (0x800 | number) << 20 not in self.tables:
                self.last = number
                return (0x800 | number) << 20
        raise Rejected(errno.ENOMEM)


class U32(Proto[Filter]):
    """One pref of u32."""

    kind = "u32"
    act = _ACT
    flags = _FLAGS

    def __init__(self, shared: Shared, chain: Chain, pref: int, protocol: int) -> None:
        super().__init__(shared, chain, pref, protocol)
        common = chain.block.u32
        if common is None:
            common = chain.block.u32 = U32Common()
            handle = _FIRST_ROOT
        else:
            handle = common.choose()
        self._common = common
        common.users += 1
        self._root = _table(handle, pref, 0, root=True)
        common.tables[handle] = self._root

    def get(self, handle: int) -> Filter | None:
        """Return a filter or a table by its handle; None for none."""
        number = handle & _TABLE
        table = self._root if number == _ROOT else self._common.tables.get(number)
        if table is None or not handle & (_BUCKET | _NODE):
            return table
        return table.nodes.get(handle)

    def change(self, request: Change, old: Filter | None) -> Filter | None:
        """Make a filter or a table, or put a filter in the place of an old one, as ``u32_change`` does.

        Raises:
            Rejected: As the classifier does.
        """
        if request.options is None:
            if request.handle:
                raise _no("Filter handle requires options")
            return None
        found = parse(request.options, least=_LEAST, words=True)
        flags = self.read_flags(found, "cls_u32: Invalid filter flags")
        for kind, what in ((_POLICE, "police without an action"), (_INDEV, "indev")):
            if kind in found:
                raise Rejected(errno.EOPNOTSUPP, f"fake kernel: {what} of u32 is not modelled")
        if old is not None:
            return self._replace(request, found, flags, old)
        if _DIVISOR in found:
            return self._make_table(request.handle, u32_of(found[_DIVISOR]), flags)
        handle, table = self._place(request.handle, u32_of(found[_HASH]) if _HASH in found else None)
        if _SEL not in found:
            raise _no("Selector not specified")
        selector = found[_SEL]
        if len(selector) < _SELECTOR.size + selector[2] * _KEY_BYTES:
            raise Rejected(errno.EINVAL)
        if selector[1] >= 16:
            raise _no("offshift must be less than 16")
        node = Node(
            handle=handle,
            flags=flags,
            classid=u32_of(found[_CLASSID]) if _CLASSID in found else 0,
            actions=[],
            counted=self.counted(),
            table=table,
            selector=selector[: _SELECTOR.size + selector[2] * _KEY_BYTES],
            link=None,
            mark=found.get(_MARK, b"")[:8],
        )
        self._settle(node, found, request)
        table.nodes[handle] = node
        self._common.nodes += 1
        return node

    def delete(self, item: Filter) -> bool:
        """Remove a filter or a table; return whether the pref is empty now.

        Raises:
            Rejected: It is a pref's own table, or filters lead to it.
        """
        if isinstance(item, Table):
            if item.root:
                raise _no("Not allowed to delete root node")
            if self._in_use(item):
                raise Rejected(errno.EBUSY, "cls_u32: Can not delete in-use filter")
            self._drop_table(item)
        elif isinstance(item, Node):
            self._drop_node(item)
        return self._common.users == 1 and not self._common.nodes

    def walk(self) -> Iterable[Filter]:
        """Return the pref's tables, newest first, each followed by its filters in the order of their handles."""
        for table in reversed(list(self._common.tables.values())):
            if table.pref == self.pref:
                yield table
                for handle in sorted(table.nodes):
                    yield table.nodes[handle]

    def write(self, item: Filter, *, terse: bool) -> bytes:
        """Return its options as ``u32_dump`` writes them.

        Raises:
            Rejected: It has no terse form.
        """
        if terse:
            raise Rejected(errno.EOPNOTSUPP)
        if isinstance(item, Table):
            return put_u32(_DIVISOR, item.divisor + 1)
        assert isinstance(item, Node)
        parts = [put(_SEL, item.selector), put_u32(_HASH, item.handle & ~_NODE)]
        if item.classid:
            parts.append(put_u32(_CLASSID, item.classid))
        if item.link is not None:
            parts.append(put_u32(_LINK, item.link.handle))
        if item.flags:
            parts.append(put_u32(_FLAGS, item.flags))
        if any(item.mark):
            parts.append(put(_MARK, item.mark + bytes(4)))
        if item.actions:
            now_ns = self.shared.world.now_ns
            parts.append(put(_ACT, write_actions(item.actions, item.counted, now_ns, terse=False)))
        # Hits of each key, which the distributions' kernels count (CONFIG_CLS_U32_PERF).
        parts.append(put(_PCNT, bytes(16 + 8 * item.selector[2])))
        return b"".join(parts)

    def destroy(self) -> None:
        """Remove everything."""
        own = [table for table in self._common.tables.values() if table.pref == self.pref]
        for table in own:
            for node in list(table.nodes.values()):
                self._drop_node(node)
        for table in own:
            self._drop_table(table)
        self._common.users -= 1
        if not self._common.users:
            self.chain.block.u32 = None

    def replay(self, item: Filter) -> list[Placed]:
        """Put a filter into the hardware of the devices that its block hangs on; a refusal is always silent.

        Linux looks for skip_sw among the flags of the request and not of the filter (cls_u32.c:u32_change hands
        ``flags`` to u32_replace_hw_knode), so neither the errno nor the driver's words come through.
        """
        if not isinstance(item, Node):
            return []
        rule = _rule(item)
        return self.shared.hardware.put(
            self.chain.block.bound,
            lambda driver: driver.u32(self.where, rule, item.actions),
            skip_sw=False,
        )[0]

    def _place(self, wanted: int, asked: int | None) -> tuple[int, Table]:
        """Return the handle of a new filter, and the table that it goes into."""
        if asked is None or asked & _TABLE == _ROOT:
            table, place = self._root, self._root.handle
        else:
            found = self._common.tables.get(asked & _TABLE)
            if found is None:
                raise _no("Specified hash table not found")
            table, place = found, asked
        if table.divisor < (place & _BUCKET) >> 12:
            raise _no("Specified hash table buckets exceed configured value")
        if wanted and wanted & _TABLE and (wanted ^ place) & _TABLE:
            raise _no("Handle specified hash table address mismatch")
        if wanted & _NODE:
            handle = place | wanted & _NODE
            if handle in table.nodes:
                raise Rejected(errno.ENOSPC)
            return handle, table
        for node in (*range(0x800, 0x1000), *range(1, 0x800)):
            if place | node not in table.nodes:
                return place | node, table
        raise Rejected(errno.ENOSPC, "cls_u32: Hash table node ID pool exhausted")

    def _make_table(self, wanted: int, buckets: int, flags: int) -> Table:
        if buckets & (buckets - 1) or not buckets:
            raise _no("Divisor is not a power of 2")
        if buckets > _MAX_BUCKETS:
            raise _no("Exceeded maximum 256 hash buckets")
        if wanted & (_BUCKET | _NODE):
            raise _no("Divisor can only be used on a hash table")
        if wanted in self._common.tables:
            raise Rejected(errno.ENOSPC)
        handle = wanted or self._common.choose()
        self._offload_table(handle, buckets - 1, skip_sw=bool(flags & SKIP_SW))
        table = _table(handle, self.pref, buckets - 1, root=False)
        self._common.tables[handle] = table
        return table

    def _offload_table(self, handle: int, divisor: int, *, skip_sw: bool) -> None:
        hardware = self.shared.hardware
        taken = 0
        for bound in self.chain.block.bound:
            if not hardware.takes(bound):
                continue
            try:
                hardware.driver(bound.netdev).u32_table(self.where, handle, divisor)
                taken += 1
            except Rejected:
                if skip_sw:
                    raise
        if skip_sw and not taken:
            raise Rejected(errno.EINVAL)

    def _replace(self, request: Change, found: dict[int, bytes], flags: int, old: Filter) -> Filter:
        if not isinstance(old, Node):
            raise _no("Key node id cannot be zero")
        if (old.flags ^ flags) & ~(IN_HW | NOT_IN_HW):
            raise _no("Key node flags do not match passed flags")
        node = Node(
            handle=old.handle,
            flags=old.flags & ~(IN_HW | NOT_IN_HW),
            classid=u32_of(found[_CLASSID]) if _CLASSID in found else old.classid,
            actions=[],
            counted=self.counted(),
            table=old.table,
            selector=old.selector,
            link=old.link,
            mark=old.mark,
        )
        if node.link is not None:
            node.link.users += 1
        self._settle(node, found, request)
        self._let_go(old)
        old.table.nodes[node.handle] = node
        return node

    def _settle(self, node: Node, found: dict[int, bytes], request: Change) -> None:
        """Read what a filter does and where it leads, and put it into the hardware."""
        node.actions = self.read_actions(found, node.flags, request)
        try:
            if _LINK in found:
                link = self._link(u32_of(found[_LINK]))
                if node.link is not None:
                    node.link.users -= 1
                node.link = link
            if not node.flags & SKIP_HW:
                node.placed = self.replay(node)
        except Rejected:
            self._let_go(node)
            raise
        node.flags |= IN_HW if node.placed else NOT_IN_HW

    def _link(self, handle: int) -> Table | None:
        if handle & (_BUCKET | _NODE):
            raise _no("u32 Link handle must be a hash table")
        if not handle:
            return None
        table = self._common.tables.get(handle)
        if table is None:
            raise _no("Link hash table not found")
        if table.root:
            raise _no("Not linking to root node")
        table.users += 1
        return table

    def _in_use(self, table: Table) -> bool:
        """Return whether filters lead to a table: one that was removed does until time has passed.

        Linux frees it after a grace period (cls_u32.c:u32_delete_key, tcf_queue_work), and counts it until then.
        """
        now_ns = self.shared.world.now_ns
        return bool(table.users) or any(at >= now_ns for at in table.left_ns)

    def _drop_node(self, node: Node) -> None:
        node.table.nodes.pop(node.handle, None)
        self._common.nodes -= 1
        if node.link is not None:
            node.link.left_ns.append(self.shared.world.now_ns)
        self._let_go(node)

    def _let_go(self, node: Node) -> None:
        self.release(node)
        if node.link is not None:
            node.link.users -= 1
            node.link = None

    def _drop_table(self, table: Table) -> None:
        for node in list(table.nodes.values()):
            self._drop_node(node)
        self._common.tables.pop(table.handle, None)


def _table(handle: int, pref: int, divisor: int, *, root: bool) -> Table:
    return Table(
        handle=handle,
        flags=0,
        classid=0,
        actions=[],
        counted=Counted(),
        pref=pref,
        divisor=divisor,
        root=root,
    )


def _rule(node: Node) -> U32Rule:
    _, shift, count, mask, _, _, _, _ = _SELECTOR.unpack_from(node.selector)
    offset: int = struct.unpack_from("=h", node.selector, 8)[0]
    words = []
    for place in range(count):
        start = _SELECTOR.size + place * _KEY_BYTES
        its_mask, value = struct.unpack_from(">II", node.selector, start)
        at: int = struct.unpack_from("=i", node.selector, start + 8)[0]
        words.append((at, value, its_mask))
    link = node.link.handle if node.link is not None else 0
    return U32Rule(node.handle, link, tuple(words), is_plain_jump(shift, mask, offset))


def _no(text: str) -> Rejected:
    return Rejected(errno.EINVAL, f"cls_u32: {text}")
