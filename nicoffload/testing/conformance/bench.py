"""What a behaviour works with: the open NIC, what it may ask of it, and how it says what broke."""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from nicoffload.compiler import Compiler
from nicoffload.driver import (
    Driver,
    FlowFilters,
    InstalledRule,
    Outcome,
    Placement,
    QueueCounts,
    RateControl,
    RuleRef,
    Statistics,
    TableState,
    VirtualFunctions,
)
from nicoffload.errors import NicOffloadError, NotSupportedError
from nicoffload.model import FlowRule, Support, VfState
from nicoffload.nic import Nic
from nicoffload.nic.retry import Retry
from nicoffload.profiles.types import NicProfile, Table
from nicoffload.testing.conformance.outcome import Broken, NotApplicable, NotShown
from nicoffload.testing.conformance.proxy import open_over
from nicoffload.testing.conformance.restore import look, put_back
from nicoffload.testing.conformance.rules import Kind, kinds_of
from nicoffload.testing.conformance.under_test import NicUnderTest, Packet

T = TypeVar("T")


class Bench:
    """One behaviour's hold on the NIC; it is put back as it was found when the behaviour ends.

    Args:
        under_test: The NIC.
        part: What the behaviour is tried on: a table, a setting, a kind of rate; empty for the whole NIC.
    """

    def __init__(self, under_test: NicUnderTest, part: str = "") -> None:
        self.under_test = under_test
        self.part = part
        self.driver = under_test.open_driver()
        self.retry = Retry(sleep_s=under_test.sleep_s)
        self.made: list[RuleRef] = []
        """Every rule that this behaviour was told it installed."""
        self._foreign: list[Callable[[], None]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._now_ns = 0
        self.first = look(self.driver)
        """The NIC as it was found."""

    def close(self) -> Sequence[str]:
        """Put the NIC back as it was found; return what could not be put back, in words."""
        try:
            for take_out in self._foreign:
                take_out()
            residue = (
                []
                if self.under_test.disposable
                else put_back(self.driver, self.first, self.made, self.retry, self.under_test.sleep_s)
            )
        finally:
            with contextlib.suppress(Exception):
                self.driver.close()
            if self._folder is not None:
                self._folder.cleanup()
        return residue

    # ---------------------------------------------------------------------------------------------------- verdicts

    def expect(self, holds: object, text: str, *, expected: object = None, found: object = None) -> None:
        """Go on where something holds.

        Raises:
            Broken: It does not.
        """
        if not holds:
            tail = "" if expected is None and found is None else f": expected {expected}, found {found}"
            raise Broken(f"{text}{tail}")

    def broken(self, text: str) -> NoReturn:
        """End the behaviour: it does not hold.

        Raises:
            Broken: Always.
        """
        raise Broken(text)

    def same(self, found: object, expected: object, text: str) -> None:
        """Go on where two things are equal.

        Raises:
            Broken: They are not.
        """
        self.expect(found == expected, text, expected=_shown(expected), found=_shown(found))

    def not_shown(self, reason: str) -> NoReturn:
        """End the behaviour: it can't be tried here.

        Raises:
            NotShown: Always.
        """
        raise NotShown(reason)

    def not_applicable(self, reason: str) -> NoReturn:
        """End the behaviour: by its profile, the NIC has nothing that it is about.

        Raises:
            NotApplicable: Always.
        """
        raise NotApplicable(reason)

    def refusal(
        self, answer: object, kinds: type[NicOffloadError] | tuple[type[NicOffloadError], ...], what: str
    ) -> NicOffloadError:
        """Return an error that says what it must: its kind, the device, and for an unsupported thing which.

        Args:
            answer: What the driver answered or raised.
            kinds: What it may be.
            what: What was asked for, in words.

        Raises:
            Broken: It is no error, of another kind, or does not say enough.
        """
        wanted = kinds if isinstance(kinds, tuple) else (kinds,)
        names = " or ".join(kind.__name__ for kind in wanted)
        self.expect(
            isinstance(answer, NicOffloadError), f"{what} was not refused with {names} but {_shown(answer)}"
        )
        assert isinstance(answer, NicOffloadError)
        self.expect(
            isinstance(answer, wanted),
            f"{what} was refused with {type(answer).__name__} ({answer}), not {names}",
        )
        self.expect(answer.message, f"{what}: the error has no message")
        self.expect(answer.device, f"{what}: the error names no device ({answer})")
        if isinstance(answer, NotSupportedError):
            self.expect(
                all(reason.message for reason in answer.reasons),
                f"{what}: a reason of the error says nothing",
            )
        return answer

    def refuses(
        self,
        call: Callable[[], object],
        kinds: type[NicOffloadError] | tuple[type[NicOffloadError], ...],
        what: str,
    ) -> NicOffloadError:
        """Return the error that a call raises, by `refusal`.

        Raises:
            Broken: It raises nothing, or the wrong thing.
        """
        try:
            answer = self.retry.call(call)
        except NicOffloadError as error:
            return self.refusal(error, kinds, what)
        raise Broken(f"{what} was not refused; the answer was {_shown(answer)}")

    # ------------------------------------------------------------------------------------------------------ facets

    @property
    def profile(self) -> NicProfile:
        """What the NIC declares."""
        return self.driver.profile

    @property
    def filters(self) -> FlowFilters:
        """Its flow filters."""
        return self._facet(self.driver.flow_filters, "flow_filters", "filter tables")

    @property
    def vfs(self) -> VirtualFunctions:
        """Its VFs."""
        return self._facet(self.driver.virtual_functions, "virtual_functions", "VFs")

    @property
    def rates(self) -> RateControl:
        """The rates of its VFs."""
        return self._facet(self.driver.rates, "rates", "rates")

    @property
    def statistics(self) -> Statistics:
        """Its counters."""
        return self._facet(self.driver.statistics, "statistics", "counters")

    def _facet(self, facet: T | None, name: str, what: str) -> T:
        if facet is None:
            raise Broken(f"the profile has {what}, and the driver's {name} is None")
        return facet

    # --------------------------------------------------------------------------------------------------------- VFs

    def claim(self, name: str) -> Support | None:
        """Return whether the NIC says that it can do something; None where it does not speak of it."""
        return next((each.support for each in self.driver.capabilities() if each.name == name), None)

    def need_vfs(self, count: int = 1) -> Sequence[VfState]:
        """Return the VFs, at least `count` of them; makes some where there are too few.

        Raises:
            NotShown: There are too few and no more can be made.
        """
        states = self.vfs.states()
        if len(states) >= count:
            return states
        limit = self.vfs.limit()
        if limit < count:
            raise NotShown(f"the NIC can have {limit} VFs, and this takes {count}")
        try:
            self.retry.call(lambda: self.vfs.set_count(min(limit, max(count, 4))))
        except NicOffloadError as error:
            raise NotShown(f"there are {len(states)} VFs and no more can be made: {error}") from error
        return self.settled()

    def settled(self) -> Sequence[VfState]:
        """Return the VFs once each is out of its reset."""
        wait_s = 0.01
        for _ in range(12):
            states = self.vfs.states()
            if all(state.ready is not False for state in states):
                return states
            self.wait(wait_s)
            wait_s *= 2
        raise Broken(
            f"VFs {[state.vf for state in states if state.ready is False]} are not ready after {wait_s:g} s"
        )

    def settled_if_any(self) -> None:
        """Wait until each VF is out of its reset, where there are VFs."""
        if self.driver.virtual_functions is not None:
            self.settled()

    def wait(self, seconds: float) -> None:
        """Let time pass: on an emulated NIC by its own clock, which knows of no other, elsewhere by sleeping."""
        path, filters = self.driver.packet_path, self.driver.flow_filters
        if path is None:
            self.under_test.sleep_s(seconds)
            return
        if filters is not None:
            self._now_ns = max(self._now_ns, filters.read_counters([]).time_ns)
        self._now_ns += int(seconds * 1e9)
        path.advance(self._now_ns)

    # ------------------------------------------------------------------------------------------------------- rules

    def queues(self) -> QueueCounts:
        """Return the queues that a rule can name."""
        return self.filters.queues()

    def table(self, name: str = "") -> TableState:
        """Return a table that takes rules; one that is switched off is switched on.

        Args:
            name: Its name; that of the part where it is empty.

        Raises:
            NotShown: It takes none at present, and can't be made to.
        """
        name = name or self.part
        state = self.state(name)
        if not state.blocked:
            return state
        why = "; ".join(str(reason) for reason in state.blocked)
        if state.enable is None:
            raise NotShown(f"table {name} takes no rules: {why}")
        try:
            self.filters.enable_table(name)
        except NicOffloadError as error:
            raise NotShown(f"table {name} takes no rules ({why}) and can't be enabled: {error}") from error
        state = self.state(name)
        if state.blocked:
            raise Broken(
                f"enable_table({name}) succeeded, and the table is still blocked: {state.blocked[0]}"
            )
        return state

    def state(self, name: str) -> TableState:
        """Return a table as it is.

        Raises:
            Broken: The driver does not tell of it.
        """
        for state in self.filters.tables():
            if state.table.name == name:
                return state
        raise Broken(f"the profile has a table {name}, and tables() does not tell of it")

    def facts(self, name: str = "") -> Table:
        """Return what the profile says of a table."""
        return self.profile.table(name or self.part)

    def kinds(self, state: TableState) -> Iterator[Kind]:
        """Yield the kinds of rules that a table takes, the most usual first."""
        vfs = 0
        if self.profile.sriov is not None and self.driver.virtual_functions is not None:
            vfs = len(self.vfs.states())
            if not vfs and not {"drop", "queue"} & state.table.actions:
                vfs = len(self.need_vfs())
        return kinds_of(state, vfs, self.queues())

    def kind(self, state: TableState, size: int = 1) -> Kind:
        """Return the most usual kind of rules of a table, of which there are `size` different ones.

        Raises:
            NotShown: There is none.
        """
        for kind in self.kinds(state):
            if kind.size >= size:
                return kind
        raise NotShown(f"no {size} rules were found that the compiler places in table {state.table.name}")

    def foreign(self, placement: Placement) -> None:
        """Put a rule into the NIC as another program would, until the behaviour ends.

        Raises:
            NotShown: Nothing here does that.
        """
        if self.under_test.foreign_rule is None:
            raise NotShown(
                "nothing here puts a rule without a cookie into the NIC (NicUnderTest.foreign_rule)"
            )
        self._foreign.append(self.under_test.foreign_rule(self.driver, placement))

    def compiler(self, *states: TableState) -> Compiler:
        """Return a compiler for some tables as they are at present; all where none is named."""
        vfs = len(self.vfs.states()) if self.driver.virtual_functions is not None else 0
        queues = self.queues()
        return Compiler(
            states or self.filters.tables(),
            self.filters.dump(),
            vfs=vfs,
            queues=queues.pf,
            vf_queues=queues.vf,
        )

    def places(self, rules: Sequence[FlowRule], state: TableState) -> list[Placement]:
        """Return where the compiler puts rules in a table.

        Raises:
            NotShown: It does not take one of them.
        """
        answers = self.compiler(state).place_many(rules)
        for answer in answers:
            if not isinstance(answer, Placement):
                raise NotShown(f"the compiler places no {len(rules)} rules of this kind: {answer}")
        return [answer for answer in answers if isinstance(answer, Placement)]

    def some(self, state: TableState, count: int, at_least: int | None = None) -> list[Placement]:
        """Return places for `count` different rules of one kind, fewer where a table holds only `at_least`.

        Raises:
            NotShown: There are not so many.
        """
        rows = None if state.rows is None else (state.rows - state.in_use) // state.table.rows_per_rule
        if at_least is not None and rows is not None and rows < count:
            count = max(rows, at_least)
        for kind in self.kinds(state):
            if kind.size < count:
                continue
            answers = self.compiler(state).place_many([kind.rule(number) for number in range(count)])
            placed = [answer for answer in answers if isinstance(answer, Placement)]
            if len(placed) == count:
                return placed
        raise NotShown(f"table {state.table.name} does not hold {count} different rules of one kind")

    def create(self, placements: Sequence[Placement]) -> list[Outcome]:
        """Ask for rules, and remember those that are said to be installed, so that they can be removed."""
        outcomes = list(self.filters.create_many(placements))
        self.expect(
            len(outcomes) == len(placements),
            f"create_many gave {len(outcomes)} answers for {len(placements)} rules",
        )
        self.made += [outcome for outcome in outcomes if isinstance(outcome, RuleRef)]
        return outcomes

    def install(self, placements: Sequence[Placement]) -> list[RuleRef]:
        """Install rules that must be taken.

        Raises:
            Broken: One is not.
        """
        outcomes = self.create(placements)
        for placement, outcome in zip(placements, outcomes, strict=True):
            if not isinstance(outcome, RuleRef):
                raise Broken(f"the compiler places {placement}, and the driver refuses it: {outcome!r}")
        return [outcome for outcome in outcomes if isinstance(outcome, RuleRef)]

    def installed(self, table: str = "") -> list[InstalledRule]:
        """Return the rules in a table, as the NIC reports them."""
        name = table or self.part
        return [each for each in self.filters.dump() if each.ref.table == name]

    # ---------------------------------------------------------------------------------------------------- open_nic

    def nic(
        self,
        driver: Driver | None = None,
        *,
        durable: bool = False,
        wall_clock_s: Callable[[], float] = time.time,
    ) -> Nic:
        """Return the NIC through `open_nic`; closing it leaves the behaviour's driver open.

        Args:
            driver: What to drive it with; None for the behaviour's own driver.
            durable: Whether it has a journal on disk, so that another `nic` finds what this one left.
            wall_clock_s: Seconds since the epoch, for leases.
        """
        return open_over(
            driver or self.driver,
            self.under_test,
            state_dir=self.folder(),
            durable=durable or self.driver.persistent,
            wall_clock_s=wall_clock_s,
        )

    # ------------------------------------------------------------------------------------------------------ packets

    def can_send(self) -> bool:
        """Tell whether packets can be sent into the NIC."""
        return self.under_test.packets is not None or self.driver.packet_path is not None

    def send(self, packets: Sequence[Packet]) -> None:
        """Send packets into the port.

        Raises:
            NotShown: Nothing can send any here.
        """
        from nicoffload.testing.conformance.packets import send_by_path  # noqa: PLC0415 - loads NumPy

        if self.under_test.packets is not None:
            self.under_test.packets.send(self.driver, packets)
        elif self.driver.packet_path is not None:
            send_by_path(self.driver.packet_path, packets)
        else:
            raise NotShown("nothing sends packets into this NIC (NicUnderTest.packets)")

    def folder(self) -> Path:
        """Return a folder of the behaviour's own."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="nicoffload-conformance-")
        return Path(self._folder.name)


@contextlib.contextmanager
def opened(under_test: NicUnderTest, part: str = "") -> Iterator[Bench]:
    """Give a bench that is closed at the end, for those who try a behaviour by hand."""
    bench = Bench(under_test, part)
    try:
        yield bench
    finally:
        bench.close()


def place_of(ref: RuleRef) -> tuple[str, int | uuid.UUID | None]:
    """Return what tells a rule's place from every other in the NIC: its location, else its cookie."""
    return ref.table, ref.slot if ref.slot is not None else ref.rule_id


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"
