"""The traps of mlx5, each with what the plugin does about it."""

import pytest

from nicoffload.errors import ConflictError, InvalidRequestError, NotSupportedError
from nicoffload.kernel.devlink import Devlink, Handle, RateNode
from nicoffload.model import Disruption, Drop, RateLimit, ToQueue, ToUplink, ToVf, VfConfig, VlanTag
from nicoffload.testing.emulator.counters import PORT_VALUES
from tests.linux.plugged import live

TCP = {"eth_type": 0x0800, "ip_proto": 6}
HANDLE = Handle.of("pci/0000:03:00.0")


@pytest.fixture
def switched():
    """A ConnectX-6 in switchdev mode with four VFs."""
    return live("mlx5", prepared=True, vfs=4)


def put(nic, vf=2, port=80, table="flower_fdb"):
    return nic.put(table, ToVf(vf=vf), flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=port, **TCP)


def test_flower_delivers_to_a_representor_and_counts(switched):
    ref = put(switched)
    [entry] = switched.hardware.table("flower_fdb").entries.values()
    assert entry.rule.actions == (ToVf(vf=2),)
    counters = switched.driver.flow_filters.read_counters([ref])
    assert counters.valid.all()
    assert counters.facts[0].source == "nic:rule"


def test_the_mode_changes_beside_vfs_and_its_cost_is_told():
    nic = live("mlx5", vfs=2)
    assert nic.table("flower_fdb").enable is Disruption.LINK_FLAP
    nic.driver.flow_filters.enable_table("flower_fdb")
    assert nic.hardware.mode == "switchdev"
    assert not isinstance(put(nic, vf=1), Exception)


def test_the_mode_does_not_change_while_rules_are_there(switched):
    put(switched)
    state = switched.table("flower_nic")
    assert state.enable is None
    assert "eswitch.flows_present" in {reason.code for reason in state.blocked}
    with pytest.raises(ConflictError) as info:
        switched.driver.flow_filters.enable_table("flower_nic")
    assert "rules" in str(info.value)
    assert switched.hardware.mode == "switchdev"
    assert len(switched.hardware.table("flower_fdb").entries) == 1


def test_the_mode_does_not_change_while_rate_nodes_are_there(switched):
    with Devlink(switched.kernel) as devlink:
        devlink.create_node(HANDLE, RateNode(name="g"))
    with pytest.raises(ConflictError) as info:
        switched.driver.flow_filters.enable_table("flower_nic")
    assert "rate node" in str(info.value)


def test_enotsupp_is_no_unknown_number(switched):
    answer = switched.put(
        "ntuple", ToQueue(queue=1), slot=0, flow_type="sctp4", eth_type=0x0800, ip_proto=132
    )
    assert isinstance(answer, NotSupportedError)
    if answer.errno is not None:
        assert answer.errno == 524


def test_enospc_tells_a_wrong_location(switched):
    answer = switched.put("ntuple", Drop(), slot=1024, flow_type="tcp4", ipv4_dst="10.0.0.1", **TCP)
    assert isinstance(answer, InvalidRequestError)
    assert answer.errno == 28


def test_a_vlan_that_switchdev_ignores_is_not_called_set(switched):
    [answer] = switched.driver.virtual_functions.configure_many([VfConfig(vf=0, vlan=VlanTag(vid=5))])
    assert isinstance(answer, NotSupportedError)


def test_rates_go_through_devlink_in_whole_megabits(switched):
    report = switched.driver.rates.set_many({0: RateLimit(max_tx_bps=50_500_000)})[0]
    assert report.applied == RateLimit(max_tx_bps=50_000_000)
    assert "steps of 1000000" in report.note
    assert switched.hardware.sriov.vfs[0].max_tx.applied == 50_000_000


def test_a_guarantee_is_a_share(switched):
    rates = switched.driver.profile.rates
    assert rates.min_tx.meaning == "share"
    detail = {one.name: one.detail for one in switched.driver.capabilities()}["rates.min_tx"]
    assert "share" in detail


def test_a_vfs_counters_are_seen_from_the_vf_and_not_from_its_representor(switched):
    row = switched.hardware.ports.values[2]
    row[PORT_VALUES.index("rx_packets")], row[PORT_VALUES.index("tx_packets")] = 7, 3
    rows = {each.name: each for each in switched.driver.statistics.read()}
    assert (rows["vf:0"].rx_packets, rows["vf:0"].tx_packets) == (7, 3)
    assert rows["vf:0"].facts.source == "nic:vf"


def test_a_flow_of_both_directions_is_two_rules_on_two_devices(switched):
    put(switched, vf=2)
    back = switched.put(
        "flower_fdb", ToUplink(), flow_type="tcp4", in_port=4, ipv4_src="10.0.0.1", tp_src=80, **TCP
    )
    assert not isinstance(back, Exception)
    rules = switched.driver.flow_filters.dump()
    assert sorted(str(rule.rule.match.in_port) for rule in rules) == ["Masked(value=4, mask=65535)", "None"]
    assert switched.table("flower_fdb").in_use == 2
