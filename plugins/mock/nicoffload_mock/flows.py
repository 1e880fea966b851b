"""Flow rules of an emulated NIC."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nicoffload.driver import FlowFilters, InstalledRule, Outcome, Placement, QueueCounts, RuleRef, TableState
from nicoffload.errors import NicOffloadError, Reason
from nicoffload.model import ByteBasis, CounterFacts, Disruption, FlowCounters, FlowRule, Masked, Match
from nicoffload.profiles.types import Table as ProfileTable
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.device import Device
from nicoffload.testing.emulator.entry import Entry
from nicoffload.testing.emulator.tables import Table
from nicoffload_mock.answers import translate

if TYPE_CHECKING:
    from nicoffload_mock.driver import MockDriver


class MockFlows(FlowFilters):
    """The filter tables.

    Args:
        driver: The open NIC.
    """

    def __init__(self, driver: MockDriver) -> None:
        self._driver = driver
        self._device: Device = driver.device

    def queues(self) -> QueueCounts:
        """Return the queues of the PF, which the emulator assumes, and of each VF."""
        return QueueCounts(pf=self._device.pf_queues, vf=self._device.sriov.targets().queues_per_vf)

    def tables(self) -> Sequence[TableState]:
        """Return the tables in the profile's order."""
        with self._device.session():
            states = (self._device.table(table.name) for table in self._driver.profile.tables)
            return [
                self._state(table, state)
                for table, state in zip(self._driver.profile.tables, states, strict=True)
                if state is not None
            ]

    def create_many(self, placements: Sequence[Placement]) -> Sequence[Outcome]:
        """Install rules one by one, as the emulated driver's requests."""
        device, name = self._device, self._driver.info.name
        create = device.create
        outcomes: list[Outcome] = []
        with device.session():
            for placement in placements:
                rule = placement.rule
                try:
                    entry = create(placement.table, rule, placement.flow_type, placement.slot)
                except Refused as answer:
                    outcomes.append(
                        self._error(answer, f"rule {rule.rule_id} was refused", placement.table, name)
                    )
                else:
                    outcomes.append(RuleRef(rule_id=rule.rule_id, table=placement.table, slot=entry.slot))
        return outcomes

    def destroy_many(self, refs: Sequence[RuleRef]) -> Sequence[NicOffloadError | None]:
        """Remove rules one by one."""
        name = self._driver.info.name
        answers: list[NicOffloadError | None] = []
        with self._device.session():
            for ref in refs:
                try:
                    self._device.destroy(ref.table, ref.rule_id, ref.slot)
                except Refused as answer:
                    answers.append(
                        self._error(answer, f"rule {ref.rule_id} was not removed", ref.table, name)
                    )
                else:
                    answers.append(None)
        return answers

    def dump(self, refs: Sequence[RuleRef] | None = None) -> Sequence[InstalledRule]:
        """Return what the driver knows of; a filter that it forgot in the hardware is not there."""
        device = self._device
        with device.session(), self._driver.asking("flow_dump", "reading rules", "flow_filters"):
            if device.faults.active and device.faults.lies("flows"):
                return []
            if refs is None:
                return [
                    _installed(table, entry, None)
                    for table in device.tables
                    for entry in table.entries.values()
                ]
            found = ((ref, device.table(ref.table)) for ref in refs)
            entries = (
                (ref, table, device.find(table, ref.rule_id, ref.slot)) for ref, table in found if table
            )
            return [_installed(table, entry, ref) for ref, table, entry in entries if entry is not None]

    def read_counters(self, refs: Sequence[RuleRef]) -> FlowCounters:
        """Return counters as wide, and as old, as the profile says."""
        device = self._device
        with device.session(), self._driver.asking("flow_counters", "reading counters", "statistics.rule"):
            rows = np.full(len(refs), -1, np.int64)
            ids: list[uuid.UUID] = []
            facts: list[CounterFacts | None] = []
            widths = np.full(len(refs), 64, np.int64)
            known = {table.spec.name: self._facts(table) for table in device.tables}
            for at, ref in enumerate(refs):
                ids.append(ref.rule_id or uuid.uuid4())
                table = device.table(ref.table)
                fact = known.get(ref.table)
                entry = None if table is None else device.find(table, ref.rule_id, ref.slot)
                facts.append(fact if entry is not None else None)
                if entry is not None and fact is not None:
                    rows[at], widths[at] = entry.counter, fact.packet_bits
            return self._columns(ids, rows, widths, facts)

    def enable_table(self, name: str) -> None:
        """Turn on what a blocked table needs."""
        device = self._device
        with device.session():
            try:
                device.enable(name)
            except Refused as answer:
                raise self._error(
                    answer, f"table {name} can't be enabled", name, self._driver.info.name
                ) from answer

    def mode(self) -> str:
        """Return the mode of the eswitch."""
        return self._device.mode if self._driver.profile.eswitch is not None else ""

    def set_mode(self, mode: str) -> None:
        """Change the mode of the eswitch."""
        device = self._device
        with device.session():
            try:
                device.set_mode(mode)
            except Refused as answer:
                raise translate(
                    answer,
                    f"the eswitch can't change to {mode}",
                    capability="eswitch",
                    device=self._driver.info.name,
                ) from answer

    def _columns(
        self, ids: Sequence[uuid.UUID], rows: Any, widths: Any, facts: Sequence[CounterFacts | None]
    ) -> FlowCounters:
        valid = rows >= 0
        packets, sizes, last, epoch = self._device.rules.read(rows[valid], self._device.now_ns)
        shift = np.uint64(64) - widths[valid].astype(np.uint64)

        def spread(values: Any, kind: Any, empty: int) -> Any:
            column = np.full(len(rows), empty, kind)
            column[valid] = values
            return column

        def narrow(values: Any) -> Any:
            wide = values.astype(np.uint64)
            return (wide << shift) >> shift

        return FlowCounters(
            rule_ids=ids,
            valid=valid,
            packets=spread(narrow(packets), np.uint64, 0),
            bytes=spread(narrow(sizes), np.uint64, 0),
            epoch=spread(epoch, np.int64, 0),
            last_used_ns=spread(last, np.int64, -1),
            time_ns=self._device.now_ns,
            facts=facts,
        )

    def _facts(self, table: Table) -> CounterFacts | None:
        doc = table.spec.counters
        if doc is None:
            return None
        bits = self._device.faults.width("rule") or doc.get("bits") or 64
        return CounterFacts(
            source="nic:rule",
            byte_basis=ByteBasis(doc.get("byte_basis", "unknown")),
            packet_bits=bits,
            byte_bits=bits,
            refresh_s=doc.get("refresh_s") or 0.0,
        )

    def _state(self, table: ProfileTable, state: Table) -> TableState:
        spec = state.spec
        why = self._device.blocked(spec)
        blocked: tuple[Reason, ...] = ()
        enable: Disruption | None = None
        without_vfs: Disruption | None = None
        mode = ""
        if why is not None:
            errno, condition, text = why
            source = spec.needs.get("source", table.source)
            blocked = (Reason(code=f"table.{condition}", path="", message=text, source=source, errno=errno),)
            enable = self._cost(spec.needs, condition)
            mode = str(spec.needs["eswitch_mode"]) if condition == "eswitch_mode" else ""
            if mode and (stands := self._device.stands_against_mode()):
                without_vfs = enable if stands == {"vfs_present"} else None
                enable = None
        listed = (
            tuple((name, shape.fields) for shape in spec.shapes for name in sorted(shape.flow_types))
            if spec.mask_model == "firmware_list"
            else ()
        )
        return TableState(
            table=table,
            rows=state.bank.rows,
            in_use=state.bank.used,
            blocked=blocked,
            enable=enable,
            firmware_shapes=listed,
            mode=mode,
            enable_without_vfs=without_vfs,
        )

    def _cost(self, needs: Any, condition: str) -> Disruption | None:
        if condition == "eswitch_mode":
            return Disruption.LINK_FLAP if self._driver.profile.eswitch else None
        return Disruption(needs.get("feature_disruption", "none"))

    def _error(self, answer: Refused, message: str, table: str, device: str) -> NicOffloadError:
        error = translate(answer, message, capability=f"flow_filters.{table}", device=device)
        error.__cause__ = answer
        return error


def _installed(table: Table, entry: Entry, ref: RuleRef | None) -> InstalledRule:
    has_cookie = table.spec.picker == "none"
    known = entry.rule.rule_id if has_cookie else None
    rule_id = known or (ref.rule_id if ref else None) or uuid.uuid4()
    return InstalledRule(
        ref=ref or RuleRef(rule_id=known, table=table.spec.name, slot=entry.slot),
        rule=_reported(entry, table.spec.priority == "honoured", rule_id),
    )


def _reported(entry: Entry, has_priority: bool, rule_id: uuid.UUID) -> FlowRule:  # noqa: FBT001 - private
    rule = entry.rule
    recipe = entry.recipe
    if recipe.picks is None:
        match = rule.match
    else:
        # What the hardware was not told to compare is not reported; nor is what it compares on its own.
        values = entry.filters[0][1]
        kept = zip(recipe.shape, values, strict=False)
        asked = dict(rule.match.shape)
        fields = {name: Masked(value, mask) for (name, mask), value in kept if name in asked}
        match = _matching(fields)
    priority = rule.priority if has_priority else None
    return replace(rule, match=match, priority=priority, rule_id=rule_id)


def _matching(fields: dict[str, Masked]) -> Match:
    return Match(**fields)
