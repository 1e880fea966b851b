"""What a driver's refusal means on this NIC: its errno, looked up in the profile by what is known of the NIC now."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from nicoffload.driver.contract import InstalledRule, Placement, RuleRef, TableState
from nicoffload.errors import NicOffloadError
from nicoffload.kernel.link import read_speed_bps
from nicoffload.linux.errnos import explain
from nicoffload.linux.nic import LinuxNic
from nicoffload.linux.situation import Operation, Situation
from nicoffload.linux.standing import Standing
from nicoffload.profiles.types import Table


class RuleExplainer:
    """Explains refusals of rules in one bulk call; what has to be read for that is read once, if one is refused.

    Args:
        nic: The NIC.
        tables: Of the mechanism.
        read: Reads the rules that stand in all tables of the NIC.
        states: Reads the tables of the mechanism.
    """

    def __init__(
        self,
        nic: LinuxNic,
        tables: Sequence[Table],
        read: Callable[[], Sequence[InstalledRule]],
        states: Callable[[], Sequence[TableState]],
    ) -> None:
        self._nic = nic
        self._tables = {table.name: table for table in tables}
        self._read = read
        self._states = states
        self._bases: dict[str, Situation] = {}

    def created(self, error: NicOffloadError, placement: Placement) -> NicOffloadError:
        """Return what the refusal of a rule means."""
        table = self._tables.get(placement.table)
        if table is None or error.errno is None:
            return error
        now = replace(
            self._base(table), rule=placement.rule, flow_type=placement.flow_type, slot=placement.slot
        )
        return self._explain(error, Operation.CREATE, now, table)

    def destroyed(self, error: NicOffloadError, ref: RuleRef) -> NicOffloadError:
        """Return what the refusal to remove a rule means."""
        table = self._tables.get(ref.table)
        if table is None or error.errno is None:
            return error
        now = Situation(table=table, slot=ref.slot)
        return self._explain(error, Operation.DESTROY, now, table)

    def _explain(
        self, error: NicOffloadError, operation: Operation, now: Situation, table: Table
    ) -> NicOffloadError:
        return explain(
            error,
            self._nic.profile,
            operation,
            now,
            capability=f"flow_filters.{table.name}",
            device=self._nic.device,
        )

    def _base(self, table: Table) -> Situation:
        """Return what is known whatever the rule is."""
        found = self._bases.get(table.name)
        if found is None:
            rules: Sequence[InstalledRule] = ()
            with contextlib.suppress(NicOffloadError, OSError):
                rules = self._read()
            rows = table.rows
            enabled = None
            with contextlib.suppress(NicOffloadError, OSError):
                [state] = [each for each in self._states() if each.table is table]
                rows, enabled = state.rows, not state.blocked
            bank = {one.name for one in self._nic.profile.tables if one.bank == table.bank}
            mine = [rule for rule in rules if rule.ref.table in bank]
            found = self._bases[table.name] = Situation(
                table=table,
                standing=Standing(table, mine),
                rows=rows,
                enabled=enabled,
                in_use=len(mine) * table.rows_per_rule,
                rival_rules=sum(rule.ref.table in table.excludes for rule in rules),
                mode=self._nic.eswitch_mode() or "",
                vf_count=_count_vfs(self._nic),
            )
        return found


def explain_vf(
    nic: LinuxNic, error: NicOffloadError, operation: Operation, capability: str, **known: Any
) -> NicOffloadError:
    """Return what a refusal about a VF means.

    Args:
        nic: The NIC.
        error: As the kernel layer made it.
        operation: What was asked.
        capability: What it belongs to.
        known: What else is known, as `Situation` names it.
    """
    if error.errno is None:
        return error
    now = vf_situation(nic, **known)
    return explain(error, nic.profile, operation, now, capability=capability, device=nic.device)


def vf_situation(nic: LinuxNic, **known: Any) -> Situation:
    """Return what is known of the NIC where a VF is asked about.

    Args:
        nic: The NIC.
        known: What else is known, as `Situation` names it.
    """
    return Situation(
        mode=nic.eswitch_mode() or "", vf_count=_count_vfs(nic), link_bps=_link_bps(nic), **known
    )


def _count_vfs(nic: LinuxNic) -> int | None:
    try:
        return nic.count_vfs()
    except NicOffloadError:
        return None


def _link_bps(nic: LinuxNic) -> int | None:
    try:
        return read_speed_bps(nic.kernel, nic.pf().ifname)
    except NicOffloadError:
        return None
