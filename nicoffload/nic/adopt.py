"""What opening a NIC does about what an earlier process left: finish or undo what was cut off, and find our rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nicoffload.driver.contract import Driver, InstalledRule
from nicoffload.errors import JournalError, NicOffloadError
from nicoffload.model.rule import FlowRule
from nicoffload.nic.blocks import RuleRecord
from nicoffload.nic.flow_book import FlowBook
from nicoffload.nic.journal import Journal, Unfinished
from nicoffload.nic.restore import Trace, is_done, located, remove_added, restore_rules
from nicoffload.nic.retry import Retry
from nicoffload.nic.settings import steps_done, undo_step
from nicoffload.nic.transaction import Undone
from nicoffload.nic.values import Owned, Recovery
from nicoffload.nic.verify import Reading, same_rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Which rules in the NIC are ours, and what does not fit the records.

    Args:
        owned: Ours.
        adopted: Those of them that no record knew.
        missing: Recorded, and not in the NIC.
        changed: In the place of a recorded rule, with other content.
        unaccounted: Neither cookie nor record.
        problems: Records that can't be read.
    """

    owned: tuple[Owned, ...] = ()
    adopted: tuple[InstalledRule, ...] = ()
    missing: tuple[FlowRule, ...] = ()
    changed: tuple[InstalledRule, ...] = ()
    unaccounted: tuple[InstalledRule, ...] = ()
    problems: tuple[str, ...] = ()


def recover(driver: Driver, journal: Journal, book: FlowBook | None, retry: Retry) -> Recovery:
    """Bring NIC and journal back to one state, the old or the new one, and find our rules. The lock is held.

    Args:
        driver: The NIC.
        journal: Its records.
        book: Takes the rules that are ours; None where the NIC has no flow filters.
        retry: How often to ask a busy NIC.
    """
    report = Recovery()
    for change in journal.unfinished():
        report = _settle(driver, journal, book, retry, change, report)
    if book is None:
        return report
    found = find_ours(journal.rules(), Reading(book.filters.dump()))
    damage = journal.damage()
    book.reset(found.owned)
    _record(journal, found.owned, anew=bool(damage))
    return replace(
        report,
        adopted=found.adopted,
        missing=found.missing,
        changed=found.changed,
        unaccounted=found.unaccounted,
        problems=(*report.problems, *damage, *found.problems),
    )


def find_ours(records: Sequence[RuleRecord], reading: Reading) -> Found:
    """Tell which of the rules that were read are ours.

    A rule with a cookie is ours, recorded or not. One without is ours where it was recorded and has not changed.
    """
    owned: list[Owned] = []
    missing: list[FlowRule] = []
    changed: list[InstalledRule] = []
    problems: list[str] = []
    claimed: set[int] = set()
    for record in records:
        found = reading.at(record.ref)
        try:
            rule = _recorded(record, found)
        except JournalError as cause:
            problems.append(str(cause))
            continue
        if found is None:
            missing.append(rule)
            continue
        same = same_rule(rule, found.rule)
        if not same:
            changed.append(found)
        if same or found.ref.rule_id is not None:
            claimed.add(id(found))
            owned.append(
                Owned(rule if same else _ours(found, record), replace(found.ref, rule_id=record.rule_id))
            )
    adopted = [each for each in reading.rules if each.ref.rule_id is not None and id(each) not in claimed]
    owned += [Owned(_renamed(each), each.ref) for each in adopted]
    rest = [each for each in reading.rules if each.ref.rule_id is None and id(each) not in claimed]
    return Found(
        owned=tuple(owned),
        adopted=tuple(adopted),
        missing=tuple(missing),
        changed=tuple(changed),
        unaccounted=tuple(rest),
        problems=tuple(problems),
    )


def _recorded(record: RuleRecord, found: InstalledRule | None) -> FlowRule:
    """Return the rule of a record; one that is in the NIC as recorded need not be made: there can be 100,000."""
    body = record.body
    if found is None or isinstance(body, FlowRule) or not body.is_of(found.rule):
        return record.rule
    return found.rule if found.rule.rule_id == record.rule_id else _ours(found, record)


def _ours(found: InstalledRule, record: RuleRecord) -> FlowRule:
    return replace(found.rule, rule_id=record.rule_id)


def _renamed(found: InstalledRule) -> FlowRule:
    cookie = found.ref.rule_id
    assert cookie is not None
    return found.rule if found.rule.rule_id == cookie else replace(found.rule, rule_id=cookie)


def _record(journal: Journal, owned: Sequence[Owned], *, anew: bool) -> None:
    """Write down which rules are ours, where the journal says otherwise or part of it can't be read."""
    known = {record.rule_id: (record.table, record.slot) for record in journal.rules()}
    if anew or known != {each.rule_id: (each.ref.table, each.ref.slot) for each in owned}:
        journal.replace_rules(
            [RuleRecord(each.rule_id, each.ref.table, each.ref.slot, each.rule) for each in owned]
        )


def _settle(
    driver: Driver,
    journal: Journal,
    book: FlowBook | None,
    retry: Retry,
    change: Unfinished,
    report: Recovery,
) -> Recovery:
    """Finish a change of which only the record is missing, and take back any other."""
    try:
        if book is not None:
            book.reset(find_ours(journal.rules(), Reading(book.filters.dump())).owned)
        if not change.failed and steps_done(driver, change.steps) and _rules_done(journal, book, change):
            return replace(report, completed=(*report.completed, change.title))
        return _undo(driver, journal, book, retry, change, report)
    except NicOffloadError as cause:
        return replace(report, problems=(*report.problems, f"{change.title}: {cause}"))


def _rules_done(journal: Journal, book: FlowBook | None, change: Unfinished) -> bool:
    if book is None:
        done, moved = not change.rules, []
    else:
        ours = {(each.ref.table, each.ref.slot) for each in book.owned.values() if each.ref.slot is not None}
        trace = Trace(Reading(book.filters.dump()), ours)
        done, moved = is_done(change.rules, trace), list(located(change.rules, trace))
    if done:
        journal.finish(change.number, moved)
    return done


def _undo(
    driver: Driver,
    journal: Journal,
    book: FlowBook | None,
    retry: Retry,
    change: Unfinished,
    report: Recovery,
) -> Recovery:
    residue: list[str] = []
    stuck: list[str] = []
    if book is not None and change.steps:
        # As a change that failed is undone: rules that came hold up the mode, rules that went need the old VFs.
        remove_added(book, change.rules, retry)
    for step in reversed(change.steps):
        problem = undo_step(driver, step, retry)
        if problem:
            residue.append(problem)
            stuck.append(step.target)
    undone = restore_rules(book, change.rules, retry) if book is not None else Undone()
    residue += undone.residue
    journal.abort(change.number, undone.moved, undone.stuck_rules, stuck)
    return replace(
        report,
        undone=(*report.undone, change.title),
        problems=(*report.problems, *(f"{change.title}: {text}" for text in residue)),
    )
