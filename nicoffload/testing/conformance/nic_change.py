"""Through `open_nic`: plans, changes, and changes that fail half-way."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nicoffload.driver import Placement
from nicoffload.errors import (
    ConflictError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    VerificationError,
)
from nicoffload.model import FlowRule, LinkState, RateLimit, ToVf, VfConfig, VfState, VlanTag
from nicoffload.model.action import MAX_VF_INDEX
from nicoffload.nic import DesiredState, Nic
from nicoffload.profiles.types import NicProfile
from nicoffload.testing.conformance.behaviour import (
    behaviour,
    missing_settings,
    rates,
    settings,
    whole,
    with_tables,
)
from nicoffload.testing.conformance.bench import Bench
from nicoffload.testing.conformance.outcome import NotShown
from nicoffload.testing.conformance.proxy import Between, Strike
from nicoffload.testing.conformance.rates import good_bps
from nicoffload.testing.conformance.restore import Found, look
from nicoffload.testing.conformance.vf_count import makes_vfs

REPEATS = 10
"""How often a change is repeated, as csi-sanity does."""

_MAC = 0x02_00_00_0C_AC_01
_MOST_STEPS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Two states of a NIC that differ in all that it has.

    Args:
        old: Rules that are there at first.
        before: The NIC before anything was done to it.
        desired: What is asked for.
    """

    old: tuple[FlowRule, ...]
    before: Found
    desired: DesiredState


def scenario(bench: Bench) -> Scenario:
    """Return a change with rules that stay, go and come, a setting and a rate, as far as the NIC has them.

    Raises:
        NotShown: There is nothing to change.
    """
    rules = _rules(bench, 5)
    old, new = tuple(rules[:3]), (*rules[:1], *rules[3:])
    configs: tuple[VfConfig, ...] = ()
    limits: dict[int, RateLimit] = {}
    if bench.profile.sriov is not None and bench.driver.virtual_functions is not None:
        states = bench.need_vfs(1) if bench.vfs.states() or makes_vfs(bench.profile) else ()
        if states and "mac" in settings(bench.profile) and states[0].mac is not None:
            configs = (VfConfig(vf=0, mac=_MAC),)
        if states and bench.driver.rates is not None:
            limits = _limits(bench)
    if not rules and not configs and not limits:
        bench.not_shown("the NIC has nothing that could be changed at present")
    # Made exact, rules with a cookie of ours would go that were there before the kit came.
    desired = DesiredState(vfs=configs, rates=limits, flows=new, exact=not bench.first.rules)
    return Scenario(old=old, before=look(bench.driver), desired=desired)


def _rules(bench: Bench, most: int) -> list[FlowRule]:
    for name in (table.name for table in bench.profile.tables):
        if bench.state(name).blocked:
            continue
        for count in (most, 4):
            try:
                placed = bench.some(bench.state(name), count)
            except NotShown:
                continue
            return [placement.rule for placement in placed]
    return []


def _limits(bench: Bench) -> dict[int, RateLimit]:
    facts = bench.profile.rates.max_tx
    if "max_tx" not in rates(bench.profile) or facts.link_speeds_bps or facts.needs_port_vlan:
        return {}
    return {0: RateLimit(max_tx_bps=good_bps(facts))}


def seen(bench: Bench) -> Mapping[str, object]:
    """Return all that a scenario is about, as the driver reports it."""
    driver = bench.driver
    rules = sorted(
        (each.ref.table, str(each.rule.match), str(each.rule.actions), str(each.rule.priority))
        for each in (driver.flow_filters.dump() if driver.flow_filters is not None else ())
    )
    vfs = (
        list(map(_settings, driver.virtual_functions.states()))
        if driver.virtual_functions is not None
        else []
    )
    found = [(each.vf, each.read_back) for each in driver.rates.read()] if driver.rates is not None else []
    return {"rules": rules, "VFs": vfs, "rates": found}


def _settings(state: VfState) -> VfState:
    return replace(state, ready=True, rate=None)


def tidy(bench: Bench, nic: Nic) -> None:
    """Remember the rules of a NIC, so that they are removed when the behaviour ends."""
    if bench.driver.flow_filters is not None:
        bench.made += [each.ref for each in nic.flows() if each.ours]


def begun(bench: Bench, work: Scenario) -> Nic:
    """Return the NIC, durable, with the rules that are there at first."""
    nic = bench.nic(durable=True)
    if work.old:
        nic.add_flows(work.old)
        tidy(bench, nic)
    return nic


@behaviour(
    "NIC-01",
    "A plan says what is done, doing it does that, and afterwards there is nothing left to do",
    each=whole,
)
def plan_equals_apply(bench: Bench) -> None:
    """A change of everything that the NIC has is planned and applied: the report has the steps of the plan, the NIC
    reads as asked for, and planning the same again gives no steps, however often.
    """
    work = scenario(bench)
    with begun(bench, work) as nic:
        plan = nic.plan(work.desired)
        bench.expect(plan.steps, "the change takes no steps")
        report = nic.apply(plan)
        tidy(bench, nic)
        bench.same(report.steps, plan.steps, "the steps that were done")
        for _ in range(REPEATS):
            again = nic.plan(work.desired)
            bench.same(again.steps, (), "steps of the same plan after it was done")
            nic.apply(again)


@behaviour("NIC-02", "Planning changes nothing", each=whole)
def planning_changes_nothing(bench: Bench) -> None:
    """The NIC reads the same before and after a plan, and no changing call of the driver was made."""
    work = scenario(bench)
    begun(bench, work).close()
    before, strike = seen(bench), Strike()
    with bench.nic(Between(bench.driver, strike, durable=True)) as nic:
        strike.calls.clear()
        for _ in range(3):
            nic.plan(work.desired)
        bench.same(strike.calls, [], "calls that change the NIC, while planning")
    bench.same(seen(bench), before, "the NIC after a plan was made")


@behaviour("NIC-03", "A plan that is no longer true is refused", each=with_tables)
def stale_plan(bench: Bench) -> None:
    """Between plan and apply a rule of the plan comes into being: applying it is `ConflictError`, and does nothing."""
    work = scenario(bench)
    if not work.old:
        bench.not_shown("no table takes rules at present")
    with begun(bench, work) as nic:
        plan = nic.plan(work.desired)
        nic.remove_flows([work.old[1].rule_id])
        before = seen(bench)
        bench.refuses(lambda: nic.apply(plan), ConflictError, "a plan that is no longer true")
        bench.same(seen(bench), before, "the NIC after the refusal")


def _steps(bench: Bench, strike: Callable[[int], Strike], check: Callable[[Strike, int], bool]) -> None:
    """Strike at one call after the other, until one change gets through."""
    for number in range(_MOST_STEPS):
        if not check(strike(number), number):
            bench.expect(number > 0, "the change made no call that could be struck")
            return
    bench.broken(f"the change did not come to an end within {_MOST_STEPS} calls")


@behaviour("NIC-04", "A change that fails at any step is taken back, and leaves nothing", each=whole)
def failed_at_each_step(bench: Bench) -> None:
    """The same change is begun over and over, and another call to the driver fails each time, before or after it took
    effect. Each time the NIC reads as before, and the error says that all was undone.
    """
    work = scenario(bench)
    begun(bench, work).close()
    before = seen(bench)

    def check(strike: Strike, number: int) -> bool:
        nic = bench.nic(Between(bench.driver, strike, durable=True))
        strike.calls.clear()
        try:
            plan = nic.plan(work.desired)
            strike.calls.clear()
            nic.apply(plan)
        except NicOffloadError as error:
            bench.settled_if_any()
            bench.same(
                seen(bench), before, f"the NIC after {strike.calls[number // 2]} (call {number // 2}) failed"
            )
            bench.expect(
                error.__cause__ is not None or error.hint, f"the error says nothing of the undoing: {error}"
            )
            return True
        else:
            tidy(bench, nic)
            return False
        finally:
            nic.close()

    _steps(bench, lambda number: Strike(number // 2, after=bool(number % 2)), check)


@behaviour(
    "NIC-05",
    "A process that dies at any step leaves the old state or the new one, once the NIC is opened again",
    each=whole,
)
def killed_at_each_step(bench: Bench) -> None:
    """The same change is begun over and over, and the process is gone before or after another call each time. The next
    open puts the NIC into the old state or the new one; no rule is lost, none is unaccounted for.
    """
    work = scenario(bench)
    with begun(bench, work) as nic:
        others = sum(not each.ours for each in nic.flows()) if bench.driver.flow_filters is not None else 0
    old = seen(bench)
    with bench.nic(durable=True) as nic:
        nic.apply(nic.plan(work.desired))
        tidy(bench, nic)
        bench.settled_if_any()
        new = seen(bench)
    _back(bench, work, old)

    def check(strike: Strike, number: int) -> bool:
        died = _die(bench, strike, work)
        bench.settled_if_any()
        with bench.nic(durable=True) as nic:
            tidy(bench, nic)
            where = f"the process was gone at call {number // 2} ({'after' if number % 2 else 'before'} it)"
            bench.same(nic.recovery.problems, (), f"problems after {where}")
            bench.same(nic.recovery.missing, (), f"rules of ours that are lost after {where}")
            bench.same(len(nic.recovery.unaccounted), others, f"rules of nobody after {where}")
        state = seen(bench)
        bench.expect(state in (old, new), f"neither old nor new after {where}", expected=old, found=state)
        if not died:
            bench.same(state, new, "the NIC after the whole change")
        _back(bench, work, old)
        return died

    _steps(bench, lambda number: Strike(number // 2, after=bool(number % 2), kills=True), check)


def _die(bench: Bench, strike: Strike, work: Scenario) -> bool:
    from nicoffload.testing.conformance.proxy import Killed  # noqa: PLC0415 - a name of one function

    nic = bench.nic(Between(bench.driver, Strike(), durable=True))
    plan = nic.plan(work.desired)
    nic.close()
    strike.calls.clear()
    nic = bench.nic(Between(bench.driver, strike, durable=True))
    try:
        nic.apply(plan)
    except Killed:
        return True
    finally:
        nic.close()
    return False


def _back(bench: Bench, work: Scenario, old: Mapping[str, object]) -> None:
    """Bring the NIC into the old state again."""
    with bench.nic(durable=True) as nic:
        first = work.before
        before = DesiredState(vfs=first.configs, rates=first.limits, flows=work.old, exact=work.desired.exact)
        nic.apply(nic.plan(before))
        tidy(bench, nic)
    bench.settled_if_any()
    bench.same(seen(bench), old, "the NIC after it was brought back into its old state")


@behaviour("NIC-06", "Rules outlive the process: whoever opens the NIC next has them", each=with_tables)
def adoption(bench: Bench) -> None:
    """Rules are installed, the NIC is closed and opened: they are ours, nothing was to be put right, and they can be
    removed by their ids. With the journal lost, rules with cookies are still ours, and others are shown as nobody's.
    """
    rules = _rules(bench, 4)
    if not rules:
        bench.not_shown("no table takes rules at present")
    before = sum(count for _, count in bench.first.rules)
    with bench.nic(durable=True) as nic:
        nic.add_flows(rules)
        tidy(bench, nic)
    with bench.nic(durable=True) as nic:
        bench.expect(nic.recovery.clean, f"something was to be put right: {nic.recovery}")
        ours = {each.rule.rule_id for each in nic.flows() if each.ours}
        bench.same(
            ours, {rule.rule_id for rule in rules}, "rules that are ours after the NIC was opened again"
        )
        nic.remove_flows([rules[0].rule_id])
    for path in bench.folder().glob("journal.sqlite*"):
        path.unlink()
    with bench.nic(durable=True) as nic:
        left = before + len(rules) - 1
        found = len(nic.recovery.adopted) + len(nic.recovery.unaccounted)
        bench.same(found, left, "rules that are found again after the journal was lost")
        if nic.recovery.adopted and not before:
            bench.same(
                {each.rule.rule_id for each in nic.recovery.adopted},
                {rule.rule_id for rule in rules[1:]},
                "ids of the rules that were adopted by their cookies",
            )


@behaviour("NIC-07", "A rule that the driver says it installed and did not is noticed", each=with_tables)
def lost_rule_is_noticed(bench: Bench) -> None:
    """The NIC forgets a rule right after the driver said yes: adding it is `VerificationError`, and the others of the
    same call are taken back.
    """
    rules = _rules(bench, 4)
    if not rules:
        bench.not_shown("no table takes rules at present")

    class Forgetful(Strike):
        def __call__(self, name: str, call: Callable[[], object]) -> object:
            answer = super().__call__(name, call)
            if name == "create_many" and isinstance(answer, list):
                bench.made.extend(answer)
                bench.filters.destroy_many(answer[1:2])
            return answer

    before = seen(bench)
    with bench.nic(Between(bench.driver, Forgetful())) as nic:
        bench.refuses(lambda: nic.add_flows(rules), VerificationError, "a rule that is lost")
    bench.same(seen(bench), before, "the NIC after the rules were taken back")


@behaviour("NIC-08", "Adding and removing rules is repeatable for ever", each=with_tables)
def repeated_changes(bench: Bench) -> None:
    """The same rules are added and removed ten times: nothing grows. Adding what is there, or removing what is not, is
    an error that names the rule and changes nothing.
    """
    rules = _rules(bench, 4)
    if not rules:
        bench.not_shown("no table takes rules at present")
    before = seen(bench)
    used = [(state.table.name, state.in_use) for state in bench.filters.tables()]
    with bench.nic() as nic:
        for _ in range(REPEATS):
            nic.add_flows(rules)
            tidy(bench, nic)
            bench.refuses(lambda: nic.add_flows(rules[:1]), ConflictError, "a rule that is there")
            stats = nic.remove_flows([rule.rule_id for rule in rules])
            bench.same(
                [each.rule_id for each in stats],
                [rule.rule_id for rule in rules],
                "last counters of the rules",
            )
            bench.refuses(
                lambda: nic.remove_flows([rules[0].rule_id]), NotFoundError, "removing a rule that is gone"
            )
            bench.same(nic.remove_flows([rules[0].rule_id], missing_ok=True), (), "removing what may be gone")
        bench.same(seen(bench), before, "the NIC after it all")
        bench.same(
            [(state.table.name, state.in_use) for state in bench.filters.tables()],
            used,
            "rows in use after it all",
        )


@behaviour(
    "NIC-09", "A rule of another is shown, is nobody's, and stays when ours are made exact", each=with_tables
)
def foreign_rule_stays(bench: Bench) -> None:
    """A rule that no journal knows is in the NIC: `flows()` shows it as not ours, a desired state that is exact leaves
    it, and it can't be removed by its id.
    """
    for name in (table.name for table in bench.profile.tables):
        state = bench.state(name)
        if not state.blocked and (state.table.picker != "none" or bench.under_test.foreign_rule is not None):
            break
    else:
        bench.not_shown("nothing here puts a rule that is not ours into the NIC (NicUnderTest.foreign_rule)")
    if bench.first.rules:
        bench.not_shown("rules are in the NIC: made exact, those with a cookie of ours would go")
    placements = bench.some(state, 2)
    if state.table.picker == "none":
        bench.foreign(placements[0])
    else:
        bench.install(placements[:1])
    with bench.nic() as nic:
        theirs = [each for each in nic.flows() if not each.ours]
        bench.expect(theirs, "the rule of another is not shown as such")
        mine = placements[1].rule
        nic.apply(nic.plan(DesiredState(flows=(mine,), exact=True)))
        tidy(bench, nic)
        bench.same(
            len([each for each in nic.flows() if not each.ours]), len(theirs), "rules of others beside ours"
        )
        nic.apply(nic.plan(DesiredState(flows=(), exact=True)))
        bench.same(
            len([each for each in nic.flows() if not each.ours]), len(theirs), "rules of others at the end"
        )
        bench.refuses(
            lambda: nic.remove_flows([uuid.uuid4()]), NotFoundError, "removing a rule that is not ours"
        )


@behaviour(
    "NIC-10",
    "What is refused before anything is done is refused with everything that is wrong",
    each=with_tables,
)
def refused_beforehand(bench: Bench) -> None:
    """Of several rules one can't be held: `check_all` says which and why, `add_flows` refuses all of them and changes
    nothing, and with ``atomic=False`` the others are installed.
    """
    rules = _rules(bench, 4)
    if not rules:
        bench.not_shown("no table takes rules at present")
    bad = FlowRule(match=rules[0].match, actions=(ToVf(vf=MAX_VF_INDEX),))
    asked = [rules[0], bad, rules[1]]
    before = seen(bench)
    with bench.nic() as nic:
        answers = nic.check_all(asked)
        bench.same(
            [isinstance(each, Placement) for each in answers], [True, False, True], "which rules have a place"
        )
        error = bench.refuses(
            lambda: nic.add_flows(asked), NicOffloadError, "rules of which one has no place"
        )
        bench.expect(
            error.path or getattr(error, "reasons", ()), f"the error does not say which and why: {error}"
        )
        bench.same(seen(bench), before, "the NIC after all were refused")
        report = nic.add_flows(asked, atomic=False)
        tidy(bench, nic)
        bench.same(
            [each.rule.rule_id for each in report.installed],
            [rules[0].rule_id, rules[1].rule_id],
            "rules that were installed without the bad one",
        )
        bench.same([rule.rule_id for rule, _ in report.refused], [bad.rule_id], "rules that were refused")


@behaviour(
    "NIC-12",
    "A setting that the NIC does not have is refused as such, and nothing is left of its call",
    each=missing_settings,
)
def missing_setting(bench: Bench) -> None:
    """Through `open_nic`, one call sets what the NIC has on one VF and what it does not have on another: the error is
    `NotSupportedError` naming the setting, not one about undoing, and both VFs are as before.
    """
    name = bench.part
    bench.need_vfs(2)
    bench.settled()
    before = seen(bench)
    value: Any = {"mac": _MAC, "vlan": VlanTag(vid=12), "link_state": LinkState.DISABLE}.get(name, True)
    good = [VfConfig(vf=0, mac=_MAC)] if "mac" in settings(bench.profile) else []
    with bench.nic() as nic:
        error = bench.refuses(
            lambda: nic.configure_vfs([*good, VfConfig(vf=1, **{name: value})]),
            NotSupportedError,
            f"{name}, which the NIC does not have,",
        )
        assert isinstance(error, NotSupportedError)
        bench.same(error.capability, f"vf.{name}", "the capability that is missing")
    bench.settled_if_any()
    bench.same(seen(bench), before, "the NIC after the refusal")


def with_settings(profile: NicProfile) -> tuple[str, ...]:
    """Tried once, on a NIC whose VFs have an address that can be set."""
    return ("",) if "mac" in settings(profile) else ()


@behaviour("NIC-11", "Settings and rates of VFs are all in force, or none is", each=with_settings)
def settings_all_or_none(bench: Bench) -> None:
    """Two VFs are set in one call, of which the second fails: the first is as before. Then both are set, ten times."""
    bench.need_vfs(2)
    bench.settled()
    before = seen(bench)
    configs = [VfConfig(vf=vf, mac=_MAC + vf) for vf in (0, 1)]
    if bench.vfs.states()[0].mac is None:
        bench.not_shown("the addresses of VFs are not reported")

    class Half(Strike):
        def __call__(self, name: str, call: Callable[[], object]) -> object:
            answer = super().__call__(name, call)
            if name == "configure_many" and isinstance(answer, list) and len(self.calls) == 1:
                return [*answer[:-1], VerificationError("made to fail", expected="", actual="", device="kit")]
            return answer

    with bench.nic(Between(bench.driver, Half())) as nic:
        bench.refuses(lambda: nic.configure_vfs(configs), NicOffloadError, "settings of which one fails")
    bench.settled_if_any()
    bench.same(seen(bench), before, "the NIC after one of two settings failed")
    with bench.nic() as nic:
        for _ in range(REPEATS):
            found = nic.configure_vfs(configs)
            bench.same(
                [each.mac for each in found], [config.mac for config in configs], "addresses of the VFs"
            )
