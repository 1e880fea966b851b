"""For any packets, policy, NIC and fault script, both paths together hold exactly what the file holds."""

from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nicoffload import load_registry
from nicoffload.flexivoffload.ledger import Path as Way
from nicoffload.flexivoffload.manager import ManagerConfig

PROFILES = load_registry().profiles
FAMILIES = PROFILES.families()
TABLES = {family: [table.name for table in PROFILES.get(family).tables] for family in FAMILIES}

POLICIES = (
    "{version: 1, default: offload}",
    "{version: 1, default: onload}",
    "{version: 1, default: offload, granularity: [flow, destination, vm], limits: {max_operations_per_s: 3}}",
    "{version: 1, default: offload, limits: {max_operations_per_s: 1000, max_table_share: 0.01}}",
    """{version: 1, rules: [
        {id: a, match: 'tcp,tp_dst=80', action: offload, pin: true},
        {id: b, match: 'tcp,tp_dst=22', priority: 7, action: onload},
        {id: c, promote: {pps: {up: 4, down: 2}}, min_residence_s: 0.5},
        {id: d, match: 'udp', demote: {packets: {up: 9}}}]}""",
)

FAULTS = (
    [],
    [{"effect": {"kind": "table_full", "table": "TABLE", "rows": 1}}],
    [{"effect": {"kind": "answer", "operation": "flow_create", "errno": "EBUSY"}, "for": {"calls": 3}}],
    [{"effect": {"kind": "answer", "operation": "flow_destroy", "errno": "EIO"}}],
    [{"effect": {"kind": "do_nothing", "operation": "flow_create"}}],
    [{"when": {"time_s": 1.0}, "effect": {"kind": "remove"}}],
    [{"when": {"packets": 20}, "effect": {"kind": "remove"}}],
    [{"when": {"time_s": 0.7}, "effect": {"kind": "freeze_counters", "scope": "rule"}}],
    [{"when": {"time_s": 0.7}, "effect": {"kind": "reset_counters", "scope": "rule"}}],
    [{"when": {"time_s": 0.5}, "effect": {"kind": "reset_vf", "vf": 0}}],
    [{"effect": {"kind": "wrap_counters", "scope": "rule", "bits": 4}}],
    [{"effect": {"kind": "missing_vfs", "count": 2}}, {"effect": {"kind": "slow_vfs", "extra_s": 3}}],
    [{"effect": {"kind": "lie", "about": "flows"}}],
)

ADDRESSES = (
    tuple(f"10.0.0.{n}" for n in range(1, 5)) + tuple(f"10.9.0.{n}" for n in range(1, 4)) + ("224.0.0.1",)
)


@st.composite
def packets(draw, make):
    time_ns = 10**18
    found = []
    for _ in range(draw(st.integers(1, 60))):
        time_ns += draw(st.sampled_from((0, 1000, 3_000_000, 200_000_000, 700_000_000, -5_000)))
        found.append(
            make(
                time_ns=time_ns,
                src=draw(st.sampled_from(ADDRESSES[:-1])),
                dst=draw(st.sampled_from(ADDRESSES)),
                sport=draw(st.sampled_from((80, 1000, 2000))),
                dport=draw(st.sampled_from((80, 22, 2000))),
                proto=draw(st.sampled_from((6, 17, 1))),
                size=draw(st.integers(40, 9000)),
                vlan=draw(st.sampled_from((None, None, 100))),
                flags=draw(st.sampled_from((0x10, 0x02, 0x11))),
                kind=draw(st.sampled_from(("ip", "ip", "ip", "ip", "arp", "broadcast", "cut"))),
            )
        )
    return found


def count_by_hand(path):
    """Count packets and wire bytes of a little-endian pcap file, with nothing of ours."""
    data = path.read_bytes()
    at, number, size = 24, 0, 0
    while at + 16 <= len(data):
        _, _, captured, wire = struct.unpack_from("<IIII", data, at)
        at += 16 + captured
        number, size = number + 1, size + wire
    return number, size


def check_truth(report, path):
    number, size = count_by_hand(path)
    assert (report.total.packets, report.total.bytes) == (number, size)
    assert report.offloaded + report.onloaded + report.skipped_total == report.total
    flows = [flow.offloaded + flow.onloaded for flow in report.flows]
    assert sum(flow.packets for flow in flows) == report.offloaded.packets + report.onloaded.packets
    vms = [vm.offloaded + vm.onloaded for vm in report.vms]
    assert sum(vm.bytes for vm in vms) + report.others.bytes == report.offloaded.bytes + report.onloaded.bytes
    rows = [row.offloaded + row.onloaded for row in report.intervals]
    assert sum(row.packets for row in rows) == number
    assert report.dropped.packets <= report.offloaded.packets


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_both_paths_together_hold_what_the_file_holds(bench, data):
    family = data.draw(st.sampled_from(FAMILIES))
    policy = data.draw(st.sampled_from(POLICIES))
    faults = data.draw(st.sampled_from(FAULTS))
    sent = data.draw(packets(bench.packet))
    with tempfile.TemporaryDirectory() as folder:
        path = bench.capture(sent)
        name = f"mock:{family}"
        for table in TABLES[family]:
            rows = data.draw(st.sampled_from((None, None, 1, 2, 50)))
            name += f",rows.{table}={rows}" if rows else ""
        if faults and (TABLES[family] or "TABLE" not in json.dumps(faults)):
            script = Path(folder) / "faults.json"
            script.write_text(json.dumps({"faults": faults}).replace("TABLE", "".join(TABLES[family][:1])))
            name += f",faults={script}"
        vms = data.draw(st.sampled_from((bench.vms, None)))
        bulk, replay = bench.replay(path, policy, name, vms=vms)
    check_truth(bulk, path)
    ledger = replay.table.ledger
    assert (ledger.packets(Way.NIC) >= 0).all()
    assert (ledger.packets(Way.VSWITCH) >= 0).all()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bulk_equals_packet_by_packet(bench, data):
    family = data.draw(st.sampled_from(FAMILIES))
    policy = data.draw(st.sampled_from(POLICIES))
    path = bench.capture(data.draw(packets(bench.packet)))
    vms = data.draw(st.sampled_from((bench.vms, None)))
    config = data.draw(
        st.sampled_from((None, ManagerConfig(gather_s=0.0), ManagerConfig(tick_s=0.1, gather_s=0.05)))
    )
    bulk, _ = bench.replay(path, policy, f"mock:{family}", vms=vms, config=config)
    slow, _ = bench.replay(path, policy, f"mock:{family}", vms=vms, config=config, one_by_one=True)
    assert bulk == slow


def test_longer_capture_equals_packet_by_packet(bench):
    path = bench.capture(bench.two_way(900, flows=40))
    policy = "{version: 1, default: offload, limits: {max_operations_per_s: 8, max_table_share: 0.001}}"
    bulk, _ = bench.replay(path, policy, "mock:sfn5122f")
    slow, _ = bench.replay(path, policy, "mock:sfn5122f", one_by_one=True)
    assert bulk == slow
    assert bulk.offloaded.packets > 100


def test_a_full_flow_table_loses_nothing(bench):
    sent = [
        bench.packet(time_ns=10**18 + n * 1000, src=f"10.9.{n % 200}.1", dst="10.0.0.1", sport=n, dport=80)
        for n in range(500)
    ]
    path = bench.capture(sent)
    report, _ = bench.replay(path, POLICIES[0], "mock:sfn5122f", flow_cap=16)
    number, size = count_by_hand(path)
    assert (report.total.packets, report.total.bytes) == (number, size)
    assert report.flows_total == 16
    assert report.flows_overflow == 484


def test_folded_flows_stay_in_the_totals(bench, monkeypatch):
    monkeypatch.setattr("nicoffload.flexivoffload.folding.FOLD_ABOVE", 10)
    sent = [
        bench.packet(time_ns=10**18 + n * 10**10, src="10.9.0.1", dst="10.0.0.1", sport=n % 40, dport=80)
        for n in range(200)
    ]
    path = bench.capture(sent)
    report, replay = bench.replay(path, POLICIES[1], "mock:sfn5122f", one_by_one=True)
    check_truth(report, path)
    assert replay.folded.flows > 0
    assert len(replay.table) < 20
    assert len({flow.flow for flow in report.flows}) == len(report.flows) == 40


def test_after_surprise_removal_everything_is_onloaded(bench):
    path = bench.capture(bench.two_way(1000))
    faults = bench.faults({"when": {"time_s": 5}, "effect": {"kind": "remove"}})
    report, _ = bench.replay(path, POLICIES[0], f"mock:sfn5122f,faults={faults}")
    check_truth(report, path)
    assert report.nic_gone
    assert report.dropped.packets == 0
    late = [row for row in report.intervals if row.start_s >= 5]
    early = [row for row in report.intervals if 1 <= row.start_s < 5]
    assert sum(row.offloaded.packets for row in late) == 0
    assert sum(row.onloaded.packets for row in late) == 500
    assert sum(row.offloaded.packets for row in early) == 400


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("freeze_counters", "frozen"), ("reset_counters", "reset")],
)
def test_a_nic_whose_counters_go_wrong_changes_no_number(bench, fault, kind):
    path = bench.capture(bench.two_way(1000))
    good, _ = bench.replay(path, POLICIES[0], "mock:mlx5")
    faults = bench.faults({"when": {"time_s": 3.3}, "effect": {"kind": fault, "scope": "rule"}})
    bad, _ = bench.replay(path, POLICIES[0], f"mock:mlx5,faults={faults}")
    assert good.disagreements == {}
    assert good.counter_readings > 0
    assert kind in bad.disagreements
    assert (bad.offloaded, bad.onloaded) == (good.offloaded, good.onloaded)


def test_skipped_records_are_part_of_the_total(bench):
    path = bench.capture(bench.two_way(100), corrupt_tail=True)
    report, _ = bench.replay(path, POLICIES[0], "mock:sfn5122f")
    assert report.skipped_total.packets == 1
    assert report.total.packets == 101
    assert report.ended_early


def test_a_year_without_packets_costs_no_more_than_a_minute_would(bench):
    first = bench.two_way(50)
    later = bench.two_way(50, start_ns=10**18 + 365 * 86_400 * 10**9)
    path = bench.capture(first + later)
    report, replay = bench.replay(path, POLICIES[0], "mock:sfn5122f")
    check_truth(report, path)
    assert len(report.intervals) <= 240
    assert replay.table.high == 8
