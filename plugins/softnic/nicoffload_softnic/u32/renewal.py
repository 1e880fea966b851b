"""Rules that lead to a VF whose device is made anew: a redirection is to a device, and not to its number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nicoffload.kernel.tc import Mirred, U32State
from nicoffload_softnic import layout
from nicoffload_softnic.u32 import notes, pairs
from nicoffload_softnic.u32.places import hook_of
from nicoffload_softnic.u32.rules import in_epoch

if TYPE_CHECKING:
    from nicoffload_softnic.u32.path import U32Path


def leading_to(path: U32Path, ifindex: int) -> Mapping[int, Sequence[U32State]]:
    """Return the filters of rules that lead to a device, by the port that they are at."""
    found = {}
    for port in range(layout.FIRST_VF + path.vfs):
        with path.filters(hook_of(port)) as filters:
            found[port] = [
                state
                for state in filters.dump()
                if state.item.rule_id is not None
                and any(isinstance(one, Mirred) and one.ifindex == ifindex for one in state.item.actions)
            ]
    return found


def lead_again(path: U32Path, found: Mapping[int, Sequence[U32State]]) -> None:
    """Put filters in again, now that their device is there again; their counters begin a new epoch."""
    generation = notes.count_change(path.netlink)
    for port, states in found.items():
        if not states:
            continue
        with path.filters(hook_of(port)) as filters:
            filters.delete_many([state.ref for state in states])
            pairs.add_all(filters, [replace(in_epoch(state.item, generation), node=0) for state in states])
    notes.count_change(path.netlink)
