"""The manager in a replay: budgets, tables, failures, coarse rules, hysteresis, VMs that are guessed."""

from __future__ import annotations

import itertools

import pytest

from nicoffload.flexivoffload.flows import FlowState
from nicoffload.flexivoffload.manager import FlowManager

EVERYTHING = "{version: 1, default: offload}"


def codes(report):
    return {entry.code for flow in report.flows for entry in flow.decisions}


def flow_to(report, name):
    (found,) = [flow for flow in report.flows if name in flow.flow]
    return found


@pytest.mark.parametrize("rate", [1, 5, 50])
def test_operations_stay_within_the_policy(bench, rate):
    path = bench.capture(bench.two_way(2000, flows=200, step_ns=5_000_000))
    policy = f"{{version: 1, default: offload, limits: {{max_operations_per_s: {rate}}}}}"
    report, _ = bench.replay(path, policy, "mock:sfn5122f")
    done = report.operations
    assert 0 < done.adds + done.removes <= rate * (report.duration_s + 0.5) + rate + 1


@pytest.mark.parametrize("share", [0.0005, 0.002])
def test_rules_stay_within_the_share_of_the_table(bench, share):
    path = bench.capture(bench.two_way(3000, flows=150, step_ns=4_000_000))
    policy = f"{{version: 1, default: offload, limits: {{max_table_share: {share}, max_vm_share: 1}}}}"
    report, _ = bench.replay(path, policy, "mock:sfn5122f")
    peak = max(row.table_rows for row in report.intervals)
    assert peak == report.tables[0][1] == int(8192 * share)


def test_a_nic_that_is_full_too_early_is_not_asked_for_more_over_and_over(bench):
    path = bench.capture(bench.two_way(3000, flows=60))
    faults = bench.faults({"effect": {"kind": "table_full", "table": "rx_ip", "rows": 5}})
    report, _ = bench.replay(path, EVERYTHING, f"mock:sfn5122f,faults={faults}")
    assert max(row.table_rows for row in report.intervals[1:]) <= 7
    assert report.offloaded.packets > 0
    refused = sum(report.operations.refused.values())
    assert 0 < refused < 60


def test_a_busy_driver_is_asked_again_later_and_later(bench):
    path = bench.capture(bench.two_way(4000, flows=1))
    script = {
        "when": {"time_s": 0},
        "for": {"time_s": 9},
        "effect": {"kind": "answer", "operation": "flow_create", "errno": "EIO"},
    }
    report, _ = bench.replay(path, EVERYTHING, f"mock:sfn5122f,faults={bench.faults(script)}")
    to_vm = flow_to(report, "nw_dst=10.0.0.1")
    waits = [entry.detail for entry in to_vm.decisions if entry.after is FlowState.BACKOFF]
    if report.nic_gone:  # the driver's EIO means that the device is gone
        assert to_vm.state is FlowState.ONLOAD
    else:
        assert [text.rsplit("again in ", 1)[1] for text in waits[:3]] == ["1 s", "2 s", "4 s"]
        assert to_vm.state is FlowState.OFFLOADED
        assert report.operations.retries >= 3


def test_rules_that_can_not_be_removed_are_tried_again_and_stay_true(bench):
    early = bench.two_way(100, flows=1)
    late = bench.two_way(100, flows=1, step_ns=200_000_000, start_ns=10**18 + 40 * 10**9)
    late = [packet for packet in late if packet.sport == 80]
    path = bench.capture(early + late)
    script = {"effect": {"kind": "answer", "operation": "flow_destroy", "errno": "EBUSY"}}
    report, _ = bench.replay(path, EVERYTHING, f"mock:sfn5122f,faults={bench.faults(script)}")
    to_vm = flow_to(report, "nw_dst=10.0.0.1")
    assert to_vm.state is FlowState.DRAINING
    assert report.total.packets == len(early) + len(late)
    assert sum(report.operations.refused.values()) > 1


def test_statistics_promote_and_take_back(bench):
    times = itertools.chain(range(0, 5000, 5), range(5000, 30_000, 1000))
    packets = [
        bench.packet(time_ns=10**18 + at * 10**6, src="10.9.0.1", dst="10.0.0.1", sport=1, dport=80)
        for at in times
    ]
    policy = "{version: 1, rules: [{id: big, promote: {pps: {up: 100, down: 20}}, hold_s: 0.5, min_residence_s: 1}]}"
    report, _ = bench.replay(bench.capture(packets), policy, "mock:sfn5122f")
    (flow,) = report.flows
    assert [entry.after for entry in flow.decisions] == [
        FlowState.ONLOAD,
        FlowState.PENDING,
        FlowState.OFFLOADED,
        FlowState.DRAINING,
        FlowState.ONLOAD,
    ]
    assert flow.decisions[1].policy_rule == "big"
    assert flow.offloaded.packets > 700


def test_a_pin_stays_on_the_nic_although_idle_and_demoted(bench):
    packets = [
        bench.packet(time_ns=10**18 + at * 10**9, src="10.9.0.1", dst="10.0.0.1", sport=1, dport=80)
        for at in (0, 1, 2, 40, 80)
    ]
    policy = """{version: 1, rules: [{id: pin, match: 'tcp,tp_dst=80', action: offload, pin: true},
        {id: slow, demote: {pps: {down: 10}}}]}"""
    report, _ = bench.replay(bench.capture(packets), policy, "mock:sfn5122f")
    assert report.flows[0].offloaded.packets == 4


def test_a_coarse_rule_serves_many_and_never_what_is_denied(bench):
    packets = [
        bench.packet(
            time_ns=10**18 + at * 10**8, src=f"10.9.0.{at % 5 + 1}", dst="10.0.0.1", sport=at, dport=80
        )
        for at in range(60)
    ]
    path = bench.capture(packets)
    policy = "{version: 1, default: offload, granularity: [destination]}"
    report, _ = bench.replay(path, policy, "mock:sfn5122f")
    assert report.operations.adds == 1
    assert report.offloaded.packets == 59
    assert "rule.shared" in codes(report)
    deny = "{id: look, match: 'tcp,nw_src=10.9.0.1', action: onload}"
    policy = f"{{version: 1, default: offload, granularity: [destination], rules: [{deny}]}}"
    report, _ = bench.replay(path, policy, "mock:sfn5122f")
    assert report.offloaded.packets == 0
    assert any(
        "keeps on the virtual switch" in entry.detail for flow in report.flows for entry in flow.decisions
    )


def test_in_switchdev_mode_what_a_vm_sends_needs_a_rule(bench):
    path = bench.capture(bench.two_way(400, flows=1))
    report, _ = bench.replay(path, EVERYTHING, "mock:mlx5")
    sent = flow_to(report, "nw_src=10.0.0.1")
    assert sent.direction == "tx"
    assert sent.offloaded.packets == 199
    assert report.operations.adds == 2


def test_what_is_between_vms_stays_unless_a_rule_names_it(bench):
    packets = [
        bench.packet(time_ns=10**18 + at * 10**7, src="10.0.0.2", dst="10.0.0.1", sport=1, dport=80)
        for at in range(50)
    ]
    path = bench.capture(packets)
    report, _ = bench.replay(path, EVERYTHING, "mock:sfn5122f")
    assert (report.flows[0].direction, report.offloaded.packets) == ("local", 0)
    policy = "{version: 1, rules: [{id: replicate, match: tcp, action: offload}]}"
    report, _ = bench.replay(path, policy, "mock:sfn5122f")
    assert report.offloaded.packets + report.onloaded.packets == 50


def test_guessed_vms_are_destinations_and_not_their_partners(bench):
    report, _ = bench.replay(bench.capture(bench.two_way(60, flows=6)), EVERYTHING, "mock:sfn5122f", vms=None)
    assert [vm.name for vm in report.vms] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert report.vms_are_guessed


def test_a_gap_makes_ticks_rare_and_no_flow_wait(bench, monkeypatch):
    ticks = []
    tick = FlowManager.tick
    monkeypatch.setattr(FlowManager, "tick", lambda self, now_ns: (ticks.append(now_ns), tick(self, now_ns)))
    packets = bench.two_way(10) + bench.two_way(10, start_ns=10**18 + 10**15)
    bench.replay(bench.capture(packets), EVERYTHING, "mock:sfn5122f")
    assert len(ticks) < 60
    assert ticks == sorted(ticks)
