"""The matchall classifier: one filter a pref, for every packet."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from nicoffload.testing.fake_kernel.route.actions import write_actions
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
from nicoffload.testing.fake_kernel.route.hardware import Placed
from nicoffload.testing.fake_kernel.route.wire import Rejected, parse, put, put_u32, put_u64, u32_of

_CLASSID, _ACT, _FLAGS, _PCNT = 1, 2, 3, 4
_LEAST = {_CLASSID: 4, _FLAGS: 4}


class Matchall(Proto[Filter]):
    """One pref of matchall."""

    kind = "matchall"
    act = _ACT
    flags = _FLAGS

    def __init__(self, shared: Shared, chain: Chain, pref: int, protocol: int) -> None:
        super().__init__(shared, chain, pref, protocol)
        self._filter: Filter | None = None

    def get(self, handle: int) -> Filter | None:
        """Return the filter, if it has this handle."""
        found = self._filter
        return found if found is not None and found.handle == handle else None

    def change(self, request: Change, old: Filter | None) -> Filter | None:
        """Make the filter, as ``mall_change`` does: there is no other in its place.

        Linux then tells of the filter that was there before, and so of none: an echo does not say the handle.

        Raises:
            Rejected: As the classifier does.
        """
        del old
        if request.options is None:
            raise Rejected(errno.EINVAL)
        if self._filter is not None:
            raise Rejected(errno.EEXIST)
        found = parse(request.options, least=_LEAST)
        flags = self.read_flags(found)
        actions = self.read_actions(found, flags, request)
        item = Filter(
            handle=request.handle or 1,
            flags=flags,
            classid=u32_of(found[_CLASSID]) if _CLASSID in found else 0,
            actions=actions,
            counted=self.counted(),
        )
        try:
            if not flags & SKIP_HW:
                item.placed = self.replay(item)
        except Rejected:
            self.release(item)
            raise
        item.flags |= IN_HW if item.placed else NOT_IN_HW
        self._filter = item
        return None

    def delete(self, item: Filter) -> bool:
        """Remove the filter; the pref is empty then."""
        self.release(item)
        self._filter = None
        return True

    def walk(self) -> Iterable[Filter]:
        """Return the filter."""
        return [] if self._filter is None else [self._filter]

    def walk_terse(self) -> Iterable[Filter]:
        """Return nothing: ``mall_walk`` counts its filter as dumped although it was not."""
        return []

    def write(self, item: Filter, *, terse: bool) -> bytes:
        """Return its options as ``mall_dump`` writes them; it has no terse form, and `walk_terse` leaves it out."""
        del terse
        parts = [put_u32(_CLASSID, item.classid)] if item.classid else []
        if item.flags:
            parts.append(put_u32(_FLAGS, item.flags))
        parts.append(put_u64(_PCNT, item.counted.packets - item.counted.hw_packets))
        if item.actions:
            now_ns = self.shared.world.now_ns
            parts.append(put(_ACT, write_actions(item.actions, item.counted, now_ns, terse=False)))
        return b"".join(parts)

    def replay(self, item: Filter) -> list[Placed]:
        """Put the filter into the hardware of the devices that its block hangs on.

        Raises:
            Rejected: One refused a filter that is for the hardware only.
        """
        return self.offload(item, lambda driver: driver.matchall(self.where, item.actions))

    def destroy(self) -> None:
        """Remove the filter."""
        super().destroy()
        self._filter = None
