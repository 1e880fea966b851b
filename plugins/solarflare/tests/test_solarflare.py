"""The traps of the Solarflare families, each with what the plugin does about it."""

import dataclasses

import pytest

from nicoffload.driver import Placement, RuleRef
from nicoffload.errors import (
    ConflictError,
    InvalidRequestError,
    NotSupportedError,
    ResourceExhaustedError,
    VerificationError,
)
from nicoffload.model import Drop, FlowRule, Match, ToQueue, ToVf, VfConfig, VlanTag
from tests.linux.plugged import live, reopen

TCP = {"eth_type": 0x0800, "ip_proto": 6}
FULL = {**TCP, "ipv4_src": "10.0.0.9", "ipv4_dst": "10.0.0.1", "tp_src": 1000}
SIENA = ["sfc_siena", "sfc_ef10", "sfc_ef100"]


def first(family):
    return {"sfc_siena": "rx_ip", "sfc_ef10": "filters", "sfc_ef100": "ntuple", "sfc_falcon": "rx_ip"}[family]


@pytest.mark.parametrize("family", [*SIENA, "sfc_falcon"])
def test_the_driver_picks_the_location(family):
    nic = live(family, prepared=True)
    ref = nic.put(first(family), ToQueue(queue=1), flow_type="tcp4", tp_dst=80, **FULL)
    assert ref.slot is not None
    assert [each.ref.slot for each in nic.driver.flow_filters.dump()] == [ref.slot]
    # A wildcard has the precedence of its shape in its location.
    wild = nic.put(first(family), ToQueue(queue=1), flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    assert {each.ref.slot for each in nic.driver.flow_filters.dump()} == {ref.slot, wild.slot}
    assert nic.driver.flow_filters.destroy_many([ref, wild]) == [None, None]
    assert not nic.driver.flow_filters.dump()


@pytest.mark.parametrize("family", SIENA)
def test_a_rule_of_another_program_is_not_replaced_without_a_word(family):
    nic = live(family, prepared=True)
    kept = nic.put(first(family), ToQueue(queue=1), flow_type="tcp4", tp_dst=80, **FULL)
    other = reopen(nic.kernel)
    answer = dataclasses.replace(nic, driver=other).put(
        first(family), Drop(), flow_type="tcp4", tp_dst=80, **FULL
    )
    assert isinstance(answer, ConflictError)
    [there] = other.flow_filters.dump()
    assert there.ref.slot == kept.slot
    assert there.rule.actions == (ToQueue(queue=1),)


def test_of_two_equal_rules_in_one_call_the_second_is_refused():
    nic = live("sfc_siena", prepared=True)
    rules = [FlowRule(match=Match.of(tp_dst=80, **FULL), actions=(ToQueue(queue=queue),)) for queue in (1, 2)]
    outcomes = nic.driver.flow_filters.create_many([Placement(rule, "rx_ip", "tcp4") for rule in rules])
    assert [type(each) for each in outcomes] == [RuleRef, ConflictError]


def test_a_hash_table_is_full_before_it_is_full():
    nic = live("sfc_siena", prepared=True)
    rules = [
        FlowRule(match=Match.of(eth_dst=0x02_00_00_00_00_00 + at * 7), actions=(ToQueue(queue=1),))
        for at in range(512)
    ]
    outcomes = nic.driver.flow_filters.create_many([Placement(rule, "rx_mac", "ether") for rule in rules])
    refused = [each for each in outcomes if isinstance(each, Exception)]
    assert {type(each) for each in refused} == {ResourceExhaustedError}
    assert {each.errno for each in refused} == {16}
    assert refused[0].limit == 512
    assert len(nic.hardware.table("rx_mac").entries) == 512 - len(refused)


@pytest.mark.parametrize("family", SIENA)
def test_the_range_of_ids_is_not_called_a_capacity(family):
    nic = live(family, prepared=True)
    state = nic.table(first(family))
    assert state.rows == state.table.rows
    assert state.rows is None or state.rows <= 8192


def test_sriov_numvfs_that_succeeds_and_does_nothing_is_found_out():
    nic = live("sfc_siena", vfs=0)
    with pytest.raises(VerificationError) as info:
        nic.driver.virtual_functions.set_count(4)
    assert (info.value.expected, info.value.actual) == ("4", "0")
    assert "max_vfs" in info.value.hint


def test_siena_filters_five_tuples_and_mac_with_vlan():
    nic = live("sfc_siena", prepared=True)
    assert not isinstance(nic.put("rx_ip", ToQueue(queue=1), flow_type="tcp4", tp_dst=80, **FULL), Exception)
    answer = nic.put("rx_mac", ToQueue(queue=2), flow_type="ether", eth_dst="02:00:00:00:00:01", vlan_vid=5)
    assert not isinstance(answer, Exception)
    assert {each.ref.table for each in nic.driver.flow_filters.dump()} == {"rx_ip", "rx_mac"}


def test_no_rule_delivers_to_a_vf_of_siena():
    nic = live("sfc_siena", prepared=True)
    answer = nic.put("rx_ip", ToVf(vf=0), flow_type="tcp4", tp_dst=80, **FULL)
    assert isinstance(answer, NotSupportedError)


def test_a_combination_that_the_hardware_has_not_is_not_supported():
    nic = live("sfc_siena", prepared=True)
    answer = nic.put("rx_ip", Drop(), flow_type="tcp4", ipv4_src="10.0.0.9", **TCP)
    assert isinstance(answer, NotSupportedError)


def test_a_combination_that_the_firmware_may_have_is_tried(tmp_path):
    nic = live("sfc_ef10", prepared=True)
    state = nic.table("filters")
    assert state.firmware_shapes is None
    with nic.open(tmp_path) as opened:
        known = FlowRule(match=Match.of(tp_dst=80, **FULL), actions=(ToQueue(queue=1),))
        unknown = FlowRule(match=Match.of(ipv4_src="10.0.0.9", tp_src=7, **TCP), actions=(ToQueue(queue=1),))
        assert opened.add_flows([known], atomic=False).installed
        report = opened.add_flows([unknown], atomic=False)
        [error] = (
            [error for _, error in report.refused] if hasattr(report, "refused") else list(report.errors)
        )
    assert isinstance(error, NotSupportedError)


def test_ef10_takes_no_priority_of_a_vlan():
    nic = live("sfc_ef10", vfs=2)
    functions = nic.driver.virtual_functions
    [answer] = functions.configure_many([VfConfig(vf=0, vlan=VlanTag(vid=5, pcp=3))])
    assert isinstance(answer, InvalidRequestError | NotSupportedError)
    assert functions.configure_many([VfConfig(vf=0, vlan=VlanTag(vid=5))]) == [None]


def test_a_spoof_check_of_a_running_vf_is_busy_not_refused_for_good():
    nic = live("sfc_siena", prepared=True, vfs=2)
    nic.hardware.sriov.vfs[0].driver = "vfio-pci"
    [answer] = nic.driver.virtual_functions.configure_many([VfConfig(vf=0, spoof_check=True)])
    assert answer.code == "device_busy"


def test_ef100_sets_a_vfs_address_through_devlink():
    nic = live("sfc_ef100", prepared=True, vfs=2)
    assert nic.driver.virtual_functions.configure_many([VfConfig(vf=1, mac=0x02_00_00_00_00_07)]) == [None]
    assert nic.driver.virtual_functions.states()[1].mac == 0x02_00_00_00_00_07
    assert nic.driver.equivalents_of_config(VfConfig(vf=1, mac=7))[0].startswith("devlink port function set")


def test_an_address_that_devlink_set_is_taken_back_with_the_rest():
    nic = live("sfc_ef100", prepared=True, vfs=2)
    functions = nic.driver.virtual_functions
    assert functions.configure_many([VfConfig(vf=0, mac=0x02_00_00_00_00_07)]) == [None]
    [answer] = functions.configure_many([VfConfig(vf=0, mac=0x02_00_00_00_00_08, trust=True)])
    assert isinstance(answer, NotSupportedError)
    assert functions.states()[0].mac == 0x02_00_00_00_00_07


def test_ef100_delivers_to_a_representor_and_counts():
    nic = live("sfc_ef100", prepared=True, vfs=2)
    ref = nic.put("flower", ToVf(vf=1), flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    assert not isinstance(ref, Exception)
    assert nic.driver.flow_filters.read_counters([ref]).valid.all()


def test_a_representor_that_counts_the_slow_path_only_is_not_a_vfs_counter():
    nic = live("sfc_ef100", prepared=True, vfs=2)
    assert [row.name for row in nic.driver.statistics.read()] == ["uplink"]


@pytest.mark.parametrize("family", ["sfc_siena", "sfc_ef10", "sfc_ef100"])
def test_there_are_no_rates(family):
    nic = live(family, prepared=True)
    assert nic.driver.rates is None
    found = {one.name: one.support.value for one in nic.driver.capabilities()}
    assert found["rates.max_tx"] == "no"
