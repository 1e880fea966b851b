"""Which rules are ours and where, and the compiler that is kept in step with the NIC."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Mapping, Sequence

from nicoffload.compiler import Compiler
from nicoffload.driver.contract import Driver, FlowFilters, InstalledRule, RuleRef, TableState
from nicoffload.model.rule import FlowRule
from nicoffload.nic.values import Owned
from nicoffload.nic.verify import Reading


class FlowBook:
    """The rules of ours in one NIC.

    Args:
        driver: The NIC; it has flow filters.
        filters: Its flow filters.
    """

    def __init__(self, driver: Driver, filters: FlowFilters) -> None:
        self._driver = driver
        self.filters = filters
        self.owned: dict[uuid.UUID, Owned] = {}
        self.replacing = frozenset(
            table.name
            for table in driver.profile.tables
            if table.picker == "caller" and table.occupied == "replace"
        )
        """Tables in which a rule overwrites whatever is in its slot."""
        self.foreign: frozenset[tuple[str, int]] = frozenset()
        self._compiler: Compiler | None = None
        self._refs: tuple[RuleRef, ...] | None = None

    def compiler(self) -> Compiler:
        """Return the compiler, made anew from what is in the NIC where it was found to be out of step."""
        if self._compiler is None:
            self._compiler = self.fresh_compiler(Reading(self.filters.dump()))
        return self._compiler

    def out_of_step(self) -> None:
        """Say that the NIC may hold other rules, tables or VFs than the compiler thinks."""
        self._compiler = None

    def fresh_compiler(
        self,
        reading: Reading,
        *,
        without: Iterable[uuid.UUID] = (),
        tables: Sequence[TableState] | None = None,
        vfs: int | None = None,
    ) -> Compiler:
        """Return a compiler for the NIC as it is, or as it would be.

        Args:
            reading: Every rule in the NIC.
            without: Rules of ours to leave out.
            tables: The tables, where they are to be other than they are.
            vfs: How many VFs there are to be; None for as many as there are.
        """
        known = self._known(reading)
        left_out = frozenset(without)
        if not left_out:
            self.foreign = frozenset(
                (each.ref.table, each.ref.slot)
                for each in reading.rules
                if each.ref.slot is not None and each.ref.rule_id is None and id(each) not in known
            )
        installed = [
            dataclasses.replace(each, ref=ours.ref, rule=ours.rule) if ours else each
            for each in reading.rules
            for ours in (known.get(id(each)),)
            if ours is None or ours.rule_id not in left_out
        ]
        facet = self._driver.virtual_functions
        states = facet.states() if facet else ()
        queues = self.filters.queues()
        return Compiler(
            self.filters.tables() if tables is None else tables,
            installed,
            vfs=len(states) if vfs is None else vfs,
            vf_macs={state.vf: state.mac for state in states if state.mac},
            vf_vlans={
                state.vf: state.vlan.vid for state in states if state.vlan is not None and state.vlan.vid
            },
            queues=queues.pf,
            vf_queues=queues.vf,
        )

    def _known(self, reading: Reading) -> Mapping[int, Owned]:
        """Return which of the rules that were read are ours."""
        found = ((reading.at(ours.ref), ours) for ours in self.owned.values())
        return {id(each): ours for each, ours in found if each is not None}

    def add(self, installed: Sequence[InstalledRule]) -> None:
        """Note that rules are ours now."""
        rules = [each.rule for each in installed]
        owned = map(Owned._make, zip(rules, [each.ref for each in installed], strict=True))
        self.owned.update(zip([rule.rule_id for rule in rules], owned, strict=True))
        self._refs = None

    def remove(self, rule_ids: Iterable[uuid.UUID]) -> None:
        """Note that rules are gone."""
        for rule_id in rule_ids:
            self.owned.pop(rule_id, None)
        self._refs = None

    def release(self, rule_ids: Iterable[uuid.UUID]) -> None:
        """Give back what rules took in the compiler."""
        if self._compiler is not None:
            self._compiler.release(RuleRef(rule_id=rule_id, table="", slot=None) for rule_id in rule_ids)

    def reset(self, owned: Iterable[Owned]) -> None:
        """Note which rules are ours, all of them, and that nothing else is known."""
        self.owned = {each.rule_id: each for each in owned}
        self._refs = None
        self._compiler = None

    def refs(self) -> Sequence[RuleRef]:
        """Return where all of our rules are."""
        if self._refs is None:
            self._refs = tuple(each.ref for each in self.owned.values())
        return self._refs


def rule_key(rule: FlowRule) -> object:
    """Return what two rules that ask for the same have in common."""
    return rule.match.shape, rule.match.values, rule.actions, rule.priority
