"""Flow rules as filters of u32: a table by hash for each combination of fields, masks and priority."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from nicoffload.driver import InstalledRule, Outcome, Placement, RuleRef, TableState
from nicoffload.errors import KernelError, NicOffloadError, NotFoundError, ResourceExhaustedError
from nicoffload.kernel.tc import U32Filter, U32Filters
from nicoffload.linux.counting import CounterColumns, counter_facts
from nicoffload.model import FlowCounters, FlowRule, Masked, Match
from nicoffload.profiles.types import Table
from nicoffload_softnic import actions, layout
from nicoffload_softnic.table import SoftTable
from nicoffload_softnic.u32 import notes, words
from nicoffload_softnic.u32.places import ALL, hook_of, pref_of
from nicoffload_softnic.u32.rules import Class, Held, Ports, Standing, pack, read_port, redirects

if TYPE_CHECKING:
    from nicoffload_softnic.u32.path import U32Path

MAX_CLASSES = 32
_SOURCE = "u32/rules.py: redirects"


class U32Flows(SoftTable):
    """The flow table.

    Args:
        path: The NIC's data path.
        table: What its profile says of the table.
        monotonic_s: The NIC's clock.
    """

    ON_SOURCE = "u32/build.py: make"
    MATCH_SOURCE = "u32/words.py: words_of"
    COMPARER = "u32"
    MORE_ROWS = "; a NIC with the data path ebpf has room for more"

    def __init__(self, path: U32Path, table: Table, monotonic_s: Callable[[], float]) -> None:
        super().__init__(path.name, path.rows, table, monotonic_s)
        self._path = path
        assert table.counters is not None, "this data path counts"
        self._facts = counter_facts(table.counters, "nic:rule")
        self._ports: Ports = {}
        self._rules: dict[uuid.UUID, Held] = {}
        self._by_match: dict[Match, uuid.UUID] = {}
        self._coming: set[uuid.UUID] = set()
        self._generation = -1

    @staticmethod
    def count(path: U32Path) -> int:
        """Return how many rules a NIC has."""
        return sum(len(one.rules) for one in _read(path).values())

    def tables(self) -> Sequence[TableState]:
        """Return the table with the rows that this NIC was given."""
        self._sync()
        return [TableState(table=self._table, rows=self._path.rows, in_use=len(self._rules))]

    def create_many(self, placements: Sequence[Placement]) -> Sequence[Outcome]:
        """Install rules, those for one port in one go."""
        self._sync()
        outcomes: list[Outcome] = [KernelError("not reached", device=self._name)] * len(placements)
        targets = actions.Targets(self._path.vfs, self._name, _SOURCE)
        by_port: dict[int, list[int]] = {}
        for index, placement in enumerate(placements):
            try:
                by_port.setdefault(self._port_of(placement.rule, targets), []).append(index)
            except NicOffloadError as refused:
                outcomes[index] = refused
        with self._changing() as generation:
            for port, chosen in by_port.items():
                self._create(
                    port, [(index, placements[index].rule) for index in chosen], targets, generation, outcomes
                )
        return outcomes

    def destroy_many(self, refs: Sequence[RuleRef]) -> Sequence[NicOffloadError | None]:
        """Remove rules, those for one port in one go, and the tables that are left without any."""
        self._sync()
        answers: list[NicOffloadError | None] = [None] * len(refs)
        by_port: dict[int, list[tuple[int, Held]]] = {}
        for index, ref in enumerate(refs):
            held = self._rules.pop(ref.rule_id, None) if ref.rule_id is not None else None
            if held is None:
                answers[index] = self._missing(ref)
                continue
            self._by_match.pop(held.rule.match, None)
            by_port.setdefault(held.port, []).append((index, held))
        with self._changing():
            for port, chosen in by_port.items():
                with self._path.filters(hook_of(port)) as filters:
                    found = filters.delete_many([held.ref for _, held in chosen])
                    for (index, held), answer in zip(chosen, found, strict=True):
                        answers[index] = answer
                        held.one.rules -= 1
                    self._sweep(port, filters)
        return answers

    def dump(self, refs: Sequence[RuleRef] | None = None) -> Sequence[InstalledRule]:
        """Return the rules as the kernel's filters say them."""
        self._path.check_alive()
        self._read_all()
        wanted = self._rules.values() if refs is None else [
            self._rules[ref.rule_id] for ref in refs if ref.rule_id in self._rules
        ]  # fmt: skip
        return [
            InstalledRule(
                ref=RuleRef(rule_id=held.rule.rule_id, table=self._table.name, slot=None), rule=held.rule
            )
            for held in wanted
        ]

    def read_counters(self, refs: Sequence[RuleRef]) -> FlowCounters:
        """Return the counters of the filters' first actions, which the kernel dumps port by port."""
        self._sync()
        columns = CounterColumns(
            rule_ids=[ref.rule_id or uuid.uuid4() for ref in refs],
            time_ns=int(self._monotonic_s() * 1e9),
        )
        by_port: dict[int, dict[bytes, int]] = {}
        for row, ref in enumerate(refs):
            held = self._rules.get(ref.rule_id) if ref.rule_id is not None else None
            if held is not None:
                by_port.setdefault(held.port, {})[held.rule.rule_id.bytes] = row
                columns.epoch[row] = held.epoch
        for port, rows in by_port.items():
            with self._path.filters(hook_of(port)) as filters:
                found = filters.counters()
            for at in np.flatnonzero(found.ours & found.counted).tolist():
                row = rows.get(found.cookies[at].tobytes(), -1)
                if row < 0:
                    continue
                columns.valid[row] = True
                columns.packets[row], columns.bytes[row] = found.packets[at], found.bytes[at]
                columns.facts[row] = self._facts
                if found.idle_ns[at] >= 0:
                    columns.last_used_ns[row] = max(columns.time_ns - int(found.idle_ns[at]), 0)
        columns.epoch[~columns.valid] = 0
        return columns.done()

    # ------------------------------------------------------------------------------------------------------- knowledge

    def _sync(self) -> None:
        """Read the rules anew where another process changed them."""
        note = notes.read_nic(self._path.netlink)
        if note is not None and note.generation == self._generation:
            return
        self._path.check_alive()
        self._generation = note.generation if note is not None else -1
        self._read_all()

    def _read_all(self) -> None:
        self._ports = _read(self._path)
        self._rules = {held.rule.rule_id: held for one in self._ports.values() for held in one.rules}
        self._by_match = {held.rule.match: rule_id for rule_id, held in self._rules.items()}

    @contextmanager
    def _changing(self) -> Iterator[int]:
        """Let other processes know of a change: before it, so that none takes half of it for all, and after it."""
        generation = notes.count_change(self._path.netlink)
        self._generation = -1  # where it is cut off, all is read anew
        yield generation
        self._generation = notes.count_change(self._path.netlink)

    # ------------------------------------------------------------------------------------------------------- creation

    def _port_of(self, rule: FlowRule, targets: actions.Targets) -> int:
        """Return the port that a rule is for, once its match can be compared."""
        unfit = words.shape_problem(rule.match.shape)
        if unfit is not None:
            raise self._no_field(unfit, ", ".join(sorted(words.NAMES)))
        named = rule.match.in_port
        if not isinstance(named, Masked):
            return layout.UPLINK
        if named.value - layout.FIRST_VF >= targets.vfs:
            raise NotFoundError(
                f"there is no VF {named.value - layout.FIRST_VF}", path="/match/in_port", device=self._name
            )
        return named.value

    def _create(
        self,
        port: int,
        rules: Sequence[tuple[int, FlowRule]],
        targets: actions.Targets,
        generation: int,
        outcomes: list[Outcome],
    ) -> None:
        standing = self._ports.setdefault(port, Standing())
        items: list[U32Filter] = []
        chosen: list[tuple[int, FlowRule, Class]] = []
        with self._path.filters(hook_of(port)) as filters:
            for index, rule in rules:
                try:
                    item, one = self._admit(filters, standing, port, rule, targets, generation)
                except NicOffloadError as refused:
                    outcomes[index] = refused
                    continue
                items.append(item)
                chosen.append((index, rule, one))
                self._by_match[rule.match] = rule.rule_id
                self._coming.add(rule.rule_id)
                one.rules += 1
            for (index, rule, one), item, answer in zip(chosen, items, filters.add_many(items), strict=True):
                if isinstance(answer, NicOffloadError):
                    self._by_match.pop(rule.match, None)
                    one.rules -= 1
                    outcomes[index] = answer
                    continue
                epoch = item.class_id & layout.U32_EPOCHS
                self._rules[rule.rule_id] = Held(port=port, ref=answer, rule=rule, one=one, epoch=epoch)
                outcomes[index] = RuleRef(rule_id=rule.rule_id, table=self._table.name, slot=None)
            self._coming.clear()
            self._sweep(port, filters)

    def _admit(
        self,
        filters: U32Filters,
        standing: Standing,
        port: int,
        rule: FlowRule,
        targets: actions.Targets,
        generation: int,
    ) -> tuple[U32Filter, Class]:
        """Return the filter of a rule, and its table, which is there then."""
        out, mirror, flags = actions.encode(rule.actions, targets)
        if rule.rule_id in self._rules or rule.rule_id in self._coming:
            raise self._same_id(rule.rule_id)
        twin = self._by_match.get(rule.match)
        if twin is not None:
            raise self._same_match(str(twin))
        if len(self._by_match) >= self._rows:
            raise self._full()
        compared = words.words_of(rule.match)
        form = words.form_of(rule.match, compared, from_wire=port == layout.UPLINK)
        priority = rule.priority or 0
        one = standing.classes.get((priority, form))
        if one is None:
            if len(standing.classes) >= MAX_CLASSES:
                raise self._too_many_classes()
            one = standing.add(filters, priority, form)
        return (
            U32Filter(
                keys=words.keys_of(compared),
                actions=redirects(out, mirror),
                pref=pref_of(priority),
                table=one.table,
                bucket=words.bucket_of(compared, form.hashed),
                protocol=ALL,
                rule_id=rule.rule_id,
                class_id=pack(rule, flags, generation),
            ),
            one,
        )

    def _sweep(self, port: int, filters: U32Filters) -> None:
        """Remove what leads to tables without rules, and the tables."""
        standing = self._ports.get(port)
        if standing is not None:
            standing.sweep(filters)

    # --------------------------------------------------------------------------------------------------------- errors

    def _too_many_classes(self) -> NicOffloadError:
        return ResourceExhaustedError(
            f"{MAX_CLASSES} combinations of fields, masks and priorities are in use at this port",
            limit=MAX_CLASSES,
            in_use=MAX_CLASSES,
            path="/match",
            device=self._name,
            hint="rules that compare the same fields with the same masks at one priority share one",
        )


def _read(path: U32Path) -> Ports:
    """Return what stands at each port of a NIC."""
    found: Ports = {}
    for port in range(layout.FIRST_VF + path.vfs):
        with path.filters(hook_of(port)) as filters:
            found[port] = read_port(port, filters.dump())
    return found
