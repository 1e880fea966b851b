"""The compiler: where a rule goes in a NIC, or every reason why it goes nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from nicoffload.compiler.account import give_back, take
from nicoffload.compiler.actions import Targets
from nicoffload.compiler.bank import Bank, first_copy
from nicoffload.compiler.ladder import build_ladder
from nicoffload.compiler.obstacles import obstacles
from nicoffload.compiler.plan import Plan, Planner
from nicoffload.compiler.result import OTHER_TABLE, Refusal, Rung
from nicoffload.compiler.slots import slot_by_priority
from nicoffload.compiler.together import FEW, place_together
from nicoffload.compiler.verdict import Verdict
from nicoffload.driver.contract import InstalledRule, Placement, RuleRef, TableState
from nicoffload.errors import Reason
from nicoffload.model import FlowRule

_NO_ADDRESSES: Mapping[int, int] = MappingProxyType({})


class Compiler:
    """Finds the place of rules in one NIC, and keeps account of what is placed.

    Make one when the NIC is opened, from what is in its tables, and a new one when a table was enabled or VFs were
    made: `tables` and what exists are taken as they are given.

    Args:
        tables: In order of preference; a rule goes into the first that takes it.
        installed: Every rule in them, also those of others. Where the NIC keeps no priorities and the caller knows
            them, their rules should have them: a table that ranks by location is filled accordingly.
        vfs: VFs that exist.
        vf_macs: VF index to its MAC address, where known; for the ladder.
        vf_vlans: VF index to its port VLAN, where it has one; for the ladder.
        queues: Receive queues of the PF; None where unknown.
        vf_queues: Receive queues of each VF; None where unknown.
    """

    def __init__(
        self,
        tables: Sequence[TableState],
        installed: Sequence[InstalledRule] = (),
        *,
        vfs: int,
        vf_macs: Mapping[int, int] = _NO_ADDRESSES,
        vf_vlans: Mapping[int, int] = _NO_ADDRESSES,
        queues: int | None = None,
        vf_queues: int | None = None,
    ) -> None:
        self._vfs = vfs
        self._vf_macs = dict(vf_macs)
        self._vf_vlans = dict(vf_vlans)
        self._banks = {
            name: Bank([state for state in tables if state.table.bank == name])
            for name in dict.fromkeys(state.table.bank for state in tables)
        }
        targets = Targets(vfs=vfs, queues=queues, vf_queues=vf_queues)
        self._planner = Planner(tuple(tables), self._banks, targets)
        self._placed: dict[int, Placement] = {}
        # By where they are: a rule that was read from the NIC may have no id that its owner knows.
        self._adopted: dict[tuple[str, int | None], int] = {}
        for rule in installed:
            self._adopt(rule)
        for bank in self._banks.values():
            bank.settle()

    def lower(self, rule: FlowRule) -> Placement | Refusal:
        """Return where a rule would go, or why it can't. Changes nothing.

        Args:
            rule: The rule.
        """
        return self._find(rule, self._planner.plan(rule), keep=False)

    def place_many(self, rules: Iterable[FlowRule]) -> Sequence[Placement | Refusal]:
        """Find places for rules, one after the other, and take them: a later rule sees the earlier ones.

        Args:
            rules: Answer i is that of rule i.
        """
        asked = tuple(rules)
        if len(asked) >= FEW:
            together = place_together(asked, self._planner, self._placed)
            if together is not None:
                return together
        find, plan = self._find, self._planner.plan
        return [find(rule, plan(rule), keep=True) for rule in asked]

    def release(self, refs: Iterable[RuleRef]) -> None:
        """Give back what rules took. What is not known, or was given back before, is left out.

        Args:
            refs: By rule_id where it is known here, else by table and slot.
        """
        for ref in refs:
            number = ref.rule_id.int if ref.rule_id is not None else None
            if number not in self._placed and ref.slot is not None:
                number = self._adopted.get((ref.table, ref.slot))
            placement = self._placed.pop(number, None) if number is not None else None
            if placement is not None:
                self._adopted.pop((ref.table, ref.slot), None)
                give_back(self._verdict_of(placement), placement.rule, placement.slot)

    def _find(self, rule: FlowRule, plan: Plan, *, keep: bool) -> Placement | Refusal:
        number = rule.rule_id.int
        if number in self._placed:
            return self._refuse_id(rule)
        for verdict in plan.fits:
            key = rule.match.values if verdict.pick is None else verdict.key(rule)
            if obstacles(verdict, rule, key, self._vfs):
                continue
            bank = verdict.bank
            slot = _slot(verdict, rule) if verdict.picks_slot else None
            caveats = verdict.caveats if bank.used < verdict.hash_from else verdict.hash_caveats
            if key in verdict.copies:
                caveats = (*caveats, verdict.copy_caveat)
            placement = Placement(
                rule, verdict.table_name, verdict.type_name, slot, caveats, plan.why(verdict)
            )
            if keep:
                take(verdict, rule, key, slot)
                self._placed[number] = placement
            return placement
        return self._refuse(rule, plan)

    def _verdict_of(self, placement: Placement) -> Verdict:
        return next(
            verdict
            for verdicts in self._planner.plan(placement.rule).candidates
            for verdict in verdicts
            if verdict.table_name == placement.table and verdict.type_name == placement.flow_type
        )

    def _adopt(self, installed: InstalledRule) -> None:
        """Account for a rule that is there, whether or not it would be placed so today."""
        rule, ref = installed.rule, installed.ref
        for verdicts in self._planner.plan(rule).candidates:
            verdict = verdicts[0]
            if verdict.table_name == ref.table:
                slot = ref.slot if verdict.picks_slot else None
                take(verdict, rule, verdict.key(rule), slot)
                self._placed[rule.rule_id.int] = Placement(
                    rule=rule, table=ref.table, flow_type=verdict.type_name, slot=slot
                )
                if ref.slot is not None:
                    self._adopted[ref.table, ref.slot] = rule.rule_id.int

    def _refuse(self, rule: FlowRule, plan: Plan) -> Refusal:
        found = [self._closest(verdicts, rule) for verdicts in plan.candidates]
        if not found:
            nothing = Reason(code="table.none", path="", message="the NIC has no filter tables")
            return Refusal(rule=rule, reasons=[nothing])
        # Of two tables with as many reasons, the one that would take the rule at another time is the closer.
        best = min(range(len(found)), key=lambda index: (len(found[index][1]), len(found[index][0].reasons)))
        verdict, reasons = found[best]
        others = [_summary(*found[index]) for index in range(len(found)) if index != best]
        existing = verdict.copies.get(verdict.key(rule))
        return Refusal(
            rule=rule,
            reasons=[*reasons, *others],
            ladder=partial(self._ladder, rule),
            limit=verdict.bank.rows,
            in_use=verdict.bank.used,
            existing=str(first_copy(existing).rule_id) if existing is not None else "",
        )

    def _closest(self, verdicts: Sequence[Verdict], rule: FlowRule) -> tuple[Verdict, list[Reason]]:
        judged = [(one, [*one.reasons, *obstacles(one, rule, one.key(rule), self._vfs)]) for one in verdicts]
        return min(judged, key=lambda one: len(one[1]))

    def _refuse_id(self, rule: FlowRule) -> Refusal:
        table = self._placed[rule.rule_id.int].table
        reason = Reason(
            code="rule.id",
            path="/rule_id",
            message=f"rule {rule.rule_id} is in table {table} already",
            accepted="another id, or after that rule is removed",
        )
        return Refusal(rule=rule, reasons=[reason], existing=str(rule.rule_id))

    def _ladder(self, rule: FlowRule) -> tuple[Rung, ...]:
        return build_ladder(rule, self.lower, self._vf_macs, self._vf_vlans)


def _slot(verdict: Verdict, rule: FlowRule) -> int | None:
    if verdict.by_priority and rule.priority is not None:
        return slot_by_priority(verdict, rule)
    return verdict.bank.lowest_free(verdict.first_slot)


def _summary(verdict: Verdict, reasons: Sequence[Reason]) -> Reason:
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    first = reasons[0]
    name = f"table {verdict.table_name}"
    which = "" if name in first.message else f"{name}: "
    return Reason(
        code=OTHER_TABLE,
        path=first.path,
        message=f"{which}{first.message}{more}",
        accepted=first.accepted,
        source=first.source,
        errno=first.errno,
    )


def lower(
    rule: FlowRule,
    tables: Sequence[TableState],
    installed: Sequence[InstalledRule] = (),
    *,
    vfs: int,
    vf_macs: Mapping[int, int] = _NO_ADDRESSES,
    vf_vlans: Mapping[int, int] = _NO_ADDRESSES,
    queues: int | None = None,
    vf_queues: int | None = None,
) -> Placement | Refusal:
    """Return where one rule would go in a NIC, or why it can't; `Compiler` is for more than one.

    Args:
        rule: The rule.
        tables: In order of preference.
        installed: Every rule in them.
        vfs: VFs that exist.
        vf_macs: VF index to its MAC address, where known.
        vf_vlans: VF index to its port VLAN, where it has one.
        queues: Receive queues of the PF; None where unknown.
        vf_queues: Receive queues of each VF; None where unknown.
    """
    compiler = Compiler(
        tables,
        installed,
        vfs=vfs,
        vf_macs=vf_macs,
        vf_vlans=vf_vlans,
        queues=queues,
        vf_queues=vf_queues,
    )
    return compiler.lower(rule)
