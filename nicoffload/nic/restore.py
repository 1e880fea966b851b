"""Puts rules back as they were before a change, going by what the NIC reports and not by what should have happened."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence

from nicoffload.compiler import Refusal
from nicoffload.driver.contract import InstalledRule, Placement, RuleRef
from nicoffload.model.rule import FlowRule
from nicoffload.nic.blocks import RuleRecord
from nicoffload.nic.flow_book import FlowBook
from nicoffload.nic.journal import RuleIntent
from nicoffload.nic.retry import Retry
from nicoffload.nic.transaction import Undone
from nicoffload.nic.verify import Content, Reading, content_of, same_rule

Place = tuple[str, int]


class Trace:
    """Finds in a reading the rules that a change was about.

    Args:
        reading: Every rule in the NIC.
        taken: Locations that are accounted for otherwise: other rules of ours, and what was there before the change.
    """

    def __init__(self, reading: Reading, taken: Collection[Place]) -> None:
        self._reading = reading
        self._loose: dict[Content, list[InstalledRule]] = {}
        for each in reading.rules:
            ref = each.ref
            if ref.rule_id is None and ref.slot is not None and (ref.table, ref.slot) not in taken:
                self._loose.setdefault(content_of(each.rule), []).append(each)

    def find(self, record: RuleRecord) -> Sequence[InstalledRule]:
        """Return the rules in the NIC that are the recorded one.

        A NIC without cookies tells only content and location; the location is unknown where the driver picks it and
        the process died before it was told, and content alone must do then.
        """
        rule = record.rule
        if cookies := self._reading.with_cookie(record.rule_id):
            return [each for each in cookies if same_rule(rule, each.rule)]
        there = self._reading.at(record.ref)
        if there is not None and same_rule(rule, there.rule):
            return [there]
        return [each for each in self._loose.get(content_of(rule), ()) if same_rule(rule, each.rule)][:1]


def is_done(intents: Iterable[RuleIntent], trace: Trace) -> bool:
    """Tell whether all that a change wanted with rules is in force."""
    for intent in intents:
        there = bool(trace.find(intent.after)) if intent.after is not None else True
        gone = intent.before is None or not trace.find(intent.before)
        if not there or not gone:
            return False
    return True


def located(intents: Iterable[RuleIntent], trace: Trace) -> Iterator[RuleRecord]:
    """Yield the added rules whose location differs from the one intended, where they are."""
    for intent in intents:
        for found in trace.find(intent.after)[:1] if intent.after is not None else ():
            assert intent.after is not None
            if (found.ref.table, found.ref.slot) != (intent.after.table, intent.after.slot):
                yield RuleRecord(intent.rule_id, found.ref.table, found.ref.slot, intent.after.body)


def restore_rules(book: FlowBook, intents: Sequence[RuleIntent], retry: Retry) -> Undone:
    """Remove what a change added and put back what it removed.

    Args:
        book: The rules of ours; of those in `intents`, as they were before the change.
        intents: What the change was to do.
        retry: How often to ask a busy NIC.
    """
    if not intents:
        return Undone()
    taken, trace = remove_added(book, intents, retry)
    lost = [
        intent.before for intent in intents if intent.before is not None and not trace.find(intent.before)
    ]
    moved = _put_back(book, [record.rule for record in lost], retry) if lost else []
    return _settled(book, intents, moved, taken)


def remove_added(
    book: FlowBook, intents: Sequence[RuleIntent], retry: Retry
) -> tuple[Collection[Place], Trace]:
    """Remove what a change added; return the locations that are accounted for otherwise, and what was found before."""
    book.out_of_step()
    taken = _taken(book, intents)
    trace = Trace(Reading(book.filters.dump()), taken)
    doomed = list(_added(intents, trace))
    if doomed:
        retry.bulk(book.filters.destroy_many, doomed, "destroy_many")
    return taken, trace


def _taken(book: FlowBook, intents: Sequence[RuleIntent]) -> frozenset[Place]:
    changing = {intent.rule_id for intent in intents}
    ours = (
        (each.ref.table, each.ref.slot)
        for rule_id, each in book.owned.items()
        if each.ref.slot is not None and rule_id not in changing
    )
    return book.foreign.union(ours)


def _added(intents: Sequence[RuleIntent], trace: Trace) -> Iterator[RuleRef]:
    for intent in intents:
        if intent.after is None:
            continue
        for found in trace.find(intent.after):
            if intent.before is None or not same_rule(intent.before.rule, found.rule):
                yield RuleRef(rule_id=intent.rule_id, table=found.ref.table, slot=found.ref.slot)


def _put_back(book: FlowBook, rules: Sequence[FlowRule], retry: Retry) -> list[RuleRef]:
    compiler = book.fresh_compiler(Reading(book.filters.dump()), without=[rule.rule_id for rule in rules])
    answers = compiler.place_many(rules)
    placements: list[Placement] = [answer for answer in answers if not isinstance(answer, Refusal)]
    outcomes = retry.bulk(book.filters.create_many, placements, "create_many")
    return [outcome for outcome in outcomes if isinstance(outcome, RuleRef)]


def _settled(
    book: FlowBook, intents: Sequence[RuleIntent], put_back: Sequence[RuleRef], taken: Collection[Place]
) -> Undone:
    """Read the NIC once more and tell what is as it was and what is not."""
    where = {ref.rule_id: ref for ref in put_back}
    trace = Trace(Reading(book.filters.dump()), taken)
    moved: list[RuleRecord] = []
    stuck: list[uuid.UUID] = []
    residue: list[str] = []
    for intent in intents:
        extra = _left_over(intent, trace)
        before = intent.before
        ref = where.get(intent.rule_id)
        if before is not None and ref is not None:
            before = RuleRecord(intent.rule_id, ref.table, ref.slot, before.body)
        found = trace.find(before) if before is not None else ()
        if extra is not None:
            slot = "" if extra.slot is None else f" at slot {extra.slot}"
            residue.append(f"rule {intent.rule_id} is still in table {extra.table}{slot}")
            stuck.append(intent.rule_id)
        elif before is not None and not found:
            residue.append(f"rule {intent.rule_id} is no longer in table {before.table}")
            stuck.append(intent.rule_id)
        elif before is not None:
            moved.append(RuleRecord(intent.rule_id, found[0].ref.table, found[0].ref.slot, before.body))
    return Undone(moved=tuple(moved), stuck_rules=tuple(stuck), residue=tuple(residue))


def _left_over(intent: RuleIntent, trace: Trace) -> RuleRef | None:
    if intent.after is None:
        return None
    for found in trace.find(intent.after):
        if intent.before is None or not same_rule(intent.before.rule, found.rule):
            return found.ref
    return None
