"""The traps of igb, each with what the plugin does about it."""

import pytest

from nicoffload.compiler import lower
from nicoffload.errors import ConflictError, InvalidRequestError, NotSupportedError, ResourceExhaustedError
from nicoffload.model import FlowRule, Match, RateLimit, ToQueue, ToVf
from tests.linux.plugged import live

LIMIT = RateLimit(max_tx_bps=50_000_000)


def test_vfs_do_not_silently_take_the_queue_of_a_rule():
    nic = live("igb_i350")
    ref = nic.put("ntuple", ToQueue(queue=3), slot=0, flow_type="ether", eth_type=0x88F7)
    with pytest.raises(ConflictError) as info:
        nic.driver.virtual_functions.set_count(2)
    assert "queue 3" in str(info.value)
    assert not nic.hardware.sriov.vfs
    nic.driver.flow_filters.destroy_many([ref])
    nic.put("ntuple", ToQueue(queue=0), slot=0, flow_type="ether", eth_type=0x88F7)
    nic.driver.virtual_functions.set_count(2)
    assert nic.driver.flow_filters.queues().pf == 1


def test_the_pf_is_up_before_its_vfs_come():
    nic = live("igb_82576")
    nic.nic.pf.up = False
    assert nic.driver.equivalents_of_count(2)[0] == "ip link set dev eth0 up"
    nic.driver.virtual_functions.set_count(2)
    assert nic.nic.pf.up


def test_a_full_kind_of_filter_is_not_called_a_wrong_rule():
    nic = live("igb_i350")
    types = (0x88F7, 0x0806, 0x88CC, 0x88E5)
    answers = [
        nic.put("ntuple", ToQueue(queue=0), slot=at, flow_type="ether", eth_type=kind)
        for at, kind in enumerate(types)
    ]
    assert not any(isinstance(answer, Exception) for answer in answers[:3])
    assert isinstance(answers[3], ResourceExhaustedError)
    assert answers[3].errno == 22


def test_a_slot_is_emptied_before_it_is_used_again():
    nic = live("igb_i210")
    nic.put("ntuple", ToQueue(queue=0), slot=0, flow_type="ether", eth_type=0x88F7)
    # The driver would forget the first rule and leave its filter in the hardware.
    answer = nic.put("ntuple", ToQueue(queue=1), slot=0, flow_type="ether", eth_type=0x0806)
    assert isinstance(answer, ConflictError)


@pytest.mark.parametrize(
    "fields",
    [{"eth_type": "0x8800/0xff00"}, {"eth_dst": "02:00:00:00:00:00/ff:00:00:00:00:00"}, {"vlan_vid": 5}],
)
def test_what_the_driver_would_widen_never_reaches_it(fields, tmp_path):
    nic = live("igb_i210")
    with nic.open(tmp_path) as opened:
        rule = FlowRule(match=Match.of(**fields), actions=(ToQueue(queue=1),))
        found = opened.check(rule)
        assert found.reasons
    assert not any(table.entries for table in nic.hardware.tables)


def test_a_rule_that_would_catch_either_of_two_fields_is_refused(tmp_path):
    nic = live("igb_i210")
    with nic.open(tmp_path) as opened:
        rule = FlowRule(
            match=Match.of(eth_type=0x88F7, eth_dst="02:00:00:00:00:01"), actions=(ToQueue(queue=1),)
        )
        assert "mask.widened" in {reason.code for reason in opened.check(rule).reasons}


def test_flower_on_a_vlan_priority_comes_with_a_word_on_the_priority_that_it_catches():
    nic = live("igb_i210")
    flower = [nic.table("flower")]

    def caveats(**fields):
        rule = FlowRule(match=Match.of(**fields), actions=(ToQueue(queue=1),))
        return lower(rule, flower, vfs=0).caveats

    assert any("not the one asked for" in one for one in caveats(vlan_pcp=3))
    assert not any("not the one asked for" in one for one in caveats(eth_type=0x88F7))


def test_no_vf_can_be_a_target():
    nic = live("igb_i350", vfs=2)
    answer = nic.put("ntuple", ToVf(vf=0), slot=0, flow_type="ether", eth_type=0x88F7)
    assert isinstance(answer, NotSupportedError)


def test_flower_names_a_queue_by_a_traffic_class():
    nic = live("igb_i210")
    answer = nic.put("flower", ToQueue(queue=2), flow_type="ether", eth_type=0x88F7)
    assert not isinstance(answer, Exception)
    [entry] = nic.hardware.table("flower").entries.values()
    assert entry.rule.actions == (ToQueue(queue=2),)


@pytest.mark.parametrize("speed", [100_000_000, 1_000_000_000])
def test_rates_lost_with_the_link_are_set_again(speed):
    nic = live("igb_82576", vfs=2, link_bps=1_100_000_000 - speed)
    nic.hardware.set_link(1_000_000_000)
    assert not isinstance(nic.driver.rates.set_many({1: LIMIT})[1], Exception)
    nic.driver.upkeep.wait(0)
    nic.hardware.set_link(0)
    nic.hardware.set_link(100_000_000)
    assert nic.driver.rates.read()[1].read_back == RateLimit()
    assert [(one.target, one.error) for one in nic.driver.upkeep.mend()] == [("vf:1/rate", None)]
    assert nic.driver.rates.read()[1].read_back == LIMIT
    nic.driver.close()


def test_rates_that_somebody_takes_away_stay_away():
    nic = live("igb_82576", vfs=2, link_bps=1_000_000_000)
    nic.driver.rates.set_many({1: LIMIT})
    nic.driver.upkeep.wait(0)
    nic.hardware.sriov.set_rate(1, "max_tx", 0)  # as another process does
    assert nic.driver.rates.read()[1].read_back == RateLimit()
    assert nic.driver.upkeep.mend() == ()
    nic.driver.close()


def test_new_vfs_do_not_get_the_rates_of_old_ones():
    nic = live("igb_82576", vfs=2, link_bps=1_000_000_000)
    nic.driver.rates.set_many({1: LIMIT})
    nic.driver.upkeep.wait(0)
    nic.driver.virtual_functions.set_count(3)
    nic.hardware.set_link(100_000_000)
    nic.driver.upkeep.wait(0)
    assert nic.driver.upkeep.mend() == ()
    nic.driver.close()


def test_a_guarantee_is_not_to_be_had():
    nic = live("igb_82576", vfs=2, link_bps=1_000_000_000)
    answer = nic.driver.rates.set_many({0: RateLimit(min_tx_bps=10_000_000)})[0]
    assert isinstance(answer, NotSupportedError)
    assert answer.errno == 22


def test_vfs_without_counters_have_none_and_not_zero():
    nic = live("igb_i350", vfs=2)
    assert [row.name for row in nic.driver.statistics.read()] == ["uplink"]


def test_more_than_seven_vfs_are_a_wrong_request():
    with pytest.raises(InvalidRequestError):
        live("igb_82576").driver.virtual_functions.set_count(8)
