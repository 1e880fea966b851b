"""What a journal is: the intents of a change before the change, the rules of ours, and who holds which VF."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from nicoffload.nic.blocks import RuleRecord

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RuleIntent:
    """A rule that is about to change: `before` None adds it, `after` None removes it, both replace it."""

    rule_id: uuid.UUID
    before: RuleRecord | None
    after: RuleRecord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepIntent:
    """A setting that is about to change.

    Args:
        kind: ``vf_count``, ``vf_config``, ``rate`` or ``mode``; ``keep_…`` for what comes back when it is undone.
        target: Which: ``vf:N``, ``vfs``, ``mode`` or ``table:NAME``.
        before: Its value before, as `nicoffload.nic.records` writes it.
        after: Its value afterwards.
    """

    kind: str
    target: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A change that was begun and neither finished nor taken back.

    Args:
        number: Of the change within the journal.
        title: What it was, in words.
        failed: Whether it failed and this is what could not be taken back, so that it must not be finished.
        steps: Its settings, in the order in which they were changed.
        rules: Its rules.
    """

    number: int
    title: str
    failed: bool
    steps: tuple[StepIntent, ...]
    rules: tuple[RuleIntent, ...]


@dataclass(slots=True)
class LeaseRow:
    """Who holds a VF. It stays when the VF is free, for the epoch's sake.

    Args:
        owner: Who holds it; empty when it is free.
        epoch: That of the last lease.
        expires_at_s: When the lease ends.
        dirty: Whether the VF must be reset before somebody else gets it.
    """

    owner: str
    epoch: int
    expires_at_s: float
    dirty: bool


class Journal(ABC):
    """The records of one NIC. All of it is called with the writer's lock held, except what only reads."""

    durable: ClassVar[bool] = True
    """Whether it outlives the process, so that intents are worth writing down."""

    @contextmanager
    @abstractmethod
    def writing(self) -> Iterator[None]:
        """Hold the lock that lets one process at a time change this NIC.

        Raises:
            DeviceBusyError: Another holds it for too long; the message names who.
        """

    @abstractmethod
    def generation(self) -> int:
        """Return a number that grows with every change that any process makes."""

    @abstractmethod
    def rules(self) -> Sequence[RuleRecord]:
        """Return the rules of ours that no unfinished change touches."""

    @abstractmethod
    def unfinished(self) -> Sequence[Unfinished]:
        """Return the changes that were cut off, the newest first."""

    @abstractmethod
    def damage(self) -> Sequence[str]:
        """Return which records of rules can't be read, in words."""

    @abstractmethod
    def begin(
        self,
        title: str,
        before: Sequence[RuleRecord],
        after: Sequence[RuleRecord],
        steps: Sequence[StepIntent],
    ) -> int:
        """Record what is about to change, for good, and return the number of the change.

        Args:
            title: What it is about, in words.
            before: The rules that it takes away or replaces, as they are.
            after: The rules that it adds, or by which it replaces others, as they will be.
            steps: What it does to settings.
        """

    @abstractmethod
    def finish(
        self, number: int, moved: Sequence[RuleRecord] = (), dropped: Sequence[uuid.UUID] = ()
    ) -> None:
        """Record that a change is done, and forget its intents.

        Args:
            number: What `begin` returned.
            moved: Rules that are elsewhere than the intent said (the driver picked the slot).
            dropped: Rules that were to be added and were refused.
        """

    @abstractmethod
    def abort(
        self,
        number: int,
        moved: Sequence[RuleRecord] = (),
        stuck_rules: Collection[uuid.UUID] = (),
        stuck_steps: Collection[str] = (),
    ) -> None:
        """Record that a change was taken back.

        Args:
            number: What `begin` returned.
            moved: Rules that were put back elsewhere than they had been.
            stuck_rules: Rules that could not be put back: their intents stay, for the next open.
            stuck_steps: Targets of settings that could not be put back; likewise.
        """

    @abstractmethod
    def replace_rules(self, records: Sequence[RuleRecord]) -> None:
        """Make these the rules that are ours: what adoption found."""

    @abstractmethod
    def update_leases(self, change: Callable[[dict[int, LeaseRow]], T]) -> T:
        """Let `change` edit the leases (VF index to row), in one transaction that no other process can come between."""

    @abstractmethod
    def leases(self) -> Mapping[int, LeaseRow]:
        """Return the leases, by VF index."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it. Repeatable."""


class MemoryJournal(Journal):
    """The journal of a NIC that lives and dies with this process: there is nothing to recover, so only leases stay."""

    durable = False

    def __init__(self) -> None:
        self._leases: dict[int, LeaseRow] = {}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold nothing: nobody else can reach the NIC."""
        yield

    def generation(self) -> int:
        """Return 0: only this Nic changes its rules."""
        return 0

    def rules(self) -> Sequence[RuleRecord]:
        """Return nothing: a NIC that was just made has no rules."""
        return ()

    def unfinished(self) -> Sequence[Unfinished]:
        """Return nothing."""
        return ()

    def damage(self) -> Sequence[str]:
        """Return nothing."""
        return ()

    def begin(
        self,
        title: str,  # noqa: ARG002
        before: Sequence[RuleRecord],  # noqa: ARG002
        after: Sequence[RuleRecord],  # noqa: ARG002
        steps: Sequence[StepIntent],  # noqa: ARG002
    ) -> int:
        """Keep nothing: the change itself holds what undoing takes."""
        return 0

    def finish(
        self, number: int, moved: Sequence[RuleRecord] = (), dropped: Sequence[uuid.UUID] = ()
    ) -> None:
        """Keep nothing."""

    def abort(
        self,
        number: int,
        moved: Sequence[RuleRecord] = (),
        stuck_rules: Collection[uuid.UUID] = (),
        stuck_steps: Collection[str] = (),
    ) -> None:
        """Keep nothing."""

    def replace_rules(self, records: Sequence[RuleRecord]) -> None:
        """Keep nothing."""

    def update_leases(self, change: Callable[[dict[int, LeaseRow]], T]) -> T:
        """Let `change` edit the leases."""
        return change(self._leases)

    def leases(self) -> Mapping[int, LeaseRow]:
        """Return the leases."""
        return self._leases

    def close(self) -> None:
        """Keep the leases: the object may be looked at after its end."""
