"""Flow rules of the software NIC."""

from __future__ import annotations

import copy
import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nicoffload.driver import InstalledRule, Outcome, Placement, RuleRef, TableState
from nicoffload.errors import KernelError, NicOffloadError
from nicoffload.model import ByteBasis, CounterFacts, FlowCounters, FlowRule, ToVf
from nicoffload.profiles.types import Table
from nicoffload_softnic import actions, keys, layout
from nicoffload_softnic.device import SoftDevice
from nicoffload_softnic.store import Block, FlowStore, Slots, class_number, span
from nicoffload_softnic.table import SoftTable

FACTS = CounterFacts(source="nic:rule", byte_basis=ByteBasis.L2)
_FEW = 64
"""So many rules are read one by one; more are read with all the others."""


class SoftFlows(SoftTable):
    """The flow table.

    Args:
        device: The NIC.
        table: What its profile says of the table.
        monotonic_s: The NIC's clock.
    """

    ON_SOURCE = "softnic.bpf.c: forward"
    MATCH_SOURCE = "softnic.bpf.c: struct key"
    COMPARER = "the data path"
    MORE_ROWS = ", or make the NIC with more rows: nicoffload soft create NAME --rows N"

    def __init__(self, device: SoftDevice, table: Table, monotonic_s: Callable[[], float]) -> None:
        super().__init__(device.name, device.rows, table, monotonic_s)
        self._device = device
        self._store = FlowStore(device)
        self._slots: dict[int, int] = {}
        """Slot of a rule by the number of its id."""
        self._by_key: dict[bytes, int] = {}
        self._rules: list[FlowRule | None] = []
        """What each slot's bytes mean; None until somebody asks."""
        self._asked: tuple[Sequence[RuleRef], Slots, Sequence[uuid.UUID]] | None = None

    def tables(self) -> Sequence[TableState]:
        """Return the table as the data path's map is sized."""
        self._sync()
        return [TableState(table=self._table, rows=self._device.rows, in_use=self._store.in_use)]

    def create_many(self, placements: Sequence[Placement]) -> Sequence[Outcome]:
        """Install rules, those of one shape in one call."""
        self._sync()
        outcomes: list[Outcome] = [KernelError("not reached", device=self._name)] * len(placements)
        groups: dict[int, list[int]] = {}
        for index, placement in enumerate(placements):
            # Equal shapes are one object, so that its id will do; two that are not end in one class all the same.
            groups.setdefault(id(placement.rule.match.shape), []).append(index)
        with self._store.doubted_if_cut_off():
            for chosen in groups.values():
                self._create_alike(placements, chosen, outcomes)
        return outcomes

    def destroy_many(self, refs: Sequence[RuleRef]) -> Sequence[NicOffloadError | None]:
        """Remove rules in one call."""
        self._sync()
        answers: list[NicOffloadError | None] = [None] * len(refs)
        slots: list[int] = []
        places: list[int] = []
        with self._store.doubted_if_cut_off():
            for index, ref in enumerate(refs):
                slot = self._slots.pop(ref.rule_id.int, None) if ref.rule_id is not None else None
                if slot is None:
                    answers[index] = self._missing(ref)
                else:
                    slots.append(slot)
                    places.append(index)
            if slots:
                self._remove(refs, answers, slots, places)
        return answers

    def dump(self, refs: Sequence[RuleRef] | None = None) -> Sequence[InstalledRule]:
        """Return the rules as the data path's maps have them."""
        self._sync()
        if refs is not None and len(refs) <= _FEW:
            return list(self._read_few(refs))
        found, flows = self._store.read_kernel()
        slots = flows["slot"].astype(np.int64)
        if refs is not None:
            asked = np.zeros(self._device.rows, np.bool_)
            known = (self._slots.get(ref.rule_id.int) for ref in refs if ref.rule_id is not None)
            asked[[slot for slot in known if slot is not None]] = True
            chosen = asked[slots]
            found, flows, slots = found[chosen], flows[chosen], slots[chosen]
        return self._installed(found, flows, slots)

    def read_counters(self, refs: Sequence[RuleRef]) -> FlowCounters:
        """Return the counters, which are in this process's memory: no call to the kernel."""
        self._sync()
        if self._asked is None or self._asked[0] is not refs:
            self._asked = (refs, *self._find(refs))
        _, slots, ids = self._asked
        valid = slots >= 0
        is_whole = bool(valid.all())
        at = span(slots if is_whole else np.where(valid, slots, 0))
        counters = self._device.counters
        total = counters.view(np.uint64).reshape(*counters.shape, -1)[:, at].sum(0)
        epoch = self._device.records["epoch"][at].astype(np.int64)
        facts: list[CounterFacts | None] = [FACTS] * len(refs)
        if not is_whole:
            total[~valid] = 0
            epoch[~valid] = 0
            facts = [FACTS if one else None for one in valid.tolist()]
        return FlowCounters(
            rule_ids=ids,
            valid=valid,
            packets=total[:, 0],
            bytes=total[:, 1],
            epoch=epoch,
            last_used_ns=np.full(len(refs), -1, np.int64),
            time_ns=int(self._monotonic_s() * 1e9),
            facts=facts,
        )

    def _find(self, refs: Sequence[RuleRef]) -> tuple[Slots, Sequence[uuid.UUID]]:
        """Return the slot of each rule, -1 where there is none, and its id."""
        ids = [ref.rule_id or uuid.uuid4() for ref in refs]
        known = map(self._slots.get, [each.int for each in ids], itertools.repeat(-1))
        return np.fromiter(known, np.int64, len(ids)), ids

    def _sync(self) -> None:
        """Read the rules anew where another process changed them."""
        if self._store.is_current():
            return
        self._device.check_alive()
        store = self._store
        with store.doubted_if_cut_off():
            store.read()
            slots = np.flatnonzero(store.used)
            ids = store.records["rule_id"][slots]
            self._slots = {
                int.from_bytes(one, "big"): slot for one, slot in zip(_rows(ids), slots.tolist(), strict=True)
            }
            self._by_key = dict(zip(_rows(store.keys[slots]), slots.tolist(), strict=True))
            self._rules = [None] * self._device.rows
            self._asked = None

    def _create_alike(
        self, placements: Sequence[Placement], chosen: Sequence[int], outcomes: list[Outcome]
    ) -> None:
        """Install rules of one shape."""
        rules = [placements[index].rule for index in chosen]
        shape = rules[0].match.shape
        unfit = next((name for name, mask in shape if not keys.can_compare(name, mask)), None)
        if unfit is not None:
            for index in chosen:  # an error each: whoever gets one may write the rule's name into it
                outcomes[index] = self._no_field(unfit, ", ".join(keys.PLACES))
            return
        form = keys.form_of(shape)
        encoded = keys.encode(form, [rule.match.values for rule in rules])  # type: ignore[misc]  # no ranges
        suffix = self._suffix(form)
        kept: list[int] = []
        made: list[actions.Encoded] = []
        targets = actions.Targets(self._device.vfs, self._name)
        new_keys: dict[bytes, int] = {}
        new_ids: set[int] = set()
        whole = _rows(encoded)
        for at, rule in enumerate(rules):
            try:
                acts = rule.actions
                if (
                    len(acts) == 1
                    and type(acts[0]) is ToVf
                    and acts[0].vf < targets.vfs
                    and not acts[0].queue
                ):
                    what = (layout.FIRST_VF + acts[0].vf, layout.NO_PORT, 0)
                else:
                    what = actions.encode(acts, targets)
                self._check_new(rule, whole[at], suffix, new_keys, new_ids)
                if len(kept) >= self._store.free:
                    raise self._full()
            except NicOffloadError as refused:
                outcomes[chosen[at]] = refused
                continue
            new_keys[whole[at]] = at
            new_ids.add(rule.rule_id.int)
            kept.append(at)
            made.append(what)
        if kept:
            self._insert(form, encoded, rules, kept, made, chosen, outcomes)

    def _insert(
        self,
        form: keys.Form,
        encoded: keys.Bytes,
        rules: Sequence[FlowRule],
        kept: Sequence[int],
        made: Sequence[actions.Encoded],
        chosen: Sequence[int],
        outcomes: list[Outcome],
    ) -> None:
        mine = [rules[at] for at in kept]
        what = np.array(made, np.int64)
        given = np.array([rule.priority if rule.priority is not None else -1 for rule in mine], np.int64)
        ids = b"".join([rule.rule_id.int.to_bytes(16, "big") for rule in mine])
        block = Block(
            keys=encoded if len(kept) == len(encoded) else encoded[np.array(kept)],
            mask=form.mask,
            named=bool(form.blank[layout.IN_PORT_GIVEN_AT]),
            out=what[:, 0].astype(np.uint16),
            mirror=what[:, 1].astype(np.uint16),
            priority=np.maximum(given, 0).astype(np.uint16),
            flags=(what[:, 2] | (given >= 0) * layout.RECORD_PRIORITY).astype(np.uint8),
            rule_ids=np.frombuffer(ids, np.uint8).reshape(-1, 16),
        )
        slots, error = self._store.insert(block)
        self._asked = None
        table = self._table.name
        written = _rows(self._store.keys[slots])
        for at, rule, slot, key in zip(kept, mine, slots.tolist(), written, strict=False):
            self._slots[rule.rule_id.int] = slot
            self._by_key[key] = slot
            self._rules[slot] = rule
            outcomes[chosen[at]] = RuleRef(rule_id=rule.rule_id, table=table, slot=None)
        for at in kept[len(slots) :]:
            assert error is not None
            outcomes[chosen[at]] = copy.copy(error)

    def _suffix(self, form: keys.Form) -> bytes | None:
        """Return the end of the keys of a class that is in use; None where it is not."""
        found = self._store.classes.known(form.mask, named=bool(form.blank[layout.IN_PORT_GIVEN_AT]))
        return found.suffix.to_bytes(8, "little") if found is not None else None

    def _check_new(
        self,
        rule: FlowRule,
        key: bytes,
        suffix: bytes | None,
        new_keys: dict[bytes, int],
        new_ids: set[int],
    ) -> None:
        if rule.rule_id.int in self._slots or rule.rule_id.int in new_ids:
            raise self._same_id(rule.rule_id)
        there = None
        if suffix is not None:
            last = int.from_bytes(key[56:], "little") | int.from_bytes(suffix, "little")
            there = self._by_key.get(key[:56] + last.to_bytes(8, "little"))
        if there is not None or key in new_keys:
            existing = (
                "" if there is None else str(uuid.UUID(bytes=self._store.records["rule_id"][there].tobytes()))
            )
            raise self._same_match(existing)

    def _remove(
        self,
        refs: Sequence[RuleRef],
        answers: list[NicOffloadError | None],
        slots: list[int],
        places: list[int],
    ) -> None:
        at = np.array(slots, np.int64)
        for key in _rows(self._store.keys[at]):
            self._by_key.pop(key, None)
        for slot in slots:
            self._rules[slot] = None
        self._asked = None
        there = self._store.remove(at)
        if not there.all():
            for index, was in zip(places, there.tolist(), strict=True):
                if not was:
                    answers[index] = self._missing(refs[index])

    def _is_known(self, ref: RuleRef) -> bool:
        return ref.rule_id is not None and ref.rule_id.int in self._slots

    def _read_few(self, refs: Sequence[RuleRef]) -> Iterator[InstalledRule]:
        for ref in refs:
            if ref.rule_id is None or not self._is_known(ref):
                continue
            slot = self._slots[ref.rule_id.int]
            key = self._store.keys[slot]
            flow = self._store.read_one(slot)
            if flow is not None:
                yield from self._installed(key.reshape(1, -1), flow, np.array([slot]))

    def _installed(self, found: keys.Bytes, flows: Any, slots: Slots) -> list[InstalledRule]:
        """Return rules from their bytes; those whose bytes are as this process wrote them are the rules it wrote."""
        store, table = self._store, self._table.name
        records = self._device.records[slots]
        same = (store.keys[slots] == found).all(1) & (store.flows[slots] == flows)
        same &= store.records[slots] == records
        rules: list[InstalledRule] = []
        for at, (slot, is_same) in enumerate(zip(slots.tolist(), same.tolist(), strict=True)):
            rule = self._rules[slot] if is_same else None
            if rule is None:
                rule = self._decode(found[at].tobytes(), flows[at], records[at])
                if is_same:
                    self._rules[slot] = rule
            rules.append(InstalledRule(ref=RuleRef(rule_id=rule.rule_id, table=table, slot=None), rule=rule))
        return rules

    def _decode(self, key: bytes, flow: Any, record: Any) -> FlowRule:
        one = self._store.classes.by_number(class_number(key))
        if one is None:
            raise KernelError("a rule of a class that the data path does not know", device=self._name)
        flags = int(record["flags"])
        return FlowRule(
            match=keys.decode(key, one.mask),
            actions=actions.decode(int(flow["out"]), int(flow["mirror"]), flags),
            priority=int(record["priority"]) if flags & layout.RECORD_PRIORITY else None,
            rule_id=uuid.UUID(bytes=record["rule_id"].tobytes()),
        )


def _rows(block: keys.Bytes) -> list[bytes]:
    """Return each row of a block as bytes."""
    if not len(block):
        return []
    flat = np.ascontiguousarray(block).tobytes()
    width = block.shape[1]
    return [flat[at : at + width] for at in range(0, len(flat), width)]
