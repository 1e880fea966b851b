"""Virtual functions come, go, reset and refuse in the way of each driver."""

from __future__ import annotations

import pytest

from nicoffload.errors import InvalidRequestError, NotFoundError, NotSupportedError, VerificationError
from nicoffload.model import Disruption, RateLimit, ToQueue, VfConfig, VlanTag


def test_sysfs_makes_them_and_all_settings_start_anew(open_mock):
    functions = open_mock("ixgbe").virtual_functions
    functions.configure_many([VfConfig(vf=0, mac=2)])
    assert functions.set_count(8) is Disruption.NONE
    assert functions.set_count(4) is Disruption.VF_RESET
    states = functions.states()
    assert [state.vf for state in states] == [0, 1, 2, 3]
    assert states[0].mac == 0
    assert all(state.ready for state in states)


@pytest.mark.parametrize("family", ["mlx4", "sfn5122f"])
def test_where_they_are_made_otherwise_the_reason_tells_how(open_mock, family):
    with pytest.raises(NotSupportedError) as caught:
        open_mock(family).virtual_functions.set_count(3)
    assert "VFs are not made at run time here" in str(caught.value.reasons[0])
    assert caught.value.reasons[0].errno == "ENOENT"


def test_a_write_that_does_nothing_is_found_out(open_mock):
    functions = open_mock("sfc_siena").virtual_functions
    with pytest.raises(VerificationError) as caught:
        functions.set_count(3)
    assert (caught.value.expected, caught.value.actual) == ("3", "8")


@pytest.mark.parametrize("count", [-1, 64])
def test_too_many_and_too_few(open_mock, count):
    with pytest.raises(InvalidRequestError):
        open_mock("ixgbe").virtual_functions.set_count(count)


def test_an_i40e_resets_a_vf_and_a_client_that_waits_gets_through(open_mock):
    nic = open_mock("i40e")
    config = VfConfig(vf=0, mac=0x020000000001, vlan=VlanTag(vid=5), trust=True)
    assert nic.virtual_functions.configure_many([config]) == [None]
    assert not nic.virtual_functions.states()[0].ready
    assert nic.virtual_functions.configure_many([VfConfig(vf=0, spoof_check=False)]) == [None]
    assert nic.device.now_ns >= 100_000_000, "it waited on the NIC's clock"


def test_a_config_that_is_refused_half_way_changes_nothing(open_mock):
    functions = open_mock("ixgbe").virtual_functions
    (answer,) = functions.configure_many([VfConfig(vf=0, mac=2, vlan=VlanTag(vid=5, protocol="802.1ad"))])
    assert isinstance(answer, NotSupportedError)
    assert functions.states()[0].mac == 0


def test_what_a_nic_does_not_report_is_none(open_mock):
    state = open_mock("sfn5122f").virtual_functions.states()[0]
    assert state.trust is None
    assert state.link_state is None
    assert state.rate is None
    assert state.mac == 0


def test_a_vf_that_does_not_exist(open_mock):
    functions = open_mock("ixgbe,vfs=2").virtual_functions
    (answer,) = functions.configure_many([VfConfig(vf=2, mac=2)])
    assert isinstance(answer, NotFoundError)
    with pytest.raises(NotFoundError):
        functions.bind(0, "no-such-driver")


def test_mlx5_refuses_vlans_in_switchdev_mode_except_none(open_mock):
    functions = open_mock("mlx5").virtual_functions
    (answer,) = functions.configure_many([VfConfig(vf=0, vlan=VlanTag(vid=5))])
    assert isinstance(answer, NotSupportedError)
    assert functions.configure_many([VfConfig(vf=0, vlan=VlanTag(vid=0))]) == [None]
    assert open_mock("mlx5,mode=legacy").virtual_functions.configure_many(
        [VfConfig(vf=0, vlan=VlanTag(vid=5))]
    ) == [None]


def test_an_i40e_reports_what_was_asked_and_does_less(open_mock):
    nic = open_mock("i40e")
    report = nic.rates.set_many({0: RateLimit(max_tx_bps=123_000_000)})[0]
    assert report.applied == RateLimit(max_tx_bps=100_000_000)
    assert report.read_back == RateLimit(max_tx_bps=123_000_000)
    assert report.note


def test_an_ixgbe_takes_rates_at_ten_gigabit_only(open_mock):
    answer = open_mock("ixgbe,link_bps=1000000000").rates.set_many({0: RateLimit(max_tx_bps=100_000_000)})[0]
    assert isinstance(answer, NotSupportedError)


def test_an_mlx4_limits_only_a_vf_with_a_port_vlan(open_mock):
    nic = open_mock("mlx4")
    report = nic.rates.set_many({0: RateLimit(max_tx_bps=100_000_000)})[0]
    assert report.applied == report.read_back == RateLimit()
    assert nic.device.sriov.bucket(0) is None
    nic.virtual_functions.configure_many([VfConfig(vf=0, vlan=VlanTag(vid=5))])
    assert nic.rates.read()[0].applied == RateLimit(max_tx_bps=100_000_000)


def test_a_refused_rate_leaves_the_old_ones(open_mock):
    nic = open_mock("ice")
    nic.rates.set_many({0: RateLimit(min_tx_bps=1_000_000_000, max_tx_bps=2_000_000_000)})
    answer = nic.rates.set_many({0: RateLimit(min_tx_bps=500_000_000, max_tx_bps=200_000_000_000)})[0]
    assert isinstance(answer, InvalidRequestError)
    assert nic.rates.read()[0].applied == RateLimit(min_tx_bps=1_000_000_000, max_tx_bps=2_000_000_000)


def test_guarantees_of_an_ice_must_fit_the_link(open_mock):
    rates = open_mock("ice").rates
    rates.set_many({0: RateLimit(min_tx_bps=6_000_000_000)})
    assert isinstance(rates.set_many({1: RateLimit(min_tx_bps=6_000_000_000)})[1], InvalidRequestError)


@pytest.mark.parametrize("family", ["ixgbe", "igb_82576"])
def test_a_change_of_link_speed_loses_the_rates(open_mock, family):
    nic = open_mock(
        f"{family},link_bps=10000000000" if family == "ixgbe" else f"{family},link_bps=1000000000"
    )
    speed = nic.device.link_bps
    nic.rates.set_many({0: RateLimit(max_tx_bps=50_000_000)})
    nic.device.set_link(0)
    assert isinstance(nic.rates.set_many({1: RateLimit(max_tx_bps=50_000_000)})[1], NotSupportedError)
    nic.device.set_link(speed)
    assert nic.rates.read()[0].read_back == RateLimit(max_tx_bps=50_000_000)
    nic.device.set_link(100_000_000)
    assert nic.rates.read()[0].read_back == RateLimit()


def test_other_drivers_keep_their_rates(open_mock):
    nic = open_mock("i40e")
    nic.rates.set_many({0: RateLimit(max_tx_bps=50_000_000)})
    nic.device.set_link(1_000_000_000)
    assert nic.rates.read()[0].read_back == RateLimit(max_tx_bps=50_000_000)


def test_a_link_fault_ends(open_mock):
    fault = {"when": {"time_s": 1}, "for": {"time_s": 1}, "effect": {"kind": "link", "bps": 0}}
    nic = open_mock("ixgbe", [fault])
    speeds = []
    for seconds in (0, 1, 2):
        nic.packet_path.advance(seconds * 1_000_000_000)
        speeds.append(nic.device.link_bps)
    assert speeds == [10_000_000_000, 0, 10_000_000_000]


def test_vfs_take_queues_from_an_i350(open_mock, put):
    nic = open_mock("igb_i350,vfs=0")
    assert nic.flow_filters.queues().pf == 16
    nic.virtual_functions.set_count(1)
    assert nic.flow_filters.queues().pf == 1
    answer = put(nic, "ntuple", ToQueue(queue=1), slot=0, eth_type=0x88F7)
    assert isinstance(answer, InvalidRequestError)
