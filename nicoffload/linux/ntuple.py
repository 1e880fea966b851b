"""Tables of a NIC's receive classifier, reached through ethtool, rule by rule: its ioctl knows no bulk."""

from __future__ import annotations

from collections.abc import Sequence

from nicoffload.driver.contract import InstalledRule, Outcome, Placement, RuleRef, TableState
from nicoffload.errors import ConflictError, NicOffloadError, NotFoundError, NotSupportedError
from nicoffload.kernel.ntuple import (
    FlowType,
    NtupleRule,
    NtupleState,
    NtupleTable,
    add_command,
    delete_command,
    lower_rule,
    raise_rule,
)
from nicoffload.linux.counting import CounterColumns
from nicoffload.linux.mechanism import Mechanism
from nicoffload.linux.nic import LinuxNic
from nicoffload.linux.reading import table_of, unreadable
from nicoffload.linux.standing import Standing
from nicoffload.profiles.types import Table

_TYPES = {kind.name.lower(): kind for kind in FlowType}


class NtupleTables(Mechanism):
    """The tables of a NIC that `ethtool -N` fills. They have one list of rules between them.

    Args:
        nic: The NIC.
        tables: Those of its profile, in order of preference.
    """

    def __init__(self, nic: LinuxNic, tables: Sequence[Table]) -> None:
        super().__init__(nic, tables)
        self._driver_picks = frozenset(table.name for table in tables if table.picker == "driver")

    def states(self) -> Sequence[TableState]:
        """Return the tables, with the size that the driver tells where it tells one, else the profile's."""
        blocked = [self.blocked(table) for table in self.tables]
        used = dict.fromkeys((table.name for table in self.tables), 0)
        size = None
        if not all(blocked):
            try:
                size = self._open().info().size
                for state in self._open().rules():
                    table = self._table_of(state)
                    used[table.name] += table.rows_per_rule
            except NotSupportedError as refusal:
                blocked = [reasons or refusal.reasons for reasons in blocked]
        return [
            TableState(
                table=table,
                rows=(size if table.picker == "caller" else None) or table.rows,  # sfc tells its range of ids
                in_use=used[table.name],
                blocked=reasons,
                enable=self.cost(table, reasons),
                # No request asks the firmware, so a rule shows when it is tried.
                firmware_shapes=None if table.mask_model == "firmware_list" else (),
            )
            for table, reasons in zip(self.tables, blocked, strict=True)
        ]

    def create(self, placements: Sequence[Placement]) -> Sequence[Outcome]:
        """Install rules one after the other; one that would overwrite another in its slot is refused."""
        self._explainer = self.explainer()
        table = self._open()
        taken = self._taken(table, placements)
        standing = self._standing(placements)
        outcomes: list[Outcome] = []
        for placement in placements:
            try:
                self._refuse_twin(placement, standing.get(placement.table))
                outcomes.append(self._insert(table, placement, taken))
            except NicOffloadError as error:
                outcomes.append(self.refused(error, placement))
        return outcomes

    def destroy(self, refs: Sequence[RuleRef]) -> Sequence[NicOffloadError | None]:
        """Remove rules one after the other, by slot."""
        table = self._open()
        answers: list[NicOffloadError | None] = []
        for ref in refs:
            try:
                if ref.slot is None:
                    raise NotFoundError(f"rule {ref.rule_id} has no recorded slot", device=self.nic.device)
                table.delete(ref.slot)
            except NicOffloadError as error:
                answers.append(self.not_removed(error, ref))
            else:
                answers.append(None)
        return answers

    def dump(self, refs: Sequence[RuleRef] | None) -> Sequence[InstalledRule]:
        """Return rules, by slot; the ioctl reads them one by one."""
        table = self._open()
        if refs is None:
            try:
                return [self._installed(state, None) for state in table.rules()]
            except NotSupportedError:
                return []
        found = []
        for ref in refs:
            if ref.slot is None:
                continue
            try:
                found.append(self._installed(table.get(ref.slot), ref))
            except NotFoundError:
                continue
        return found

    def count(self, refs: Sequence[RuleRef], rows: Sequence[int], into: CounterColumns) -> None:
        """Nothing to read: the structure has no place for a counter, and no driver counts rules of this kind."""

    def commands(self, placement: Placement) -> Sequence[str]:
        """Return the `ethtool` command."""
        return [add_command(self.nic.pf().ifname, self.lower(placement))]

    def removal_commands(self, refs: Sequence[RuleRef]) -> Sequence[Sequence[str]]:
        """Return the `ethtool` commands."""
        ifname = self.nic.pf().ifname
        return [() if ref.slot is None else [delete_command(ifname, ref.slot)] for ref in refs]

    def lower(self, placement: Placement) -> NtupleRule:
        """Return what the driver is told for a rule.

        Raises:
            NotSupportedError: The structure has no place for a part of it.
        """
        flow = _TYPES.get(placement.flow_type)
        try:
            return lower_rule(placement.rule, location=placement.slot, flow=flow, device=self.nic.device)
        except NotSupportedError as error:
            error.capability = f"flow_filters.{placement.table}"
            raise

    def _open(self) -> NtupleTable:
        pf = self.nic.pf()
        return NtupleTable(self.nic.kernel, pf.ifname, device=self.nic.device, ifindex=pf.ifindex)

    def _taken(self, table: NtupleTable, placements: Sequence[Placement]) -> set[int]:
        """Return the slots in use, where slots are asked for: most drivers replace what is in one without a word."""
        if all(placement.slot is None for placement in placements):
            return set()
        try:
            return set(table.locations())
        except NicOffloadError:
            return set()  # the driver says why, when it is told of the first rule

    def _standing(self, placements: Sequence[Placement]) -> dict[str, Standing]:
        """Return what stands in tables whose driver replaces a rule with the same match, whoever's it is."""
        names = {placement.table for placement in placements}
        replacing = [
            table for table in self.tables if table.name in names and table.duplicate.answer == "replace"
        ]
        if not replacing:
            return {}
        rules = self.dump(None)
        return {
            table.name: Standing(table, [rule for rule in rules if rule.ref.table == table.name])
            for table in replacing
        }

    def _refuse_twin(self, placement: Placement, standing: Standing | None) -> None:
        if standing is None:
            return
        match = placement.rule.match
        if standing.copies(match, but=None):
            raise ConflictError(
                f"a rule with the same match is in table {placement.table}, and the driver would replace it",
                existing=f"table {placement.table}",
                device=self.nic.device,
                path="/match",
                hint="remove the other rule first",
            )
        standing.add(match)

    def _insert(self, table: NtupleTable, placement: Placement, taken: set[int]) -> RuleRef:
        slot = placement.slot
        if slot is not None and slot in taken:
            raise ConflictError(f"slot {slot} holds another rule", device=self.nic.device, path="/slot")
        chosen = table.insert(self.lower(placement), driver_chooses=placement.table in self._driver_picks)
        taken.add(chosen)
        return RuleRef(rule_id=placement.rule.rule_id, table=placement.table, slot=chosen)

    def _installed(self, state: NtupleState, ref: RuleRef | None) -> InstalledRule:
        where = ref or RuleRef(rule_id=None, table=self._table_of(state).name, slot=state.location)
        where = RuleRef(rule_id=None, table=where.table, slot=state.location)
        if state.rule is None:
            return unreadable(where, state.foreign)
        try:
            rule = raise_rule(state.rule, rule_id=ref.rule_id if ref is not None else None)
        except NicOffloadError as error:
            return unreadable(where, str(error), state.rule.match)
        return InstalledRule(ref=where, rule=rule)

    def _table_of(self, state: NtupleState) -> Table:
        """Return the table that a rule is in: the first that has such a rule."""
        if state.rule is None:
            return self.tables[0]
        return table_of(self.tables, state.rule.match)
