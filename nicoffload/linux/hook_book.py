"""What is known of the filters of one hook: which prefs are in use, and where our rules are."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import NamedTuple

from nicoffload.errors import ResourceExhaustedError
from nicoffload.kernel.tc import FilterRef
from nicoffload.linux.marks import NUMBERS, NUMBERS_WITH_PRIORITY, OURS, PREFS, read_marks
from nicoffload.model.rule import MAX_PRIORITY


class Located(NamedTuple):
    """Where a filter of ours is: a tuple, for there are as many as rules.

    Args:
        ifindex: The device that it hangs on.
        pref: Its pref.
        handle: Its handle.
        protocol: Its Ethernet type.
    """

    ifindex: int
    pref: int
    handle: int
    protocol: int

    def ref(self) -> FilterRef:
        """Return how tc names it."""
        return FilterRef(pref=self.pref, handle=self.handle, chain=0, protocol=self.protocol, kind="flower")


@dataclass(slots=True)
class _Pref:
    """A pref that filters of ours have.

    Args:
        protocol: The Ethernet type of all of them.
        priority: The priority of all of them; None for none.
        next_number: The number that the next one gets.
    """

    protocol: int
    priority: int | None
    next_number: int = 1


class HookBook:
    """The filters of one hook, as far as this process knows.

    Args:
        ifindex: The device.
        prefs: The prefs that ours may have.
    """

    def __init__(self, ifindex: int, prefs: range = PREFS) -> None:
        self.ifindex = ifindex
        self.ours: dict[int, Located] = {}
        """Number of a rule id to where that rule is."""
        self._window = prefs
        self._prefs: dict[int, _Pref] = {}
        self._foreign: set[int] = set()
        self._order: list[int] = []

    def note(self, pref: int, handle: int, protocol: int, chain: int, rule: int | None) -> None:
        """Take in a filter that was read.

        Args:
            pref: Its pref.
            handle: Its handle.
            protocol: Its Ethernet type.
            chain: Its chain.
            rule: Number of its rule id; None for what is not ours.
        """
        if rule is None:
            if chain == 0:
                self._foreign.add(pref)
            return
        self.ours[rule] = Located(self.ifindex, pref, handle, protocol)
        marks = read_marks(handle)
        known = self._prefs.get(pref)
        if known is None:
            known = self._prefs[pref] = _Pref(protocol, marks.priority)
            insort(self._order, pref)
        if marks.number >= known.next_number:
            known.next_number = marks.number + 1

    def replace_with(self, other: HookBook) -> None:
        """Know what another book knows, which was read later; numbers that were given out stay given out."""
        for pref, use in self._prefs.items():
            theirs = other._prefs.get(pref)
            if theirs is not None:
                theirs.next_number = max(theirs.next_number, use.next_number)
        self.ours = other.ours
        self._prefs, self._foreign, self._order = other._prefs, other._foreign, other._order

    def take(self, protocol: int, priority: int | None, count: int) -> list[tuple[int, int, int]]:
        """Return where filters go: prefs, the first number in each, and how many go there.

        Raises:
            ResourceExhaustedError: There is no pref left that would keep the order of priorities.
        """
        limit = NUMBERS if priority is None else NUMBERS_WITH_PRIORITY
        found: list[tuple[int, int, int]] = []
        for pref in list(self._order):
            use = self._prefs[pref]
            if (use.protocol, use.priority) == (protocol, priority) and use.next_number < limit:
                count = _put(found, pref, use, limit, count)
                if not count:
                    return found
        while count:
            pref = self._new_pref(priority)
            use = self._prefs[pref] = _Pref(protocol, priority)
            insort(self._order, pref)
            count = _put(found, pref, use, limit, count)
        return found

    def _new_pref(self, priority: int | None) -> int:
        """Return a free pref, after all of a higher priority and before all of a lower one."""
        low, high = self._window.start, self._window.stop - 1
        for pref in self._order:
            theirs = self._prefs[pref].priority
            if priority is None or theirs is None:
                continue
            if theirs > priority:
                low = max(low, pref + 1)
            elif theirs < priority:
                high = min(high, pref - 1)
        if priority is None:
            wanted = self._window.start + len(self._window) // 2
        else:
            wanted = self._window.start + (MAX_PRIORITY - priority) * (len(self._window) - 1) // MAX_PRIORITY
        wanted = min(max(wanted, low), max(low, high))
        free = _nearest_free(wanted, low, high, self._taken)
        if free is None:
            raise ResourceExhaustedError(
                "no pref of tc is left between the rules of higher and of lower priority",
                limit=len(self._window),
                in_use=len(self._order),
                path="/priority",
                hint="use fewer, or more distant, priorities",
            )
        return free

    def _taken(self, pref: int) -> bool:
        place = bisect_left(self._order, pref)
        return (place < len(self._order) and self._order[place] == pref) or pref in self._foreign


def is_ours(ref: FilterRef, prefs: range = PREFS) -> bool:
    """Tell whether a filter has the marks of ours; its cookie says which rule it is."""
    return ref.kind == "flower" and ref.chain == 0 and ref.pref in prefs and bool(ref.handle & OURS)


def _put(found: list[tuple[int, int, int]], pref: int, use: _Pref, limit: int, count: int) -> int:
    """Put as many as fit into a pref, and return how many are left."""
    here = min(count, limit - use.next_number)
    found.append((pref, use.next_number, here))
    use.next_number += here
    return count - here


def _nearest_free(wanted: int, low: int, high: int, taken: object) -> int | None:
    assert callable(taken)
    for distance in range(high - low + 1):
        for pref in (wanted - distance, wanted + distance):
            if low <= pref <= high and not taken(pref):
                return pref
    return None
