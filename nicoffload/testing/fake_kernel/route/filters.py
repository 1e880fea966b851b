"""Requests about filters: made, put in another's place, removed, read, as ``net/sched/cls_api.c`` answers them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from nicoffload.testing.fake_kernel.route.actions import Actions
from nicoffload.testing.fake_kernel.route.block import MAX_CHAIN, Block, Chain, Change, Filter, Proto, Shared
from nicoffload.testing.fake_kernel.route.flower import Flower
from nicoffload.testing.fake_kernel.route.hardware import Hardware
from nicoffload.testing.fake_kernel.route.matchall import Matchall
from nicoffload.testing.fake_kernel.route.messages import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_MULTI,
    Request,
    header_too_short,
)
from nicoffload.testing.fake_kernel.route.qdiscs import (
    CHAIN,
    KIND,
    LEAST,
    MAGIC_BLOCK,
    OPTIONS,
    TCMSG,
    Hook,
    Qdisc,
    Qdiscs,
)
from nicoffload.testing.fake_kernel.route.u32 import U32
from nicoffload.testing.fake_kernel.route.wire import (
    Rejected,
    bits_of,
    parse,
    put,
    put_text,
    put_u32,
    text_of,
    u32_of,
)
from nicoffload.testing.fake_kernel.world import World

RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
_DUMP_FLAGS = 15
_TERSE = 1
_WARNING = 16
_KIND_BYTES = 16
_NOT_FOUND = "Filter with specified priority/protocol not found"
_OTHER_KIND = "Specified filter kind does not match existing one"
_NEEDS_CREATE = "Need both RTM_NEWTFILTER and NLM_F_CREATE to create a new filter"

Tell = Callable[[Request, int, bytes], None]
"""Sends a message about a change to whoever listens, and to the sender who asked for an echo."""

_CLASSIFIERS: Mapping[str, type[Proto[Any]]] = MappingProxyType(
    {"flower": Flower, "matchall": Matchall, "u32": U32}
)


class Filters:
    """All filters.

    Args:
        world: Where devices are.
        qdiscs: What filters hang on.
        hardware: The drivers beneath.
        tell: Tells of changes.
        heard: Whether anybody listens.
    """

    def __init__(
        self, world: World, qdiscs: Qdiscs, hardware: Hardware, tell: Tell, heard: Callable[[Request], bool]
    ) -> None:
        self._qdiscs = qdiscs
        self._hardware = hardware
        self._shared = Shared(world, Actions(), hardware)
        self._tell = tell
        self._heard = heard

    def change(self, request: Request) -> None:
        """Make a filter (``tc_new_tfilter``).

        Raises:
            Rejected: As the kernel, the classifier or the driver does.
        """
        head, found = _read(request)
        flags = request.flags
        if not head.pref and not flags & NLM_F_CREATE:
            raise Rejected(errno.ENOENT, "Invalid filter command with priority of zero")
        hook, kind = self._hook(head, found)
        block = hook.block
        block.classid = head.parent
        chain = block.chain(_chain(found), create=True)
        assert chain is not None
        try:
            proto, created = self._proto(chain, head, kind, flags)
        except Rejected:
            block.tidy(chain)
            raise
        try:
            item = self._make(proto, head, found, kind, flags, hook)
        except Rejected:
            if created or proto.is_empty():
                self._drop(chain, proto)
            raise
        if self._heard(request):
            body = self._refreshed(hook, head, proto, item)
            body += b"".join(put_text(_WARNING, text) for text in self._shared.warnings[-1:])
            self._tell(request, RTM_NEWTFILTER, body)

    def remove(self, request: Request) -> None:  # noqa: C901  (in the order of tc_del_tfilter)
        """Remove a filter, a pref or a chain (``tc_del_tfilter``).

        Raises:
            Rejected: There is none, or it can't be removed.
        """
        head, found = _read(request)
        if not head.pref and (head.protocol or head.handle or KIND in found):
            raise Rejected(errno.ENOENT, "Cannot flush filters with protocol, handle or kind set")
        hook, kind = self._hook(head, found)
        chain = hook.block.chain(_chain(found), create=False)
        if chain is None:
            if not head.pref:
                return
            raise Rejected(errno.ENOENT, "Cannot find specified filter chain")
        if not head.pref:
            for proto in list(chain.protos):
                self._told_of_pref(request, hook, head, proto)
                self._drop(chain, proto)
            return
        found_proto = chain.find(head.pref, head.protocol)
        if found_proto is None:
            raise Rejected(errno.ENOENT, _NOT_FOUND)
        if kind and found_proto.kind != kind:
            raise Rejected(errno.EINVAL, _OTHER_KIND)
        if not head.handle:
            self._drop(chain, found_proto)
            self._told_of_pref(request, hook, head, found_proto)
            return
        item = found_proto.get(head.handle)
        if item is None:
            raise Rejected(errno.ENOENT, "Specified filter handle not found")
        body = None
        if self._heard(request):
            body = self._refreshed(hook, head, found_proto, item)
        if found_proto.delete(item):
            self._drop(chain, found_proto)
        if body is not None:
            self._tell(request, RTM_DELTFILTER, body)

    def get(self, request: Request) -> bytes:
        """Return one filter as a message (``tc_get_tfilter``).

        Raises:
            Rejected: There is none.
        """
        head, found = _read(request)
        if not head.pref:
            raise Rejected(errno.ENOENT, "Invalid filter command with priority of zero")
        hook, kind = self._hook(head, found)
        chain = hook.block.chain(_chain(found), create=False)
        if chain is None:
            raise Rejected(errno.EINVAL, "Cannot find specified filter chain")
        proto = chain.find(head.pref, head.protocol)
        if proto is None:
            raise Rejected(errno.ENOENT, _NOT_FOUND)
        if kind and proto.kind != kind:
            raise Rejected(errno.EINVAL, _OTHER_KIND)
        item = proto.get(head.handle)
        if item is None:
            raise Rejected(errno.ENOENT, "Specified filter handle not found")
        body = self._refreshed(hook, head, proto, item)
        return request.reply(RTM_NEWTFILTER, body, request.flags)

    def dump(self, request: Request) -> Iterator[bytes]:
        """Yield the messages of a dump (``tc_dump_tfilter``).

        Raises:
            Rejected: The request is malformed, or wants of a classifier a terse form that it has not.
        """
        if len(request.payload) < TCMSG.size:
            return
        _, ifindex, _, parent, info = TCMSG.unpack_from(request.payload)
        found = parse(request.payload, TCMSG.size, least={CHAIN: 4}, words=True)
        terse = bool(_DUMP_FLAGS in found and bits_of(found[_DUMP_FLAGS], _TERSE)[0] & _TERSE)
        place = self._qdiscs.find_block(ifindex, parent)
        if place is None:
            return
        block, qdisc = place
        wanted = u32_of(found[CHAIN]) if CHAIN in found else None
        for chain in list(block.chains.values()):
            if wanted is not None and chain.index != wanted:
                continue
            for proto in list(chain.protos):
                if info >> 16 not in {0, proto.pref} or info & 0xFFFF not in {0, proto.protocol}:
                    continue
                yield from self._dump_proto(request, block, qdisc, proto, terse=terse)

    def _dump_proto(
        self, request: Request, block: Block, qdisc: Qdisc | None, proto: Proto[Filter], *, terse: bool
    ) -> Iterator[bytes]:
        items = list(proto.walk_terse() if terse else proto.walk())
        self._hardware.refresh(items)
        head = _head(proto, qdisc, block, block.classid, 0) + _names(proto)
        yield request.reply(RTM_NEWTFILTER, head, NLM_F_MULTI)
        for item in items:
            try:
                body = self._write(qdisc, block, block.classid, proto, item, terse=terse)
            except Rejected as cause:
                # The dump makes no progress from here, which netlink takes for a buffer that is too small.
                raise Rejected(errno.EMSGSIZE) from cause
            yield request.reply(RTM_NEWTFILTER, body, NLM_F_MULTI)

    def warning(self) -> str:
        """Return what the last request succeeded with all the same, once; empty for nothing."""
        found = self._shared.warnings[-1] if self._shared.warnings else ""
        self._shared.warnings.clear()
        return found

    # Parts ----------------------------------------------------------------------------------------------------------

    def _hook(self, head: _Head, found: Mapping[int, bytes]) -> tuple[Hook, str]:
        hook = self._qdiscs.hook(head.ifindex, head.parent)
        kind = text_of(found[KIND]) if KIND in found else ""
        if len(kind) >= _KIND_BYTES:
            raise Rejected(errno.EINVAL, "Specified TC filter name too long")
        return hook, kind

    def _proto(self, chain: Chain, head: _Head, kind: str, flags: int) -> tuple[Proto[Filter], bool]:
        """Return the pref that a filter goes into, and whether it is new."""
        pref, allocate = head.pref or 0x8000, not head.pref
        proto = chain.find(pref, head.protocol, allocate=allocate)
        if proto is not None:
            return proto, False
        if not kind or not head.protocol:
            raise Rejected(errno.EINVAL, "Filter kind and protocol must be specified")
        if not flags & NLM_F_CREATE:
            raise Rejected(errno.ENOENT, _NEEDS_CREATE)
        if kind not in _CLASSIFIERS:
            raise Rejected(errno.ENOENT, "TC classifier not found")
        made = _CLASSIFIERS[kind](self._shared, chain, chain.free_pref() if allocate else pref, head.protocol)
        chain.insert(made)
        return made, True

    def _make(
        self,
        proto: Proto[Filter],
        head: _Head,
        found: Mapping[int, bytes],
        kind: str,
        flags: int,
        hook: Hook,
    ) -> Filter | None:
        if kind and proto.kind != kind:
            raise Rejected(errno.EINVAL, _OTHER_KIND)
        old = proto.get(head.handle)
        if old is None and not flags & NLM_F_CREATE:
            raise Rejected(errno.ENOENT, _NEEDS_CREATE)
        if old is not None and flags & NLM_F_EXCL:
            raise Rejected(errno.EEXIST, "Filter already exists")
        change = Change(handle=head.handle, options=found.get(OPTIONS), ingress=hook.at_ingress)
        return proto.change(change, old)

    def _drop(self, chain: Chain, proto: Proto[Filter]) -> None:
        chain.protos.remove(proto)
        proto.destroy()
        chain.block.tidy(chain)

    def _told_of_pref(self, request: Request, hook: Hook, head: _Head, proto: Proto[Filter]) -> None:
        if self._heard(request):
            body = _head(proto, hook.qdisc, hook.block, head.parent, 0) + _names(proto)
            self._tell(request, RTM_DELTFILTER, body)

    def _refreshed(self, hook: Hook, head: _Head, proto: Proto[Filter], item: Filter | None) -> bytes:
        """Return a filter with what its driver counts now."""
        self._hardware.refresh([] if item is None else [item])
        return self._write(hook.qdisc, hook.block, head.parent, proto, item, terse=False)

    def _write(
        self,
        qdisc: Qdisc | None,
        block: Block,
        parent: int,
        proto: Proto[Filter],
        item: Filter | None,
        *,
        terse: bool,
    ) -> bytes:
        """Return a filter as ``tcf_fill_node`` writes it."""
        if item is None:
            return _head(proto, qdisc, block, parent, 0) + _names(proto)
        options = put(OPTIONS, proto.write(item, terse=terse))
        return _head(proto, qdisc, block, parent, item.handle) + _names(proto) + options


class _Head:
    """The fixed part of a request.

    Args:
        payload: At least as long as it is.
    """

    __slots__ = ("handle", "ifindex", "parent", "pref", "protocol")

    def __init__(self, payload: bytes) -> None:
        _, self.ifindex, self.handle, self.parent, info = TCMSG.unpack_from(payload)
        self.pref: int = info >> 16
        self.protocol: int = info & 0xFFFF


def _read(request: Request) -> tuple[_Head, dict[int, bytes]]:
    if len(request.payload) < TCMSG.size:
        raise header_too_short()
    return _Head(request.payload), parse(request.payload, TCMSG.size, least=LEAST, words=True)


def _chain(found: Mapping[int, bytes]) -> int:
    index = u32_of(found[CHAIN]) if CHAIN in found else 0
    if index > MAX_CHAIN:
        raise Rejected(errno.EINVAL, "Specified chain index exceeds upper limit")
    return index


def _head(proto: Proto[Filter], qdisc: Qdisc | None, block: Block, parent: int, handle: int) -> bytes:
    info = proto.pref << 16 | proto.protocol
    if qdisc is None:
        return TCMSG.pack(0, MAGIC_BLOCK, handle, block.index, info)
    return TCMSG.pack(0, qdisc.netdev.ifindex, handle, parent, info)


def _names(proto: Proto[Filter]) -> bytes:
    return put_text(KIND, proto.kind) + put_u32(CHAIN, proto.chain.index)
