"""The traps of mlx4, each with what the plugin does about it."""

import pytest

from nicoffload import open_nic
from nicoffload.errors import NotSupportedError
from nicoffload.model import FlowRule, Match, RateLimit, ToQueue, VfConfig, VlanTag
from nicoffload.testing.emulator.config import Config
from nicoffload.testing.emulator.device import Device
from nicoffload.testing.emulator.faults import Faults
from nicoffload.testing.fake_kernel import FakeNic
from nicoffload.testing.fake_kernel.netdevs import make_pf
from tests.linux.plugged import ADDRESS, live, registry

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
    assert not nic.driver.equivalents_of_count(2)


def test_the_two_ports_of_a_function_have_rules_of_their_own_and_vfs_in_common(nic, tmp_path):
    kernel = nic.kernel
    other = FakeNic(
        nic.nic.profile, Device(nic.nic.profile.document, Config(prepared=True), Faults([])), ADDRESS
    )
    netdev = make_pf(kernel.world, other, "eth1")
    netdev.dev_port, netdev.up, other.function = 1, True, nic.nic.function
    kernel.world.add_netdev(netdev)
    nic.nic.function.ports.append(netdev)

    def opened(name):
        return open_nic(
            name,
            registry=registry(kernel),
            state_dir=tmp_path,
            monotonic_s=kernel.monotonic_s,
            sleep_s=kernel.sleep_s,
        )

    def rule(port):
        return FlowRule(match=Match.of(ipv4_dst="10.0.0.1", tp_dst=port, **TCP), actions=(ToQueue(queue=1),))

    second = registry(kernel).open("eth1")
    assert (nic.driver.identity(), nic.driver.port()) == (ADDRESS, "")
    assert (second.identity(), second.port()) == (ADDRESS, "port 1")
    with opened("eth0") as one, opened("eth1") as two:
        one.add_flows([rule(80)])
        two.add_flows([rule(90), rule(91)])
        assert [len(each.tables[0].entries) for each in (nic.hardware, other.device)] == [1, 2]
        lease = one.lease_vf("vm", ttl_s=60)
        assert two.leases() == (lease,)
    for name, ports in ((ADDRESS, [80]), ("eth0", [80]), ("eth1", [90, 91])):
        with opened(name) as again:
            assert [flow.rule.match.values[-1] for flow in again.flows()] == ports
            assert again.recovery.clean


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
