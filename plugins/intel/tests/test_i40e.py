"""The traps of i40e, each with what the plugin does about it."""

import pytest

from nicoffload.errors import ConflictError, DeviceBusyError, NotSupportedError
from nicoffload.model import Drop, FlowRule, Match, RateLimit, ToQueue, ToVf, VfConfig
from tests.linux.plugged import live

TCP = {"eth_type": 0x0800, "ip_proto": 6}


@pytest.fixture
def nic():
    """An X710 with four VFs."""
    return live("i40e", prepared=True, vfs=4)


def test_ntuple_delivers_to_a_vf(nic):
    nic.put("fdir", ToVf(vf=3), slot=0, flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    [entry] = nic.hardware.table("fdir").entries.values()
    assert entry.plan.port == 5


def test_the_one_input_set_of_a_flow_type_is_told(nic):
    nic.put("fdir", Drop(), slot=0, flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    answer = nic.put("fdir", Drop(), slot=1, flow_type="tcp4", ipv4_dst="10.0.0.1", **TCP)
    assert isinstance(answer, NotSupportedError)
    assert answer.reasons[0].code == "driver.second_mask"
    # Another flow type has a set of its own.
    answer = nic.put(
        "fdir", Drop(), slot=1, flow_type="udp4", eth_type=0x0800, ip_proto=17, ipv4_dst="10.0.0.1"
    )
    assert not isinstance(answer, Exception)


def test_the_same_match_elsewhere_is_a_conflict(nic):
    nic.put("fdir", Drop(), slot=0, flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    answer = nic.put("fdir", ToVf(vf=1), slot=1, flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    assert isinstance(answer, ConflictError)
    assert answer.errno == 22


def test_a_part_of_a_vlan_would_be_dropped_and_is_refused(nic, tmp_path):
    with nic.open(tmp_path) as opened:
        match = Match.of(ipv4_dst="10.0.0.1", tp_dst=80, vlan_vid=5, **TCP)
        found = opened.check(FlowRule(match=match, actions=(Drop(),)))
        assert any(reason.path.startswith("/match/vlan") for reason in found.reasons)


def test_queue_groups_and_flow_director_exclude_each_other(nic):
    nic.put("fdir", Drop(), slot=0, flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    answer = nic.put("flower", ToQueue(queue=1), flow_type="tcp4", tp_dst=80, **TCP)
    assert isinstance(answer, ConflictError | NotSupportedError)
    assert answer.errno == 22


def test_credits_of_50_mbit_are_told_whatever_is_read_back(nic):
    report = nic.driver.rates.set_many({0: RateLimit(max_tx_bps=99_000_000)})[0]
    assert report.requested == RateLimit(max_tx_bps=99_000_000)
    assert report.applied == RateLimit(max_tx_bps=50_000_000)
    assert report.read_back == RateLimit(max_tx_bps=99_000_000)
    assert "coarser" in report.note
    assert "does not report what it does" in report.note
    assert nic.hardware.sriov.vfs[0].max_tx.applied == 50_000_000


def test_a_rate_below_the_least_is_raised_and_told(nic):
    report = nic.driver.rates.set_many({0: RateLimit(max_tx_bps=3_000_000)})[0]
    assert report.applied == RateLimit(max_tx_bps=50_000_000)


def test_another_process_learns_the_applied_rate_too(nic):
    nic.driver.rates.set_many({0: RateLimit(max_tx_bps=99_000_000)})
    from tests.linux.plugged import reopen

    report = reopen(nic.kernel).rates.read()[0]
    assert report.applied == RateLimit(max_tx_bps=50_000_000)
    assert report.read_back == RateLimit(max_tx_bps=99_000_000)


def test_a_vf_that_resets_is_asked_again(nic):
    nic.hardware.sriov.reset(0)
    before = nic.kernel.monotonic_s()
    assert nic.driver.virtual_functions.configure_many([VfConfig(vf=0, trust=True)]) == [None]
    assert nic.kernel.monotonic_s() > before
    assert nic.hardware.sriov.vfs[0].trust


def test_asking_again_ends():
    fault = {"effect": {"kind": "answer", "operation": "vf_set", "errno": "EAGAIN"}}
    nic = live("i40e", vfs=2, faults=[fault])
    before = nic.kernel.monotonic_s()
    [answer] = nic.driver.virtual_functions.configure_many([VfConfig(vf=0, trust=True)])
    assert isinstance(answer, DeviceBusyError)
    assert answer.errno == 11
    assert 0 < nic.kernel.monotonic_s() - before < 10


def test_a_rate_is_set_again_while_the_vf_resets(nic):
    nic.hardware.sriov.reset(1)
    report = nic.driver.rates.set_many({1: RateLimit(max_tx_bps=100_000_000)})[1]
    assert report.applied == RateLimit(max_tx_bps=100_000_000)


def test_vfs_of_a_guest_are_busy_whatever_the_driver_says(nic, monkeypatch):
    from nicoffload.testing.emulator.answer import Refused

    def refuse(count):
        raise Refused("EINVAL", "assigned", "assigned")

    monkeypatch.setattr(nic.hardware.sriov, "set_count", refuse)
    with pytest.raises(DeviceBusyError):
        nic.driver.virtual_functions.set_count(0)
