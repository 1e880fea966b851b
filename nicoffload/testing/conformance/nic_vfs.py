"""Through `open_nic`: VFs that come with their settings and rules, and rules that outlive a change of their number."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from nicoffload.compiler import Compiler
from nicoffload.driver import Placement, TableState
from nicoffload.errors import NicOffloadError
from nicoffload.model import FIRST_VF_PORT, Action, FlowRule, Masked, ToUplink, ToVf, VfConfig
from nicoffload.nic import DesiredState, Nic
from nicoffload.profiles.types import NicProfile
from nicoffload.testing.conformance.behaviour import behaviour, settings
from nicoffload.testing.conformance.bench import Bench
from nicoffload.testing.conformance.nic_change import tidy
from nicoffload.testing.conformance.rules import kinds_of
from nicoffload.testing.conformance.vf_count import makes_vfs

_MAC = 0x02_00_00_0C_AC_02
_VFS = 2


def with_rules_to_vfs(profile: NicProfile) -> Sequence[str]:
    """Tried once, on a NIC whose VFs are made at run time and whose rules deliver to them."""
    return makes_vfs(profile) if any("vf" in table.actions for table in profile.tables) else ()


def _no_vfs(bench: Bench) -> None:
    """Begin without VFs.

    Raises:
        NotShown: There can't be as many as are needed, or those that exist can't go.
    """
    if bench.vfs.limit() < _VFS:
        bench.not_shown(f"the NIC can have {bench.vfs.limit()} VFs, and this takes {_VFS}")
    try:
        bench.retry.call(lambda: bench.vfs.set_count(0))
    except NicOffloadError as error:
        bench.not_shown(f"the VFs that exist can't be taken away: {error}")


def _rules(bench: Bench) -> tuple[FlowRule, ...]:
    """Return a rule to VF 0, and one for what VF 0 sends where a table takes such, of one that a plan can enable.

    Raises:
        NotShown: No table takes a rule to a VF.
    """
    for state in bench.filters.tables():
        cost = state.enable if state.enable is not None else state.enable_without_vfs
        if "vf" not in state.table.actions or (state.blocked and cost is None):
            continue
        there = dataclasses.replace(state, blocked=())
        for rule in _possible(bench, there, ToVf(vf=0)):
            return (rule, *_from_vf(bench, there))
    return bench.not_shown("no table takes a rule to a VF, or could be made to")


def _from_vf(bench: Bench, state: TableState) -> Sequence[FlowRule]:
    return next(([rule] for rule in _possible(bench, state, ToUplink(), FIRST_VF_PORT)), [])


def _possible(bench: Bench, state: TableState, action: Action, port: int | None = None) -> Iterator[FlowRule]:
    """Yield rules that the table would take with VFs."""
    queues = bench.queues()
    compiler = Compiler([state], vfs=_VFS, queues=queues.pf, vf_queues=queues.vf)
    for kind in kinds_of(state, _VFS, queues):
        rule = kind.rule(0, action)
        if port is not None:
            rule = dataclasses.replace(rule, match=rule.match.replace(in_port=Masked(port, 0xFFFF)))
        if isinstance(compiler.lower(rule), Placement):
            yield rule


def _check(bench: Bench, nic: Nic, rules: Sequence[FlowRule], count: int) -> None:
    bench.same(len(nic.vfs()), count, "VFs that exist")
    ours = {each.rule.rule_id: each.rule for each in nic.flows() if each.ours}
    for rule in rules:
        found = ours.get(rule.rule_id)
        bench.expect(found is not None, f"rule {rule.rule_id} is not in the NIC")
        assert found is not None
        bench.same((found.match, found.actions), (rule.match, rule.actions), "the rule as it is in the NIC")


@behaviour(
    "NIC-13",
    "One plan goes from no VFs to VFs, their settings, and rules to and from a VF",
    each=with_rules_to_vfs,
)
def from_nothing(bench: Bench) -> None:
    """There are no VFs. One plan makes two, sets the address of one, and installs a rule to it and one for what it
    sends: planning does not fail for what is not there yet, all is in force after it, and nothing is left to do.
    """
    _no_vfs(bench)
    rules = _rules(bench)
    configs = (VfConfig(vf=0, mac=_MAC),) if "mac" in settings(bench.profile) else ()
    desired = DesiredState(vf_count=_VFS, vfs=configs, flows=rules)
    with bench.nic() as nic:
        plan = nic.plan(desired)
        bench.same(len(bench.vfs.states()), 0, "VFs that exist after planning")
        report = nic.apply(plan)
        tidy(bench, nic)
        bench.same(report.steps, plan.steps, "the steps that were done")
        _check(bench, nic, rules, _VFS)
        for state in nic.vfs() if configs else ():
            bench.expect(
                state.vf or state.mac in (None, _MAC), "the address of VF 0 is not that which was asked for"
            )
        bench.same(nic.plan(desired).steps, (), "steps of the same plan after it was done")


@behaviour("NIC-14", "Rules of a VF outlive a change of the number of VFs", each=with_rules_to_vfs)
def rules_stay(bench: Bench) -> None:
    """With rules to and from a VF, the number of VFs is changed, up and down again: each time the rules are in the NIC
    as they were, and ours.
    """
    _no_vfs(bench)
    rules = _rules(bench)
    more = min(bench.vfs.limit(), _VFS + 1)
    with bench.nic() as nic:
        nic.apply(nic.plan(DesiredState(vf_count=_VFS, flows=rules)))
        tidy(bench, nic)
        for count in (more, 1):
            nic.set_vf_count(count)
            tidy(bench, nic)
            _check(bench, nic, rules, count)
