"""A NIC in a file is the same NIC from process to process, whenever one of them is killed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nicoffload import load_registry
from nicoffload.driver import RuleRef
from nicoffload.errors import InvalidRequestError
from nicoffload.model import RateLimit, ToVf, VfConfig, VlanTag

TCP = {"ip_proto": 6, "eth_type": 0x0800}

CHILD = """
import sys
from nicoffload import load_registry
from nicoffload.driver import Placement
from nicoffload.model import FlowRule, Match, ToVf
nic = load_registry().open(sys.argv[1])
for at in range(int(sys.argv[2]), int(sys.argv[3])):
    rule = FlowRule(match=Match.of(ipv4_dst=at, ip_proto=6, tp_dst=80), actions=(ToVf(vf=0),))
    nic.flow_filters.create_many([Placement(rule=rule, table=sys.argv[4], flow_type="tcp4")])
    print(at, flush=True)
"""


def child(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("family", ["sfn5122f", "mlx5"])
def test_all_of_it_is_there_again(open_mock, put, packets, tmp_path, family):
    name = (
        f"{family},state={tmp_path / 'nic'},mode=legacy"
        if family == "mlx5"
        else f"{family},state={tmp_path / 'nic'}"
    )
    first = open_mock(name)
    table = "ntuple" if family == "mlx5" else "rx_ip"
    action = ToVf(vf=1)
    if family == "mlx5":
        first.rates.set_many({1: RateLimit(max_tx_bps=5_000_000)})
        first.virtual_functions.set_count(3)
        first.rates.set_many({1: RateLimit(max_tx_bps=5_000_000)})
    else:
        assert isinstance(put(first, table, action, ipv4_dst=1, tp_dst=80, **TCP), RuleRef)
    first.virtual_functions.configure_many([VfConfig(vf=0, mac=2, vlan=VlanTag(vid=3))])
    first.packet_path.receive(packets([{"ipv4_dst": 1, "tp_dst": 80}], count=5), 0, 5, 0)
    states, stats = first.virtual_functions.states(), first.statistics.read()
    rules = [(rule.ref.slot, rule.rule.match) for rule in first.flow_filters.dump()]
    assert first.persistent
    first.close()
    second = open_mock(name)
    assert second.virtual_functions.states() == states
    assert second.statistics.read() == stats
    assert [(rule.ref.slot, rule.rule.match) for rule in second.flow_filters.dump()] == rules
    assert second.identity() == first.identity()
    if second.rates:
        assert second.rates.read()[1].applied == RateLimit(max_tx_bps=5_000_000)
    again = packets([{"ipv4_dst": 1, "tp_dst": 80}], count=5)
    expected = 3 if rules else 1
    assert second.packet_path.receive(again, 0, 5, 0).port.tolist() == [expected] * 5


def test_rule_counters_go_on(open_mock, put, packets, tmp_path):
    name = f"mlx5,state={tmp_path / 'nic'}"
    first = open_mock(name)
    ref = put(first, "flower_fdb", ToVf(vf=1), ipv4_dst=1)
    first.packet_path.receive(packets([{"ipv4_dst": 1}], count=5), 0, 5, 0)
    second = open_mock(name)
    second.packet_path.receive(packets([{"ipv4_dst": 1}], count=2), 0, 2, 0)
    # Both look at one NIC, so the first sees what the second did.
    assert first.flow_filters.read_counters([ref]).packets.tolist() == [7]


def test_a_killed_process_leaves_each_rule_there_or_not(open_mock, tmp_path):
    name = f"sfn5122f,state={tmp_path / 'nic'}"
    for start in range(0, 900, 300):
        with child(f"mock:{name}", start, start + 300, "rx_ip") as process:
            told = [process.stdout.readline() for _ in range(5 + start // 100)]
            process.kill()
            told += process.stdout.readlines()
        found = {rule.rule.match.ipv4_dst.value for rule in open_mock(name).flow_filters.dump()}
        reported = {int(line) for line in told if line.endswith("\n")}
        assert reported <= found
        assert len({at for at in found if at >= start} - reported) <= 1, (
            "at most the one that was not reported yet"
        )


def test_two_processes_at_once_lose_nothing(open_mock, tmp_path):
    name = f"sfn5122f,state={tmp_path / 'nic'}"
    with child(f"mock:{name}", 0, 60, "rx_ip") as one, child(f"mock:{name}", 1000, 1060, "rx_ip") as other:
        outputs = [process.communicate()[0] for process in (one, other)]
    assert [len(output.split()) for output in outputs] == [60, 60]
    assert len(open_mock(name).flow_filters.dump()) == 120


@pytest.mark.parametrize("damage", ["text", "cut", "other"])
def test_a_file_that_is_no_state(open_mock, tmp_path, damage):
    path = tmp_path / "nic"
    if damage == "text":
        path.write_text("not a NIC" * 500)
    else:
        open_mock(f"sfn5122f,state={path}").close()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
        (tmp_path / "nic-wal").unlink(missing_ok=True)
    family = "ixgbe" if damage == "other" else "sfn5122f"
    with pytest.raises(InvalidRequestError) as caught:
        open_mock(f"{family},state={path}")
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_a_folder_that_does_not_exist(open_mock, tmp_path):
    with pytest.raises(InvalidRequestError, match="can't be opened"):
        open_mock(f"sfn5122f,state={tmp_path / 'none' / 'nic'}")


def test_without_a_file_nothing_outlives_the_process(open_mock):
    assert not open_mock("sfn5122f").persistent


def test_who_opens_the_file_finds_earlier_resets_over(tmp_path):
    name = f"mock:ixgbe,vfs=2,state={tmp_path / 'nic'}"
    nic = load_registry().open(name)
    nic.virtual_functions.configure_many([VfConfig(vf=0, trust=True)])
    assert not nic.virtual_functions.states()[0].ready
    nic.close()
    nic = load_registry().open(name)
    assert nic.virtual_functions.states()[0].ready
    nic.close()
