"""Which places there are for a kind of rule: judged once, by an example, and remembered for all rules like it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nicoffload.compiler.actions import Targets, action_reasons
from nicoffload.compiler.bank import Bank
from nicoffload.compiler.fields import Judged, Value, field_reasons
from nicoffload.compiler.verdict import Pick, Verdict, key_picker, key_values, make_verdict, table_reasons
from nicoffload.driver.contract import TableState
from nicoffload.errors import Reason
from nicoffload.model import Action, FlowRule, Shape
from nicoffload.profiles.types import FlowType

_MOST_KINDS = 10_000
"""Kinds of rules that are remembered; beyond, the memory starts anew rather than grow for ever."""

Kind = tuple[object, tuple[Action, ...], bool]
"""What tells rules of one shape apart: the values that flow types fix, the actions, whether there is no priority."""


class Plan:
    """The places for one kind of rule.

    Args:
        planner: What made it.
        example: A rule of that kind.
    """

    __slots__ = ("_candidates", "_example", "_passed", "_planner", "fits")

    def __init__(self, planner: Planner, example: FlowRule) -> None:
        self._planner = planner
        self._example = example
        self._candidates: Sequence[Sequence[Verdict]] | None = None
        self._passed: dict[str, str] = {}
        self.fits = tuple(planner.find_fits(example))
        """Those that only values and other rules can speak against, in order of preference."""

    @property
    def candidates(self) -> Sequence[Sequence[Verdict]]:
        """For each table its fits, or the flow type that comes closest; worked out when first asked for."""
        if self._candidates is None:
            self._candidates = [
                [fit for fit in self.fits if fit.state is state]
                or [self._planner.find_closest(self._example, state)]
                for state in self._planner.states
            ]
        return self._candidates

    def why(self, chosen: Verdict) -> str:
        """Return why no table before the chosen one takes such a rule; empty where it is the first."""
        if chosen.state is self._planner.states[0]:
            return ""
        found = self._passed.get(chosen.table_name)
        if found is None:
            found = self._passed[chosen.table_name] = "; ".join(self._passed_over(chosen))
        return found

    def _passed_over(self, chosen: Verdict) -> Iterator[str]:
        for state, verdicts in zip(self._planner.states, self.candidates, strict=True):
            if state is chosen.state:
                return
            reasons = verdicts[0].reasons
            # A fit that was passed over is full, or other rules stand against this one.
            what = reasons[0].message if reasons else "what is in it leaves no place for this rule"
            name = f"table {state.table.name}"
            yield what if name in what else f"{name}: {what}"


class _Shaped:
    """What is remembered of the rules of one shape."""

    __slots__ = ("pick", "plans")

    def __init__(self, pick: Pick) -> None:
        self.pick = pick
        self.plans: dict[Kind, Plan] = {}


class Planner:
    """Judges rules by their kind.

    Args:
        states: The tables, in order of preference.
        banks: Name to bank.
        targets: What rules can deliver to.
    """

    def __init__(self, states: Sequence[TableState], banks: Mapping[str, Bank], targets: Targets) -> None:
        self.states = states
        self._banks = banks
        self._targets = targets
        self._rivals = {state.table.name: self._find_rivals(state) for state in states}
        self._fixed = frozenset(
            name for state in states for flow_type in state.table.flow_types for name in flow_type.fixed
        )
        self._shaped: dict[Shape, _Shaped] = {}
        self._known = 0

    def picker(self, shape: Shape) -> Pick:
        """Return what picks the values of a shape that tell kinds apart."""
        return self._of_shape(shape).pick

    def _of_shape(self, shape: Shape) -> _Shaped:
        shaped = self._shaped.get(shape)
        if shaped is None:
            shaped = self._shaped[shape] = _Shaped(key_picker(shape, self._fixed))
        return shaped

    def plan(self, rule: FlowRule) -> Plan:
        """Return the places for rules like this one."""
        match = rule.match
        shaped = self._of_shape(match.shape)
        kind = (shaped.pick(match.values), rule.actions, rule.priority is None)
        plan = shaped.plans.get(kind)
        if plan is None:
            plan = shaped.plans[kind] = Plan(self, rule)
            self._known += 1
            if self._known > _MOST_KINDS:
                self._shaped.clear()
                self._known = 0
        return plan

    def find_fits(self, rule: FlowRule) -> Iterator[Verdict]:
        """Yield every table and flow type that takes such a rule as far as its kind goes."""
        values = key_values(rule.match, self._fixed)
        for state in self.states:
            if any(self._by_table(state, rule)):
                continue
            for flow_type in state.table.flow_types:
                if next(field_reasons(self._judged(state, flow_type, rule, values)), None) is None:
                    yield self._verdict(state, flow_type, rule, ())

    def find_closest(self, rule: FlowRule, state: TableState) -> Verdict:
        """Return the flow type of a table that has the fewest reasons against such a rule, with all of them."""
        values = key_values(rule.match, self._fixed)
        judged = [
            (list(field_reasons(self._judged(state, flow_type, rule, values))), flow_type)
            for flow_type in state.table.flow_types
        ]
        reasons, flow_type = min(judged, key=lambda one: len(one[0]))
        before, after = self._by_table(state, rule)
        return self._verdict(state, flow_type, rule, (*before, *reasons, *after))

    def _by_table(self, state: TableState, rule: FlowRule) -> tuple[Sequence[Reason], Sequence[Reason]]:
        """Return what speaks against a rule in any flow type of a table: what blocks it, and its actions."""
        return table_reasons(state), action_reasons(state.table, rule, self._targets)

    def _judged(
        self, state: TableState, flow_type: FlowType, rule: FlowRule, values: Mapping[str, Value]
    ) -> Judged:
        return Judged(state=state, flow_type=flow_type, shape=rule.match.shape, values=values)

    def _verdict(
        self, state: TableState, flow_type: FlowType, rule: FlowRule, reasons: Sequence[Reason]
    ) -> Verdict:
        bank = self._banks[state.table.bank]
        return make_verdict(
            state,
            bank,
            flow_type,
            rule,
            reasons=reasons,
            vfs=self._targets.vfs,
            queues=self._targets.queues,
            rivals=self._rivals[state.table.name],
        )

    def _find_rivals(self, state: TableState) -> tuple[tuple[str, Bank], ...]:
        name = state.table.name
        return tuple(
            (other.table.name, self._banks[other.table.bank])
            for other in self.states
            if other.table.name in state.table.excludes or name in other.table.excludes
        )
