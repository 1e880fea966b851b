"""How a table would program rules, whatever else is installed; worked out once for rules that are alike."""

from __future__ import annotations

from nicoffload.model import FlowRule
from nicoffload.testing.emulator.actions import Plan, Targets, make_plan
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.entry import Entry
from nicoffload.testing.emulator.masks import Recipe, check_values, make_recipe
from nicoffload.testing.emulator.spec import TableSpec

ANYTHING = Targets(1 << 12, frozenset(), 1 << 16, 1 << 16)
"""Targets of a rule that was installed once: whatever it names existed then."""


class Programs:
    """Recipes by shape, plans by actions.

    Args:
        spec: The table.
    """

    def __init__(self, spec: TableSpec) -> None:
        self._spec = spec
        self._recipes: dict[object, Recipe | Refused] = {}
        self._plans: dict[object, Plan] = {}
        self._targets: Targets | None = None

    def make(self, rule: FlowRule, flow_type: str, slot: int | None, targets: Targets) -> Entry:
        """Return what a rule would become.

        Args:
            rule: The rule.
            flow_type: As the request encodes it; empty to let the table find the first that takes the rule.
            slot: As the request says.
            targets: What exists.

        Raises:
            Refused: The table does not take it.
        """
        recipe, name = self._recipe(rule, flow_type)
        if targets is not self._targets:
            self._plans, self._targets = {}, targets
        plan = self._plans.get(rule.actions)
        if plan is None:
            plan = self._plans[rule.actions] = make_plan(self._spec, rule.actions, targets)
        return Entry(self._spec.name, name, rule, slot, recipe, plan)

    def _recipe(self, rule: FlowRule, flow_type: str) -> tuple[Recipe, str]:
        names = (flow_type,) if flow_type else tuple(self._spec.types)
        first: Refused | None = None
        for name in names:
            try:
                recipe = self._recipe_of(rule, name)
                check_values(self._spec, recipe, rule.match.values)  # type: ignore[arg-type]  # ranges are refused
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
            found = self._recipes[key] = self._attempt(rule, flow_type)
        if isinstance(found, Refused):
            # A fresh one: an exception that is raised twice gathers the traces of both.
            raise Refused(found.errno, found.condition, found.text, found.path)
        return found

    def _attempt(self, rule: FlowRule, flow_type: str) -> Recipe | Refused:
        kind = self._spec.types.get(flow_type)
        if kind is None:
            errno = self._spec.errors.get("flow_type") or "EINVAL"
            return Refused(errno, "flow_type", f"no flow type {flow_type}")
        try:
            return make_recipe(self._spec, kind, rule.match.shape)
        except Refused as answer:
            return answer


def _nearer(first: Refused | None, second: Refused) -> Refused:
    """Keep the answer of the flow type that the rule came closest to: the first that fits its fixed fields."""
    if first is None or first.condition == "flow_type" != second.condition:
        return second
    return first
