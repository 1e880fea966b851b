"""`Nic`: one open NIC."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from nicoffload.compiler import Refusal
from nicoffload.driver.contract import Driver, Mended, PacketPath, Placement, TableState
from nicoffload.errors import ConflictError, InvalidRequestError, NotFoundError
from nicoffload.model import (
    Capability,
    DeviceInfo,
    Disruption,
    FlowCounters,
    FlowRule,
    FlowStats,
    RateLimit,
    RateReport,
    TrafficStats,
    VfConfig,
    VfState,
)
from nicoffload.nic.adopt import find_ours, recover
from nicoffload.nic.facets import Facets
from nicoffload.nic.flow_book import FlowBook
from nicoffload.nic.flow_change import FlowChange, name_rules, place, with_notes
from nicoffload.nic.journal import Journal
from nicoffload.nic.leases import LeaseDesk
from nicoffload.nic.planning import Planner, Work
from nicoffload.nic.request_check import check_limits, check_rules
from nicoffload.nic.retry import Retry
from nicoffload.nic.settings import EnableTable, RateChange, VfConfigChange, VfCountChange, VfsAgain
from nicoffload.nic.transaction import Change, Progress, run
from nicoffload.nic.values import (
    ApplyReport,
    DesiredState,
    FlowReport,
    Lease,
    LeaseRelease,
    Owned,
    OwnedRule,
    Plan,
    Recovery,
)
from nicoffload.nic.verify import Reading
from nicoffload.profiles.types import NicProfile


class Nic:
    """One open NIC; `open_nic` makes it, and it is a context manager.

    Every change is planned, journalled, applied, read back, and undone if it failed: after a call, all that was asked
    for is in force, or nothing is and the error says why. Safe to use from several threads and processes, one change
    at a time.
    """

    def __init__(
        self,
        name: str,
        driver: Driver,
        journal: Journal,
        *,
        retry: Retry,
        wall_clock_s: Callable[[], float],
        recovery: Recovery,
    ) -> None:
        self.name = name
        self._driver = driver
        self._facets = Facets(driver, name)
        self._journal = journal
        self._retry = retry
        self._guard = threading.RLock()
        self._closed = False
        self._applied: dict[int, VfConfig] = {}
        filters, vfs = driver.flow_filters, driver.virtual_functions
        self._book = FlowBook(driver, filters) if filters is not None else None
        self._desk = LeaseDesk(journal, vfs, name, retry, wall_clock_s) if vfs is not None else None
        with journal.writing():
            found = recover(driver, journal, self._book, retry)
            self._written = self._read = journal.generation()
        self.recovery = dataclasses.replace(found, damaged=recovery.damaged, salvaged=recovery.salvaged)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the NIC; what is installed stays. Repeatable."""
        with self._guard:
            if not self._closed:
                self._closed = True
                try:
                    self._driver.close()
                finally:
                    self._journal.close()

    # ------------------------------------------------------------------------------------------------- what it is

    @property
    def info(self) -> DeviceInfo:
        """The NIC."""
        return self._driver.info

    @property
    def profile(self) -> NicProfile:
        """Its profile."""
        return self._driver.profile

    @property
    def packet_path(self) -> PacketPath | None:
        """Its data path, where it is emulated."""
        return self._driver.packet_path

    def capabilities(self) -> Sequence[Capability]:
        """Return what the NIC can do, each answer with the evidence for it. Changes nothing."""
        return self._driver.capabilities()

    def try_out(self) -> None:
        """Let `capabilities` know what only doing it tells: a rule that no packet matches goes in and out again.

        Raises:
            DeviceBusyError: Another process is changing the NIC and does not finish.
            NicOffloadError: The rule can't be taken out again.
        """
        with self._changing():
            self._driver.try_out()

    # -------------------------------------------------------------------------------------------------- flow rules

    def tables(self) -> Sequence[TableState]:
        """Return the filter tables in order of preference. Changes nothing."""
        self._check_open()
        return self._facets.filters().tables()

    def check(self, rule: FlowRule) -> Placement | Refusal:
        """Return where a rule would go, or every reason why it can't. Changes nothing.

        The answer holds until the next change of the NIC.
        """
        with self._looking() as book:
            check_rules((rule,), self.name)
            return book.compiler().lower(rule)

    def check_all(self, rules: Iterable[FlowRule]) -> Sequence[Placement | Refusal]:
        """Return where rules would go together, or every reason why one can't. Changes nothing.

        Args:
            rules: Answer i is that of rule i, with the rules before it that have a place installed.
        """
        asked = tuple(rules)
        with self._looking() as book:
            check_rules(asked, self.name)
            return book.fresh_compiler(Reading(book.filters.dump())).place_many(asked)

    def add_flows(self, rules: Iterable[FlowRule], *, atomic: bool = True) -> FlowReport:
        """Install rules and read them back.

        Args:
            rules: The rules; their ids are new to this NIC.
            atomic: Whether one rule that is refused takes back all of them. If not, what can be installed stays.

        Returns:
            Which are installed, and why the others are not.

        Raises:
            NotSupportedError: The NIC can't hold a rule; each reason is named (atomic only).
            ResourceExhaustedError: A table is full (atomic only).
            ConflictError: A rule is there already, or one with its match is (atomic only).
            VerificationError: The driver said yes, and the NIC holds no such rule (atomic only).
            RollbackError: It failed, and so did undoing it.
            DeviceBusyError: The NIC stayed busy, or another process did not finish changing it.
        """
        with self._changing():
            book = self._facets.book(self._book)
            wanted = check_rules(rules, self.name)
            placed, refused = place(wanted, book.compiler().place_many, self.name)
            if not placed or (atomic and refused):
                book.release(placement.rule.rule_id for placement in placed)
                if atomic and refused:
                    raise with_notes(refused, wanted)
                name_rules(refused, wanted)
                return FlowReport(refused=tuple(refused))
            name_rules(refused, wanted)
            change = self._flow_change(book, placements=placed, atomic=atomic, request=wanted)
            self._run(change.title, [change])
            return FlowReport(installed=tuple(change.installed), refused=(*refused, *change.refused))

    def remove_flows(self, rule_ids: Iterable[uuid.UUID], *, missing_ok: bool = False) -> Sequence[FlowStats]:
        """Remove rules of ours.

        Args:
            rule_ids: Which.
            missing_ok: Whether rules that are not ours, or no longer, are passed over.

        Returns:
            The final counters of each rule that was removed, read just before.

        Raises:
            NotFoundError: A rule is not ours; then none is removed.
            VerificationError: The driver said yes, and a rule is still there.
            RollbackError: It failed, and so did undoing it.
        """
        with self._changing():
            book = self._facets.book(self._book)
            wanted = list(dict.fromkeys(rule_ids))
            doomed = [book.owned[rule_id] for rule_id in wanted if rule_id in book.owned]
            if len(doomed) != len(wanted) and not missing_ok:
                raise self._no_rule(next(rule_id for rule_id in wanted if rule_id not in book.owned))
            if not doomed:
                return ()
            refs = [each.ref for each in doomed]
            counters = self._retry.call(lambda: book.filters.read_counters(refs))
            change = self._flow_change(book, remove=doomed)
            self._run(change.title, [change])
            return tuple(counters.row(index) for index in range(len(refs)))

    def flows(self) -> Sequence[OwnedRule]:
        """Return every rule in the NIC, also those of others, as read from it. Changes nothing."""
        with self._looking() as book:
            reading = Reading(book.filters.dump())
            ours = {id(reading.at(each.ref)): each for each in book.owned.values()}
            return tuple(
                OwnedRule(
                    rule=ours[id(each)].rule if id(each) in ours else each.rule,
                    ref=ours[id(each)].ref if id(each) in ours else each.ref,
                    ours=id(each) in ours,
                    in_hardware=each.in_hardware,
                )
                for each in reading.rules
            )

    def flow_stats(self, rule_ids: Sequence[uuid.UUID] | None = None) -> FlowCounters:
        """Return the counters of rules of ours. Changes nothing.

        Args:
            rule_ids: Row i of the answer is rule i; None for all.

        Raises:
            NotFoundError: A rule is not ours.
        """
        with self._looking() as book:
            if rule_ids is None:
                return book.filters.read_counters(book.refs())
            try:
                refs = [book.owned[rule_id].ref for rule_id in rule_ids]
            except KeyError as cause:
                raise self._no_rule(cause.args[0]) from cause
            return book.filters.read_counters(refs)

    # ------------------------------------------------------------------------------------------------------ upkeep

    @property
    def needs_upkeep(self) -> bool:
        """Whether its driver loses settings by itself, so that somebody has to call `upkeep` again and again."""
        return self._driver.upkeep is not None

    def upkeep(self, timeout_s: float = 0.0) -> Sequence[Mended]:
        """Wait for what can cost settings, and set again those of this process that are lost.

        Args:
            timeout_s: How long to wait at most. A NIC that loses nothing is not waited for.

        Returns:
            What was lost, and whether it could be set again.

        Raises:
            DeviceBusyError: Another process is changing the NIC and does not finish.
        """
        self._check_open()
        keeper = self._driver.upkeep
        if keeper is None or not keeper.wait(timeout_s):
            return ()
        with self._changing():
            return keeper.mend()

    # --------------------------------------------------------------------------------------------------------- VFs

    def vfs(self) -> Sequence[VfState]:
        """Return the VFs that exist, by index. Changes nothing."""
        self._check_open()
        return self._facets.vfs().states()

    def vf_limit(self) -> int:
        """Return how many VFs there can be."""
        return self._facets.vfs().limit()

    def set_vf_count(self, count: int, *, force: bool = False) -> Disruption:
        """Make it so that `count` VFs exist. Those that exist are made anew, and lose their settings.

        Args:
            count: 0 to `vf_limit`.
            force: Whether VFs that are leased may be taken away; their leases end.

        Returns:
            What it cost those who use the NIC.

        Raises:
            ConflictError: A VF is leased; the message names the owner.
            InvalidRequestError: More than `vf_limit`, or fewer than 0.
            NotSupportedError: This NIC's VFs are not made at run time; the reason tells how they are.
            VerificationError: The call succeeded, and the number of VFs is another.
        """
        desired = DesiredState(vf_count=count)
        with self._changing():
            self._facets.vfs()
            work = self._planner().work(desired)
            self._do(f"make {count} VFs", work, force=force)
            return max(
                (step.disruption for step in work.steps), key=list(Disruption).index, default=Disruption.NONE
            )

    def configure_vfs(self, configs: Sequence[VfConfig]) -> Sequence[VfState]:
        """Set VFs, all or none, and read them back.

        Args:
            configs: At most one entry a VF.

        Returns:
            These VFs as they now are, in the order of `configs`.

        Raises:
            NotFoundError: There is no such VF.
            NotSupportedError: The NIC has no such setting.
            VerificationError: The call succeeded, and the setting is as before.
            RollbackError: It failed, and so did undoing it.
        """
        with self._changing():
            vfs = self._facets.vfs()
            states = {state.vf: state for state in vfs.states()}
            self._check_configs(configs, states)
            if not configs:
                return ()
            change = VfConfigChange(self._driver, self._retry, vfs, configs, states)
            self._run(change.title, [change])
            self._note_configs(configs)
            after = {state.vf: state for state in vfs.states()}
            return tuple(after[config.vf] for config in configs)

    def lease_vf(self, owner: str, *, ttl_s: float, vf: int | None = None) -> Lease:
        """Claim a VF. One that another's lease has run out on is reset first.

        Args:
            owner: Who will hold it.
            ttl_s: For how long, in seconds, above 0.
            vf: Which; None for any that is free.

        Raises:
            ResourceExhaustedError: No VF is free; the message names the holders.
            ConflictError: The VF is leased; the message names the owner.
            NotFoundError: There is no such VF.
        """
        with self._changing():
            return self._facets.desk(self._desk).lease(owner, ttl_s, vf)

    def renew_lease(self, lease: Lease, ttl_s: float) -> Lease:
        """Return the lease with more time from now on.

        Raises:
            ConflictError: Somebody else has the VF by now.
        """
        with self._changing():
            return self._facets.desk(self._desk).renew(lease, ttl_s)

    def release_vf(self, lease: Lease) -> LeaseRelease:
        """Reset a VF and give it back. A lease that is over touches nothing, and the answer says so.

        The reset is the function's (FLR): what the PF holds for the VF stays, its MAC, VLAN, spoof check, trust, link
        state and rates, and rules that name it. Who leases it next sets what the next guest may have.

        Raises:
            DeviceBusyError: The VF could not be reset; the lease goes on.
            NotSupportedError: The VF is a function that can't be reset; the lease goes on, until the VFs are made anew.
                A VF without a function (netdevsim) has nothing to reset: it is given back, and the answer says so.
        """
        with self._changing():
            return self._facets.desk(self._desk).release(lease)

    def leases(self) -> Sequence[Lease]:
        """Return the leases that are not over, by VF."""
        with self._guard:
            self._check_open()
            return self._facets.desk(self._desk).leases()

    # --------------------------------------------------------------------------------------------- rates, statistics

    def rates(self) -> Sequence[RateReport]:
        """Return the transmit rates of all VFs, by index. Changes nothing."""
        self._check_open()
        return self._facets.rates().read()

    def set_rates(self, limits: Mapping[int, RateLimit]) -> Sequence[RateReport]:
        """Set both rates of some VFs, all or none, and read them back.

        Args:
            limits: VF index to its rates.

        Returns:
            What was asked for, is applied and is read back, by VF.

        Raises:
            NotSupportedError: The NIC can't set such a rate.
            InvalidRequestError: A rate beyond what the NIC or its link takes.
            NotFoundError: There is no such VF.
            VerificationError: The call succeeded, and the rates are as before.
            RollbackError: It failed, and so did undoing it.
        """
        with self._changing():
            rates = self._facets.rates()
            check_limits(limits, self.name)
            if not limits:
                return ()
            exist = {report.vf for report in rates.read()}
            for vf in limits:
                if vf not in exist:
                    raise self._no_vf(vf, len(exist), "/vf")
            change = RateChange(self._driver, self._retry, rates, limits)
            self._run(change.title, [change])
            return change.reports

    def stats(self) -> Sequence[TrafficStats]:
        """Return the counters of the uplink and the VFs. Changes nothing."""
        self._check_open()
        return self._facets.statistics().read()

    # ------------------------------------------------------------------------------------------------- desired state

    def plan(self, desired: DesiredState) -> Plan:
        """Return what it takes to bring the NIC to a state, with what it costs. Changes nothing.

        Raises:
            NicOffloadError: The NIC can't be brought to that state.
        """
        with self._guard:
            self._refresh()
            return Plan(desired=desired, steps=self._planner().work(desired).steps)

    def apply(self, plan: Plan, progress: Progress | None = None, *, force: bool = False) -> ApplyReport:
        """Carry out a plan, as one change: all of it is in force afterwards, or none of it.

        Args:
            plan: What `plan` returned.
            progress: Is told of each part that is done: how many, of how many, what.
            force: Whether VFs that are leased may be taken away, reset or cut off for a moment; the leases of those
                that are taken away end.

        Raises:
            ConflictError: The NIC changed since the plan was made, so that it takes other steps now; or a VF is leased.
            RollbackError: It failed, and so did undoing it.
        """
        with self._changing():
            work = self._planner().work(plan.desired)
            if work.steps != plan.steps:
                raise ConflictError(
                    "the NIC changed since the plan was made", device=self.name, hint="plan again"
                )
            return self._do(
                f"apply a plan of {len(work.steps)} steps",
                work,
                force=force,
                progress=progress,
                request=plan.desired.flows,
            )

    # ------------------------------------------------------------------------------------------------------- inside

    def _do(
        self,
        title: str,
        work: Work,
        *,
        force: bool = False,
        progress: Progress | None = None,
        request: Sequence[FlowRule] = (),
    ) -> ApplyReport:
        changes: list[Change] = []
        retry, driver = self._retry, self._driver
        if work.remove:
            changes.append(self._flow_change(self._facets.book(self._book), remove=work.remove))
        if not force and self._desk is not None and work.disturbs:
            self._desk.refuse_while_held(work.disturbs)
        changes += self._making(work)
        if work.configs:
            vfs = self._facets.vfs()
            states = {} if work.vf_count is not None else {state.vf: state for state in vfs.states()}
            changes.append(VfConfigChange(driver, retry, vfs, work.configs, states))
        changes += self._enabling(work.tables)
        if work.rates:
            changes.append(RateChange(driver, retry, self._facets.rates(), work.rates))
        added = None
        if work.add:
            added = self._flow_change(self._facets.book(self._book), placements=work.add, request=request)
            changes.append(added)
        if changes:
            self._run(title, changes, progress)
        if work.vf_count is not None:
            self._applied.clear()
        self._note_configs(work.configs)
        return ApplyReport(steps=work.steps, installed=tuple(added.installed) if added else ())

    def _making(self, work: Work) -> list[Change]:
        """Return what changes the number of VFs, and what has to be enabled while there are none."""
        first = self._enabling(work.first)
        count = work.vf_count
        if count is None:
            return [*first]
        retry, driver, vfs, desk = (
            self._retry,
            self._driver,
            self._facets.vfs(),
            self._facets.desk(self._desk),
        )
        if not work.clear:
            return [*first, VfCountChange(driver, retry, vfs, count, desk)]
        again = [VfsAgain(driver, retry, vfs, count)] if count else []
        return [VfCountChange(driver, retry, vfs, 0, desk, later=count), *first, *again]

    def _enabling(self, tables: Sequence[TableState]) -> list[EnableTable]:
        if not tables:
            return []
        book = self._facets.book(self._book)
        return [
            EnableTable(self._driver, self._retry, book.filters, state, book.out_of_step) for state in tables
        ]

    def _run(self, title: str, changes: Sequence[Change], progress: Progress | None = None) -> None:
        simple = len(changes) == 1 and isinstance(changes[0], FlowChange)
        try:
            run(self._journal, self.name, title, changes, progress)
        finally:
            if not simple and self._book is not None:
                self._book.out_of_step()  # the compiler knows VFs, tables and slots as they were

    def _flow_change(
        self,
        book: FlowBook,
        *,
        remove: Sequence[Owned] = (),
        placements: Sequence[Placement] = (),
        atomic: bool = True,
        request: Sequence[FlowRule] = (),
    ) -> FlowChange:
        return FlowChange(
            book,
            self.name,
            self._retry,
            remove=remove,
            placements=placements,
            atomic=atomic,
            shared=self._driver.persistent,
            request=request,
        )

    def _planner(self) -> Planner:
        return Planner(self._driver, self._book, self._applied, self._facets.need)

    def _check_configs(self, configs: Sequence[VfConfig], states: Mapping[int, VfState]) -> None:
        if len({config.vf for config in configs}) != len(configs):
            raise InvalidRequestError("a VF is named twice", path="/vfs", device=self.name)
        for index, config in enumerate(configs):
            if config.vf not in states:
                raise self._no_vf(config.vf, len(states), f"/vfs/{index}/vf")

    def _no_vf(self, vf: int, count: int, path: str) -> NotFoundError:
        return NotFoundError(
            f"there is no VF {vf}; there are {count}",
            path=path,
            device=self.name,
            hint="VFs are counted from 0; `nicoffload vf create` makes more",
        )

    def _note_configs(self, configs: Iterable[VfConfig]) -> None:
        for config in configs:
            named = {
                spec.name: value
                for spec in dataclasses.fields(config)
                if (value := getattr(config, spec.name)) is not None
            }
            known = self._applied.get(config.vf, config)
            self._applied[config.vf] = dataclasses.replace(known, **named)

    def _no_rule(self, rule_id: uuid.UUID) -> NotFoundError:
        return NotFoundError(
            f"no rule of ours has the id {rule_id}",
            path="/rule_id",
            device=self.name,
            hint="`nicoffload flow list` shows the rules; those of others are not touched",
        )

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidRequestError(
                "the NIC is closed", device=self.name, hint="open it again with open_nic"
            )

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold both locks, and first see what other processes did."""
        with self._guard:
            self._check_open()
            with self._journal.writing():
                if self._journal.generation() != self._written:
                    recover(self._driver, self._journal, self._book, self._retry)
                try:
                    yield
                finally:
                    self._written = self._read = self._journal.generation()

    @contextmanager
    def _looking(self) -> Iterator[FlowBook]:
        with self._guard:
            self._check_open()
            book = self._facets.book(self._book)
            self._refresh()
            yield book

    def _refresh(self) -> None:
        """See what other processes did, without waiting for one that is at work."""
        self._check_open()
        generation = self._journal.generation()
        if generation != self._read and self._book is not None:
            found = find_ours(self._journal.rules(), Reading(self._book.filters.dump()))
            self._book.reset(found.owned)
        self._read = generation
