"""Flow filters: what the NIC can't hold is refused, with the reason, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nicoffload.compiler import Refusal
from nicoffload.compiler.result import OTHER_TABLE
from nicoffload.driver import Placement, RuleRef, TableState
from nicoffload.errors import (
    ConflictError,
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    ResourceExhaustedError,
)
from nicoffload.model import (
    FIELDS,
    Action,
    Drop,
    FlowRule,
    Masked,
    Match,
    ModifyVlan,
    PopVlan,
    PushVlan,
    ToPf,
    ToQueue,
    ToUplink,
    ToVf,
)
from nicoffload.nic.verify import same_rule
from nicoffload.testing.conformance.behaviour import behaviour, tables
from nicoffload.testing.conformance.bench import Bench, place_of
from nicoffload.testing.conformance.rules import Kind

_CAN_NOT = (NotSupportedError, InvalidRequestError)
_NO_TARGET = (NotFoundError, NotSupportedError, InvalidRequestError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A rule that the compiler refuses, put to the driver all the same.

    Args:
        what: What is wrong with it, in words.
        placement: Where it would go.
        refusal: What the compiler says.
    """

    what: str
    placement: Placement
    refusal: Refusal

    @property
    def must_be_refused(self) -> bool:
        """Whether the profile says that the driver refuses it, rather than take it and do another thing."""
        return any(reason.errno for reason in self.refusal.reasons if reason.code != OTHER_TABLE)


def _attempts(
    bench: Bench, state: TableState, rules: Iterator[tuple[str, FlowRule]], kind: Kind
) -> list[Attempt]:
    """Return those of some rules that the compiler refuses, each with a free place."""
    compiler = bench.compiler(state)
    taken = {each.ref.slot for each in bench.installed()}
    slot = None
    if state.table.picker == "caller":
        slot = next(at for at in range(len(taken) + 1) if at not in taken)
    found = []
    for what, rule in rules:
        answer = compiler.lower(rule)
        if isinstance(answer, Refusal):
            place = Placement(rule=rule, table=state.table.name, flow_type=kind.flow_type.name, slot=slot)
            found.append(Attempt(what=f"{kind}: {what}", placement=place, refusal=answer))
    return found


def _all_refused(bench: Bench, attempts: list[Attempt], kinds: tuple[type[NicOffloadError], ...]) -> None:
    """Put rules to the driver one by one: each is refused and leaves no trace, or is not said to be as asked."""
    if not attempts:
        bench.not_applicable("the table takes every such rule")
    before = sorted(str(place_of(each.ref)) for each in bench.installed())
    for attempt in attempts:
        (outcome,) = bench.create([attempt.placement])
        if isinstance(outcome, RuleRef):
            _is_honest(bench, attempt, outcome)
            bench.filters.destroy_many([outcome])
        else:
            error = bench.refusal(outcome, kinds, attempt.what)
            if isinstance(error, NotSupportedError):
                bench.expect(
                    error.capability.startswith("flow_filters"),
                    f"{attempt.what}: the refusal names capability {error.capability!r}",
                    expected="flow_filters…",
                )
        after = sorted(str(place_of(each.ref)) for each in bench.installed())
        bench.same(after, before, f"{attempt.what}: it was refused, and the table changed")


def _is_honest(bench: Bench, attempt: Attempt, ref: RuleRef) -> None:
    reasons = "; ".join(map(str, attempt.refusal.reasons))
    bench.expect(
        not attempt.must_be_refused,
        f"{attempt.what}: the profile says that it is refused ({reasons}), and the driver takes it",
    )
    for each in bench.filters.dump([ref]):
        bench.expect(
            not same_rule(attempt.placement.rule, each.rule),
            f"{attempt.what}: the hardware does another thing ({reasons}), and it reads back as asked for",
        )


def _some_kinds(bench: Bench, state: TableState) -> list[Kind]:
    """Return one kind a flow type, the one with most fields."""
    best: dict[str, Kind] = {}
    for kind in bench.kinds(state):
        known = best.get(kind.flow_type.name)
        if known is None or len(kind.fields) > len(known.fields):
            best[kind.flow_type.name] = kind
    if not best:
        bench.not_shown(f"no rule was found that the compiler places in table {state.table.name}")
    return list(best.values())


def _changed(rule: FlowRule, what: str, **fields: Masked) -> Iterator[tuple[str, FlowRule]]:
    try:
        yield what, FlowRule(match=rule.match.replace(**fields), actions=rule.actions)
    except InvalidRequestError:
        return  # wrong on any NIC: the model never lets it come this far


@behaviour("FL-20", "A mask that the table can't compare is refused, never widened", each=tables)
def masks(bench: Bench) -> None:
    """Each field of a rule is tried with a mask that lacks its lowest bit, and one of its upper half. Where the
    compiler refuses it, the driver refuses it too, or what it installs does not read back as if it were exact.
    """
    state = bench.table()
    attempts = []
    for kind in _some_kinds(bench, state):
        rule = kind.rule(0)

        def variants(rule: FlowRule = rule, kind: Kind = kind) -> Iterator[tuple[str, FlowRule]]:
            for name, value in rule.match.items():
                if name not in kind.fields or not isinstance(value, Masked):
                    continue
                full = FIELDS[name].full_mask
                for mask in {full & ~1, full ^ (full >> max(FIELDS[name].bits // 2, 1))} - {0, value.mask}:
                    yield from _changed(
                        rule, f"{name} under mask {mask:#x}", **{name: Masked(value.value & mask, mask)}
                    )

        attempts += _attempts(bench, state, variants(), kind)
    _all_refused(bench, attempts, _CAN_NOT)


@behaviour("FL-21", "A field that the table does not compare is refused, never left out", each=tables)
def fields(bench: Bench) -> None:
    """Each field of the model that the flow type lacks is added to a rule that is taken without it."""
    state = bench.table()
    attempts = []
    for kind in _some_kinds(bench, state):
        rule = kind.rule(0)
        present = {name for name, _ in rule.match.items()}
        missing = [name for name in FIELDS if name not in present and name not in kind.flow_type.fields]

        def variants(rule: FlowRule = rule, missing: list[str] = missing) -> Iterator[tuple[str, FlowRule]]:
            for name in missing:
                yield from _changed(rule, f"with {name}", **{name: Masked(1, FIELDS[name].full_mask)})

        attempts += _attempts(bench, state, variants(), kind)
    _all_refused(bench, attempts, _CAN_NOT)


_ACTIONS: tuple[Action, ...] = (Drop(), ToQueue(queue=0), ToPf(), ToUplink(), ToVf(vf=0))


@behaviour("FL-22", "An action that the table does not have is refused", each=tables)
def actions(bench: Bench) -> None:
    """Every way for a packet to end (drop, queue, PF, uplink, VF) and every change of its tags that the table does not
    know is asked for.
    """
    state = bench.table()
    kind = bench.kind(state)
    rule = kind.rule(0)

    def variants() -> Iterator[tuple[str, FlowRule]]:
        for action in _ACTIONS:
            yield f"action {action}", replace(rule, actions=(action,))
        for extra in (PushVlan(vid=5), PopVlan(), ModifyVlan(vid=5)):
            yield f"action {extra}", replace(rule, actions=(extra, *rule.actions))

    _all_refused(bench, _attempts(bench, state, variants(), kind), _NO_TARGET)


@behaviour("FL-23", "A target that does not exist is refused", each=tables)
def targets(bench: Bench) -> None:
    """A rule to the VF behind the last one, and one to the queue behind the last one, where the table has such targets
    and the NIC tells how many there are.
    """
    state = bench.table()
    kind = bench.kind(state)
    vfs = len(bench.vfs.states()) if bench.driver.virtual_functions is not None else 0
    queues = bench.queues()

    def variants() -> Iterator[tuple[str, FlowRule]]:
        if "vf" in state.table.actions:
            yield f"to VF {vfs} of {vfs}", kind.rule(0, ToVf(vf=vfs))
        if "queue" in state.table.actions and queues.pf is not None:
            yield f"to queue {queues.pf} of {queues.pf}", kind.rule(0, ToQueue(queue=queues.pf))

    _all_refused(bench, _attempts(bench, state, variants(), kind), _NO_TARGET)


@behaviour("FL-24", "A value that a field does not take is refused", each=tables)
def values(bench: Bench) -> None:
    """Where the profile limits the values of a field, one just outside is asked for."""
    state = bench.table()
    attempts = []
    for kind in _some_kinds(bench, state):
        rule = kind.rule(0)

        def variants(rule: FlowRule = rule, kind: Kind = kind) -> Iterator[tuple[str, FlowRule]]:
            for name in kind.fields:
                limits = kind.flow_type.fields[name]
                full = FIELDS[name].full_mask
                outside = [limits.min - 1] if limits.min else []
                outside += [limits.max + 1] if limits.max is not None and limits.max < full else []
                if limits.values is not None:
                    outside += [v for v in range(min(full, 256)) if v not in limits.values][:1]
                for value in outside:
                    yield from _changed(rule, f"{name} {value:#x}", **{name: Masked(value, full)})

        attempts += _attempts(bench, state, variants(), kind)
    _all_refused(bench, attempts, _CAN_NOT)


@behaviour(
    "FL-25", "A second set of masks is refused while the first is in use, and taken afterwards", each=tables
)
def second_mask(bench: Bench) -> None:
    """In a table that compares one mask (or one set of fields a flow type) for all its rules, a rule with another set
    of fields is refused while the first is there, which stays, and is taken once that one is gone.
    """
    model = bench.facts().mask_model
    if model not in ("one_mask_per_port", "one_input_set_per_flow_type"):
        bench.not_applicable(f"every rule of this table has its own masks (mask model {model})")
    state = bench.table()
    kinds = list(bench.kinds(state))
    pairs = [
        (one, other)
        for one in kinds
        for other in kinds
        if one.fields != other.fields and one.flow_type.name == other.flow_type.name
    ]
    if not pairs:
        bench.not_applicable("this table takes one set of fields only")
    one, other = pairs[0]
    (first,) = bench.places([one.rule(0)], state)
    (ref,) = bench.install([first])
    _all_refused(
        bench, _attempts(bench, state, iter([("a second mask", other.rule(1 % other.size))]), other), _CAN_NOT
    )
    bench.expect(bench.filters.dump([ref]), "the refusal of a second mask took the first rule away")
    bench.filters.destroy_many([ref])
    bench.install(bench.places([other.rule(1 % other.size)], state))


@behaviour("FL-26", "A second rule with the same match is answered as the profile says", each=tables)
def duplicates(bench: Bench) -> None:
    """The same match is asked for twice, under two ids. Where the profile gives an errno the second is answered with
    `ConflictError` (or what the profile makes of it) and the first stays; where it says ``replace``, one rule is left;
    where it says ``allowed``, both are there.
    """
    answer = bench.facts().duplicate.answer
    if answer == "unknown":
        bench.not_applicable("no source states what becomes of a second rule with the same match")
    state = bench.table()
    kind = bench.kind(state)
    first = bench.places([kind.rule(0)], state)
    refs = bench.install(first)
    before = len(bench.installed())
    twin = kind.rule(0)
    copies = state.table.duplicate.allowed_copies if answer not in ("replace", "allowed") else 1
    slots = [None if first[0].slot is None else first[0].slot + at for at in range(1, copies + 1)]
    again = Placement(rule=twin, table=bench.part, flow_type=first[0].flow_type, slot=slots[-1])
    for slot in slots[:-1]:
        bench.install([again._replace(rule=kind.rule(0), slot=slot)])
    before += copies - 1
    (outcome,) = bench.create([again])
    if answer == "replace":
        bench.expect(
            isinstance(outcome, RuleRef | ConflictError),
            f"the NIC replaces such a rule, and the driver says {outcome!r}",
        )
        bench.same(len(bench.installed()), before, "rules after one took the place of another")
        return
    if answer == "allowed":
        bench.expect(
            isinstance(outcome, RuleRef), f"the NIC takes such a rule, and the driver says {outcome!r}"
        )
        bench.same(len(bench.installed()), before + 1, "rules after a second one with the same match")
        return
    bench.refusal(
        outcome, (ConflictError, InvalidRequestError, NotSupportedError), "a second rule with the same match"
    )
    bench.same(len(bench.installed()), before, "rules after the second one was refused")
    bench.expect(bench.filters.dump(refs), "the refusal of a second rule took the first one away")


@behaviour("FL-27", "A location that is taken is answered as the profile says", each=tables)
def occupied(bench: Bench) -> None:
    """Where the caller picks the location, a second rule is put into a location in use: it replaces the first where the
    profile says so, or is refused, which a driver may do to protect a rule. One rule is in that location afterwards,
    the one that the answer tells of.
    """
    if bench.facts().picker != "caller":
        bench.not_applicable("the caller does not pick locations in this table")
    state = bench.table()
    placements = bench.some(state, 2)
    bench.install(placements[:1])
    (outcome,) = bench.create([placements[1]._replace(slot=placements[0].slot)])
    there = [each for each in bench.installed() if each.ref.slot == placements[0].slot]
    bench.same(len(there), 1, "rules in one location")
    replaced = isinstance(outcome, RuleRef)
    bench.expect(
        not replaced or state.table.occupied == "replace",
        "the NIC refuses a location in use, and the driver says that the rule is there",
    )
    if not replaced:
        bench.refusal(outcome, (ConflictError, InvalidRequestError), "a rule in a location that is taken")
    wanted = placements[1 if replaced else 0].rule
    bench.expect(
        same_rule(wanted, there[0].rule),
        "the location holds another rule",
        expected=wanted,
        found=there[0].rule,
    )


@behaviour(
    "FL-28",
    "Of a call that fails in part, exactly the rules that are said to be there are there",
    each=tables,
)
def partial_failure(bench: Bench) -> None:
    """One call asks for good rules with bad ones between them. Each answer is that of its rule; the good ones are
    installed and read back as asked for, and of the bad ones nothing is there.
    """
    state = bench.table()
    good = bench.some(state, 4, at_least=2)
    kind = bench.kind(state)
    bad = next((each.placement for each in _bad_rules(bench, state, kind) if each.must_be_refused), None)
    if bad is None:
        bench.not_shown("no rule was found that this table refuses by itself")
    used = {placement.slot for placement in good}
    free = None if bad.slot is None else next(slot for slot in range(len(used) + 8) if slot not in used)
    before = len(bench.installed())
    twins = [
        bad._replace(slot=free, rule=FlowRule(match=bad.rule.match, actions=bad.rule.actions))
        for _ in range(2)
    ]
    order = [good[0], twins[0], *good[1:-1], twins[1], good[-1]]
    outcomes = bench.create(order)
    for placement, outcome in zip(order, outcomes, strict=True):
        if placement in good:
            bench.expect(isinstance(outcome, RuleRef), f"a good rule among bad ones was refused: {outcome!r}")
            assert isinstance(outcome, RuleRef)
            bench.same(outcome.rule_id, placement.rule.rule_id, "the answer is that of another rule")
            found = bench.filters.dump([outcome])
            bench.expect(
                len(found) == 1 and same_rule(placement.rule, found[0].rule),
                "a rule that is said to be installed is not there as asked for",
                expected=placement.rule,
                found=found,
            )
        else:
            bench.refusal(
                outcome,
                (NotSupportedError, InvalidRequestError, NotFoundError, ConflictError),
                "the bad rule among good ones",
            )
    bench.same(len(bench.installed()) - before, len(good), "rules after a call that failed in part")


def _bad_rules(bench: Bench, state: TableState, kind: Kind) -> Iterator[Attempt]:
    rule = kind.rule(0)

    def variants() -> Iterator[tuple[str, FlowRule]]:
        for action in _ACTIONS:
            yield "bad", replace(rule, actions=(action,))
        for name in FIELDS:
            if name not in kind.flow_type.fields and name not in {n for n, _ in rule.match.items()}:
                yield from _changed(rule, "bad", **{name: Masked(1, FIELDS[name].full_mask)})

    yield from _attempts(bench, state, variants(), kind)


@behaviour("FL-29", "A rule that compares nothing is answered as the profile says", each=tables)
def empty_rule(bench: Bench) -> None:
    """A rule with an empty match is refused where the compiler refuses it."""
    state = bench.table()
    kind = bench.kind(state)
    rule = FlowRule(match=Match(), actions=(kind.action,))
    attempts = _attempts(bench, state, iter([("an empty match", rule)]), kind)
    _all_refused(bench, attempts, (*_CAN_NOT, ResourceExhaustedError))
