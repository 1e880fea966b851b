"""One filter table of the emulated NIC: takes, refuses, replaces and forgets rules as its profile says."""

from __future__ import annotations

import zlib

from nicoffload.model import FlowRule, Shape
from nicoffload.testing.emulator.actions import Targets
from nicoffload.testing.emulator.admission import Admission
from nicoffload.testing.emulator.answer import Refused, refuse
from nicoffload.testing.emulator.entry import Bank, Entry
from nicoffload.testing.emulator.hash import HashRows
from nicoffload.testing.emulator.masks import Values
from nicoffload.testing.emulator.programs import ANYTHING, Programs
from nicoffload.testing.emulator.spec import TableSpec

_SLOT_BITS = 13
"""A driver that picks locations tells (precedence of the shape << 13) | row, as the SFC drivers do."""


class Table:
    """A live table.

    Args:
        spec: What its profile says.
        bank: Whose rows it takes.
        seed: Settles what the profile leaves undefined.

    Besides: `space`, what is programmed, by shape and values; `entries`, the rules that the driver knows of, by number;
    `rivals`, the tables that must be empty while this one holds rules; `siblings`, those of its bank, by name.
    """

    def __init__(self, spec: TableSpec, bank: Bank, seed: int) -> None:
        self.spec = spec
        self.bank = bank
        self.space: dict[Shape, dict[Values, list[Entry]]] = {}
        self.entries: dict[int, Entry] = {}
        self.by_rule: dict[int, Entry] = {}
        self.rivals: list[Table] = []
        self.siblings: dict[str, Table] = {spec.name: self}
        self._seed = seed
        self._programs = Programs(spec)
        self._admission = Admission(spec, bank)
        self._slot_bits = max(_SLOT_BITS, (bank.rows - 1).bit_length())
        hashing = spec.hash
        self._hash = HashRows(bank.rows, hashing.depth, hashing.function) if hashing else None

    def prepare(self, rule: FlowRule, flow_type: str, slot: int | None, targets: Targets) -> Entry:
        """Return what a rule would become here; its number and counters are still open.

        Args:
            rule: The rule.
            flow_type: As the request encodes it; empty to let the table find the first that takes the rule.
            slot: As the request says.
            targets: What exists.

        Raises:
            Refused: The driver does not take it, whatever else is installed.
        """
        if self.spec.picker == "none":
            return self._programs.make(rule, flow_type, None, targets)
        entry = self._programs.make(rule, flow_type, slot, targets)
        self._check_slot(slot)
        return entry

    def insert(self, entry: Entry, entry_id: int, rows_left: int | None = None) -> list[Entry]:
        """Install a prepared entry; return those that it replaced.

        Args:
            entry: From `prepare`.
            entry_id: A new number.
            rows_left: Fewer rows than the bank has free, by a fault; None for none.

        Raises:
            Refused: No room, a duplicate, or masks that differ from those installed. Nothing is changed then.
        """
        spec = self.spec
        old = self.bank.slots.get(entry.slot) if spec.picker == "caller" and entry.slot is not None else None
        if old is not None and spec.occupied == "refuse":
            refuse(spec.errors, "slot_occupied", f"location {entry.slot} is in use", default="EEXIST")
        twin = self._admission.judge(entry, old, rows_left)
        entry.row = self._find_row(entry, twin)
        replaced = [gone for gone in (old, twin) if gone is not None]
        for gone in replaced:
            self.siblings[gone.table].replace(gone, erase=spec.erases_old)
        if spec.picker == "driver":
            assert entry.row is not None
            entry.slot = entry.row | entry.recipe.rank << self._slot_bits
        entry.entry_id = entry_id
        self.restore(entry)
        return replaced

    def revive(self, rule: FlowRule, flow_type: str, slot: int | None) -> Entry:
        """Return the entry of a rule from a state file, whatever targets exist now."""
        return self._programs.make(rule, flow_type, slot, ANYTHING)

    def restore(self, entry: Entry) -> None:
        """Put an entry with its number, row and location into the hardware, and into the driver's books."""
        entry.rank = self._rank(entry)
        self._link(entry)
        if not entry.ghost:
            self._remember(entry)

    def replace(self, gone: Entry, *, erase: bool) -> None:
        """Forget an entry; without `erase` its filters stay in the hardware, unseen."""
        self._forget(gone)
        gone.ghost = not erase
        if erase:
            self._unlink(gone)

    def remove(self, entry: Entry) -> None:
        """Take an entry out."""
        self._unlink(entry)
        self._forget(entry)

    def at(self, slot: int) -> Entry | None:
        """Return the rule at a location."""
        row = slot & (1 << self._slot_bits) - 1 if self.spec.picker == "driver" else slot
        entry = self.bank.slots.get(row)
        return entry if entry is not None and entry.table == self.spec.name and entry.slot == slot else None

    @property
    def id_limit(self) -> int:
        """One more than the greatest location that a driver picks here."""
        ranks = [shape.rank for shape in self.spec.shapes]
        return max(ranks, default=0) << self._slot_bits | self.bank.rows

    def _check_slot(self, slot: int | None) -> None:
        errors = self.spec.errors
        if self.spec.picker == "driver":
            if slot is not None:
                refuse(errors, "slot_given", "the driver picks the location", path="/slot")
        elif slot is None:
            raise Refused(errors.get("slot_any") or "EINVAL", "slot_any", "no location asked for", "/slot")
        elif not self.spec.first_slot <= slot < self.bank.rows:
            answer = errors.get("slot_range") or "EINVAL"
            raise Refused(answer, "slot_range", f"there is no location {slot}", "/slot")

    def _find_row(self, entry: Entry, twin: Entry | None) -> int | None:
        if twin is not None and twin.row is not None:
            return twin.row
        if self._hash is not None:
            row = self._hash.find(*entry.filters[0])
            if row is None:
                assert self.spec.hash is not None
                raise Refused(self.spec.hash.errno, "hash", "no free row within the search depth")
            return row
        return self.bank.pick() if self.spec.picker == "driver" else entry.slot

    def _rank(self, entry: Entry) -> tuple[int, int]:
        older_first = -entry.entry_id
        match self.spec.priority:
            case "honoured":
                return (entry.rule.priority or 0, older_first)
            case "slot_ascending":
                return (-(entry.slot or 0), older_first)
            case "most_specific":
                return (len(entry.recipe.shape), older_first)
            case "shape_rank":
                return (-entry.recipe.rank, older_first)
            case _:
                return (zlib.crc32(f"{self._seed}/{entry.entry_id}".encode()), older_first)

    def _link(self, entry: Entry) -> None:
        for shape, values in entry.filters:
            keys = self.space.get(shape)
            if keys is None:
                keys = self.space[shape] = {}
            entries = keys.get(values)
            if entries is None:
                keys[values] = [entry]
            else:
                entries.append(entry)

    def _unlink(self, entry: Entry) -> None:
        for shape, values in entry.filters:
            keys = self.space[shape]
            entries = keys[values]
            entries.remove(entry)
            if not entries:
                del keys[values]
            if not keys:
                del self.space[shape]

    def _remember(self, entry: Entry) -> None:
        self.entries[entry.entry_id] = entry
        self._admission.enter(entry)
        if self.spec.picker == "none":
            self.by_rule[entry.rule.rule_id.int] = entry
            return
        assert entry.row is not None
        self.bank.slots[entry.row] = entry
        if self._hash is not None:
            self._hash.take(entry.row)

    def _forget(self, entry: Entry) -> None:
        del self.entries[entry.entry_id]
        self._admission.leave(entry)
        if self.spec.picker == "none":
            del self.by_rule[entry.rule.rule_id.int]
            return
        assert entry.row is not None
        del self.bank.slots[entry.row]
        self.bank.lowest_free = min(self.bank.lowest_free, entry.row)
        if self._hash is not None:
            self._hash.free(entry.row)
