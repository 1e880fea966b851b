"""Flow filters: rules go in as asked for, are reported as they are, and come out."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid

from nicoffload.driver import Placement, RuleRef
from nicoffload.errors import NotFoundError, NotSupportedError
from nicoffload.nic.verify import same_rule
from nicoffload.testing.conformance.behaviour import behaviour, tables, with_tables, without_tables
from nicoffload.testing.conformance.bench import Bench, place_of

REPEATS = 5
"""How often what is repeatable is repeated."""

BULK = 500
"""Rules of a bulk call, where the table has room for so many."""


@behaviour("FL-01", "Every table of the profile is told of, with what is known of it", each=with_tables)
def tables_are_those_of_the_profile(bench: Bench) -> None:
    """`tables()` gives each table of the profile once. A table knows how many rows are in use, at most all of them,
    and a table that takes no rules says why. Asking changes nothing.
    """
    states = bench.filters.tables()
    names = [state.table.name for state in states]
    bench.same(
        sorted(names), sorted(table.name for table in bench.profile.tables), "tables() and the profile differ"
    )
    for state in states:
        name = state.table.name
        bench.expect(state.in_use >= 0, f"table {name} has {state.in_use} rows in use")
        bench.expect(
            state.rows is None or state.in_use <= state.rows,
            f"table {name} has more rows in use than it has",
            expected=state.rows,
            found=state.in_use,
        )
        bench.expect(
            all(reason.message for reason in state.blocked), f"table {name} is blocked and does not say why"
        )
        if state.table.rows is not None and state.rows is not None and bench.under_test.ground is None:
            bench.expect(state.rows > 0, f"table {name} has {state.rows} rows")
    bench.same(
        [(state.table.name, state.in_use) for state in bench.filters.tables()],
        [(state.table.name, state.in_use) for state in states],
        "asking for the tables changed them",
    )


@behaviour("FL-02", "Every kind of rule that the compiler places is taken", each=tables)
def every_kind_is_taken(bench: Bench) -> None:
    """For each flow type and each combination of fields that the profile lets into the table, one rule is installed
    and removed again, one after the other.
    """
    state = bench.table()
    for kind in bench.kinds(state):
        (placement,) = bench.places([kind.rule(0)], state)
        (outcome,) = bench.create([placement])
        bench.expect(
            isinstance(outcome, RuleRef), f"{kind}: the compiler places it, the driver says {outcome!r}"
        )
        assert isinstance(outcome, RuleRef)
        (answer,) = bench.filters.destroy_many([outcome])
        bench.expect(answer is None, f"{kind}: it can't be removed: {answer!r}")


@behaviour("FL-03", "What is read back is what was installed", each=tables)
def dump_equals_what_was_installed(bench: Bench) -> None:
    """One rule of each kind is installed, and `dump()` reports its fields, masks, values and actions unchanged: no
    field is lost, no mask is widened or narrowed, and nothing else is there.
    """
    state = bench.table()
    for kind in bench.kinds(state):
        before = len(bench.installed())
        (placement,) = bench.places([kind.rule(3 % kind.size)], state)
        (ref,) = bench.install([placement])
        found = [each for each in bench.installed() if place_of(each.ref) == place_of(ref)]
        bench.expect(len(found) == 1, f"{kind}: the rule is installed and dump() shows it {len(found)} times")
        asked = placement.rule
        bench.expect(
            same_rule(asked, found[0].rule), f"{kind}: read back differs", expected=asked, found=found[0].rule
        )
        bench.same(
            len(bench.installed()), before + 1, f"{kind}: one rule was added, and the table grew otherwise"
        )
        bench.filters.destroy_many([ref])


@behaviour("FL-04", "A rule is found again where the driver says that it is", each=tables)
def refs_are_of_the_tables_form(bench: Bench) -> None:
    """Where the caller picks the location, the rule is in that location; where the driver picks it, the driver tells
    one that no other rule has; where rules have cookies, the rule has no location and `dump()` knows its id.
    """
    state = bench.table()
    placements = bench.some(state, 2)
    refs = bench.install(placements)
    picker = state.table.picker
    for placement, ref in zip(placements, refs, strict=True):
        bench.same(ref.rule_id, placement.rule.rule_id, "the answer names another rule")
        bench.same(ref.table, state.table.name, "the answer names another table")
        if picker == "caller":
            bench.same(ref.slot, placement.slot, "the rule is not in the location that was asked for")
        elif picker == "driver":
            bench.expect(ref.slot is not None, "the driver picks locations, and tells none")
        else:
            bench.expect(ref.slot is None, "rules of this table have cookies, and the answer has a location")
    places = [place_of(ref) for ref in refs]
    bench.expect(len(set(places)) == len(places), f"two rules are said to be in one place: {places}")
    dumped = {place_of(each.ref) for each in bench.installed()}
    bench.expect(
        dumped >= set(places),
        "dump() finds a rule elsewhere",
        expected=places,
        found=sorted(map(str, dumped)),
    )


@behaviour("FL-05", "A rule that is removed is gone, and its row is free", each=tables)
def removal_frees_the_row(bench: Bench) -> None:
    """Some rules are installed and the second one is removed: the others stay, its rows are free, and the same rule can
    be installed again.
    """
    state = bench.table()
    placements = bench.some(state, 3, at_least=2)
    used = bench.state(bench.part).in_use
    refs = bench.install(placements)
    (answer,) = bench.filters.destroy_many([refs[1]])
    bench.expect(answer is None, f"the rule can't be removed: {answer!r}")
    left = {place_of(each.ref) for each in bench.installed()}
    bench.expect(place_of(refs[1]) not in left, "the rule that was removed is still there")
    others = {place_of(ref) for ref in refs if ref is not refs[1]}
    bench.expect(others <= left, "removing a rule took another one with it")
    bench.same(
        bench.state(bench.part).in_use - used,
        len(others) * state.table.rows_per_rule,
        f"rows in use after one of {len(refs)} rules is gone",
    )
    bench.install([placements[1]])


@behaviour(
    "FL-06", "Removing what is not there is answered with NotFoundError, as often as one asks", each=tables
)
def removing_twice_is_not_found(bench: Bench) -> None:
    """A rule is removed, and removed again: each further answer is `NotFoundError`, and another rule is untouched."""
    state = bench.table()
    first, second = bench.install(bench.some(state, 2))
    bench.filters.destroy_many([first])
    for _ in range(REPEATS):
        (answer,) = bench.filters.destroy_many([first])
        bench.refusal(answer, NotFoundError, "removing a rule that is gone")
    bench.expect(
        place_of(second) in {place_of(each.ref) for each in bench.installed()},
        "removing a rule that is gone took another one",
    )


@behaviour("FL-07", "A removal that fails does not stop the others of its call", each=tables)
def removal_goes_on_after_a_failure(bench: Bench) -> None:
    """One call removes some rules, of which the first is gone already: its answer is `NotFoundError`, those of the
    others None, in the order asked for, and all are gone.
    """
    state = bench.table()
    refs = bench.install(bench.some(state, 3, at_least=2))
    bench.filters.destroy_many([refs[0]])
    answers = list(bench.filters.destroy_many(refs))
    bench.same(len(answers), len(refs), "answers of a call that removes rules")
    bench.refusal(answers[0], NotFoundError, "removing a rule that is gone")
    bench.expect(not any(answers[1:]), f"the others were not removed: {answers}")
    left = {place_of(each.ref) for each in bench.installed()}
    bench.expect(not left & {place_of(ref) for ref in refs}, "rules that were said to be removed are there")


@behaviour("FL-08", "Reading some rules gives these, and leaves out what is gone", each=tables)
def dump_of_some(bench: Bench) -> None:
    """`dump(refs)` returns exactly those of the rules named that are there, with the ids by which they were named."""
    state = bench.table()
    first, second, *more = bench.install(bench.some(state, 3, at_least=2))
    found = bench.filters.dump([second])
    bench.same([place_of(each.ref) for each in found], [place_of(second)], "dump() of one rule")
    bench.same(
        [each.rule.rule_id for each in found], [second.rule_id], "the id under which a rule was asked for"
    )
    bench.filters.destroy_many([second])
    found = bench.filters.dump([first, second])
    bench.same(
        [place_of(each.ref) for each in found], [place_of(first)], "dump() of a rule there and one gone"
    )
    bench.same(list(bench.filters.dump([])), [], "dump() of no rules")
    left = {place_of(each.ref) for each in bench.installed()}
    bench.expect({place_of(ref) for ref in (first, *more)} <= left, "reading some rules lost another")


@behaviour("FL-09", "Reading changes nothing", each=tables)
def reading_changes_nothing(bench: Bench) -> None:
    """Tables, rules, queues, counters and capabilities are read over and over: what is installed stays as it is."""
    state = bench.table()
    refs = bench.install(bench.some(state, 2))
    before = sorted(str(place_of(each.ref)) for each in bench.installed())
    for _ in range(REPEATS):
        bench.filters.tables()
        bench.filters.queues()
        bench.filters.dump()
        bench.filters.read_counters(refs)
        bench.driver.capabilities()
    bench.same(
        sorted(str(place_of(each.ref)) for each in bench.installed()), before, "reading changed the rules"
    )


@behaviour("FL-10", "A call for no rules does nothing and answers nothing", each=with_tables)
def empty_calls(bench: Bench) -> None:
    """Every bulk call with an empty list answers an empty list."""
    bench.same(list(bench.filters.create_many([])), [], "create_many of nothing")
    bench.same(list(bench.filters.destroy_many([])), [], "destroy_many of nothing")
    bench.same(len(bench.filters.read_counters([]).valid), 0, "read_counters of nothing")


@behaviour("FL-11", "A bulk call does what as many single calls do", each=tables)
def bulk_equals_single(bench: Bench) -> None:
    """Hundreds of rules (as many as the table holds) go in by one call and come out by one call. Each answer is that
    of its rule, and `dump()` shows the same rules as asked for.
    """
    state = bench.table()
    kind = bench.kind(state, 2)
    count = min(BULK, kind.size, (state.rows or BULK) // state.table.rows_per_rule)
    if state.table.hash is not None:
        count = min(count, (state.rows or BULK) // 8)  # a hash table refuses rules before it is full
    answers = bench.compiler(state).place_many([kind.rule(number) for number in range(max(count, 1))])
    placements = [answer for answer in answers if isinstance(answer, Placement)]
    refs = bench.install(placements)
    bench.same(
        [ref.rule_id for ref in refs],
        [placement.rule.rule_id for placement in placements],
        "answers are not in the order of the rules",
    )
    dumped = {place_of(each.ref): each.rule for each in bench.installed()}
    for placement, ref in zip(placements, refs, strict=True):
        found = dumped.get(place_of(ref))
        bench.expect(
            found is not None and same_rule(placement.rule, found),
            "a rule of a bulk call reads back otherwise",
            expected=placement.rule,
            found=found,
        )
    failed = [answer for answer in bench.filters.destroy_many(refs) if answer is not None]
    bench.expect(not failed, f"{len(failed)} rules of a bulk call can't be removed: {failed[:1]}")
    bench.expect(
        not {place_of(ref) for ref in refs} & {place_of(each.ref) for each in bench.installed()},
        "rules are left after they were removed in bulk",
    )


@behaviour(
    "FL-12",
    "A priority is kept where the table has priorities, and not invented where it has none",
    each=tables,
)
def priorities(bench: Bench) -> None:
    """Where the profile says that priorities are honoured, two rules read back with theirs; elsewhere a rule without
    priority reads back without one.
    """
    state = bench.table()
    if state.table.priority != "honoured":
        (ref,) = bench.install(bench.some(state, 1))
        (found,) = bench.filters.dump([ref])
        bench.expect(found.rule.priority is None, f"a priority of {found.rule.priority} came out of nowhere")
        return
    rules = [dataclasses.replace(p.rule, priority=7 + at) for at, p in enumerate(bench.some(state, 2))]
    refs = bench.install(bench.places(rules, state))
    for rule, ref in zip(rules, refs, strict=True):
        (found,) = bench.filters.dump([ref])
        bench.same(found.rule.priority, rule.priority, "the priority of a rule")


@behaviour("FL-13", "A rule is only where it was put", each=tables)
def tables_do_not_mix(bench: Bench) -> None:
    """A rule that goes into one table shows in no other, and a table that shares no rows with it uses no more."""
    state = bench.table()
    others = {
        each.table.name: each.in_use for each in bench.filters.tables() if each.table.bank != state.table.bank
    }
    before = {each.table.name: len(bench.installed(each.table.name)) for each in bench.filters.tables()}
    bench.install(bench.some(state, 1))
    for each in bench.filters.tables():
        name = each.table.name
        grown = len(bench.installed(name)) - before[name]
        bench.same(grown, 1 if name == bench.part else 0, f"rules added to table {name}")
        if name in others:
            bench.same(
                each.in_use, others[name], f"rows of table {name}, which shares none with {bench.part}"
            )


@behaviour(
    "FL-14", "A table that can't be enabled says so, and one that can takes rules afterwards", each=tables
)
def enabling(bench: Bench) -> None:
    """`enable_table` on a table that takes rules does nothing, as often as one asks, or answers `NotSupportedError`
    where there is no switch. For a table that does not exist it is an error.
    """
    state = bench.table()
    refs = bench.install(bench.some(state, 1))
    for _ in range(REPEATS):
        with contextlib.suppress(NotSupportedError):  # it has no switch
            bench.filters.enable_table(bench.part)
    bench.expect(not bench.state(bench.part).blocked, "enabling a table that is on blocked it")
    bench.expect(
        {place_of(refs[0])} <= {place_of(each.ref) for each in bench.installed()},
        "enabling a table that is on lost its rules",
    )


@behaviour("FL-15", "Rules of others stay as they are", each=tables)
def foreign_rules_stay(bench: Bench) -> None:
    """A rule that another program put there is reported by `dump()`, and still is after ours were added and removed.
    In a table with locations any rule is another's to who does not remove it.
    """
    state = bench.table()
    if state.table.picker == "none":
        known = {place_of(each.ref) for each in bench.installed()}
        placements = bench.some(state, 3, at_least=2)
        bench.foreign(placements[0])
        theirs = [each for each in bench.installed() if each.ref.rule_id is None]
        bench.expect(theirs, "dump() does not show another's rule", found=known)
        placements = placements[1:]
    else:
        placements = bench.some(state, 3, at_least=2)
        (ref,) = bench.install(placements[:1])
        theirs = list(bench.filters.dump([ref]))
        placements = placements[1:]
    before = [(each.ref.slot, each.rule.match) for each in theirs]
    refs = bench.install(placements)
    bench.filters.destroy_many(refs)
    bench.filters.destroy_many([RuleRef(rule_id=uuid.uuid4(), table=bench.part, slot=None)])
    found = [(each.ref.slot, each.rule.match) for each in bench.installed()]
    bench.expect(
        all(each in found for each in before), "another's rule was lost", expected=before, found=found
    )


@behaviour("FL-16", "A NIC without filter tables has no flow filters, and says so", each=without_tables)
def no_tables(bench: Bench) -> None:
    """Where the profile has no tables, `flow_filters` is None or tells of no table, so that nothing is accepted."""
    filters = bench.driver.flow_filters
    bench.expect(
        filters is None or not filters.tables(), "the profile has no tables, and the driver tells of some"
    )
