"""Drivers with one fault each: a good driver, of which one call is replaced. The kit must find every one of them."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nicoffload import load_registry
from nicoffload.driver import InstalledRule, RuleRef
from nicoffload.errors import (
    InvalidRequestError,
    KernelError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    Reason,
    ResourceExhaustedError,
)
from nicoffload.model import (
    Disruption,
    LinkState,
    Masked,
    RateLimit,
    RateReport,
    Support,
    ToQueue,
    TrafficStats,
    VfConfig,
    VlanTag,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """A fault, planted in a good driver.

    Args:
        name: What is wrong, as a name.
        nic: The emulated NIC that it is planted in.
        plant: Plants it.
        caught_by: Number of the behaviour that is meant to find it.
        part: The part of the behaviour; empty for all.
    """

    name: str
    nic: str
    plant: Callable[[Any], None]
    caught_by: str
    part: str = ""


DEFECTS: list[Defect] = []


def defect(nic: str, caught_by: str, part: str = ""):
    """Put a function that spoils a driver into the list."""

    def wrap(plant):
        DEFECTS.append(Defect(name=plant.__name__, nic=nic, plant=plant, caught_by=caught_by, part=part))
        return plant

    return wrap


def spoil(facet, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a call of a facet by what is made of it."""
    setattr(facet, name, make(getattr(facet, name)))


def missing(device="mock"):
    return NotFoundError("there is no such rule", device=device)


def is_ref(outcome):
    return isinstance(outcome, RuleRef)


def pretend(placement):
    return RuleRef(rule_id=placement.rule.rule_id, table=placement.table, slot=placement.slot)


# ------------------------------------------------------------------------------------------------ flow filters: install


@defect("mock:ixgbe", "FL-28")
def loses_a_rule_on_a_partial_failure(driver):
    def make(create):
        def create_many(placements):
            outcomes = create(placements)
            if not all(map(is_ref, outcomes)):
                driver.flow_filters.destroy_many([o for o in outcomes if is_ref(o)][-1:])
            return outcomes

        return create_many

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:ixgbe", "FL-28")
def gives_up_at_the_first_refusal(driver):
    def make(create):
        def create_many(placements):
            outcomes = []
            for placement in placements:
                failed = outcomes and not is_ref(outcomes[-1])
                outcomes += [outcomes[-1]] if failed else create([placement])
            return outcomes

        return create_many

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:mlx5", "FL-28")
def takes_back_all_after_one_refusal_and_says_otherwise(driver):
    def make(create):
        def create_many(placements):
            outcomes = create(placements)
            if not all(map(is_ref, outcomes)):
                driver.flow_filters.destroy_many([o for o in outcomes if is_ref(o)])
            return outcomes

        return create_many

    spoil(driver.flow_filters, "create_many", make)


def _narrowed(driver, change):
    """Install another rule than asked for where the NIC refuses one, and say that all is well."""

    def make(create):
        def create_many(placements):
            outcomes = create(placements)
            for at, (placement, outcome) in enumerate(zip(placements, outcomes, strict=True)):
                if isinstance(outcome, NotSupportedError | InvalidRequestError):
                    (again,) = create([placement._replace(rule=change(placement.rule))])
                    outcomes[at] = again
            return outcomes

        return create_many

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:i40e", "FL-20")
def widens_a_mask(driver):
    def without_partial(rule):
        full = {
            name: None if value.mask & 1 == 0 or value.mask.bit_count() < 8 else value
            for name, value in rule.match.items()
            if isinstance(value, Masked)
        }
        return replace(rule, match=rule.match.replace(**{n: v for n, v in full.items() if v is None}))

    _narrowed(driver, without_partial)


@defect("mock:sfc_siena", "FL-20", "rx_ip")
def compares_exactly_what_was_asked_under_a_mask(driver):
    def exact(rule):
        fields = {
            name: Masked(value.value, (1 << value.mask.bit_length()) - 1)
            for name, value in rule.match.items()
            if isinstance(value, Masked)
        }
        return replace(rule, match=rule.match.replace(**fields))

    _narrowed(driver, exact)


@defect("mock:ixgbe", "FL-21")
def leaves_out_a_field_that_it_can_not_compare(driver):
    known = {"eth_type", "ip_proto", "ipv4_src", "ipv4_dst", "tp_src", "tp_dst", "vlan_vid", "vlan_pcp"}
    _narrowed(
        driver,
        lambda rule: replace(
            rule, match=rule.match.replace(**{n: None for n, _ in rule.match.items() if n not in known})
        ),
    )


@defect("mock:ixgbe", "FL-22")
def does_another_action_than_asked(driver):
    _narrowed(driver, lambda rule: replace(rule, actions=(ToQueue(queue=0),)))


@defect("mock:ixgbe", "FL-23")
def takes_a_rule_to_a_vf_that_does_not_exist(driver):
    def make(create):
        return lambda placements: [
            o if is_ref(o) else pretend(p) for p, o in zip(placements, create(placements), strict=True)
        ]

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:sfc_siena", "FL-24", "rx_ip")
def takes_a_port_that_the_hardware_can_not_compare(driver):
    takes_a_rule_to_a_vf_that_does_not_exist(driver)


@defect("mock:sfc_siena", "FL-29", "rx_ip")
def takes_a_rule_that_compares_nothing(driver):
    takes_a_rule_to_a_vf_that_does_not_exist(driver)


@defect("mock:igb_82576", "FL-16")
def has_tables_that_its_profile_does_not_have(driver):
    driver.flow_filters = load_registry().open("mock:ixgbe").flow_filters


@defect("mock:i40e", "FL-25")
def takes_a_second_set_of_fields(driver):
    takes_a_rule_to_a_vf_that_does_not_exist(driver)


@defect("mock:i40e", "FL-26", "fdir")
def says_yes_to_a_duplicate(driver):
    takes_a_rule_to_a_vf_that_does_not_exist(driver)


@defect("mock:sfc_siena", "FL-26", "rx_ip")
def keeps_both_of_two_rules_that_replace_each_other(driver):
    extra = []

    def create(create):
        def create_many(placements):
            before = {(r.ref.table, r.ref.slot): r for r in driver.flow_filters.dump()}
            outcomes = create(placements)
            for o in outcomes:
                old = before.get((o.table, o.slot)) if is_ref(o) else None
                extra.extend([old] if old else [])
            return outcomes

        return create_many

    spoil(driver.flow_filters, "create_many", create)
    spoil(driver.flow_filters, "dump", lambda dump: lambda refs=None: [*dump(refs), *extra])


@defect("mock:i40e", "FL-27")
def keeps_the_old_rule_in_a_location_and_says_it_was_replaced(driver):
    def make(create):
        def create_many(placements):
            taken = {(each.ref.table, each.ref.slot) for each in driver.flow_filters.dump()}
            return [
                pretend(p) if (p.table, p.slot) in taken and p.slot is not None else create([p])[0]
                for p in placements
            ]

        return create_many

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:i40e", "FL-21")
def names_the_wrong_capability(driver):
    def renamed(error):
        if not isinstance(error, NotSupportedError):
            return error
        return NotSupportedError(error.message, capability="vf.trust", reasons=error.reasons, device="mock")

    spoil(driver.flow_filters, "create_many", lambda create: lambda p: [renamed(o) for o in create(p)])


@defect("mock:ixgbe", "FL-21")
def raises_instead_of_answering(driver):
    def make(create):
        def create_many(placements):
            outcomes = create(placements)
            for outcome in outcomes:
                if isinstance(outcome, NicOffloadError):
                    raise outcome
            return outcomes

        return create_many

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:ixgbe", "FL-21")
def refuses_without_naming_the_device(driver):
    def anonymous(error):
        if not isinstance(error, NotSupportedError):
            return error
        return NotSupportedError("not supported", capability="flow_filters", reasons=error.reasons)

    spoil(driver.flow_filters, "create_many", lambda create: lambda p: [anonymous(o) for o in create(p)])


@defect("mock:ixgbe", "FL-02", "fdir")
def refuses_rules_with_a_vlan(driver):
    reason = Reason(code="no", path="/match/vlan_vid", message="no VLANs")
    error = NotSupportedError("no VLANs", capability="flow_filters.fdir", reasons=[reason], device="mock")

    def make(create):
        return lambda placements: [
            error if p.rule.match.vlan_vid is not None else create([p])[0] for p in placements
        ]

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:ixgbe", "FL-11")
def answers_in_another_order(driver):
    spoil(driver.flow_filters, "create_many", lambda create: lambda p: list(reversed(create(p))))


@defect("mock:ixgbe", "FL-11")
def loses_every_hundredth_rule_of_a_bulk_call(driver):
    def make(create):
        def create_many(placements):
            return [pretend(p) if at % 100 == 99 else create([p])[0] for at, p in enumerate(placements)]

        return create_many

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:ixgbe", "FL-04")
def installs_in_another_location_than_asked(driver):
    def make(create):
        return lambda placements: create(
            [p._replace(slot=p.slot + 5) if p.slot is not None else p for p in placements]
        )

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:sfc_siena", "FL-04")
def tells_one_location_for_all_rules(driver):
    spoil(
        driver.flow_filters,
        "create_many",
        lambda create: lambda p: [replace(o, slot=0) if is_ref(o) else o for o in create(p)],
    )


@defect("mock:mlx5", "FL-12")
def swaps_priorities(driver):
    spoil(
        driver.flow_filters,
        "dump",
        lambda dump: (
            lambda refs=None: [
                replace(
                    r,
                    rule=replace(r.rule, priority=None if r.rule.priority is None else 100 - r.rule.priority),
                )
                for r in dump(refs)
            ]
        ),
    )


@defect("mock:ixgbe", "FL-12")
def invents_a_priority(driver):
    spoil(
        driver.flow_filters,
        "dump",
        lambda dump: lambda refs=None: [replace(r, rule=replace(r.rule, priority=7)) for r in dump(refs)],
    )


@defect("mock:ice", "FL-14")
def enabling_a_table_empties_it(driver):
    def make(enable):
        def enable_table(name):
            enable(name)
            driver.flow_filters.destroy_many([r.ref for r in driver.flow_filters.dump()])

        return enable_table

    spoil(driver.flow_filters, "enable_table", make)


# --------------------------------------------------------------------------------------------------- flow filters: read


@defect("mock:ixgbe", "FL-03", "fdir")
def reads_back_without_a_field(driver):
    spoil(
        driver.flow_filters,
        "dump",
        lambda dump: (
            lambda refs=None: [
                replace(r, rule=replace(r.rule, match=r.rule.match.replace(tp_dst=None))) for r in dump(refs)
            ]
        ),
    )


@defect("mock:ixgbe", "FL-03", "fdir")
def reads_back_another_action(driver):
    spoil(
        driver.flow_filters,
        "dump",
        lambda dump: (
            lambda refs=None: [
                replace(r, rule=replace(r.rule, actions=(ToQueue(queue=0),))) for r in dump(refs)
            ]
        ),
    )


@defect("mock:ixgbe", "FL-11")
def reads_the_first_hundred_rules_only(driver):
    spoil(driver.flow_filters, "dump", lambda dump: lambda refs=None: dump(refs)[:100])


@defect("mock:ixgbe", "FL-08")
def reads_all_rules_when_asked_for_some(driver):
    spoil(driver.flow_filters, "dump", lambda dump: lambda refs=None: dump())


@defect("mock:mlx5", "FL-08")
def forgets_the_id_of_a_rule(driver):
    spoil(
        driver.flow_filters,
        "dump",
        lambda dump: (
            lambda refs=None: [replace(r, rule=replace(r.rule, rule_id=uuid.uuid4())) for r in dump(refs)]
        ),
    )


@defect("mock:ixgbe", "FL-09")
def reading_takes_a_rule_away(driver):
    calls = itertools.count()

    def make(dump):
        def spoilt(refs=None):
            found = dump(refs)
            if next(calls) == 3 and found:
                driver.flow_filters.destroy_many([found[0].ref])
            return found

        return spoilt

    spoil(driver.flow_filters, "dump", make)


@defect("mock:ixgbe", "FL-13")
def shows_a_rule_in_two_tables(driver):
    def make(dump):
        def spoilt(refs=None):
            found = dump(refs)
            other = {"fdir": "u32", "u32": "fdir"}
            return [*found, *(replace(r, ref=replace(r.ref, table=other[r.ref.table])) for r in found)]

        return spoilt

    spoil(driver.flow_filters, "dump", make)


@defect("mock:ixgbe", "FL-01")
def forgets_a_table(driver):
    spoil(driver.flow_filters, "tables", lambda tables: lambda: tables()[:1])


@defect("mock:ixgbe", "FL-10")
def answers_an_empty_call_with_something(driver):
    spoil(driver.flow_filters, "destroy_many", lambda destroy: lambda refs: destroy(refs) or [None])


# ------------------------------------------------------------------------------------------------- flow filters: remove


@defect("mock:ixgbe", "FL-05")
def says_removed_and_leaves_it(driver):
    spoil(driver.flow_filters, "destroy_many", lambda destroy: lambda refs: [None for _ in refs])


@defect("mock:ixgbe", "FL-05")
def removes_the_neighbour_as_well(driver):
    def make(destroy):
        def destroy_many(refs):
            answers = destroy(refs)
            destroy([replace(ref, slot=ref.slot + 1) for ref in refs])
            return answers

        return destroy_many

    spoil(driver.flow_filters, "destroy_many", make)


@defect("mock:ixgbe", "FL-06")
def says_removed_of_what_is_not_there(driver):
    spoil(
        driver.flow_filters,
        "destroy_many",
        lambda destroy: lambda refs: [None if isinstance(a, NotFoundError) else a for a in destroy(refs)],
    )


@defect("mock:ixgbe", "FL-06")
def answers_a_missing_rule_with_a_bare_errno(driver):
    spoil(
        driver.flow_filters,
        "destroy_many",
        lambda destroy: (
            lambda refs: [
                KernelError("EINVAL", device="mock") if isinstance(a, NotFoundError) else a
                for a in destroy(refs)
            ]
        ),
    )


@defect("mock:mlx5", "FL-07")
def stops_removing_at_a_missing_rule(driver):
    def make(destroy):
        def destroy_many(refs):
            answers = []
            for ref in refs:
                failed = any(answers)
                answers += [missing()] if failed else destroy([ref])
            return answers

        return destroy_many

    spoil(driver.flow_filters, "destroy_many", make)


@defect("mock:ixgbe", "FL-15")
def removes_anothers_rule_when_it_can_not_find_ours(driver):
    def make(destroy):
        def destroy_many(refs):
            for ref in refs:
                if ref.slot is None:
                    destroy([r.ref for r in driver.flow_filters.dump()][:1])
            return destroy(refs)

        return destroy_many

    spoil(driver.flow_filters, "destroy_many", make)


# ----------------------------------------------------------------------------------------------- flow filters: capacity


def _full(device="mock", limit=None):
    return ResourceExhaustedError("the table is full", device=device, limit=limit)


@defect("mock:sfc_ef100,rows.ntuple=20", "FL-30", "ntuple")
def is_full_one_rule_too_early(driver):
    def make(create):
        return lambda placements: [
            _full() if p.table == "ntuple" and len(driver.flow_filters.dump()) >= 19 else create([p])[0]
            for p in placements
        ]

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:sfc_ef100,rows.ntuple=20", "FL-30", "ntuple")
def answers_a_full_table_with_a_bare_errno(driver):
    spoil(
        driver.flow_filters,
        "create_many",
        lambda create: (
            lambda p: [
                KernelError("EBUSY", device="mock") if isinstance(o, ResourceExhaustedError) else o
                for o in create(p)
            ]
        ),
    )


@defect("mock:sfc_ef100,rows.ntuple=20", "FL-30", "ntuple")
def throws_an_old_rule_out_of_a_full_table(driver):
    def make(create):
        def create_many(placements):
            outcomes = create(placements)
            for at, outcome in enumerate(outcomes):
                if isinstance(outcome, ResourceExhaustedError):
                    driver.flow_filters.destroy_many([driver.flow_filters.dump()[0].ref])
                    outcomes[at : at + 1] = create([placements[at]])
            return outcomes

        return create_many

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:sfc_ef100,rows.ntuple=20", "FL-30", "ntuple")
def names_another_limit_than_the_tables(driver):
    spoil(
        driver.flow_filters,
        "create_many",
        lambda create: (
            lambda p: [_full(limit=4096) if isinstance(o, ResourceExhaustedError) else o for o in create(p)]
        ),
    )


@defect("mock:sfc_ef100,rows.ntuple=20", "FL-31", "ntuple")
def leaks_the_row_of_a_rule_that_was_removed(driver):
    leaked = []
    spoil(
        driver.flow_filters, "destroy_many", lambda destroy: lambda refs: leaked.extend(refs) or destroy(refs)
    )
    spoil(
        driver.flow_filters,
        "create_many",
        lambda create: (
            lambda p: [
                _full() if len(driver.flow_filters.dump()) + len(leaked) >= 20 else create([each])[0]
                for each in p
            ]
        ),
    )


@defect("mock:ixgbe", "FL-32")
def does_not_count_rows_in_use(driver):
    spoil(
        driver.flow_filters, "tables", lambda tables: lambda: [replace(state, in_use=0) for state in tables()]
    )


# ----------------------------------------------------------------------------------------------- flow filters: counters


def _counters(driver, change):
    spoil(
        driver.flow_filters,
        "read_counters",
        lambda read: lambda refs: replace(found := read(refs), **change(found)),
    )


@defect("mock:ixgbe", "FL-40")
def reports_zero_for_a_counter_that_is_absent(driver):
    _counters(driver, lambda found: {"valid": np.ones(len(found.valid), bool)})


@defect("mock:mlx5", "FL-41")
def does_not_say_how_it_counts(driver):
    _counters(driver, lambda found: {"facts": [None for _ in found.facts]})


@defect("mock:mlx5", "FL-42")
def counts_a_rule_that_is_gone(driver):
    _counters(driver, lambda found: {"valid": np.ones(len(found.valid), bool)})


@defect("mock:mlx5", "FL-43")
def counts_each_packet_twice(driver):
    _counters(driver, lambda found: {"packets": found.packets * 2})


@defect("mock:mlx5", "FL-43")
def gives_the_counters_in_another_order(driver):
    _counters(driver, lambda found: {"packets": found.packets[::-1]})


@defect("mock:mlx5", "FL-44")
def a_counter_runs_backwards(driver):
    calls = itertools.count(1)
    _counters(driver, lambda found: {"packets": found.packets // np.uint64(next(calls) ** 3)})


# ------------------------------------------------------------------------------------------------------------------ VFs


@defect("mock:ixgbe", "VF-01")
def has_another_limit_than_the_profile(driver):
    spoil(driver.virtual_functions, "limit", lambda limit: lambda: limit() + 1)


@defect("mock:ixgbe", "VF-02")
def leaks_a_vf(driver):
    spoil(driver.virtual_functions, "set_count", lambda call: lambda count: call(count or 1))


@defect("mock:ixgbe", "VF-02")
def says_that_vfs_were_made_and_makes_none(driver):
    spoil(driver.virtual_functions, "set_count", lambda call: lambda count: Disruption.NONE)


@defect("mock:igb_i350", "VF-03")
def makes_one_vf_less_than_the_limit(driver):
    spoil(
        driver.virtual_functions,
        "set_count",
        lambda call: lambda count: call(min(count, driver.virtual_functions.limit() - 1)),
    )


@defect("mock:ixgbe", "VF-04")
def makes_as_many_vfs_as_it_can_when_asked_for_more(driver):
    spoil(
        driver.virtual_functions,
        "set_count",
        lambda call: lambda count: call(max(min(count, driver.virtual_functions.limit()), 0)),
    )


@defect("mock:ixgbe", "VF-05")
def makes_vfs_anew_when_the_number_is_the_same(driver):
    def make(call):
        def set_count(count):
            if count:
                call(0)
            call(count)
            return Disruption.NONE

        return set_count

    spoil(driver.virtual_functions, "set_count", make)


@defect("mock:ixgbe", "VF-06")
def says_that_taking_vfs_away_costs_nothing(driver):
    spoil(driver.virtual_functions, "set_count", lambda call: lambda count: (call(count), Disruption.NONE)[1])


@defect("mock:sfc_siena", "VF-07")
def says_yes_where_the_write_does_nothing(driver):
    spoil(driver.virtual_functions, "set_count", lambda call: lambda count: Disruption.NONE)


@defect("mock:ixgbe", "VF-08")
def gives_a_new_vf_the_settings_of_an_old_one(driver):
    def make(call):
        def set_count(count):
            macs = {s.vf: s.mac for s in driver.virtual_functions.states()} or set_count.macs
            set_count.macs = macs
            cost = call(count)
            driver.virtual_functions.configure_many(
                [VfConfig(vf=v, mac=macs[v]) for v in range(count) if v in macs]
            )
            return cost

        set_count.macs = {}
        return set_count

    spoil(driver.virtual_functions, "set_count", make)


@defect("mock:ixgbe", "VF-09")
def reading_vfs_changes_one(driver):
    calls = itertools.count(1)
    spoil(
        driver.virtual_functions,
        "states",
        lambda states: lambda: [replace(s, mac=s.mac + next(calls)) for s in states()],
    )


@defect("mock:ixgbe", "VF-10")
def resetting_a_vf_resets_the_others(driver):
    def make(reset):
        def spoilt(vf):
            reset(vf)
            driver.virtual_functions.configure_many([VfConfig(vf=1, mac=0x02_00_00_00_66_66)])

        return spoilt

    spoil(driver.virtual_functions, "reset", make)


@defect("mock:ixgbe", "VF-11")
def resets_a_vf_that_does_not_exist(driver):
    spoil(driver.virtual_functions, "reset", lambda reset: lambda vf: reset(0))


@defect("mock:ixgbe", "VF-12")
def says_bound_and_is_not(driver):
    spoil(driver.virtual_functions, "bind", lambda bind: lambda vf, name: None)


@defect("mock:ixgbe", "VF-13")
def binds_to_a_driver_that_does_not_exist(driver):
    def make(bind):
        def spoilt(vf, name):
            try:
                bind(vf, name)
            except NotFoundError:
                bind(vf, "")

        return spoilt

    spoil(driver.virtual_functions, "bind", make)


@defect("mock:igb_i210", "VF-14")
def has_vfs_that_its_profile_does_not_have(driver):
    driver.virtual_functions = load_registry().open("mock:ixgbe").virtual_functions


@defect("mock:ixgbe", "VF-20", "vlan")
def says_set_and_does_not_set(driver):
    spoil(driver.virtual_functions, "configure_many", lambda call: lambda configs: [None for _ in configs])


@defect("mock:ixgbe", "VF-20", "trust")
def reads_back_another_value(driver):
    spoil(
        driver.virtual_functions,
        "states",
        lambda states: lambda: [replace(s, trust=not s.trust) for s in states()],
    )


@defect("mock:ixgbe", "VF-21", "mac")
def a_new_address_takes_the_vlan_away(driver):
    def make(call):
        def configure_many(configs):
            return call([replace(c, spoof_check=False) if c.mac is not None else c for c in configs])

        return configure_many

    driver.virtual_functions.configure_many([VfConfig(vf=0, spoof_check=True)])
    spoil(driver.virtual_functions, "configure_many", make)


@defect("mock:ixgbe", "VF-21", "vlan")
def sets_all_vfs_when_asked_for_one(driver):
    def make(call):
        def configure_many(configs):
            answers = call(configs)
            for config in configs:
                call([replace(config, vf=s.vf) for s in driver.virtual_functions.states()])
            return answers

        return configure_many

    spoil(driver.virtual_functions, "configure_many", make)


def _without_refusals(driver):
    spoil(
        driver.virtual_functions,
        "configure_many",
        lambda call: lambda configs: [None if isinstance(a, NotSupportedError) else a for a in call(configs)],
    )


@defect("mock:sfc_siena", "VF-22", "trust")
def ignores_a_setting_that_it_does_not_have(driver):
    _without_refusals(driver)


@defect("mock:sfc_siena", "VF-22", "trust")
def reports_off_for_a_setting_that_it_does_not_have(driver):
    spoil(
        driver.virtual_functions, "states", lambda states: lambda: [replace(s, trust=False) for s in states()]
    )


@defect("mock:sfc_siena", "VF-23", "trust")
def leaves_a_config_half_done(driver):
    def make(call):
        def configure_many(configs):
            answers = []
            for config in configs:
                call([replace(config, trust=None, link_state=None)])
                answers += call([config])
            return answers

        return configure_many

    spoil(driver.virtual_functions, "configure_many", make)


@defect("mock:ixgbe", "VF-24")
def one_wrong_vf_spoils_the_whole_call(driver):
    def make(call):
        def configure_many(configs):
            count = len(driver.virtual_functions.states())
            wrong = [c for c in configs if c.vf >= count]
            return call(wrong * len(configs))[: len(configs)] if wrong else call(configs)

        return configure_many

    spoil(driver.virtual_functions, "configure_many", make)


@defect("mock:ixgbe", "VF-25", "vlan")
def takes_another_vlan_protocol_for_the_usual_one(driver):
    def plain(config):
        if config.vlan is None:
            return config
        return replace(config, vlan=VlanTag(vid=config.vlan.vid, pcp=config.vlan.pcp))

    spoil(
        driver.virtual_functions,
        "configure_many",
        lambda call: lambda configs: call([plain(config) for config in configs]),
    )


@defect("mock:ixgbe", "VF-26", "link_state")
def reports_a_value_that_does_nothing_as_in_force(driver):
    asked = {}

    def make(call):
        def configure_many(configs):
            asked.update({c.vf: c.link_state for c in configs if c.link_state is LinkState.ENABLE})
            return call(configs)

        return configure_many

    spoil(driver.virtual_functions, "configure_many", make)
    spoil(
        driver.virtual_functions,
        "states",
        lambda states: lambda: [replace(s, link_state=asked.get(s.vf, s.link_state)) for s in states()],
    )


# ---------------------------------------------------------------------------------------------------------------- rates


def _reports(driver, change):
    """Change the reports of rates that were set."""

    def make(call):
        return lambda limits: {
            vf: change(answer) if isinstance(answer, RateReport) else answer
            for vf, answer in call(limits).items()
        }

    spoil(driver.rates, "set_many", make)


@defect("mock:i40e", "RT-02")
def rounds_a_rate_silently(driver):
    _reports(driver, lambda report: replace(report, note=""))


@defect("mock:i40e", "RT-02")
def says_that_it_does_what_was_asked_for(driver):
    _reports(driver, lambda report: replace(report, applied=report.requested))


@defect("mock:ixgbe", "RT-01")
def sets_half_the_rate(driver):
    def half(limit):
        return RateLimit(max_tx_bps=limit.max_tx_bps // 2) if limit.max_tx_bps else limit

    spoil(
        driver.rates,
        "set_many",
        lambda call: lambda limits: call({vf: half(li) for vf, li in limits.items()}),
    )


@defect("mock:i40e", "RT-03")
def raises_a_low_rate_silently(driver):
    _reports(driver, lambda report: replace(report, note=""))


@defect("mock:ixgbe", "RT-04")
def lowers_a_rate_that_is_too_high(driver):
    def capped(limit):
        return RateLimit(max_tx_bps=min(limit.max_tx_bps or 0, 10**9) or None)

    spoil(
        driver.rates,
        "set_many",
        lambda call: lambda limits: call({vf: capped(li) for vf, li in limits.items()}),
    )


@defect("mock:ixgbe", "RT-05", "min_tx")
def ignores_a_guarantee_that_it_does_not_have(driver):
    spoil(
        driver.rates,
        "set_many",
        lambda call: (
            lambda limits: call({vf: RateLimit(max_tx_bps=li.max_tx_bps) for vf, li in limits.items()})
        ),
    )


@defect("mock:ixgbe", "RT-06")
def never_takes_a_rate_off(driver):
    def make(call):
        def set_many(limits):
            kept = {vf: li for vf, li in limits.items() if li != RateLimit()}
            empty = RateReport(vf=0, requested=RateLimit(), applied=RateLimit(), read_back=RateLimit())
            return {**dict.fromkeys(limits, empty), **call(kept)}

        return set_many

    spoil(driver.rates, "set_many", make)


@defect("mock:ice", "RT-07")
def keeps_the_guarantee_when_the_limit_is_refused(driver):
    def make(call):
        def set_many(limits):
            for vf, limit in limits.items():
                if limit.min_tx_bps and limit.max_tx_bps:
                    call({vf: RateLimit(min_tx_bps=limit.min_tx_bps)})
            return call(limits)

        return set_many

    spoil(driver.rates, "set_many", make)


@defect("mock:ixgbe", "RT-08")
def sets_the_rate_of_all_vfs(driver):
    def make(call):
        def set_many(limits):
            for limit in limits.values():
                call({s.vf: limit for s in driver.virtual_functions.states()})
            return call(limits)

        return set_many

    spoil(driver.rates, "set_many", make)


@defect("mock:ixgbe", "RT-09")
def one_wrong_vf_raises(driver):
    def make(call):
        def set_many(limits):
            answers = call(limits)
            for answer in answers.values():
                if isinstance(answer, NicOffloadError):
                    raise answer
            return answers

        return set_many

    spoil(driver.rates, "set_many", make)


@defect("mock:ixgbe", "RT-10")
def reads_no_rate_of_the_last_vf(driver):
    spoil(driver.rates, "read", lambda read: lambda: read()[:-1])


@defect("mock:ixgbe", "RT-11")
def a_rate_grows_each_time_it_is_set(driver):
    calls = itertools.count(1)
    _reports(
        driver,
        lambda report: replace(report, applied=RateLimit(max_tx_bps=next(calls) * 10**8), note="it grows"),
    )


@defect("mock:ixgbe", "RT-12")
def loses_the_rate_in_a_reset(driver):
    def make(reset):
        def spoilt(vf):
            reset(vf)
            driver.rates.set_many({vf: RateLimit()})

        return spoilt

    spoil(driver.virtual_functions, "reset", make)


# ----------------------------------------------------------------------------------------------------------- statistics


def _rows(driver, change):
    spoil(driver.statistics, "read", lambda read: lambda: change(list(read())))


@defect("mock:ixgbe", "ST-01")
def counts_one_vf_twice(driver):
    _rows(driver, lambda rows: [*rows, rows[-1]])


@defect("mock:ixgbe", "ST-02")
def does_not_say_what_it_counts(driver):
    _rows(driver, lambda rows: [replace(row, facts=None) for row in rows])


@defect("mock:ixgbe", "ST-03")
def reports_zero_for_a_value_that_is_not_counted(driver):
    _rows(driver, lambda rows: [replace(row, rx_dropped=row.rx_dropped or 0) for row in rows])


@defect("mock:ixgbe", "ST-04")
def reports_a_negative_value(driver):
    _rows(driver, lambda rows: [replace(row, rx_packets=-1) for row in rows])


@defect("mock:ixgbe", "ST-05")
def the_port_runs_backwards(driver):
    calls = itertools.count()
    _rows(driver, lambda rows: [replace(row, tx_packets=1000 - next(calls)) for row in rows])


@defect("mock:ixgbe", "ST-06")
def the_port_counts_half(driver):
    _rows(driver, lambda rows: [replace(row, rx_packets=(row.rx_packets or 0) // 2) for row in rows])


@defect("mock:igb_i350", "ST-07")
def reports_zeros_of_vfs_that_are_not_counted(driver):
    zeros = TrafficStats(name="vf:0", rx_packets=0, tx_packets=0, rx_bytes=0, tx_bytes=0)
    _rows(driver, lambda rows: [*rows, zeros])


@defect("mock:ixgbe", "ST-08")
def counts_a_vfs_packets_at_its_neighbour(driver):
    def swapped(rows):
        names = {"vf:0": "vf:1", "vf:1": "vf:0"}
        return [replace(row, name=names.get(row.name, row.name)) for row in rows]

    _rows(driver, swapped)


@defect("mock:ixgbe", "ST-09")
def keeps_the_row_of_a_vf_that_is_gone(driver):
    seen = {}

    def kept(rows):
        seen.update({row.name: row for row in rows})
        return list(seen.values())

    driver.statistics.read()
    _rows(driver, kept)


@defect("mock:ixgbe", "ST-10")
def has_no_statistics_although_the_profile_has(driver):
    driver.statistics = None


# -------------------------------------------------------------------------------------------- the driver and its claims


@defect("mock:ixgbe", "DR-01")
def is_another_nic_at_each_open(driver):
    driver.identity = lambda: str(uuid.uuid4())


@defect("mock:ixgbe", "DR-03")
def can_be_closed_once(driver):
    calls = itertools.count()

    def close():
        if next(calls):
            raise RuntimeError("closed already")

    driver.close = close


def _capabilities(driver, change):
    spoil(driver, "capabilities", lambda call: lambda: change(list(call())))


@defect("mock:ixgbe", "CP-01")
def does_not_speak_of_a_setting(driver):
    _capabilities(driver, lambda found: [each for each in found if each.name != "vf.trust"])


@defect("mock:igb_i210", "CP-02")
def claims_vfs_and_has_none(driver):
    _capabilities(
        driver,
        lambda found: [replace(e, support=Support.YES) if e.name == "vf" else e for e in found],
    )


@defect("mock:sfc_siena", "CP-03")
def claims_a_setting_that_it_refuses(driver):
    _capabilities(
        driver,
        lambda found: [replace(e, support=Support.YES) if e.name == "vf.trust" else e for e in found],
    )


@defect("mock:ixgbe", "CP-03")
def denies_a_setting_that_it_has(driver):
    _capabilities(
        driver,
        lambda found: [replace(e, support=Support.NO) if e.name == "vf.trust" else e for e in found],
    )


@defect("mock:ice", "CP-04")
def claims_a_table_that_is_blocked(driver):
    _capabilities(driver, lambda found: [replace(e, support=Support.YES) for e in found])


@defect("mock:ixgbe", "ER-01")
def fails_without_a_word(driver):
    def bare(error):
        return None if error is None else NotFoundError("failed", device="mock")

    spoil(driver.flow_filters, "destroy_many", lambda call: lambda refs: [bare(a) for a in call(refs)])


# -------------------------------------------------------------------------------------------------- changes and leases


@defect("mock:ixgbe", "NIC-01")
def reads_back_another_address_than_was_set(driver):
    calls = itertools.count(1)
    spoil(
        driver.virtual_functions,
        "states",
        lambda states: lambda: [replace(s, mac=s.mac + next(calls)) for s in states()],
    )


@defect("mock:ixgbe", "NIC-02")
def asking_for_tables_takes_a_rule_away(driver):
    def make(tables):
        def spoilt():
            driver.flow_filters.destroy_many([r.ref for r in driver.flow_filters.dump()][:1])
            return tables()

        return spoilt

    spoil(driver.flow_filters, "tables", make)


def _remembers(driver):
    """Answer from memory what the NIC should be asked for."""
    said = {}

    def create(call):
        def create_many(placements):
            outcomes = call(placements)
            for placement, outcome in zip(placements, outcomes, strict=True):
                if is_ref(outcome):
                    said[outcome] = InstalledRule(ref=replace(outcome, rule_id=None), rule=placement.rule)
            return outcomes

        return create_many

    spoil(driver.flow_filters, "create_many", create)
    spoil(driver.flow_filters, "dump", lambda dump: lambda refs=None: list(said.values()))


@defect("mock:ixgbe", "NIC-07")
def reports_rules_from_memory(driver):
    _remembers(driver)


@defect("mock:ixgbe", "NIC-03")
def reports_rules_that_were_removed(driver):
    _remembers(driver)


@defect("mock:ixgbe", "NIC-09")
def shows_only_the_rule_that_was_added_last(driver):
    spoil(driver.flow_filters, "dump", lambda dump: lambda refs=None: dump(refs)[-1:])


@defect("mock:ixgbe", "NIC-10")
def installs_the_first_rule_of_a_call_only(driver):
    spoil(
        driver.flow_filters,
        "create_many",
        lambda create: lambda p: [*create(p[:1]), *(_full() for _ in p[1:])],
    )


@defect("mock:ixgbe", "LS-01")
def counts_vfs_from_one(driver):
    spoil(
        driver.virtual_functions, "states", lambda states: lambda: [replace(s, vf=s.vf + 1) for s in states()]
    )


@defect("mock:ixgbe", "LS-03")
def can_not_reset_a_vf_whose_lease_ran_out(driver):
    can_not_reset_a_vf(driver)


@defect("mock:ixgbe", "LS-05")
def is_another_nic_to_the_journal_each_time(driver):
    is_another_nic_at_each_open(driver)


@defect("mock:ixgbe", "NIC-04")
def leaves_a_rule_when_a_change_is_undone(driver):
    def make(destroy):
        def destroy_many(refs):
            answers = destroy(refs[:-1]) if len(refs) > 1 else destroy(refs)
            return [*answers, *([None] if len(refs) > 1 else [])]

        return destroy_many

    spoil(driver.flow_filters, "destroy_many", make)


@defect("mock:ixgbe", "NIC-04")
def never_gives_a_vf_its_old_address_back(driver):
    first = {state.vf: state.mac for state in driver.virtual_functions.states()}

    def make(call):
        return lambda configs: [None if c.mac == first.get(c.vf) else call([c])[0] for c in configs]

    spoil(driver.virtual_functions, "configure_many", make)


@defect("mock:ixgbe", "NIC-05")
def loses_a_rule_while_nobody_looks(driver):
    def make(destroy):
        def destroy_many(refs):
            answers = destroy(refs)
            rest = [r.ref for r in driver.flow_filters.dump()]
            destroy(rest[:1])
            return answers

        return destroy_many

    spoil(driver.flow_filters, "destroy_many", make)


@defect("mock:mlx5", "NIC-06")
def loses_cookies(driver):
    spoil(
        driver.flow_filters,
        "dump",
        lambda dump: lambda refs=None: [replace(r, ref=replace(r.ref, rule_id=None)) for r in dump(refs)],
    )


@defect("mock:ixgbe", "NIC-08")
def grows_with_each_repetition(driver):
    leaked = itertools.count()
    spoil(
        driver.flow_filters,
        "tables",
        lambda tables: lambda: [replace(state, in_use=state.in_use + next(leaked)) for state in tables()],
    )


@defect("mock:ixgbe", "NIC-11")
def keeps_the_setting_of_a_call_that_failed(driver):
    never_gives_a_vf_its_old_address_back(driver)


@defect("mock:mlx5", "NIC-13")
def takes_what_a_vf_sends_for_what_comes_from_the_wire(driver):
    def make(create):
        def create_many(placements):
            return create(
                [
                    p._replace(rule=replace(p.rule, match=p.rule.match.replace(in_port=None)))
                    for p in placements
                ]
            )

        return create_many

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:mlx5", "NIC-14")
def new_vfs_take_no_rules(driver):
    counts = itertools.count()

    def make(create):
        def create_many(placements):
            if next(counts):
                return [KernelError("the port is off", device="mock")] * len(placements)
            return create(placements)

        return create_many

    spoil(driver.flow_filters, "create_many", make)


@defect("mock:sfc_siena", "NIC-12", "trust")
def refuses_a_setting_and_does_the_rest_all_the_same(driver):
    leaves_a_config_half_done(driver)
    spoil(
        driver.virtual_functions,
        "configure_many",
        lambda call: lambda configs: [None if c.trust is not None else call([c])[0] for c in configs],
    )


@defect("mock:ixgbe", "LS-02")
def can_not_reset_a_vf(driver):
    def reset(vf):
        raise KernelError("no reset", device="mock")

    driver.virtual_functions.reset = reset


@defect("mock:ixgbe", "LS-04")
def does_not_change_the_number_of_vfs_when_forced(driver):
    spoil(driver.virtual_functions, "set_count", lambda call: lambda count: Disruption.VF_RESET)
