"""VFs, their settings and rates: all or none, read back, undone."""

from __future__ import annotations

import pytest
from fake_driver import BUSY, FakeDriver

from nicoffload.errors import (
    ConflictError,
    InvalidRequestError,
    KernelError,
    NotFoundError,
    NotSupportedError,
    RollbackError,
    VerificationError,
)
from nicoffload.model import Disruption, LinkState, RateLimit, VfConfig, VlanTag


@pytest.fixture(params=[False, True], ids=["memory", "file"])
def driver(request, tmp_path):
    return FakeDriver(path=tmp_path / "nic" if request.param else None)


def test_settings_are_made_and_read_back(open_fake, driver):
    nic = open_fake(driver)
    config = VfConfig(vf=1, mac=0x020000000099, vlan=VlanTag(vid=7), trust=True, link_state=LinkState.ENABLE)
    (state,) = nic.configure_vfs([config])
    assert (state.vf, state.mac, state.vlan, state.trust) == (1, 0x020000000099, VlanTag(vid=7), True)
    assert state.spoof_check is True, "what was left out stays"
    assert nic.vfs()[1] == state
    assert nic.configure_vfs([]) == ()


@pytest.mark.parametrize(
    ("configs", "error", "path"),
    [
        ([VfConfig(vf=0, trust=True), VfConfig(vf=4, trust=True)], NotFoundError, "/vfs/1/vf"),
        ([VfConfig(vf=0, trust=True), VfConfig(vf=0, mac=2)], InvalidRequestError, "/vfs"),
    ],
)
def test_a_config_that_can_not_be(open_fake, driver, configs, error, path):
    nic = open_fake(driver)
    before = nic.vfs()
    with pytest.raises(error) as caught:
        nic.configure_vfs(configs)
    assert caught.value.path == path
    assert nic.vfs() == before
    assert driver.faults.calls == []


@pytest.mark.parametrize("fault", [KernelError("no"), "nothing"])
def test_one_vf_that_fails_takes_back_the_others(open_fake, driver, fault):
    nic = open_fake(driver)
    before = nic.vfs()
    driver.faults.item = lambda name, index: fault if (name, index) == ("configure", 1) else None
    kind = VerificationError if fault == "nothing" else KernelError
    with pytest.raises(kind):
        nic.configure_vfs([VfConfig(vf=0, trust=True), VfConfig(vf=1, trust=True)])
    assert nic.vfs() == before


def test_settings_that_can_not_be_set_back(open_fake, driver):
    nic = open_fake(driver)
    calls = []

    def item(name, index):
        calls.append(index)
        return KernelError("no") if len(calls) > 1 else None

    driver.faults.item = item
    with pytest.raises(RollbackError) as caught:
        nic.configure_vfs([VfConfig(vf=0, trust=True), VfConfig(vf=1, trust=True)])
    assert "VF 0" in caught.value.residue[0]
    assert isinstance(caught.value.__cause__, KernelError)


def test_a_busy_vf_is_asked_again(open_fake, driver, sleeper):
    nic = open_fake(driver)
    answers = [BUSY]
    driver.faults.item = lambda name, index: answers.pop() if answers else None
    nic.configure_vfs([VfConfig(vf=0, trust=True)])
    assert nic.vfs()[0].trust
    assert sleeper.slept_s == [0.02]


def test_the_number_of_vfs(open_fake, driver, rule):
    nic = open_fake(driver)
    assert nic.vf_limit() == 64
    assert nic.set_vf_count(4) is Disruption.NONE
    assert driver.faults.calls == []
    one, two = rule(1, vf=1), rule(2, vf=None)
    nic.add_flows([one, two])
    assert nic.set_vf_count(8) is Disruption.VF_RESET
    assert len(nic.vfs()) == 8
    assert {each.rule for each in nic.flows()} == {one, two}
    assert nic.check(rule(3, vf=7)).table == "rules"
    with pytest.raises(InvalidRequestError, match="not within 0 and 64"):
        nic.set_vf_count(65)


def test_a_rule_to_a_vf_that_would_go_stops_it(open_fake, driver, rule):
    nic = open_fake(driver)
    one = rule(1, vf=3)
    nic.add_flows([one])
    with pytest.raises(NotSupportedError, match="VF"):
        nic.set_vf_count(2)
    assert len(nic.vfs()) == 4
    assert [each.rule for each in nic.flows()] == [one]


@pytest.mark.parametrize("fault", ["nothing", "busy"])
def test_a_count_that_does_not_come_about_leaves_vfs_as_they_were(open_fake, driver, fault, rule):
    nic = open_fake(driver)
    nic.configure_vfs([VfConfig(vf=2, mac=0x02AA00000001)])
    nic.set_rates({1: RateLimit(max_tx_bps=5_000_000)})
    one = rule(1, vf=1)
    nic.add_flows([one])
    before = nic.vfs()
    if fault == "nothing":
        driver.faults.item = lambda name, index: "nothing" if name == "set_count" else None
    else:
        number = len(driver.faults.calls) + 2  # after the rule went and the VFs were made

        def before_call(count, name):
            if count == number and name == "create_many":
                raise KernelError("broke")

        driver.faults.before = before_call
    with pytest.raises(VerificationError if fault == "nothing" else KernelError):
        nic.set_vf_count(8)
    assert nic.vfs() == before
    assert [each.rule for each in nic.flows()] == [one]


def test_rates_are_rounded_and_reported(open_fake, driver):
    nic = open_fake(driver)
    reports = nic.set_rates({2: RateLimit(max_tx_bps=10_500_000), 0: RateLimit(min_tx_bps=1_000_000)})
    assert [report.vf for report in reports] == [0, 2]
    assert reports[1].requested == RateLimit(max_tx_bps=10_500_000)
    assert reports[1].applied == reports[1].read_back == RateLimit(max_tx_bps=10_000_000)
    assert nic.rates()[2].read_back == RateLimit(max_tx_bps=10_000_000)
    assert nic.set_rates({}) == ()


@pytest.mark.parametrize("fault", [KernelError("no"), "nothing"])
def test_a_rate_that_fails_takes_back_the_others(open_fake, driver, fault):
    nic = open_fake(driver)
    nic.set_rates({0: RateLimit(max_tx_bps=3_000_000)})
    before = [report.read_back for report in nic.rates()]
    driver.faults.item = lambda name, index: fault if (name, index) == ("rate", 1) else None
    with pytest.raises(VerificationError if fault == "nothing" else KernelError):
        nic.set_rates({0: RateLimit(max_tx_bps=9_000_000), 1: RateLimit(max_tx_bps=9_000_000)})
    assert [report.read_back for report in nic.rates()] == before


def test_a_nic_that_reads_back_what_was_asked_is_judged_by_that(open_fake):
    nic = open_fake(FakeDriver(read_back="requested"))
    with pytest.raises(VerificationError, match="max_tx_bps reads back as 10000000, not 10500000"):
        nic.set_rates({0: RateLimit(max_tx_bps=10_500_000)})
    nic.set_rates({0: RateLimit(max_tx_bps=10_000_000)})


def test_a_missing_facet(open_fake):
    nic = open_fake(FakeDriver(without=("virtual_functions", "rates")))
    for call in (nic.vfs, nic.rates, nic.leases, lambda: nic.set_vf_count(1), nic.vf_limit):
        with pytest.raises(NotSupportedError, match="has no"):
            call()


def test_others_leases_stop_a_change_of_number(open_fake, driver):
    nic = open_fake(driver)
    lease = nic.lease_vf("vm-a", ttl_s=60)
    with pytest.raises(ConflictError, match="VF 0 by vm-a") as caught:
        nic.set_vf_count(8)
    assert caught.value.existing == "vm-a"
    assert len(nic.vfs()) == 4
    nic.set_vf_count(8, force=True)
    assert nic.leases() == ()
    assert not nic.release_vf(lease)
