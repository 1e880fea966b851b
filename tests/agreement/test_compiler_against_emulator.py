"""Compiler and emulator share a profile's document and no code; for random rules each must bear the other out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st

from nicoffload import load_registry
from nicoffload.compiler import Compiler
from nicoffload.driver import Placement, RuleRef
from nicoffload.errors import ResourceExhaustedError
from nicoffload.testing.conformance.packets import to_batch
from nicoffload.testing.emulator.switch import decide
from nicoffload.testing.emulator.view import BatchView
from tests.agreement.near_valid import PF_MAC, rules
from tests.agreement.probes import hits, packets_for

REGISTRY = load_registry()
FAMILIES = REGISTRY.profiles.families()


def document(family):
    return REGISTRY.profiles.get(family).document


def variants():
    """Every family in each of its modes, roomy and cramped."""
    for family in FAMILIES:
        doc = document(family)
        modes = doc["eswitch"]["modes"] if doc["eswitch"] else ("",)
        for mode in modes if doc["tables"] else ():
            yield family, f",mode={mode}" if mode else ""


def open_mock(family, options):
    return REGISTRY.open(f"mock:{family}{options}")


def compiler_for(driver):
    functions = driver.virtual_functions
    queues = driver.flow_filters.queues()
    return Compiler(
        driver.flow_filters.tables(),
        vfs=len(functions.states()) if functions else 0,
        queues=queues.pf,
        vf_queues=queues.vf,
    )


def hit_rules(driver, packets):
    """Return which rule each packet hits on the NIC, by rule id."""
    found = []
    for packet in packets:
        # One header a batch: a port of the switch is a matter of the call, not of the header.
        verdict = decide(driver.device, BatchView(to_batch([packet])), [0], packet["in_port"])[0]
        found.append(verdict.entry.rule.rule_id if verdict.entry else None)
    return found


def expected(installed, packet, narrowed):
    """Return the ids of the rules of which one must hit, as the words of the rules say; None where nothing is said.

    Rules of `narrowed` may miss a packet that is not for the PF's own address: their caveat says so.
    """
    if packet["in_port"] != 0:
        installed = [rule for rule in installed if rule.match.in_port is not None]
    meant = [rule for rule in installed if hits(rule, packet)]
    if packet["eth_dst"] != PF_MAC and any(rule.rule_id in narrowed for rule in meant):
        return {rule.rule_id for rule in meant} | {None}
    if len(meant) > 1 and all(rule.priority is not None for rule in meant):
        best = max(rule.priority for rule in meant)
        return {rule.rule_id for rule in meant if rule.priority == best}
    if len(meant) > 1:
        # Whoever gives no priority says that rules don't overlap.
        return {rule.rule_id for rule in meant}
    return {rule.rule_id for rule in meant} or {None}


def differences(driver, placed, tried=None):
    """Return the packets that go to another rule than the rules' words say.

    Args:
        driver: The NIC.
        placed: Placements that are installed.
        tried: A rule that is installed although the compiler refused it.
    """
    installed = [placement.rule for placement in placed] + ([tried] if tried else [])
    narrowed = {placement.rule.rule_id for placement in placed if narrows(driver, placement)}
    packets = [packet for rule in installed for packet in packets_for(rule, PF_MAC)]
    found = zip(packets, hit_rules(driver, packets), strict=True)
    return [(packet, hit) for packet, hit in found if hit not in expected(installed, packet, narrowed)]


def narrows(driver, placement):
    """Tell whether a placement says that the NIC compares a field on its own."""
    (kind,) = (k for k in driver.profile.table(placement.table).flow_types if k.name == placement.flow_type)
    says_so = [name for name in kind.implicit if getattr(placement.rule.match, name) is None]
    assert not says_so or any("on its own" in caveat for caveat in placement.caveats)
    return bool(says_so)


def is_narrower(driver, entry_rule):
    """Tell whether the NIC catches less than a rule says: it compares an address that the rule leaves open."""
    other = [{**packet, "eth_dst": 0x02_00_00_00_00_77} for packet in packets_for(entry_rule, PF_MAC)]
    meant = [packet for packet in other if hits(entry_rule, packet)]
    return any(hit is None for hit in hit_rules(driver, meant))


def replay(family, options, placements):
    driver = open_mock(family, options)
    outcomes = driver.flow_filters.create_many(placements)
    assert all(isinstance(outcome, RuleRef) for outcome in outcomes)
    return driver


def free_slot(driver, table):
    if table.picker != "caller":
        return None
    taken = {ref.slot for ref in (rule.ref for rule in driver.flow_filters.dump()) if ref.table}
    rows = next(state.rows for state in driver.flow_filters.tables() if state.table is table)
    return (
        next((slot for slot in itertools.count() if slot not in taken and slot < rows), None)
        if len(taken) < rows
        else None
    )


def accepted_and_right(family, options, placed, rule, table):
    """Return whether a table takes a rule that the compiler refused, and does all that it says."""
    driver = replay(family, options, placed)
    slot = free_slot(driver, table)
    if table.picker == "caller" and slot is None:
        return False
    attempt = Placement(rule=rule, table=table.name, flow_type="", slot=slot)
    before = len(driver.flow_filters.dump())
    (outcome,) = driver.flow_filters.create_many([attempt])
    if not isinstance(outcome, RuleRef):
        return False
    if len(driver.flow_filters.dump()) != before + 1:
        return False  # it replaced another
    if rule.priority is not None and table.priority != "honoured":
        return (
            False  # its priority means nothing there, or would have taken a location of the compiler's choice
        )
    # What it matches too much may be hidden by a broader rule that is there, so it is looked at alone, too.
    alone = open_mock(family, options)
    alone.flow_filters.create_many([attempt])
    shown = [differences(driver, placed, rule), differences(alone, [], rule)]
    return not any(shown) and not is_narrower(driver, rule)


def is_hash_full(outcome):
    """Tell whether a hash found no free row, the one refusal that nobody can know of beforehand."""
    return isinstance(outcome, ResourceExhaustedError) and outcome.__cause__.condition == "hash"


@pytest.mark.parametrize(("family", "options"), [*variants()])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_they_agree(family, options, data):
    doc = document(family)
    if data.draw(st.booleans(), label="cramped"):
        options += "".join(f",rows.{table['name']}=3" for table in doc["tables"])
    wanted = data.draw(rules(doc), label="rules")
    driver = open_mock(family, options)
    compiler = compiler_for(driver)
    placed = []
    for rule in wanted:
        (verdict,) = compiler.place_many([rule])
        if isinstance(verdict, Placement):
            (outcome,) = driver.flow_filters.create_many([verdict])
            if is_hash_full(outcome):
                event("hash full")
                compiler.release([RuleRef(rule_id=rule.rule_id, table=verdict.table, slot=verdict.slot)])
                continue
            assert isinstance(outcome, RuleRef), (
                f"compiler: {verdict}; emulator: {outcome!r} {outcome.__cause__}"
            )
            placed.append(verdict)
            event("accepted")
            continue
        event("refused")
        for table in driver.profile.tables:
            note(f"refused for {[str(reason) for reason in verdict.reasons]}")
            assert not accepted_and_right(family, options, placed, rule, table), (
                f"compiler: {[str(reason) for reason in verdict.reasons]}; emulator: {table.name} does all of {rule}"
            )
    wrong = differences(driver, placed)
    assert not wrong, f"installed {placed}, and {wrong}"
