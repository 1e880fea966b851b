"""The traps of mlx4, each with what the plugin does about it."""

import pytest

from nicoffload.errors import NotSupportedError
from nicoffload.model import FlowRule, Match, RateLimit, ToQueue, VfConfig, VlanTag
from tests.linux.plugged import live

TCP = {"eth_type": 0x0800, "ip_proto": 6}


@pytest.fixture
def nic():
    """A ConnectX-3 whose module made four VFs."""
    return live("mlx4", prepared=True, vfs=4)


def test_vfs_are_not_made_at_run_time_and_the_error_says_how_they_are(nic):
    with pytest.raises(NotSupportedError) as info:
        nic.driver.virtual_functions.set_count(2)
    assert info.value.errno == 2
    assert "num_vfs" in info.value.hint
    assert nic.driver.equivalents_of_count(2) == ()


def test_the_location_is_the_priority(nic, tmp_path):
    with nic.open(tmp_path) as opened:
        rules = [
            FlowRule(
                match=Match.of(ipv4_dst="10.0.0.1", **TCP, **more),
                actions=(ToQueue(queue=1),),
                priority=priority,
            )
            for priority, more in ((10, {}), (20, {"tp_dst": 80}), (15, {"tp_src": 5}))
        ]
        opened.add_flows(rules)
    entries = nic.hardware.table("ntuple").entries.values()
    by_slot = sorted(entries, key=lambda entry: entry.slot)
    # The lower location wins.
    shapes = [{name for name, _ in entry.rule.match.shape} & {"tp_dst", "tp_src"} for entry in by_slot]
    assert shapes == [{"tp_dst"}, {"tp_src"}, set()]


def test_a_rate_without_a_port_vlan_limits_nothing_and_that_is_told(nic):
    report = nic.driver.rates.set_many({0: RateLimit(max_tx_bps=100_000_000)})[0]
    assert report.read_back == RateLimit()
    assert report.applied == RateLimit()
    assert "port VLAN" in report.note
    nic.driver.virtual_functions.configure_many([VfConfig(vf=1, vlan=VlanTag(vid=5))])
    report = nic.driver.rates.set_many({1: RateLimit(max_tx_bps=100_000_000)})[1]
    assert report.applied == RateLimit(max_tx_bps=100_000_000)


def test_trust_is_not_to_be_had(nic):
    [answer] = nic.driver.virtual_functions.configure_many([VfConfig(vf=0, trust=True)])
    assert isinstance(answer, NotSupportedError)
    assert nic.driver.virtual_functions.states()[0].trust is None
