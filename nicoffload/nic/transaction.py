"""Journal, apply, verify, undo: what every change of a NIC goes through."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nicoffload.errors import NicOffloadError, RollbackError
from nicoffload.nic.blocks import RuleRecord
from nicoffload.nic.journal import Journal, RuleIntent, StepIntent

Progress = Callable[[int, int, str], None]
"""Called after each part of a change: how many parts are done, of how many, and what was done."""


RuleRecords = tuple[Sequence[RuleRecord], Sequence[RuleRecord]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What became of taking a change back.

    Args:
        moved: Rules that were put back elsewhere than they had been.
        stuck_rules: Rules that could not be put back.
        stuck_steps: Targets of settings that could not be put back.
        residue: What is left behind, in words; empty when all is as before.
        kept: What stays on purpose, in words.
    """

    moved: tuple[RuleRecord, ...] = ()
    stuck_rules: tuple[uuid.UUID, ...] = ()
    stuck_steps: tuple[str, ...] = ()
    residue: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


class Change(ABC):
    """One part of a transaction. It is made with all that undoing takes, before anything is changed."""

    title: str

    def rule_intents(self) -> Sequence[RuleIntent]:
        """Return what it does to rules."""
        return ()

    def rule_records(self) -> RuleRecords:
        """Return the rules that it takes away or replaces, and those that it adds or by which it replaces them."""
        intents = self.rule_intents()
        return (
            [intent.before for intent in intents if intent.before is not None],
            [intent.after for intent in intents if intent.after is not None],
        )

    def step_intents(self) -> Sequence[StepIntent]:
        """Return what it does to settings."""
        return ()

    @abstractmethod
    def apply(self) -> None:
        """Do it and read it back; raises where it did not come about, and may leave it half done."""

    @abstractmethod
    def undo(self) -> Undone:
        """Take back whatever of it there is, going by what the NIC reports. Repeatable."""

    def abandon(self) -> None:  # noqa: B027 - most changes take nothing
        """Give back what planning took in memory: the change was not even begun."""

    def moved(self) -> Sequence[RuleRecord]:
        """Return the rules that are now elsewhere than the intents said."""
        return ()

    def dropped(self) -> Sequence[uuid.UUID]:
        """Return the rules that were to be added and were refused, where that is no failure."""
        return ()


def run(
    journal: Journal, device: str, title: str, changes: Sequence[Change], progress: Progress | None = None
) -> None:
    """Carry out changes as one: after it, all are in force, or none is.

    Args:
        journal: Where the intents go first.
        device: The NIC, for errors.
        title: What it is all about, in words.
        changes: In the order in which they are done; they are undone the other way round.
        progress: Is told of each change that is done.

    Raises:
        RollbackError: A change failed and so did undoing it; the failure is its cause.
        NicOffloadError: The failure itself, where all was undone.
    """
    try:
        number = journal.begin(title, *(_intents(changes) if journal.durable else ((), (), ())))
    except BaseException:
        for change in changes:
            change.abandon()
        raise
    begun: list[Change] = []
    try:
        for done, change in enumerate(changes, 1):
            begun.append(change)
            change.apply()
            if progress is not None:
                progress(done, len(changes), change.title)
        journal.finish(
            number,
            [record for change in changes for record in change.moved()],
            [rule_id for change in changes for rule_id in change.dropped()],
        )
    except BaseException as first:
        _take_back(journal, device, title, number, begun, first)
        raise


def _intents(
    changes: Sequence[Change],
) -> tuple[Sequence[RuleRecord], Sequence[RuleRecord], Sequence[StepIntent]]:
    steps = [intent for change in changes for intent in change.step_intents()]
    if len(changes) == 1:
        return *changes[0].rule_records(), steps
    before: dict[uuid.UUID, RuleRecord] = {}
    after: dict[uuid.UUID, RuleRecord] = {}
    for intent in (intent for change in changes for intent in change.rule_intents()):
        # A rule that one change removes and a later one adds again is replaced.
        if intent.before is not None and intent.rule_id not in after:
            before.setdefault(intent.rule_id, intent.before)
        after.pop(intent.rule_id, None)
        if intent.after is not None:
            after[intent.rule_id] = intent.after
    return tuple(before.values()), tuple(after.values()), steps


def _take_back(
    journal: Journal, device: str, title: str, number: int, begun: Sequence[Change], first: BaseException
) -> None:
    undone = [_undo(change, first) for change in reversed(begun)]
    residue = tuple(text for each in undone for text in each.residue)
    kept = tuple(text for each in undone for text in each.kept)
    for text in kept:
        first.add_note(text)
    try:
        journal.abort(
            number,
            [record for each in undone for record in each.moved],
            [rule_id for each in undone for rule_id in each.stuck_rules],
            [target for each in undone for target in each.stuck_steps],
        )
    except NicOffloadError as second:
        # The intents are still there, so the next open sees to it; the first failure is the one to tell.
        first.add_note(f"the journal could not be told that it was undone: {second}")
    if residue:
        failure = RollbackError(
            f"{title} failed ({first}), and could not be undone: {'; '.join(residue)}",
            residue=residue,
            device=device,
            hint="what is left is in the journal: the next open tries again to take it back",
        )
        for text in kept:
            failure.add_note(text)
        raise failure from first
    if isinstance(first, NicOffloadError):
        first.hint = "; ".join(filter(None, (first.hint, "what was done was undone")))


def _undo(change: Change, first: BaseException) -> Undone:
    try:
        return change.undo()
    except NicOffloadError as second:
        first.add_note(f"undoing '{change.title}' failed: {second}")
        return Undone(
            stuck_rules=tuple(intent.rule_id for intent in change.rule_intents()),
            stuck_steps=tuple(intent.target for intent in change.step_intents()),
            residue=(f"{change.title}: {second}",),
        )
