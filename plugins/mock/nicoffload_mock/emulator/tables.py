"""One filter table of the emulated NIC: takes, refuses, replaces and forgets rules as its profile says."""

from __future__ import annotations

import zlib
from nicoffload.model import FlowRule
from nicoffload_mock.emulator.actions import Plan, Targets, make_plan
from nicoffload_mock.emulator.answer import Refused, refuse
from nicoffload_mock.emulator.hash import HashRows
from nicoffload_mock.emulator.masks import Filter, Recipe, Values, check_values, make_recipe
from nicoffload_mock.emulator.spec import TableSpec

_SLOT_RANK = 13
"""A driver that picks locations tells (precedence of the shape << 13) | row, as the SFC drivers do."""

_ANYTHING = Targets(1 << 12, frozenset(), 1 << 16)


class Entry:
    """A rule in the hardware.

    Args:
        entry_id: Its number on this NIC, never used again.
        table: Name of its table.
        rule: As asked for.
        slot: Location; None where rules have none.
        recipe: How it is programmed.
        filters: What is programmed.
        plan: What it does.
        counter: Row of its counters.
    """

    __slots__ = ("counter", "entry_id", "filters", "flow_type", "ghost", "plan", "rank", "recipe", "row", "rule", "slot", "table")

    def __init__(
        self,
        *,
        entry_id: int,
        table: str,
        flow_type: str,
        rule: FlowRule,
        slot: int | None,
        recipe: Recipe,
        filters: tuple[Filter, ...],
        plan: Plan,
        counter: int,
    ) -> None:
        self.entry_id = entry_id
        self.table = table
        self.flow_type = flow_type
        self.rule = rule
        self.slot = slot
        self.recipe = recipe
        self.filters = filters
        self.plan = plan
        self.counter = counter
        self.row: int | None = None
        self.rank: tuple[int, int] = (0, 0)
        self.ghost = False


class Bank:
    """Rows, locations and masks that some tables share.

    Args:
        rows: Capacity.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.used = 0
        self.slots: dict[int, Entry] = {}
        self.masks: object = None
        self.lowest_free = 0


class Table:
    """A live table.

    Args:
        spec: What its profile says.
        bank: Whose rows it takes.
        seed: Settles what the profile leaves undefined.
    """

    def __init__(self, spec: TableSpec, bank: Bank, seed: int) -> None:
        self.spec = spec
        self.bank = bank
        self.space: dict[tuple[tuple[str, int], ...], dict[Values, list[Entry]]] = {}
        self.by_rule: dict[int, Entry] = {}
        self.rivals: list[Table] = []
        self.entries: dict[int, Entry] = {}
        self.ghosts: list[Entry] = []
        self._seed = seed
        self._recipes: dict[object, Recipe | Refused] = {}
        self._plans: dict[object, Plan] = {}
        self._plans_for: Targets | None = None
        self._same: dict[object, list[Entry]] = {}
        self._inputs: dict[str, tuple[frozenset[str], int]] = {}
        self._limited: dict[str, int] = {}
        self.slot_shift = max(_SLOT_RANK, (bank.rows - 1).bit_length())
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
        recipe, name = self._recipe(rule, flow_type)
        plan = self._plan(rule, targets)
        self._check_slot(slot)
        match = rule.match
        return Entry(
            entry_id=-1,
            table=self.spec.name,
            flow_type=name,
            rule=rule,
            slot=slot,
            recipe=recipe,
            filters=recipe.filters(match.values),  # type: ignore[arg-type]  # no ranges: the recipe refused them
            plan=plan,
            counter=-1,
        )

    def insert(self, entry: Entry, entry_id: int, rows_left: int | None = None) -> list[Entry]:
        """Install a prepared entry; return those that it replaced.

        Args:
            entry: From `prepare`.
            entry_id: A new number.
            rows_left: Fewer rows than the bank has free, by a fault; None for none.

        Raises:
            Refused: No room, a duplicate, or masks that differ from those installed. Nothing is changed then.
        """
        spec, bank = self.spec, self.bank
        old = bank.slots.get(entry.slot) if spec.picker == "caller" and entry.slot is not None else None
        if old is not None and spec.occupied == "refuse":
            refuse(spec.errors, "slot_occupied", f"location {entry.slot} is in use", default="EEXIST")
        self._check_masks(entry, old)
        twin = self._find_twin(entry, old)
        if spec.one_target:
            self._check_targets(entry, old)
        self._check_room(entry, twin or old, rows_left)
        row = self._find_row(entry, twin)
        replaced = [gone for gone in (old, twin) if gone is not None]
        for gone in replaced:
            self._replace(gone)
        self._place(entry, entry_id, row)
        return replaced

    def revive(self, rule: FlowRule, flow_type: str, slot: int | None) -> Entry:
        """Return the entry of a rule from a state file, whatever targets exist now."""
        recipe = self._recipe_of(rule, flow_type)
        return Entry(
            entry_id=-1,
            table=self.spec.name,
            flow_type=flow_type,
            rule=rule,
            slot=slot,
            recipe=recipe,
            filters=recipe.filters(rule.match.values),  # type: ignore[arg-type]  # it was installed: no ranges
            plan=make_plan(self.spec, rule.actions, _ANYTHING),
            counter=-1,
        )

    def restore(self, entry: Entry) -> None:
        """Put back an entry from a state file, as it was."""
        entry.rank = self._rank(entry)
        self._link(entry)
        if entry.ghost:
            self.ghosts.append(entry)
            return
        self._account(entry)

    def remove(self, entry: Entry) -> None:
        """Take an entry out."""
        self._unlink(entry)
        self._unaccount(entry)

    def erase_ghost(self, entry: Entry) -> None:
        """Take a filter out of the hardware that the driver forgot."""
        self._unlink(entry)
        self.ghosts.remove(entry)

    def fields_in_use(self) -> int:
        """Return how many rules the driver knows of."""
        return len(self.entries)

    def _recipe(self, rule: FlowRule, flow_type: str) -> tuple[Recipe, str]:
        names = (flow_type,) if flow_type else tuple(self.spec.types)
        first: Refused | None = None
        for name in names:
            try:
                recipe = self._recipe_of(rule, name)
                check_values(self.spec, recipe, rule.match.values)  # type: ignore[arg-type]
            except Refused as answer:
                first = _nearer(first, answer)
            else:
                return recipe, name
        assert first is not None
        raise first

    def _recipe_of(self, rule: FlowRule, flow_type: str) -> Recipe:
        key = (flow_type, rule.match.shape)
        found = self._recipes.get(key)
        if found is None:
            kind = self.spec.types.get(flow_type)
            if kind is None:
                raise Refused(self.spec.errors.get("flow_type") or "EINVAL", "flow_type", f"no flow type {flow_type}")
            try:
                found = make_recipe(self.spec, kind, rule.match.shape)
            except Refused as answer:
                found = answer
            self._recipes[key] = found
        if isinstance(found, Refused):
            raise Refused(found.errno, found.condition, found.text, found.path)
        return found

    def _plan(self, rule: FlowRule, targets: Targets) -> Plan:
        if targets is not self._plans_for:
            self._plans, self._plans_for = {}, targets
        plan = self._plans.get(rule.actions)
        if plan is None:
            plan = self._plans[rule.actions] = make_plan(self.spec, rule.actions, targets)
        return plan

    def _check_slot(self, slot: int | None) -> None:
        picker = self.spec.picker
        if picker == "caller":
            if slot is None:
                raise Refused(self.spec.errors.get("slot_any") or "EINVAL", "slot_any", "no location asked for", "/slot")
            if not 0 <= slot < self.bank.rows:
                answer = self.spec.errors.get("slot_range") or "EINVAL"
                raise Refused(answer, "slot_range", f"there is no location {slot}", "/slot")
        elif picker == "driver" and slot is not None:
            refuse(self.spec.errors, "slot_given", "the driver picks the location", path="/slot")

    def _check_masks(self, entry: Entry, old: Entry | None) -> None:
        model = self.spec.mask_model
        if model == "one_mask_per_port":
            if self.bank.used and self.bank.masks != entry.recipe.shape:
                refuse(self.spec.errors, "second_mask", "only one mask for all rules", path="/match")
        elif model == "one_input_set_per_flow_type":
            inputs, rules = self._inputs.get(entry.flow_type, (entry.recipe.inputs, 0))
            alone = rules == 1 and old is not None and old.flow_type == entry.flow_type
            if inputs != entry.recipe.inputs and not alone:
                refuse(self.spec.errors, "second_mask", "another set of fields is in use", path="/match")

    def _find_twin(self, entry: Entry, old: Entry | None) -> Entry | None:
        answer = self.spec.duplicate
        if answer == "allowed":
            return None
        same = [other for other in self._same.get(self._identity(entry), ()) if other is not old]
        if answer == "replace":
            return same[0] if same else None
        if len(same) >= self.spec.copies:
            raise Refused(answer, "duplicate", f"the same match is installed: {same[0].rule.rule_id}", "/match")
        return None

    def _check_targets(self, entry: Entry, old: Entry | None) -> None:
        for field, errno in self.spec.one_target:
            value = _value(entry, field)
            for other in self.entries.values():
                same = other is not old and value is not None and _value(other, field) == value
                if same and other.rule.actions != entry.rule.actions:
                    text = f"another target holds this {field}: rule {other.rule.rule_id}"
                    raise Refused(errno, "one_target", text, f"/match/{field}")

    def _identity(self, entry: Entry) -> object:
        ignores = self.spec.ignores | self.spec.types[entry.flow_type].ignores
        if not ignores:
            return entry.filters
        left = [
            (name, mask, value)
            for shape, values in entry.filters
            for (name, mask), value in zip(shape, values, strict=True)
            if name not in ignores
        ]
        return (entry.flow_type, tuple(left))

    def _check_room(self, entry: Entry, gone: Entry | None, rows_left: int | None) -> None:
        spec, need = self.spec, self.spec.rows_per_rule
        freed = need if gone is not None and spec.erases_old else 0
        free = self.bank.rows - self.bank.used
        if rows_left is not None:
            free = min(free, rows_left)
        if free + freed < need:
            refuse(spec.errors, "full", f"all {self.bank.rows} rows are in use", default="ENOSPC")
        for field, rows, errno in spec.limits:
            held = self._limited.get(field, 0) - (gone is not None and _compares(gone, field))
            if _compares(entry, field) and held >= rows:
                raise Refused(errno, "full", f"all {rows} filters of {field} are in use", f"/match/{field}")

    def _find_row(self, entry: Entry, twin: Entry | None) -> int | None:
        if twin is not None and twin.row is not None:
            return twin.row
        if self._hash is not None:
            row = self._hash.find(*entry.filters[0])
            if row is None:
                assert self.spec.hash is not None
                raise Refused(self.spec.hash.errno, "hash", "no free row within the search depth")
            return row
        if self.spec.picker == "driver":
            bank = self.bank
            row = bank.lowest_free
            while row in bank.slots:
                row += 1
            bank.lowest_free = row + 1
            return row
        return entry.slot

    def _replace(self, gone: Entry) -> None:
        self._unaccount(gone)
        if self.spec.erases_old:
            self._unlink(gone)
        else:
            gone.ghost = True
            self.ghosts.append(gone)

    def _place(self, entry: Entry, entry_id: int, row: int | None) -> None:
        entry.entry_id = entry_id
        entry.row = row
        if self.spec.picker == "driver":
            assert row is not None
            entry.slot = row | entry.recipe.rank << self.slot_shift
        elif self.spec.picker == "none":
            entry.slot = None
        entry.rank = self._rank(entry)
        self._link(entry)
        self._account(entry)

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
            if len(entries) > 1:
                entries.remove(entry)
                continue
            del keys[values]
            if not keys:
                del self.space[shape]

    def _account(self, entry: Entry) -> None:
        spec, bank = self.spec, self.bank
        self.entries[entry.entry_id] = entry
        if spec.picker == "none":
            self.by_rule[entry.rule.rule_id.int] = entry
        elif entry.slot is not None:
            bank.slots[entry.row if spec.picker == "driver" and entry.row is not None else entry.slot] = entry
        bank.used += spec.rows_per_rule
        bank.masks = entry.recipe.shape
        if self._hash is not None and entry.row is not None:
            self._hash.take(entry.row)
        if spec.duplicate != "allowed":
            self._same.setdefault(self._identity(entry), []).append(entry)
        if spec.mask_model == "one_input_set_per_flow_type":
            self._inputs[entry.flow_type] = (
                entry.recipe.inputs,
                self._inputs.get(entry.flow_type, (frozenset(), 0))[1] + 1,
            )
        for field, _, _ in spec.limits:
            self._limited[field] = self._limited.get(field, 0) + _compares(entry, field)

    def _unaccount(self, entry: Entry) -> None:
        spec, bank = self.spec, self.bank
        del self.entries[entry.entry_id]
        if spec.picker == "none":
            self.by_rule.pop(entry.rule.rule_id.int, None)
        elif entry.slot is not None:
            place = entry.row if spec.picker == "driver" and entry.row is not None else entry.slot
            bank.slots.pop(place, None)
            bank.lowest_free = min(bank.lowest_free, place)
        bank.used -= spec.rows_per_rule
        if self._hash is not None and entry.row is not None:
            self._hash.free(entry.row)
        if spec.duplicate != "allowed":
            key = self._identity(entry)
            self._same[key].remove(entry)
            if not self._same[key]:
                del self._same[key]
        if spec.mask_model == "one_input_set_per_flow_type":
            inputs, rules = self._inputs[entry.flow_type]
            self._inputs[entry.flow_type] = (inputs, rules - 1)
            if rules == 1:
                del self._inputs[entry.flow_type]
        for field, _, _ in spec.limits:
            self._limited[field] -= _compares(entry, field)


def _value(entry: Entry, field: str) -> tuple[int, int] | None:
    for shape, values in entry.filters:
        for (name, mask), value in zip(shape, values, strict=True):
            if name == field:
                return (mask, value)
    return None


def _compares(entry: Entry, field: str) -> bool:
    return any(name == field for name, _ in entry.recipe.shape)


def _nearer(first: Refused | None, second: Refused) -> Refused:
    """Keep the answer of the flow type that the rule came closest to: the first that fits its fixed fields."""
    if first is None or (first.condition == "flow_type" != second.condition):
        return second
    return first
