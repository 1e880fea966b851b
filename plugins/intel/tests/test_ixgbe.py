"""The traps of ixgbe, each with what the plugin does about it."""

import pytest

from nicoffload.driver import Placement
from nicoffload.errors import (
    ConflictError,
    InvalidRequestError,
    NotSupportedError,
    ResourceExhaustedError,
)
from nicoffload.kernel.features import FeatureName, set_feature
from nicoffload.model import Disruption, Drop, FlowRule, LinkState, Match, RateLimit, ToQueue, ToVf, VfConfig
from nicoffload.nic import DesiredState
from nicoffload.testing.emulator.answer import Refused
from tests.linux.plugged import live

TCP = {"eth_type": 0x0800, "ip_proto": 6}
LIMIT = RateLimit(max_tx_bps=500_000_000)


@pytest.fixture
def ready():
    """An 82599 with its filters on, and four VFs."""
    return live("ixgbe", prepared=True, vfs=4)


def tcp(address, port=80, **more):
    return {**TCP, "ipv4_dst": address, "tp_dst": port, **more}


@pytest.mark.parametrize(("vfs", "queue"), [(4, 10), (31, 4), (40, 2)])
def test_vfs_do_not_silently_take_the_queue_of_a_rule(vfs, queue):
    nic = live("ixgbe", prepared=True, vfs=0)
    ref = nic.put("fdir", ToQueue(queue=queue), slot=0, flow_type="tcp4", **tcp("10.0.0.1"))
    with pytest.raises(ConflictError, match=f"deliver to queue {queue} of the PF"):
        nic.driver.virtual_functions.set_count(vfs)
    assert not nic.hardware.sriov.vfs
    nic.driver.flow_filters.destroy_many([ref])
    nic.put("fdir", ToQueue(queue=queue - 1 if vfs > 4 else 3), slot=0, flow_type="tcp4", **tcp("10.0.0.1"))
    nic.driver.virtual_functions.set_count(vfs)
    assert nic.driver.flow_filters.queues().pf == (4 if vfs <= 31 else 2)


def test_ntuple_delivers_to_a_vf_and_to_a_queue_of_it(ready):
    ready.put("fdir", ToVf(vf=2), slot=0, flow_type="tcp4", **tcp("10.0.0.1"))
    [entry] = ready.hardware.table("fdir").entries.values()
    assert entry.rule.actions == (ToVf(vf=2),)
    assert entry.plan.port == 4


def test_the_one_mask_of_the_port_is_told_and_not_called_a_fault_of_the_rule(ready):
    ready.put("fdir", ToVf(vf=0), slot=0, flow_type="tcp4", **tcp("10.0.0.1"))
    answer = ready.put("fdir", ToVf(vf=1), slot=1, flow_type="tcp4", ipv4_dst="10.0.0.0/8", **TCP)
    assert isinstance(answer, NotSupportedError)
    assert answer.errno == 22
    assert [reason.code for reason in answer.reasons] == ["driver.second_mask"]
    assert "masked fields" in answer.hint
    assert not isinstance(
        ready.put("fdir", ToVf(vf=1), slot=1, flow_type="tcp4", **tcp("10.0.0.2")), Exception
    )


def test_a_foreign_rule_fixes_the_mask_for_the_compiler_too(ready, tmp_path):
    ready.put("fdir", Drop(), slot=9, flow_type="ip4", eth_type=0x0800, ipv4_src="192.0.2.1")
    with ready.open(tmp_path) as nic:
        before = len(ready.asked("ethtool"))
        found = nic.check(FlowRule(match=Match.of(**tcp("10.0.0.1")), actions=(ToVf(vf=0),)))
        assert "mask.second" in {reason.code for reason in found.reasons}
        assert len(ready.hardware.table("fdir").entries) == 1
        assert len(ready.asked("ethtool")) >= before


def test_einval_says_which_of_its_meanings_holds(ready):
    wrong_vf = ready.put("fdir", ToVf(vf=7), slot=0, flow_type="tcp4", **tcp("10.0.0.1"))
    assert wrong_vf.code == "not_found"
    wrong_slot = ready.put("fdir", ToVf(vf=1), slot=5000, flow_type="tcp4", **tcp("10.0.0.1"))
    assert isinstance(wrong_slot, InvalidRequestError)
    wrong_queue = ready.put("fdir", ToQueue(queue=99), slot=0, flow_type="tcp4", **tcp("10.0.0.1"))
    assert isinstance(wrong_queue, InvalidRequestError)
    assert {each.errno for each in (wrong_vf, wrong_slot, wrong_queue)} == {22}


def test_a_slot_that_is_in_use_is_not_overwritten(ready):
    ready.put("fdir", ToVf(vf=0), slot=3, flow_type="tcp4", **tcp("10.0.0.1"))
    answer = ready.put("fdir", ToVf(vf=1), slot=3, flow_type="tcp4", **tcp("10.0.0.2"))
    assert isinstance(answer, ConflictError)
    assert len(ready.hardware.table("fdir").entries) == 1


def test_turning_its_filters_on_resets_the_nic_and_is_said_before():
    nic = live("ixgbe", vfs=2)
    state = nic.table("fdir")
    assert state.blocked
    assert state.enable is Disruption.LINK_FLAP
    assert nic.driver.equivalents_of_table("fdir") == ["ethtool -K eth0 ntuple on"]
    assert not nic.hardware.features["ntuple"]
    nic.driver.flow_filters.enable_table("fdir")
    assert not nic.table("fdir").blocked


def test_a_plan_shows_that_a_rule_costs_a_link_flap(tmp_path):
    nic = live("ixgbe", vfs=2)
    rule = FlowRule(match=Match.of(**tcp("10.0.0.1")), actions=(ToVf(vf=0),))
    with nic.open(tmp_path) as opened:
        plan = opened.plan(DesiredState(flows=(rule,)))
        steps = {step.action: step for step in plan.steps}
        assert steps["enable_table"].disruption is Disruption.LINK_FLAP
        assert plan.disruption is Disruption.LINK_FLAP
        assert not nic.hardware.features["ntuple"]
        opened.apply(plan)
        assert nic.hardware.table("fdir").entries


def test_hw_tc_offload_turns_the_filters_on_as_well():
    nic = live("ixgbe", vfs=2)
    set_feature(nic.kernel, "eth0", FeatureName.HW_TC_OFFLOAD, on=True)
    assert not nic.table("fdir").blocked
    assert not isinstance(nic.put("fdir", ToVf(vf=1), slot=1, flow_type="tcp4", **tcp("10.0.0.1")), Exception)


# ------------------------------------------------------------------------------------------------------------- u32


def test_u32_redirects_to_a_vf(ready):
    first = ready.put("u32", ToVf(vf=2), slot=5, flow_type="tcp4", **tcp("10.0.0.1"))
    second = ready.put("u32", ToVf(vf=3), slot=6, flow_type="tcp4", **tcp("10.0.0.1", 81))
    entries = ready.hardware.table("u32").entries.values()
    assert {(entry.slot, entry.plan.port) for entry in entries} == {(5, 4), (6, 5)}
    # One pair of addresses and protocol has one of the driver's nine tables.
    assert sum("divisor" in command for command in commands(ready, tcp("10.0.0.1", 82))) == 0
    assert sum("divisor" in command for command in commands(ready, tcp("10.0.0.2", 82))) == 1
    read = ready.driver.flow_filters.dump([first, second])
    assert [each.rule.actions for each in read] == [(ToVf(vf=2),), (ToVf(vf=3),)]
    assert ready.driver.flow_filters.destroy_many([second, first]) == [None, None]
    assert not ready.hardware.table("u32").entries


def commands(ready, fields):
    rule = FlowRule(match=Match.of(**fields), actions=(ToVf(vf=1),))
    return ready.driver.equivalents(Placement(rule, "u32", "tcp4", 11))


def test_a_refusal_that_tc_hides_is_read_back_and_taken_out(ready):
    ready.put("u32", ToVf(vf=2), slot=5, flow_type="tcp4", **tcp("10.0.0.1"))
    answer = ready.put("u32", ToVf(vf=2), slot=6, flow_type="ip4", eth_type=0x0800, ipv4_dst="10.0.0.2")
    assert isinstance(answer, NotSupportedError)
    assert [reason.code for reason in answer.reasons] == ["driver.second_mask"]
    assert len(ready.driver.flow_filters.dump()) == 1
    assert ready.driver.flow_filters.dump()[0].in_hardware


def test_u32_has_nine_tables_of_ports(ready):
    answers = [
        ready.put("u32", ToVf(vf=0), slot=10 + at, flow_type="tcp4", **tcp(f"10.0.0.{at + 1}"))
        for at in range(10)
    ]
    assert isinstance(answers[-1], ResourceExhaustedError)
    assert not any(isinstance(answer, Exception) for answer in answers[:-1])


def test_u32_needs_the_vfs_driver_on_the_host(ready):
    ready.driver.virtual_functions.bind(2, "")
    answer = ready.put("u32", ToVf(vf=2), slot=5, flow_type="tcp4", **tcp("10.0.0.1"))
    assert isinstance(answer, NotSupportedError)
    assert not isinstance(
        ready.put("fdir", ToVf(vf=2), slot=5, flow_type="tcp4", **tcp("10.0.0.1")), Exception
    )


def test_u32_and_ntuple_share_slots_and_the_compiler_knows(ready):
    from nicoffload.compiler import Compiler

    compiler = Compiler(ready.driver.flow_filters.tables(), vfs=4, queues=16, vf_queues=None)
    rule = FlowRule(match=Match.of(**tcp("10.0.0.1")), actions=(ToVf(vf=0),))
    assert compiler.lower(rule).slot == 0
    u32 = [state for state in ready.driver.flow_filters.tables() if state.table.name == "u32"]
    assert Compiler(u32, vfs=4, queues=16, vf_queues=None).lower(rule).slot == 1


# ------------------------------------------------------------------------------------------------------- VFs, rates


def test_link_state_enable_that_does_nothing_is_refused(ready):
    [answer] = ready.driver.virtual_functions.configure_many([VfConfig(vf=0, link_state=LinkState.ENABLE)])
    assert isinstance(answer, NotSupportedError)
    assert "success" in answer.reasons[0].message
    [answer] = ready.driver.virtual_functions.configure_many([VfConfig(vf=0, link_state=LinkState.DISABLE)])
    assert answer is None


def test_rates_are_taken_at_ten_gigabit_only(ready):
    ready.hardware.set_link(1_000_000_000)
    answer = ready.driver.rates.set_many({0: LIMIT})[0]
    assert isinstance(answer, NotSupportedError)
    assert answer.errno == 22


def test_rates_lost_with_the_link_are_set_again(ready):
    assert not isinstance(ready.driver.rates.set_many({0: LIMIT})[0], Exception)
    upkeep = ready.driver.upkeep
    upkeep.wait(0)
    ready.hardware.set_link(1_000_000_000)
    ready.hardware.set_link(10_000_000_000)
    assert ready.driver.rates.read()[0].read_back == RateLimit()
    assert "lose" in ready.driver.rates.read()[0].note
    [mended] = upkeep.mend()
    assert (mended.target, mended.error) == ("vf:0/rate", None)
    assert ready.driver.rates.read()[0].read_back == LIMIT
    ready.driver.close()


def test_too_many_vfs_is_a_wrong_request(ready):
    with pytest.raises(InvalidRequestError):
        ready.driver.virtual_functions.set_count(64)


def test_vfs_that_xdp_forbids_say_so(ready, monkeypatch):
    nic = live("ixgbe")

    def refuse(count):
        raise Refused("EINVAL", "xdp_loaded", "XDP")

    monkeypatch.setattr(nic.hardware.sriov, "set_count", refuse)
    with pytest.raises(NotSupportedError) as info:
        nic.driver.virtual_functions.set_count(2)
    assert "XDP" in str(info.value.reasons)


def test_no_rule_has_a_counter(ready):
    ref = ready.put("fdir", ToVf(vf=0), slot=0, flow_type="tcp4", **tcp("10.0.0.1"))
    counters = ready.driver.flow_filters.read_counters([ref])
    assert not counters.valid.any()
    assert counters.facts == [None]
