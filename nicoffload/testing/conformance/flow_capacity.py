"""Flow filters: a table is full when it is full, not before, and then says so."""

from __future__ import annotations

from dataclasses import replace

from nicoffload.compiler import Refusal
from nicoffload.driver import Placement, RuleRef, TableState
from nicoffload.errors import (
    ConflictError,
    InvalidRequestError,
    NicOffloadError,
    NotSupportedError,
    ResourceExhaustedError,
)
from nicoffload.model import FlowRule
from nicoffload.testing.conformance.behaviour import behaviour, tables
from nicoffload.testing.conformance.bench import Bench, place_of

_MORE = 4
"""Rules that are asked for beyond a full table."""


def _fill(bench: Bench, state: TableState) -> tuple[list[Placement], list[tuple[FlowRule, Refusal]]]:
    """Return places for as many rules as the compiler puts into a table, and those that it then refuses for room."""
    if state.rows is None:
        bench.not_shown("nobody knows how many rows the table has")
    room = (state.rows - state.in_use) // state.table.rows_per_rule
    if room > bench.under_test.most_rows:
        bench.not_shown(
            f"the table has room for {room} rules, more than the {bench.under_test.most_rows} that are filled"
        )
    compiler = bench.compiler(state)
    placed: list[Placement] = []
    refused: list[tuple[FlowRule, Refusal]] = []
    for kind in bench.kinds(state):
        wanted = min(kind.size, room - len(placed) + _MORE)
        if wanted <= 0 or len(refused) >= _MORE:
            break
        for answer in compiler.place_many([kind.rule(number) for number in range(wanted)]):
            if isinstance(answer, Placement):
                placed.append(answer)
            elif {reason.code for reason in answer.reasons} <= {"table.full", "table.limit"}:
                refused.append((answer.rule, answer))
    return placed, refused


@behaviour(
    "FL-30", "A table holds exactly as many rules as it has rows, and then says that it is full", each=tables
)
def full_table(bench: Bench) -> None:
    """The table is filled in bulk, by the compiler's account of its rows and of narrower limits within it: every rule
    is taken. Further rules are answered with `ResourceExhaustedError` and leave nothing; a location behind the last is
    refused. A hash table may refuse earlier, with the same error.
    """
    state = bench.table()
    placed, refused = _fill(bench, state)
    before = len(bench.installed())
    outcomes = bench.create(placed)
    failed = [outcome for outcome in outcomes if not isinstance(outcome, RuleRef)]
    if state.table.hash is None:
        bench.expect(
            not failed, f"rule {len(outcomes) - len(failed)} of {len(placed)} was refused: {failed[:1]}"
        )
    for error in failed:
        bench.refusal(error, ResourceExhaustedError, "a rule for which the hash table found no row")
    bench.same(
        len(bench.installed()) - before, len(placed) - len(failed), "rules in the table after it was filled"
    )
    if not refused or failed:
        return  # no limit was reached, or a hash found no row: what fits beside its rules nobody can say
    for rule, answer in refused[:_MORE]:
        _one_too_many(bench, state, placed, rule, answer)
    bench.same(
        len(bench.installed()) - before, len(placed) - len(failed), "rules after more were asked for than fit"
    )


def _one_too_many(
    bench: Bench, state: TableState, placed: list[Placement], rule: FlowRule, answer: Refusal
) -> None:
    full = all(reason.code == "table.full" for reason in answer.reasons)
    flow_type = next(p.flow_type for p in placed if p.rule.match.shape == rule.match.shape)
    if state.table.picker == "caller":
        used = {each.ref.slot for each in bench.installed()}
        slot = state.rows if full else next(at for at in range((state.rows or 0) + 1) if at not in used)
        kinds: tuple[type[NicOffloadError], ...] = (
            ResourceExhaustedError,
            InvalidRequestError,
            NotSupportedError,
            ConflictError,
        )
    else:
        slot = None
        kinds = (ResourceExhaustedError,)
    (outcome,) = bench.create([Placement(rule=rule, table=bench.part, flow_type=flow_type, slot=slot)])
    error = bench.refusal(outcome, kinds, "a rule more than the table holds")
    if isinstance(error, ResourceExhaustedError) and error.limit is not None and full:
        bench.same(error.limit, state.rows, "the limit that the error names")


@behaviour("FL-31", "A row that was freed in a full table takes a rule again", each=tables)
def full_table_again(bench: Bench) -> None:
    """The table is filled, one rule is removed, and another takes its place; the table is then as full as before."""
    if bench.facts().hash is not None:
        bench.not_applicable("a hash table may find no row for another rule although one is free")
    state = bench.table()
    placed, refused = _fill(bench, state)
    if len(placed) < 2:
        bench.not_shown("the table holds fewer than two rules")
    refs = bench.install(placed)
    victim = len(refs) // 2
    (answer,) = bench.filters.destroy_many([refs[victim]])
    bench.expect(answer is None, f"a rule of a full table can't be removed: {answer!r}")
    gone = placed[victim]
    same = [rule for rule, _ in refused if rule.match.shape == gone.rule.match.shape]
    bench.install([gone._replace(rule=replace(same[0]) if same else replace(gone.rule))])
    bench.same(
        len({place_of(each.ref) for each in bench.installed()}), len(placed), "rules in the full table"
    )


@behaviour("FL-32", "Rows in use are counted as rules come and go", each=tables)
def rows_in_use(bench: Bench) -> None:
    """`TableState.in_use` grows by the rows of a rule with each one that is installed, and falls with each removed."""
    state = bench.table()
    placements = bench.some(state, 3, at_least=2)
    refs = []
    for number, placement in enumerate(placements, 1):
        refs += bench.install([placement])
        grown = bench.state(bench.part).in_use - state.in_use
        bench.same(grown, number * state.table.rows_per_rule, f"rows taken by {number} rules")
    bench.filters.destroy_many(refs)
    bench.same(bench.state(bench.part).in_use, state.in_use, "rows in use after all rules were removed")
