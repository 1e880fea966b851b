"""The traps of ice, each with what the plugin does about it."""

import pytest

from nicoffload.errors import ConflictError, InvalidRequestError, NotSupportedError, ResourceExhaustedError
from nicoffload.model import Disruption, Drop, FlowRule, Match, RateLimit, ToQueue, ToVf, VfConfig
from tests.linux.plugged import live

TCP = {"eth_type": 0x0800, "ip_proto": 6}


@pytest.fixture
def switched():
    """An E810 in switchdev mode with four VFs and its features on."""
    nic = live("ice", prepared=True, vfs=4)
    if nic.table("flower_switchdev").enable is not None:
        nic.driver.flow_filters.enable_table("flower_switchdev")
    return nic


def test_the_mode_changes_only_without_vfs_and_that_is_said_before():
    nic = live("ice", vfs=2)
    state = nic.table("flower_switchdev")
    assert state.enable is None
    assert "eswitch.vfs_present" in {reason.code for reason in state.blocked}
    with pytest.raises(ConflictError) as info:
        nic.driver.flow_filters.enable_table("flower_switchdev")
    assert "2 VFs" in str(info.value)
    assert nic.hardware.mode == "legacy"


def test_the_mode_is_changed_without_vfs_and_its_cost_is_told():
    nic = live("ice")
    assert nic.table("flower_switchdev").enable is Disruption.LINK_FLAP
    commands = nic.driver.equivalents_of_table("flower_switchdev")
    assert commands[0] == "devlink dev eswitch set pci/0000:03:00.0 mode switchdev"
    nic.driver.flow_filters.enable_table("flower_switchdev")
    assert nic.hardware.mode == "switchdev"
    assert not nic.table("flower_switchdev").blocked
    nic.driver.flow_filters.enable_table("flower_switchdev")


def test_representors_come_with_their_offload_off_and_are_turned_on():
    nic = live("ice", mode="switchdev")
    nic.driver.virtual_functions.set_count(2)
    state = nic.table("flower_switchdev")
    assert state.blocked
    assert state.enable is not None
    nic.driver.flow_filters.enable_table("flower_switchdev")
    assert not nic.table("flower_switchdev").blocked
    assert all(one.features["hw-tc-offload"].active for one in nic.nic.representors.values())


def test_flower_delivers_to_a_representor(switched):
    switched.put("flower_switchdev", ToVf(vf=2), flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    [entry] = switched.hardware.table("flower_switchdev").entries.values()
    assert entry.rule.actions == (ToVf(vf=2),)


def test_flower_counts_nothing_and_says_so(switched):
    ref = switched.put(
        "flower_switchdev", ToVf(vf=2), flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP
    )
    counters = switched.driver.flow_filters.read_counters([ref])
    assert not counters.valid.any()
    assert counters.facts == [None]


def test_a_priority_that_is_not_honoured_is_told(switched, tmp_path):
    with switched.open(tmp_path) as nic:
        rule = FlowRule(
            match=Match.of(ipv4_dst="10.0.0.1", tp_dst=80, **TCP), actions=(ToVf(vf=0),), priority=7
        )
        found = nic.check(rule)
    assert "priority" in " ".join(getattr(found, "caveats", ())) or getattr(found, "reasons", ())


def test_in_legacy_mode_flower_names_a_queue():
    nic = live("ice", mode="legacy", prepared=True)
    nic.put("flower_legacy", ToQueue(queue=3), flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    [entry] = nic.hardware.table("flower_legacy").entries.values()
    assert entry.rule.actions == (ToQueue(queue=3),)


def test_enospc_tells_a_wrong_location_from_a_full_table():
    nic = live("ice", prepared=True, mode="legacy", rows={"fdir": 2})
    fields = {
        "flow_type": "tcp4",
        "ipv4_dst": "10.0.0.1",
        "tp_dst": 80,
        "ipv4_src": "10.0.0.9",
        "tp_src": 1,
        **TCP,
    }
    wrong = nic.put("fdir", Drop(), slot=7, **fields)
    assert isinstance(wrong, InvalidRequestError)
    assert wrong.errno == 28


def test_a_full_table_is_exhausted():
    fault = {"effect": {"kind": "table_full", "table": "fdir", "rows": 1}}
    nic = live("ice", prepared=True, mode="legacy", faults=[fault])
    fields = {"flow_type": "tcp4", "ipv4_dst": "10.0.0.1", "tp_dst": 80, "ipv4_src": "10.0.0.9", **TCP}
    assert not isinstance(nic.put("fdir", Drop(), slot=0, tp_src=1, **fields), Exception)
    assert isinstance(nic.put("fdir", Drop(), slot=1, tp_src=2, **fields), ResourceExhaustedError)


def test_the_one_input_set_of_a_flow_type_is_told():
    nic = live("ice", prepared=True, mode="legacy")
    nic.put("fdir", Drop(), slot=0, flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    answer = nic.put("fdir", Drop(), slot=1, flow_type="tcp4", ipv4_dst="10.0.0.1", **TCP)
    assert isinstance(answer, NotSupportedError)
    assert answer.reasons[0].code == "driver.second_mask"


def test_a_refused_limit_takes_the_guarantee_back():
    nic = live("ice", mode="legacy", vfs=2, link_bps=10_000_000_000)
    old = RateLimit(min_tx_bps=100_000_000, max_tx_bps=200_000_000)
    assert not isinstance(nic.driver.rates.set_many({0: old})[0], Exception)
    answer = nic.driver.rates.set_many({0: RateLimit(min_tx_bps=300_000_000, max_tx_bps=20_000_000_000)})[0]
    assert isinstance(answer, InvalidRequestError | NotSupportedError)
    assert nic.driver.rates.read()[0].read_back == old


def test_guarantees_beyond_the_link_are_refused():
    nic = live("ice", mode="legacy", vfs=2, link_bps=10_000_000_000)
    assert not isinstance(nic.driver.rates.set_many({0: RateLimit(min_tx_bps=6_000_000_000)})[0], Exception)
    answer = nic.driver.rates.set_many({1: RateLimit(min_tx_bps=6_000_000_000)})[1]
    assert isinstance(answer, InvalidRequestError)


def test_a_vf_that_resets_is_asked_again():
    nic = live("ice", mode="legacy", vfs=2)
    nic.hardware.sriov.reset(0)
    assert nic.driver.virtual_functions.configure_many([VfConfig(vf=0, trust=True)]) == [None]


def test_trust_is_not_to_be_had_in_switchdev_mode(switched):
    [answer] = switched.driver.virtual_functions.configure_many([VfConfig(vf=0, trust=True)])
    assert isinstance(answer, NotSupportedError)


def test_more_vfs_than_the_firmware_gives_are_a_wrong_request():
    with pytest.raises(InvalidRequestError):
        live("ice").driver.virtual_functions.set_count(300)
