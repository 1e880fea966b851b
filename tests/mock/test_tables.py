"""Tables take, refuse, replace and widen as the drivers do, whatever the compiler would say."""

from __future__ import annotations

import pytest

from nicoffload.driver import RuleRef
from nicoffload.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    NotSupportedError,
    ResourceExhaustedError,
)
from nicoffload.model import Drop, Masked, ToQueue, ToVf

TCP = {"ip_proto": 6, "eth_type": 0x0800}


def test_the_first_rule_fixes_the_mask_of_an_ixgbe(open_mock, put):
    nic = open_mock("ixgbe")
    first = put(nic, "fdir", ToVf(vf=1), slot=0, ipv4_dst="10.0.0.0/8", **TCP)
    second = put(nic, "fdir", ToVf(vf=1), slot=1, ipv4_dst="10.0.0.1", **TCP)
    assert isinstance(second, NotSupportedError)
    assert second.reasons[0].errno == "EINVAL"
    assert nic.flow_filters.destroy_many([first]) == [None]
    assert isinstance(put(nic, "fdir", ToVf(vf=1), slot=1, ipv4_dst="10.0.0.1", **TCP), RuleRef)


def test_rules_of_u32_count_for_the_mask_and_the_rows_of_fdir(open_mock, put):
    nic = open_mock("ixgbe")
    put(nic, "u32", Drop(), slot=1, ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    assert isinstance(put(nic, "fdir", Drop(), slot=2, ipv4_dst="10.0.0.1", **TCP), NotSupportedError)
    assert {state.in_use for state in nic.flow_filters.tables()} == {1}
    # The same location: the rule of the other table goes.
    put(nic, "fdir", Drop(), slot=1, ipv4_dst="10.0.0.2", tp_dst=80, **TCP)
    assert [rule.ref.table for rule in nic.flow_filters.dump()] == ["fdir"]


def test_a_second_input_set_is_refused_by_an_i40e(open_mock, put):
    nic = open_mock("i40e")
    put(nic, "fdir", Drop(), slot=0, ipv4_dst="10.0.0.1", **TCP)
    answer = put(nic, "fdir", Drop(), slot=1, ipv4_src="10.0.0.1", **TCP)
    assert isinstance(answer, NotSupportedError)
    assert answer.reasons[0].errno == "EOPNOTSUPP"


def test_an_igb_ignores_a_partial_mask_and_ors_two_fields(open_mock, put, packets):
    nic = open_mock("igb_i210")
    partial = Masked(0x0200_0000_0000, 0xFF00_0000_0000)
    put(nic, "ntuple", ToQueue(queue=1), slot=0, eth_dst=partial, eth_type=0x0806)
    (found,) = nic.flow_filters.dump()
    assert found.rule.match.eth_dst is None, "the read-back shows what is compared"

    other = open_mock("igb_i210")
    put(other, "ntuple", ToQueue(queue=1), slot=0, eth_dst="02:00:00:00:00:01", eth_src="02:00:00:00:00:02")
    entry = next(iter(other.device.table("ntuple").entries.values()))
    batch = packets([{"eth_dst": 0x020000000001}, {"eth_src": 0x020000000002}, {"eth_dst": 5}])
    other.packet_path.receive(batch, 0, 3, 0)
    assert other.device.rules.packets[entry.counter] == 2


def test_an_overwritten_rule_of_an_igb_stays_in_the_hardware(open_mock, put, packets):
    nic = open_mock("igb_i210")
    put(nic, "ntuple", ToQueue(queue=1), slot=0, eth_dst="02:00:00:00:00:01")
    old = next(iter(nic.device.table("ntuple").entries.values()))
    put(nic, "ntuple", ToQueue(queue=1), slot=0, eth_dst="02:00:00:00:00:02")
    assert len(nic.flow_filters.dump()) == 1
    nic.packet_path.receive(packets([{"eth_dst": 0x020000000001}]), 0, 1, 0)
    assert nic.device.rules.packets[old.counter] == 1


def test_an_sfc_replaces_the_same_match_and_tells_the_same_location(open_mock, put):
    nic = open_mock("sfn5122f")
    match = {"ipv4_dst": "10.0.0.5", "tp_dst": 443, **TCP}
    first, second = put(nic, "rx_ip", ToVf(vf=1), **match), put(nic, "rx_ip", ToVf(vf=2), **match)
    assert first.slot == second.slot
    (found,) = nic.flow_filters.dump()
    assert found.rule.actions == (ToVf(vf=2),)


def test_an_sfc_is_busy_before_it_is_full(open_mock, put):
    nic = open_mock("sfn5122f")
    answers = [
        put(nic, "rx_ip", ToVf(vf=0), ipv4_dst=i >> 8, tp_dst=(i & 0xFF) + 1, **TCP)
        for i in range(8192 + 200)
    ]
    refused = [at for at, answer in enumerate(answers) if isinstance(answer, ResourceExhaustedError)]
    assert refused
    assert refused[0] < 8192, "the table is not full yet"
    assert "EBUSY" in str(answers[refused[0]])


@pytest.mark.parametrize(
    ("family", "table", "slot", "kind", "errno"),
    [
        ("ixgbe", "fdir", 2046, InvalidRequestError, "EINVAL"),
        ("ixgbe", "fdir", None, InvalidRequestError, "EINVAL"),
        ("mlx5", "ntuple", 1024, InvalidRequestError, "ENOSPC"),
        ("sfc_siena", "rx_ip", 0, InvalidRequestError, "EINVAL"),
    ],
)
def test_a_location_that_is_not_taken(open_mock, put, family, table, slot, kind, errno):
    answer = put(open_mock(family), table, ToQueue(queue=0), slot=slot, ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    assert isinstance(answer, kind)
    assert errno in str(answer)


def test_a_third_copy_is_refused_by_an_mlx5(open_mock, put):
    nic = open_mock("mlx5")
    answers = [
        put(nic, "ntuple", ToQueue(queue=0), slot=slot, ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
        for slot in range(3)
    ]
    assert [isinstance(answer, RuleRef) for answer in answers] == [True, True, False]
    assert isinstance(answers[2], ConflictError)


def test_tables_that_exclude_each_other(open_mock, put):
    nic = open_mock("i40e")
    put(nic, "fdir", Drop(), slot=0, ipv4_dst="10.0.0.1", **TCP)
    assert isinstance(put(nic, "flower", ToQueue(queue=1), tp_dst=80, **TCP), ConflictError)


@pytest.mark.parametrize("family", ["ixgbe", "mlx5", "sfn5122f"])
def test_what_is_not_there_is_not_found_and_nothing_else_is_touched(open_mock, put, family):
    nic = open_mock(family)
    table = nic.profile.tables[0]
    slot = 0 if table.picker == "caller" else None
    ref = put(nic, table.name, Drop(), slot=slot, ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    (first,) = nic.flow_filters.destroy_many([ref])
    (second,) = nic.flow_filters.destroy_many([ref])
    assert first is None
    assert isinstance(second, NotFoundError)
    assert nic.flow_filters.dump() == []


def test_a_refused_rule_leaves_no_trace(open_mock, put):
    nic = open_mock("ixgbe,rows.fdir=1")
    put(nic, "fdir", Drop(), slot=0, ipv4_dst="10.0.0.1", **TCP)
    before = nic.flow_filters.dump()
    assert not isinstance(put(nic, "fdir", ToVf(vf=99), slot=0, ipv4_dst="10.0.0.2", **TCP), RuleRef)
    assert [rule.rule.match for rule in nic.flow_filters.dump()] == [rule.rule.match for rule in before]


def test_out_of_the_box_a_table_is_off_and_can_be_enabled(open_mock, put):
    nic = open_mock("ixgbe,prepared=no,vfs=2")
    state = nic.flow_filters.tables()[0]
    assert state.blocked
    assert state.enable is not None
    assert isinstance(put(nic, "fdir", Drop(), slot=0, ipv4_dst="10.0.0.1", **TCP), NotSupportedError)
    nic.flow_filters.enable_table("fdir")
    assert not nic.virtual_functions.states()[0].ready, "it resets the NIC"
    assert isinstance(put(nic, "fdir", Drop(), slot=0, ipv4_dst="10.0.0.1", **TCP), RuleRef)


def test_an_ice_changes_its_mode_only_without_vfs(open_mock):
    nic = open_mock("ice,mode=legacy,vfs=2")
    with pytest.raises(ConflictError):
        nic.flow_filters.enable_table("flower_switchdev")
    nic.virtual_functions.set_count(0)
    nic.flow_filters.enable_table("flower_switchdev")
    assert not nic.flow_filters.tables()[0].blocked
