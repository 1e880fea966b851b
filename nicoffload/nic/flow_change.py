"""Adding and removing rules: one change, one bulk call for each step of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from nicoffload.compiler import Refusal
from nicoffload.driver.contract import InstalledRule, Outcome, Placement, RuleRef
from nicoffload.errors import ConflictError, NicOffloadError, NotFoundError, VerificationError
from nicoffload.model.rule import FlowRule
from nicoffload.nic.blocks import RuleRecord
from nicoffload.nic.flow_book import FlowBook
from nicoffload.nic.journal import RuleIntent
from nicoffload.nic.restore import restore_rules
from nicoffload.nic.retry import Retry, first_error
from nicoffload.nic.transaction import Change, RuleRecords, Undone
from nicoffload.nic.values import Owned
from nicoffload.nic.verify import Reading, all_as_asked, not_as_asked, same_rule

Refused = tuple[FlowRule, NicOffloadError]

_MOST_NOTES = 20


class FlowChange(Change):
    """Rules that go and rules that come.

    Args:
        book: The rules of ours.
        device: The NIC, for errors.
        retry: How often to ask a busy NIC.
        remove: Rules of ours that go.
        placements: Rules that come, with their places taken in the book's compiler.
        atomic: Whether one rule that is refused makes it fail.
        shared: Whether other programs can change the NIC under us.
        request: All rules that were asked for, in their order, so that errors can tell which is meant.
    """

    def __init__(
        self,
        book: FlowBook,
        device: str,
        retry: Retry,
        *,
        remove: Sequence[Owned] = (),
        placements: Sequence[Placement] = (),
        atomic: bool = True,
        shared: bool = True,
        request: Sequence[FlowRule] = (),
    ) -> None:
        self.title = _title(len(remove), len(placements))
        self.installed: list[InstalledRule] = []
        self.refused: list[Refused] = []
        self._book = book
        self._device = device
        self._retry = retry
        self._remove = remove
        self._placements = placements
        self._atomic = atomic
        self._shared = shared
        self._request = request
        self._no_trace = False
        self._widened: Sequence[RuleRef] = ()

    def rule_records(self) -> RuleRecords:
        """Return the rules that go, and those that come."""
        record = tuple.__new__  # half the time of the constructor
        return [_record(each) for each in self._remove], [
            record(RuleRecord, (rule.rule_id, table, slot, rule))
            for rule, table, _, slot, _, _ in self._placements
        ]

    def rule_intents(self) -> Sequence[RuleIntent]:
        """Return what it does to rules; a rule that goes and comes back with other content is one intent."""
        before, after = self.rule_records()
        going = {record.rule_id: record for record in before}
        coming = [RuleIntent(record.rule_id, going.pop(record.rule_id, None), record) for record in after]
        return [*(RuleIntent(rule_id, record, None) for rule_id, record in going.items()), *coming]

    def apply(self) -> None:
        """Remove, then add, and read back both."""
        if self._remove:
            self._take_out()
        if self._placements:
            self._put_in()

    def undo(self) -> Undone:
        """Put the rules back as they were."""
        if self._no_trace:  # the driver refused every rule, and a refused rule leaves no trace
            self.abandon()
            return Undone()
        left = self._remove_widened()
        undone = restore_rules(self._book, self.rule_intents(), self._retry)
        if left:
            stuck = [ref.rule_id for ref in self._widened if ref.rule_id is not None]
            undone = replace(
                undone, residue=(*undone.residue, *left), stuck_rules=(*undone.stuck_rules, *stuck)
            )
        self._book.remove(placement.rule.rule_id for placement in self._placements)
        self._book.add([InstalledRule(ref=each.ref, rule=each.rule) for each in self._remove])
        self._book.add([InstalledRule(ref=record.ref, rule=record.rule) for record in undone.moved])
        self._book.out_of_step()
        return undone

    def abandon(self) -> None:
        """Give the places back."""
        self._book.release(placement.rule.rule_id for placement in self._placements)

    def moved(self) -> Sequence[RuleRecord]:
        """Return the rules whose slot the driver picked, or that had to go elsewhere than was planned."""
        placements = self._placements
        if len(self.installed) != len(placements):  # some were refused
            planned = {placement.rule.rule_id: placement for placement in placements}
            placements = [planned[each.rule.rule_id] for each in self.installed]
        return [
            RuleRecord(each.rule.rule_id, each.ref.table, each.ref.slot, each.rule)
            for placement, each in zip(placements, self.installed, strict=True)
            if placement.slot != each.ref.slot or placement.table != each.ref.table
        ]

    def dropped(self) -> Sequence[uuid.UUID]:
        """Return the rules that were refused."""
        return [rule.rule_id for rule, _ in self.refused]

    def _take_out(self) -> None:
        refs = [each.ref for each in self._remove]
        answers = self._retry.bulk(self._book.filters.destroy_many, refs, "destroy_many")
        for answer in answers:
            # A rule that somebody else removed is gone, which is what was asked for.
            if isinstance(answer, NotFoundError):
                self._book.out_of_step()
            elif answer is not None:
                raise answer
        left = self._book.filters.dump(refs)
        if left:
            self._check_gone(Reading(left))
        gone = [each.rule_id for each in self._remove]
        self._book.remove(gone)
        self._book.release(gone)

    def _check_gone(self, left: Reading) -> None:
        for each in self._remove:
            found = left.at(each.ref)
            if found is not None and same_rule(each.rule, found.rule):
                raise VerificationError(
                    f"the call that removes rule {each.rule_id} succeeded, and the rule is still in the NIC",
                    expected="",
                    actual=str(each.rule_id),
                    device=self._device,
                )

    def _put_in(self) -> None:
        placements, outcomes = self._create()
        refs = [outcome for outcome in outcomes if isinstance(outcome, RuleRef)]
        unknown = any(isinstance(outcome, NicOffloadError) and outcome.uncertain for outcome in outcomes)
        self._no_trace = not refs and not self._remove and not unknown
        found = self._book.filters.dump(refs) if refs else ()
        if all_as_asked([placement.rule for placement in placements], refs, found):
            self.installed = list(found)
        else:
            self._sort_out(placements, outcomes, Reading(found))
        self._book.add(self.installed)

    def _sort_out(
        self, placements: Sequence[Placement], outcomes: Sequence[Outcome], reading: Reading
    ) -> None:
        """Hold each rule against what was read, and deal with those that are not as they were asked for."""
        wrong: list[RuleRef] = []
        for placement, outcome in zip(placements, outcomes, strict=True):
            rule = placement.rule
            if not isinstance(outcome, RuleRef):
                self.refused.append((rule, self._named(outcome)))
                continue
            found = reading.at(outcome)
            if found is not None and same_rule(rule, found.rule):
                self.installed.append(InstalledRule(ref=outcome, rule=rule, in_hardware=found.in_hardware))
            else:
                wrong.append(outcome)
                self.refused.append((rule, not_as_asked(rule, found, self._device)))
        if self.refused:
            self._handle_refused(wrong)

    def _handle_refused(self, wrong: Sequence[RuleRef]) -> None:
        self._widened = wrong
        if self._atomic:
            raise with_notes(self.refused, self._request)
        name_rules(self.refused, self._request)
        error = first_error(self._destroy(wrong))
        if error is not None:
            raise error
        self._book.release(rule.rule_id for rule, _ in self.refused)

    def _remove_widened(self) -> list[str]:
        """Remove what the driver made of rules that it took as others, and return what is left, in words.

        By where the driver said that it put them: by its content no undoing would know such a rule as ours.
        """
        return [
            f"a rule in table {ref.table} that the driver took as another than asked for: {answer}"
            for ref, answer in zip(self._widened, self._destroy(self._widened), strict=True)
            if answer is not None
        ]

    def _destroy(self, refs: Sequence[RuleRef]) -> Sequence[NicOffloadError | None]:
        if not refs:
            return ()
        answers = self._retry.bulk(self._book.filters.destroy_many, refs, "destroy_many")
        return [None if isinstance(answer, NotFoundError) else answer for answer in answers]

    def _create(self) -> tuple[Sequence[Placement], Sequence[Outcome]]:
        """Install, and once more what collides with what others did since the NIC was last read."""
        placements = list(self._placements)
        outcomes: list[Outcome] = []
        if not self._would_replace():
            outcomes = self._retry.bulk(self._book.filters.create_many, placements, "create_many")
            collided = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, ConflictError)]
        else:
            collided = list(range(len(placements)))
            outcomes = [ConflictError("the slot was taken", device=self._device)] * len(placements)
        if collided:
            self._create_again(placements, outcomes, collided)
        return placements, outcomes

    def _create_again(
        self, placements: list[Placement], outcomes: list[Outcome], collided: Sequence[int]
    ) -> None:
        answers = self._place_again(placements, outcomes, collided)
        todo: list[int] = []
        for index, answer in zip(collided, answers, strict=True):
            if isinstance(answer, Refusal):
                outcomes[index] = answer.error(self._device)
            else:
                placements[index] = answer
                todo.append(index)
        again = self._retry.bulk(
            self._book.filters.create_many, [placements[index] for index in todo], "create_many"
        )
        for index, outcome in zip(todo, again, strict=True):
            outcomes[index] = outcome

    def _place_again(
        self, placements: Sequence[Placement], outcomes: Sequence[Outcome], collided: Sequence[int]
    ) -> Sequence[Placement | Refusal]:
        """Read the NIC again and place rules by what is there now."""
        done = [
            InstalledRule(ref=outcome, rule=placement.rule)
            for placement, outcome in zip(placements, outcomes, strict=True)
            if isinstance(outcome, RuleRef)
        ]
        self._book.add(done)
        self._book.out_of_step()
        try:
            return self._book.compiler().place_many([placements[index].rule for index in collided])
        finally:
            self._book.remove(each.rule.rule_id for each in done)

    def _would_replace(self) -> bool:
        """Tell whether a slot was taken by others since: this NIC would overwrite what is there without a word."""
        if not self._shared:
            return False
        slots = [
            RuleRef(rule_id=None, table=placement.table, slot=placement.slot)
            for placement in self._placements
            if placement.table in self._book.replacing and placement.slot is not None
        ]
        return bool(slots) and bool(self._book.filters.dump(slots))

    def _named(self, error: NicOffloadError) -> NicOffloadError:
        if not error.device:
            error.device = self._device
        return error


def place(
    rules: Iterable[FlowRule],
    answer: Callable[[Sequence[FlowRule]], Sequence[Placement | Refusal]],
    device: str,
) -> tuple[list[Placement], list[Refused]]:
    """Return the rules that have a place, and the others with why not."""
    wanted = list(rules)
    answers = answer(wanted)
    placed = [each for each in answers if not isinstance(each, Refusal)]
    if len(placed) == len(wanted):
        return placed, []
    refused = [
        (rule, each.error(device))
        for rule, each in zip(wanted, answers, strict=True)
        if isinstance(each, Refusal)
    ]
    return placed, refused


def with_notes(refused: Sequence[Refused], request: Sequence[FlowRule]) -> NicOffloadError:
    """Return the first error, with the others as notes so that none is lost; each names its rule."""
    name_rules(refused, request)
    first = refused[0][1]
    for _, error in refused[1:_MOST_NOTES]:
        first.add_note(str(error))
    if len(refused) > _MOST_NOTES:
        first.add_note(f"and {len(refused) - _MOST_NOTES} rules more")
    return first


def name_rules(refused: Sequence[Refused], request: Sequence[FlowRule]) -> None:
    """Make each error say which rule of the request it is about; where there is only one, it needs no name."""
    if not refused or len(request) < 2:
        return
    positions = {rule.rule_id: index for index, rule in enumerate(request)}
    for rule, error in refused:
        at = positions.get(rule.rule_id)
        if at is None:  # a rule that is there already, and has to be installed anew
            error.subject = f"rule {rule.rule_id}"
        else:
            error.subject = f"rule {at + 1} of {len(request)} (id {rule.rule_id})"
            error.path = f"/flows/{at}{error.path}"


def _record(owned: Owned) -> RuleRecord:
    return RuleRecord(owned.rule_id, owned.ref.table, owned.ref.slot, owned.rule)


def _title(removed: int, added: int) -> str:
    parts = [f"{verb} {_rules(count)}" for verb, count in (("remove", removed), ("add", added)) if count]
    return " and ".join(parts) or "change no rule"


def _rules(count: int) -> str:
    return "1 rule" if count == 1 else f"{count} rules"
