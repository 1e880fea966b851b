"""Rules that lead to a VF whose device is made anew: a redirection is to a device, and not to its number."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nicoffload.kernel.tc import Mirred, U32Filter, U32State
from nicoffload_softnic import layout
from nicoffload_softnic.u32 import notes, pairs
from nicoffload_softnic.u32.places import hook_of
from nicoffload_softnic.u32.rules import in_epoch

if TYPE_CHECKING:
    from nicoffload_softnic.u32.path import U32Path


def lead(path: U32Path, before: int, after: int) -> None:
    """Lead rules to another device; their counters begin a new epoch.

    Args:
        path: The NIC's data path.
        before: The device that they lead to.
        after: The one that they lead to from now on.
    """
    generation = notes.count_change(path.netlink)
    for port in range(layout.FIRST_VF + path.vfs):
        with path.filters(hook_of(port)) as filters:
            states = [state for state in filters.dump() if _leads_to(state, before)]
            if not states:
                continue
            filters.delete_many([state.ref for state in states])
            pairs.add_all(
                filters, [in_epoch(_led(state.item, before, after), generation) for state in states]
            )
    notes.count_change(path.netlink)


def _leads_to(state: U32State, ifindex: int) -> bool:
    return state.item.rule_id is not None and any(
        isinstance(one, Mirred) and one.ifindex == ifindex for one in state.item.actions
    )


def _led(item: U32Filter, before: int, after: int) -> U32Filter:
    changed = tuple(
        replace(one, ifindex=after) if isinstance(one, Mirred) and one.ifindex == before else one
        for one in item.actions
    )
    return replace(item, actions=changed, node=0)
