"""Makes rules that a table takes, as many different ones as it has rows, from what its profile says of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nicoffload.compiler import Compiler
from nicoffload.driver import Placement, QueueCounts, TableState
from nicoffload.errors import InvalidRequestError
from nicoffload.model import FIELDS, Action, Drop, FlowRule, Masked, Match, ToPf, ToQueue, ToUplink, ToVf
from nicoffload.profiles.types import FlowType, Table

GROUP_BIT = 1 << 40
"""The multicast bit of a MAC address."""

_SPAN = {
    "eth_src": (0x02_00_00_00_00_01, 1 << 24),
    "eth_dst": (0x02_00_00_01_00_01, 1 << 24),
    "ipv4_src": (0x0A_00_00_01, 1 << 23),
    "ipv4_dst": (0x0A_80_00_01, 1 << 22),
    "ipv6_src": (0x2001_0DB8_0000_0000_0000_0000_0000_0001, 1 << 24),
    "ipv6_dst": (0x2001_0DB8_0001_0000_0000_0000_0000_0001, 1 << 24),
    "tp_src": (1024, 60_000),
    "tp_dst": (1024, 60_000),
    "vlan_vid": (2, 4000),
    "cvlan_vid": (2, 4000),
    "eth_type": (0x9000, 0x2000),
    "tun_id": (1, 1 << 20),
    "tun_ipv4_src": (0x0A_C0_00_01, 1 << 20),
    "tun_ipv4_dst": (0x0A_D0_00_01, 1 << 20),
    "ip_tos": (4, 60),
    "ip_ttl": (1, 250),
    "ip_proto": (150, 90),
    "icmp_type": (1, 250),
    "icmp_code": (0, 250),
    "vlan_pcp": (1, 7),
    "cvlan_pcp": (1, 7),
    "tcp_flags": (1, 60),
    "tun_tp_dst": (4789, 1000),
}
"""Field to the first value that is used and how many there are; any other field has one value, 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Rules that differ in their values only.

    Args:
        table: What the profile says of the table.
        flow_type: The flow type within it.
        fields: What is compared beyond what the flow type fixes.
        action: What is done.
        size: How many different rules there are.
    """

    table: Table
    flow_type: FlowType
    fields: tuple[str, ...]
    action: Action
    size: int

    def rule(self, number: int, action: Action | None = None) -> FlowRule:
        """Return rule `number` of this kind: equal numbers make equal matches, under ids of their own.

        Args:
            number: 0 to `size` - 1.
            action: What to do instead of the usual.
        """
        match = Match(**{name: Masked(value, mask) for name, (value, mask) in self._values(number).items()})
        return FlowRule(match=match, actions=(action or self.action,))

    def _values(self, number: int) -> dict[str, tuple[int, int]]:
        found = {name: (allowed[0], FIELDS[name].full_mask) for name, allowed in _fixed(self.flow_type)}
        left = number
        for name in sorted(self.fields, key=lambda name: -_count(self.flow_type, name)):
            value, mask, size = _value(self.flow_type, name, left)
            found[name] = (value, mask)
            left //= size
        return found

    def __str__(self) -> str:
        return f"{self.flow_type.name}({', '.join(self.fields)})"


def _fixed(flow_type: FlowType) -> Iterator[tuple[str, tuple[int, ...]]]:
    return ((name, allowed) for name, allowed in flow_type.fixed.items() if allowed)


def _count(flow_type: FlowType, name: str) -> int:
    rule = flow_type.fields[name]
    if rule.mask == "group_bit":
        return 2
    if rule.values is not None:
        return len(rule.values)
    first, size = _SPAN.get(name, (0, 1))
    high = rule.max if rule.max is not None else FIELDS[name].full_mask
    low = max(first, rule.min or 0)
    return max(min(size, high - min(low, high) + 1), 1)


def _value(flow_type: FlowType, name: str, number: int) -> tuple[int, int, int]:
    """Return a field's value and mask for a number, and after how many numbers it starts anew."""
    rule, size = flow_type.fields[name], _count(flow_type, name)
    full = FIELDS[name].full_mask
    at = number % size
    if rule.mask == "group_bit":
        return (GROUP_BIT if at else 0), GROUP_BIT, size
    if rule.values is not None:
        return sorted(rule.values)[at], full, size
    first, _ = _SPAN.get(name, (0, 1))
    high = rule.max if rule.max is not None else full
    return min(max(first, rule.min or 0), high) + at, full, size


def target(table: Table, vfs: int, queues: QueueCounts) -> Action | None:
    """Return the plainest thing that a table can do with a packet; None where it needs a VF that does not exist."""
    if "drop" in table.actions:
        return Drop()
    if "queue" in table.actions:
        return ToQueue(queue=1 if queues.pf is None or queues.pf > 1 else 0)
    if "vf" in table.actions and vfs:
        return ToVf(vf=0)
    if "pf" in table.actions:
        return ToPf()
    return ToUplink() if "uplink" in table.actions else None


def kinds_of(state: TableState, vfs: int, queues: QueueCounts) -> Iterator[Kind]:
    """Yield the kinds of rules that a table takes, by its profile and by the compiler, the most usual first.

    Args:
        state: The table, as the driver tells it; it must take rules at present.
        vfs: VFs that exist.
        queues: Receive queues that exist.
    """
    table = state.table
    action = target(table, vfs, queues)
    if action is None:
        return
    compiler = Compiler([state], vfs=vfs, queues=queues.pf, vf_queues=queues.vf)
    seen: set[tuple[str, frozenset[str]]] = set()
    for flow_type in table.flow_types:
        for fields in _field_sets(state, flow_type):
            key = (flow_type.name, frozenset(fields))
            if key in seen:
                continue
            seen.add(key)
            kind = Kind(
                table=table, flow_type=flow_type, fields=fields, action=action, size=_size(flow_type, fields)
            )
            try:
                placed = compiler.lower(kind.rule(0))
            except InvalidRequestError:  # what no NIC is ever asked: a port without a protocol
                continue
            if isinstance(placed, Placement):
                yield kind


def _size(flow_type: FlowType, fields: Sequence[str]) -> int:
    size = 1
    for name in fields:
        size *= _count(flow_type, name)
    return size


def _field_sets(state: TableState, flow_type: FlowType) -> Iterator[tuple[str, ...]]:
    """Yield sets of fields to try: those listed, addresses and ports, all, as few as may be, each alone."""
    table = state.table
    for shape in table.shapes:
        if flow_type.name in shape.flow_types:
            yield tuple(sorted(shape.fields))
    for name, fields in state.firmware_shapes or ():
        if name == flow_type.name:
            yield tuple(sorted(fields))
    useful = [name for name, rule in flow_type.fields.items() if rule.mask != "ignored"]
    needed = [name for name in useful if flow_type.fields[name].mask in ("required", "group_bit")]
    if table.combine == "or":
        yield from ((name,) for name in useful)
        return
    tuple_fields = [name for name in useful if name.startswith(("ipv4", "ipv6", "tp_"))]
    yield _tidy(flow_type, [*needed, *tuple_fields])
    yield _tidy(flow_type, [*needed, *useful])
    yield _tidy(flow_type, needed)
    for name in useful:
        yield _tidy(flow_type, [*needed, name])


def _tidy(flow_type: FlowType, names: Sequence[str]) -> tuple[str, ...]:
    """Return fields that go together: all that belong to one another, none that exclude each other."""
    kept = list(dict.fromkeys(names))
    for group in flow_type.together:
        if set(kept) & set(group.fields):
            kept = list(dict.fromkeys([*kept, *group.fields]))
    if any(name.startswith("tun_ipv4") for name in kept):  # the outer addresses are of one family
        kept = [name for name in kept if not name.startswith("tun_ipv6")]
    for pair in flow_type.not_together:
        if set(pair.fields) <= set(kept):
            kept.remove(pair.fields[-1])
    if flow_type.at_least_one and not set(kept) & set(flow_type.at_least_one):
        kept.append(flow_type.at_least_one[0])
    return tuple(kept)
