"""One change with everything in it, and a process that dies in the middle of it."""

from __future__ import annotations

import os
import signal
import uuid

from fake_driver import FakeDriver, FakeFactory, Faults, make_table

from nicoffload.driver import Placement
from nicoffload.model import Drop, FlowRule, Match, RateLimit, ToVf, VfConfig
from nicoffload.nic import DesiredState, open_nic
from nicoffload.nic.sqlite_journal import SqliteJournal
from nicoffload.registry import Registry

KINDS = {
    "cookies": {"cookies": True},
    "slots": {"cookies": False},
    "driver": {"cookies": False, "tables": [make_table(picker="driver")]},
}


class NoProfiles:
    def families(self):
        return ()


def make_rule(number, port, vf):
    return FlowRule(
        match=Match.of(eth_type=0x0800, ip_proto=6, tp_dst=port),
        actions=(ToVf(vf=vf),),
        rule_id=uuid.UUID(int=number),
    )


OLD = (make_rule(1, 101, 0), make_rule(2, 102, 0), make_rule(3, 103, 1))
# Rule 1 stays, rule 2 is replaced, rule 3 goes, rules 4 and 5 come.
NEW = (OLD[0], make_rule(2, 102, 1), make_rule(4, 104, 0), make_rule(5, 105, 1))


def desired():
    return DesiredState(
        vfs=(VfConfig(vf=0, mac=0x020000000077), VfConfig(vf=1, trust=True)),
        rates={1: RateLimit(max_tx_bps=5_000_000)},
        flows=NEW,
        exact=True,
    )


def opened(folder, kind, faults=None):
    driver = FakeDriver(path=folder / "nic", faults=faults, **KINDS[kind])
    registry = Registry((), NoProfiles(), [("fake", FakeFactory(lambda: driver))])
    return open_nic("fake:0", registry=registry, state_dir=folder / "state", sleep_s=lambda seconds: None)


def seen(nic):
    """Return all that the scenario is about, as the NIC has it."""
    rules = sorted(
        (each.rule.rule_id.int, each.rule.match.values, each.rule.actions)
        for each in nic.flows()
        if each.ours
    )
    return rules, [(vf.mac, vf.trust) for vf in nic.vfs()], [report.read_back for report in nic.rates()]


def prepare(folder, kind):
    """Make the old state, with another's rule in the table, and return what old and new look like."""
    driver = FakeDriver(path=folder / "nic", **KINDS[kind])
    driver.cookies = False
    theirs = FlowRule(match=Match.of(eth_type=0x0800, ip_proto=6, tp_dst=999), actions=(Drop(),))
    slot = 0 if driver.tables[0].picker != "none" else None
    driver.flow_filters.create_many([Placement(rule=theirs, table="rules", flow_type="any", slot=slot)])
    with opened(folder, kind) as nic:
        nic.add_flows(OLD)
        old = seen(nic)
    rules = sorted((rule.rule_id.int, rule.match.values, rule.actions) for rule in NEW)
    vfs = [(0x020000000077 if index == 0 else mac, index == 1) for index, (mac, _) in enumerate(old[1])]
    rates = [RateLimit(max_tx_bps=5_000_000) if index == 1 else RateLimit() for index in range(4)]
    return old, (rules, vfs, rates)


def die(folder, kind, where, number):
    """Carry out the change and be killed at a step: a call to the driver, one to the journal, or the n-th rule."""
    faults = Faults()
    if where == "recovery":
        faults.kill_at(number)
        opened(folder, kind, faults)
        return
    nic = opened(folder, kind, faults)
    plan = nic.plan(desired())
    if where == "driver":
        faults.calls.clear()
        faults.kill_at(number)
    elif where == "rule":
        count = [0]

        def item(name, index):
            count[0] += name in ("create", "destroy")
            return "kill" if name in ("create", "destroy") and count[0] > number else None

        faults.item = item
    else:
        _kill_in_journal(number)
    nic.apply(plan)
    nic.close()


def _kill_in_journal(number):
    """Die before (even) or after (odd) the n-th write to the journal."""
    count = [0]

    def strike():
        count[0] += 1
        if count[0] > number:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("begin", "finish", "generation", "close"):
        original = getattr(SqliteJournal, name)

        def wrapped(self, *args, original=original, **keywords):
            strike()
            answer = original(self, *args, **keywords)
            strike()
            return answer

        setattr(SqliteJournal, name, wrapped)
