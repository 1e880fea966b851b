"""Whether a rule fits beside those that are installed: masks, duplicates, limits, rows."""

from __future__ import annotations

from nicoffload.testing.emulator.answer import Refused, refuse
from nicoffload.testing.emulator.entry import Bank, Entry, compared
from nicoffload.testing.emulator.spec import TableSpec


class Admission:
    """What one table must know of its rules to judge the next.

    Args:
        spec: The table.
        bank: Whose rows it takes.
    """

    def __init__(self, spec: TableSpec, bank: Bank) -> None:
        self._spec = spec
        self._bank = bank
        self._same: dict[object, list[Entry]] = {}
        self._inputs: dict[str, tuple[frozenset[str], int]] = {}
        self._limited: dict[str, int] = {}
        self._by_target: dict[object, list[Entry]] = {}

    def judge(self, entry: Entry, old: Entry | None, rows_left: int | None) -> Entry | None:
        """Return the rule that a new one replaces because both match the same; None for none.

        Args:
            entry: The new rule.
            old: The rule in its location.
            rows_left: Fewer rows than the bank has free, by a fault; None for none.

        Raises:
            Refused: It does not fit.
        """
        self._check_masks(entry, old)
        twin = self._find_twin(entry, old)
        self._check_targets(entry, old)
        self._check_room(entry, twin or old, rows_left)
        return twin

    def enter(self, entry: Entry) -> None:
        """Note a rule that is installed."""
        spec = self._spec
        self._bank.used += spec.rows_per_rule
        self._bank.masks = entry.recipe.shape
        if spec.duplicate != "allowed":
            self._same.setdefault(self._identity(entry), []).append(entry)
        if spec.mask_model == "one_input_set_per_flow_type":
            rules = self._inputs.get(entry.flow_type, (frozenset(), 0))[1]
            self._inputs[entry.flow_type] = (entry.recipe.inputs, rules + 1)
        for field, _, _ in spec.limits:
            self._limited[field] = self._limited.get(field, 0) + (compared(entry, field) is not None)
        for field, _ in spec.one_target:
            self._by_target.setdefault((field, compared(entry, field)), []).append(entry)

    def leave(self, entry: Entry) -> None:
        """Undo `enter`."""
        spec = self._spec
        self._bank.used -= spec.rows_per_rule
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
            self._limited[field] -= compared(entry, field) is not None
        for field, _ in spec.one_target:
            self._by_target[field, compared(entry, field)].remove(entry)

    def _check_masks(self, entry: Entry, old: Entry | None) -> None:
        model = self._spec.mask_model
        if model == "one_mask_per_port":
            if self._bank.used and self._bank.masks != entry.recipe.shape:
                refuse(self._spec.errors, "second_mask", "only one mask for all rules", path="/match")
        elif model == "one_input_set_per_flow_type":
            inputs, rules = self._inputs.get(entry.flow_type, (entry.recipe.inputs, 0))
            alone = rules == 1 and old is not None and old.flow_type == entry.flow_type
            if inputs != entry.recipe.inputs and not alone:
                refuse(self._spec.errors, "second_mask", "another set of fields is in use", path="/match")

    def _find_twin(self, entry: Entry, old: Entry | None) -> Entry | None:
        answer = self._spec.duplicate
        if answer == "allowed":
            return None
        same = [other for other in self._same.get(self._identity(entry), ()) if other is not old]
        if answer == "replace":
            return same[0] if same else None
        if len(same) >= self._spec.copies:
            text = f"the same match is installed: rule {same[0].rule.rule_id}"
            raise Refused(answer, "duplicate", text, "/match")
        return None

    def _check_targets(self, entry: Entry, old: Entry | None) -> None:
        for field, errno in self._spec.one_target:
            value = compared(entry, field)
            for other in self._by_target.get((field, value), ()) if value is not None else ():
                if other is not old and other.rule.actions != entry.rule.actions:
                    text = f"this {field} has another target: rule {other.rule.rule_id}"
                    raise Refused(errno, "one_target", text, f"/match/{field}")

    def _check_room(self, entry: Entry, gone: Entry | None, rows_left: int | None) -> None:
        spec, bank, need = self._spec, self._bank, self._spec.rows_per_rule
        free = bank.rows - bank.used if rows_left is None else min(rows_left, bank.rows - bank.used)
        if free + (need if gone is not None else 0) < need:
            refuse(spec.errors, "full", f"all {bank.rows} rows are in use", default="ENOSPC")
        for field, rows, errno in spec.limits:
            held = self._limited.get(field, 0) - (gone is not None and compared(gone, field) is not None)
            if held >= rows and compared(entry, field) is not None:
                raise Refused(errno, "full", f"all {rows} filters of {field} are in use", f"/match/{field}")

    def _identity(self, entry: Entry) -> object:
        ignores = self._spec.ignores | self._spec.types[entry.flow_type].ignores
        if not ignores:
            return entry.filters
        left = [
            (name, mask, value)
            for shape, values in entry.filters
            for (name, mask), value in zip(shape, values, strict=True)
            if name not in ignores
        ]
        return (entry.flow_type, tuple(left))
