"""Each fault has a clear effect, starts and ends when the script says, and a faulty script is told so."""

from __future__ import annotations

import json

import pytest

from nicoffload.driver import RuleRef
from nicoffload.errors import (
    AccessDeniedError,
    DeviceBusyError,
    DeviceGoneError,
    InvalidRequestError,
    ResourceExhaustedError,
    VerificationError,
)
from nicoffload.model import Drop, RateLimit, ToVf, VfConfig

TCP = {"ip_proto": 6, "eth_type": 0x0800}


def test_a_table_that_is_full_early(open_mock, put):
    nic = open_mock("sfn5122f", [{"effect": {"kind": "table_full", "table": "rx_ip", "rows": 2}}])
    answers = [put(nic, "rx_ip", ToVf(vf=0), ipv4_dst=at, tp_dst=80, **TCP) for at in range(3)]
    assert [isinstance(answer, RuleRef) for answer in answers] == [True, True, False]
    assert isinstance(answers[2], ResourceExhaustedError)


def test_an_errno_on_the_second_call_and_no_other(open_mock, put):
    fault = {
        "when": {"operation": "flow_create", "call": 2},
        "effect": {"kind": "answer", "operation": "flow_create", "errno": "EPERM"},
    }
    nic = open_mock("sfn5122f", [fault])
    answers = [put(nic, "rx_ip", ToVf(vf=0), ipv4_dst=at, tp_dst=80, **TCP) for at in range(3)]
    assert [isinstance(answer, RuleRef) for answer in answers] == [True, False, True]
    assert isinstance(answers[1], AccessDeniedError)


def test_a_call_that_succeeds_and_does_nothing(open_mock, put):
    nic = open_mock("ixgbe", [{"effect": {"kind": "do_nothing", "operation": "flow_create"}}])
    assert isinstance(put(nic, "fdir", Drop(), slot=0, ipv4_dst=1, **TCP), RuleRef)
    assert nic.flow_filters.dump() == []


def test_missing_and_slow_vfs(open_mock):
    nic = open_mock("ixgbe", [{"effect": {"kind": "missing_vfs", "count": 1}}])
    with pytest.raises(VerificationError):
        nic.virtual_functions.set_count(4)
    slow = open_mock("ixgbe", [{"effect": {"kind": "slow_vfs", "extra_s": 60}}])
    slow.virtual_functions.set_count(4)
    assert not slow.virtual_functions.states()[0].ready, "it waits as long as a plugin would, and no longer"


def test_a_vf_that_resets_for_too_long_is_busy(open_mock):
    faults = [{"effect": {"kind": "slow_vfs", "extra_s": 60}}, {"effect": {"kind": "reset_vf", "vf": 0}}]
    (answer,) = open_mock("i40e", faults).virtual_functions.configure_many([VfConfig(vf=0, mac=2)])
    assert isinstance(answer, DeviceBusyError)
    assert "EAGAIN" in str(answer)


def test_read_backs_that_lie(open_mock, put):
    lies = [
        {"effect": {"kind": "lie", "about": "flows"}},
        {"effect": {"kind": "lie", "about": "vfs", "vf": 0, "mac": 9}},
        {"effect": {"kind": "lie", "about": "vf_count", "count": 3}},
        {"effect": {"kind": "lie", "about": "rates", "max_tx_bps": 77}},
    ]
    nic = open_mock("ixgbe", lies)
    assert isinstance(put(nic, "fdir", Drop(), slot=0, ipv4_dst=1, **TCP), RuleRef)
    assert nic.flow_filters.dump() == []
    assert [state.mac for state in nic.virtual_functions.states()] == [9, 0, 0]
    assert nic.rates.read()[0].read_back == RateLimit(max_tx_bps=77)


def test_counters_freeze_for_some_packets_wrap_and_start_anew(open_mock, put, packets):
    frozen = {
        "when": {"packets": 4},
        "for": {"packets": 3},
        "effect": {"kind": "freeze_counters", "scope": "rule"},
    }
    wrapped = {"effect": {"kind": "wrap_counters", "scope": "rule", "bits": 3}}
    restart = {"when": {"time_s": 5}, "effect": {"kind": "reset_counters", "scope": "rule"}}
    nic = open_mock("mlx5", [frozen, wrapped, restart])
    ref = put(nic, "flower_fdb", ToVf(vf=0), ipv4_dst=1)
    nic.packet_path.receive(packets([{"ipv4_dst": 1}], count=13), 0, 13, 0)
    first = nic.flow_filters.read_counters([ref])
    assert first.packets.tolist() == [(13 - 3) % 8]
    assert first.facts[0].packet_bits == 3
    nic.packet_path.advance(6 * 10**9)
    second = nic.flow_filters.read_counters([ref])
    assert second.packets.tolist() == [0]
    assert second.epoch[0] != first.epoch[0]


def test_surprise_removal_in_the_middle_of_a_batch(open_mock, put, packets):
    nic = open_mock("mlx5", [{"when": {"time_s": 3e-6}, "effect": {"kind": "remove"}}])
    put(nic, "flower_fdb", ToVf(vf=0), ipv4_dst=1)
    assert nic.packet_path.receive(packets([{"ipv4_dst": 1}], count=6), 0, 6, 0).port.tolist() == [
        2,
        2,
        2,
        -1,
        -1,
        -1,
    ]
    with pytest.raises(DeviceGoneError):
        nic.flow_filters.dump()
    assert isinstance(put(nic, "flower_fdb", ToVf(vf=0), ipv4_dst=2), DeviceGoneError)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ({"faults": [{"effect": {"kind": "explode"}}]}, "kind"),
        ({"faults": [{"effekt": {"kind": "remove"}}]}, "effekt"),
        ({"faults": [{"when": {"time_s": -1}, "effect": {"kind": "remove"}}]}, "when"),
        ({"faults": [{"effect": {"kind": "answer", "operation": "vf_set", "errno": "ENOSUCH"}}]}, "ENOSUCH"),
        ({"faults": [{"effect": {"kind": "table_full", "table": "rx_up", "rows": 1}}]}, "rx_up"),
    ],
)
def test_a_faulty_script(open_mock, tmp_path, script, told):
    path = tmp_path / "script.json"
    path.write_text(json.dumps(script), "utf-8")
    with pytest.raises(InvalidRequestError) as caught:
        open_mock(f"sfn5122f,faults={path}")
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["{", "\xff"])
def test_a_script_that_is_no_json(open_mock, tmp_path, text):
    path = tmp_path / "script.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidRequestError, match="no JSON"):
        open_mock(f"sfn5122f,faults={path}")
