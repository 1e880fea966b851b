"""The flower classifier: filters of many masks in one pref."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass

from nicoffload.testing.fake_kernel.route.actions import Indexes, write_actions
from nicoffload.testing.fake_kernel.route.block import (
    IN_HW,
    NOT_IN_HW,
    SKIP_HW,
    Chain,
    Change,
    Filter,
    Proto,
    Shared,
)
from nicoffload.testing.fake_kernel.route.flower_keys import (
    ACT,
    CLASSID,
    FLAGS,
    IN_HW_COUNT,
    LEAST,
    Keys,
    read_keys,
    write_keys,
)
from nicoffload.testing.fake_kernel.route.hardware import Placed
from nicoffload.testing.fake_kernel.route.wire import Rejected, parse, put, put_u32, u32_of


@dataclass(slots=True, eq=False, kw_only=True)
class FlowerFilter(Filter):
    """A filter of flower.

    Args:
        keys: What it compares.
    """

    keys: Keys


class Flower(Proto[FlowerFilter]):
    """One pref of flower."""

    kind = "flower"
    act = ACT
    flags = FLAGS

    def __init__(self, shared: Shared, chain: Chain, pref: int, protocol: int) -> None:
        super().__init__(shared, chain, pref, protocol)
        self._filters: dict[int, FlowerFilter] = {}
        self._handles = Indexes()
        self._by_mask: dict[object, dict[object, FlowerFilter]] = {}

    def get(self, handle: int) -> FlowerFilter | None:
        """Return a filter by its handle; None for none."""
        return self._filters.get(handle)

    def change(self, request: Change, old: FlowerFilter | None) -> FlowerFilter:
        """Make a filter, or put it in the place of an old one, as ``fl_change`` does.

        Raises:
            Rejected: As the classifier does.
        """
        if request.options is None:
            raise Rejected(errno.EINVAL)
        found = parse(request.options, least=LEAST)
        flags = self.read_flags(found)
        handle = old.handle if old is not None else self._handles.take(request.handle)
        item: FlowerFilter | None = None
        try:
            actions = self.read_actions(found, flags, request)
            classid = u32_of(found[CLASSID]) if CLASSID in found else 0
            item = FlowerFilter(
                handle=handle,
                flags=flags,
                classid=classid,
                actions=actions,
                counted=self.counted(),
                keys=_NO_KEYS,
            )
            item.keys = read_keys(found)
            self._check_keys(item.keys, old)
            self._offload(item)
        except Rejected:
            if item is not None:
                self.release(item)
            if old is None:
                self._handles.give(handle)
            raise
        if old is not None:
            self._forget(old)
            self.release(old)
        self._by_mask.setdefault(item.keys.mask(), {})[item.keys.masked()] = item
        self._filters[handle] = item
        return item

    def delete(self, item: FlowerFilter) -> bool:
        """Remove a filter; return whether the pref is empty now."""
        self._forget(item)
        self._handles.give(item.handle)
        self.release(item)
        return not self._filters

    def walk(self) -> Iterable[FlowerFilter]:
        """Return the filters by handle."""
        return [self._filters[handle] for handle in sorted(self._filters)]

    def write(self, item: FlowerFilter, *, terse: bool) -> bytes:
        """Return a filter's options as ``fl_dump`` and ``fl_terse_dump`` write them."""
        now_ns = self.shared.world.now_ns
        flags = put_u32(FLAGS, item.flags) if item.flags else b""
        actions = write_actions(item.actions, item.counted, now_ns, terse=terse)
        actions = put(ACT, actions) if item.actions else b""
        if terse:
            return flags + actions
        head = put_u32(CLASSID, item.classid) if item.classid else b""
        count = put_u32(IN_HW_COUNT, len(item.placed))
        return head + write_keys(item.keys) + flags + count + actions

    def is_empty(self) -> bool:
        """Return whether there is no filter."""
        return not self._filters

    def replay(self, item: FlowerFilter) -> list[Placed]:
        """Put a filter into the hardware of the devices that its block hangs on.

        Raises:
            Rejected: One refused a filter that is for the hardware only.
        """
        return self.offload(
            item, lambda driver: driver.flower(self.where, item.keys, item.actions, item.classid)
        )

    def _offload(self, item: FlowerFilter) -> None:
        if not item.flags & SKIP_HW:
            item.placed = self.replay(item)
        item.flags |= IN_HW if item.placed else NOT_IN_HW

    def _check_keys(self, keys: Keys, old: FlowerFilter | None) -> None:
        if keys.indev and self.shared.world.netdev_named(keys.indev) is None:
            raise Rejected(errno.ENODEV, "Network device not found")
        if old is not None and old.keys.mask() != keys.mask():
            raise Rejected(errno.EINVAL)
        twin = self._by_mask.get(keys.mask(), {}).get(keys.masked())
        if twin is not None and old is None:
            raise Rejected(errno.EEXIST)

    def _forget(self, item: FlowerFilter) -> None:
        self._filters.pop(item.handle, None)
        same = self._by_mask[item.keys.mask()]
        if same.get(item.keys.masked()) is item:
            del same[item.keys.masked()]
        if not same:
            del self._by_mask[item.keys.mask()]


_NO_KEYS = Keys({}, {}, frozenset(), "")
