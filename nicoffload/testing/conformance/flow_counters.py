"""Flow filters: counters of rules say what they know, and nothing else."""

from __future__ import annotations

import uuid

from nicoffload.driver import RuleRef
from nicoffload.model import FlowCounters
from nicoffload.profiles.types import NicProfile
from nicoffload.testing.conformance.behaviour import behaviour, with_tables
from nicoffload.testing.conformance.bench import Bench
from nicoffload.testing.conformance.packets import WIRE_BYTES, packet_for

PACKETS = 7


def counting(profile: NicProfile) -> tuple[str, ...]:
    """Tried on each table whose rules have counters."""
    return tuple(table.name for table in profile.tables if table.counters is not None)


def not_counting(profile: NicProfile) -> tuple[str, ...]:
    """Tried on each table whose rules have none."""
    return tuple(table.name for table in profile.tables if table.counters is None)


def _read(bench: Bench, refs: list[RuleRef]) -> FlowCounters:
    found = bench.filters.read_counters(refs)
    for name in ("valid", "packets", "bytes", "epoch", "last_used_ns", "facts", "rule_ids"):
        bench.same(len(getattr(found, name)), len(refs), f"rows of column {name}")
    return found


@behaviour(
    "FL-40",
    "A rule without a counter has none: not valid, never a zero that looks like one",
    each=not_counting,
)
def absent_is_not_zero(bench: Bench) -> None:
    """Where the profile has no counters for a table, every row of `read_counters` is not valid, has no facts, and its
    value is None.
    """
    state = bench.table()
    refs = bench.install(bench.some(state, 2))
    found = _read(bench, refs)
    bench.expect(not any(found.valid), "the profile has no counters here, and rows are valid")
    for index in range(len(refs)):
        row = found.row(index)
        bench.expect(
            row.packets is None and row.bytes is None, f"an absent counter reads {row.packets} packets"
        )
        bench.expect(row.facts is None, "an absent counter says how it counts")


@behaviour("FL-41", "A rule with a counter says how it counts, and starts at zero", each=counting)
def counters_have_facts(bench: Bench) -> None:
    """Where the profile has counters, each row is valid, with source, byte basis and width as the profile says, and a
    new rule has counted nothing.
    """
    state = bench.table()
    refs = bench.install(bench.some(state, 2))
    found = _read(bench, refs)
    facts = state.table.counters
    assert facts is not None
    for index in range(len(refs)):
        bench.expect(found.valid[index], "the profile has counters here, and a row is not valid")
        row = found.row(index)
        bench.expect(row.facts is not None and row.facts.source, "a counter does not say what counts")
        assert row.facts is not None
        bench.same(row.facts.byte_basis.value, facts.byte_basis, "which bytes are counted")
        if facts.bits is not None:
            bench.same(row.facts.packet_bits, facts.bits, "the width of the counter")
        if bench.can_send():
            bench.same(row.packets, 0, "packets of a new rule to which nothing was sent")


@behaviour("FL-42", "A rule that is gone has no counters", each=with_tables)
def gone_has_no_counters(bench: Bench) -> None:
    """Rows of a rule that was removed, and of one that never was, are not valid; the others are in their places."""
    name = next((s.table.name for s in bench.filters.tables() if not s.blocked), "")
    if not name:
        bench.not_shown("no table takes rules")
    state = bench.table(name)
    first, second = bench.install(bench.some(state, 2))
    bench.filters.destroy_many([first])
    never = RuleRef(rule_id=uuid.uuid4(), table=name, slot=None if second.slot is None else second.slot + 100)
    found = _read(bench, [first, second, never])
    bench.expect(not found.valid[0], "a rule that is gone has a counter")
    bench.expect(not found.valid[2], "a rule that never was has a counter")
    bench.same(
        bool(found.valid[1]), state.table.counters is not None, "whether the rule that is there counts"
    )
    bench.same(list(found.rule_ids[1:2]), [second.rule_id], "rule of the second row")


@behaviour("FL-43", "Counters equal the packets that were sent", each=counting)
def counters_equal_packets(bench: Bench) -> None:
    """Packets are sent that one rule matches and another does not: the one counts each of them once, with their bytes
    where the basis is L2, and the other none.
    """
    state = bench.table()
    if not bench.can_send():
        bench.not_shown("nothing sends packets into this NIC (NicUnderTest.packets)")
    usable = [
        kind
        for kind in bench.kinds(state)
        if kind.size > 1 and not any(name.startswith("tun_") for name in kind.fields)
    ]
    if not usable:
        bench.not_applicable("every rule of this table is about tunnels")
    kind = usable[0]
    refs = bench.install(bench.places([kind.rule(0), kind.rule(1)], state))
    bench.send([packet_for(kind.rule(0))] * PACKETS)
    facts = state.table.counters
    assert facts is not None
    if facts.refresh_s:
        bench.wait(facts.refresh_s)
    found = _read(bench, refs)
    bench.same(int(found.packets[0]), PACKETS, "packets that the rule matches")
    bench.same(int(found.packets[1]), 0, "packets of the other rule")
    if facts.byte_basis == "l2":
        bench.same(int(found.bytes[0]), PACKETS * WIRE_BYTES, "bytes of these packets")
    bench.filters.destroy_many(refs[1:])
    again = _read(bench, refs[:1])
    bench.same(int(again.packets[0]), PACKETS, "packets after another rule was removed")


@behaviour("FL-44", "A counter never runs backwards within an epoch", each=counting)
def counters_are_monotonic(bench: Bench) -> None:
    """Counters are read before and after other rules come and go: they do not fall unless the epoch changes. A rule
    that is installed anew starts at zero, or in another epoch.
    """
    state = bench.table()
    kinds = [k for k in bench.kinds(state) if k.size > 2 and not any(n.startswith("tun_") for n in k.fields)]
    if not kinds:
        bench.not_shown("the table does not hold three different rules of one kind")
    kind = kinds[0]
    placements = bench.places([kind.rule(number) for number in range(3)], state)
    (ref,) = bench.install(placements[:1])
    last, epoch = -1, None
    for placement in placements[1:]:
        if bench.can_send():
            bench.send([packet_for(kind.rule(0))] * 2)
        row = _read(bench, [ref]).row(0)
        bench.expect(row.packets is not None, "the rule has no counter")
        assert row.packets is not None
        if row.epoch == epoch:
            bench.expect(row.packets >= last, "a counter fell", expected=f">= {last}", found=row.packets)
        last, epoch = row.packets, row.epoch
        other = bench.install([placement])
        bench.filters.destroy_many(other)
    bench.filters.destroy_many([ref])
    (ref,) = bench.install(placements[:1])
    row = _read(bench, [ref]).row(0)
    bench.expect(
        row.packets == 0 or row.epoch != epoch, f"a rule that was installed anew starts at {row.packets}"
    )
