"""What stands at a port of a NIC without eBPF: rules, and the tables by hash that they are in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nicoffload.errors import ConflictError, NicOffloadError, ResourceExhaustedError
from nicoffload.kernel.tc import OWN_ROOT, FilterRef, Mirred, U32Filter, U32Filters, U32State
from nicoffload.model import FlowRule
from nicoffload_softnic import actions, layout
from nicoffload_softnic.u32 import words
from nicoffload_softnic.u32.places import ALL, FIRST_RULE_PREF, LAST_RULE_PREF, SINK, port_behind, pref_of
from nicoffload_softnic.u32.words import Form

_TABLES = range(1, 0x800)
"""Numbers of tables; from 0x800 the kernel numbers the roots of prefs."""
_BUCKETS = 256
_OURS = 1 << 31
_PRIORITY_SHIFT, _FLAGS_SHIFT = 15, 11
_NAMED = 1 << 3
_PRIORITY_GIVEN = layout.RECORD_PRIORITY
"""A filter's number (`U32Filter.class_id`): a mark, 16 bits of priority, 4 of flags, 11 of the epoch."""


@dataclass(slots=True, kw_only=True)
class Class:
    """A table by hash, and what leads to it.

    Args:
        table: Its number.
        link: The filter that leads there.
        rules: How many rules it has.
    """

    table: int
    link: FilterRef
    rules: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A rule that stands.

    Args:
        port: Where.
        ref: Its filter.
        rule: What it says.
        one: The table that it is in.
        epoch: Of its counter.
    """

    port: int
    ref: FilterRef
    rule: FlowRule
    one: Class
    epoch: int


@dataclass(slots=True)
class Standing:
    """What stands at a port.

    Args:
        classes: Tables by the priority and the form of their rules.
        rules: The rules, as they were read.
        left: Filters that lead to tables without rules, which a process left that was killed.
    """

    classes: dict[tuple[int, Form], Class] = field(default_factory=dict)
    rules: list[Held] = field(default_factory=list)
    left: list[Class] = field(default_factory=list)

    def add(self, filters: U32Filters, priority: int, form: Form) -> Class:
        """Make a table and what leads to it, behind what leads to older ones of its priority.

        Raises:
            NicOffloadError: The kernel refuses.
        """
        pref = pref_of(priority)
        number = self._make_table(filters, pref)
        there = [one.link for one in (*self.classes.values(), *self.left) if one.link.pref == pref]
        link = U32Filter(
            keys=form.leading,
            actions=(),
            pref=pref,
            node=max((ref.handle & 0xFFF for ref in there), default=0) + 1,
            table=OWN_ROOT,
            link=number,
            hash=form.hashed,
            protocol=ALL,
        )
        (answer,) = filters.add_many([link])
        if isinstance(answer, NicOffloadError):
            filters.delete_many([_table_ref(pref, number)])
            raise answer
        one = Class(table=number, link=answer)
        self.classes[priority, form] = one
        return one

    def sweep(self, filters: U32Filters) -> None:
        """Remove what leads to tables without rules, and the tables; the last of a pref takes all with it."""
        empty = [key for key, one in self.classes.items() if not one.rules]
        for one in (*(self.classes.pop(key) for key in empty), *self.left):
            filters.delete_many([one.link, _table_ref(one.link.pref, one.table)])
        self.left.clear()

    def _make_table(self, filters: U32Filters, pref: int) -> int:
        taken = {one.table for one in (*self.classes.values(), *self.left)}
        for number in _TABLES:
            if number in taken:
                continue
            try:
                filters.add_table(pref, number, buckets=_BUCKETS, protocol=ALL)
            except ConflictError:
                continue  # what a process left that was killed before anything led there
            return number
        raise ResourceExhaustedError(
            "u32 has no more tables", limit=len(_TABLES), in_use=len(_TABLES), path="/match"
        )


Ports = dict[int, Standing]
"""What stands, by port."""


def redirects(out: int, mirror: int) -> tuple[Mirred, ...]:
    """Return what a filter does: a copy first, and where the packet ends."""
    copies = (Mirred(ifindex=layout.ifindex_of(mirror), copy=True),) if mirror != layout.NO_PORT else ()
    return (*copies, Mirred(ifindex=SINK if out == layout.NO_PORT else layout.ifindex_of(out)))


def pack(rule: FlowRule, flags: int, generation: int) -> int:
    """Return the number that is kept with a rule's filter.

    Args:
        rule: The rule.
        flags: What `actions.encode` made.
        generation: Of the change that installs it.
    """
    flags |= _PRIORITY_GIVEN if rule.priority is not None else 0
    flags |= _NAMED if rule.match.in_port is not None else 0
    number = (rule.priority or 0) << _PRIORITY_SHIFT | flags << _FLAGS_SHIFT
    return _OURS | number | (generation & layout.U32_EPOCHS)


def in_epoch(item: U32Filter, generation: int) -> U32Filter:
    """Return a rule's filter as a later change installs it."""
    return replace(item, class_id=item.class_id & ~layout.U32_EPOCHS | (generation & layout.U32_EPOCHS))


def read_port(port: int, states: Sequence[U32State]) -> Standing:
    """Return what filters of a port stand for; filters of others are left out.

    Args:
        port: The port.
        states: Its filters.
    """
    standing = Standing()
    links = {
        (state.ref.pref, state.item.link): Class(table=state.item.link, link=state.ref)
        for state in states
        if state.item.hash is not None and FIRST_RULE_PREF <= state.ref.pref <= LAST_RULE_PREF
    }
    for state in states:
        one = links.get((state.ref.pref, state.item.table))
        if one is None or state.item.rule_id is None or not state.item.class_id & _OURS:
            continue
        rule = _rule(port, state)
        form = words.form_of(rule.match, words.words_of(rule.match), from_wire=port == layout.UPLINK)
        standing.classes[rule.priority or 0, form] = one
        one.rules += 1
        epoch = state.item.class_id & layout.U32_EPOCHS
        standing.rules.append(Held(port=port, ref=state.ref, rule=rule, one=one, epoch=epoch))
    standing.left = [one for one in links.values() if not one.rules]
    return standing


def _rule(port: int, state: U32State) -> FlowRule:
    number = state.item.class_id
    flags = number >> _FLAGS_SHIFT & 0xF
    out = mirror = layout.NO_PORT
    for action in state.item.actions:
        if isinstance(action, Mirred) and action.copy:
            mirror = port_behind(action.ifindex)
        elif isinstance(action, Mirred) and action.ifindex != SINK:
            out = port_behind(action.ifindex)
    assert state.item.rule_id is not None, "only filters with a cookie are ours"
    return FlowRule(
        match=words.decode(state.item.keys, port if flags & _NAMED else None),
        actions=actions.decode(out, mirror, flags & ~(_NAMED | _PRIORITY_GIVEN)),
        priority=number >> _PRIORITY_SHIFT & 0xFFFF if flags & _PRIORITY_GIVEN else None,
        rule_id=state.item.rule_id,
    )


def _table_ref(pref: int, number: int) -> FilterRef:
    return FilterRef(pref=pref, handle=number << 20, chain=0, protocol=ALL, kind="u32")
