"""Several processes on one NIC: each sees what the others did, and nobody's rule is lost."""

from __future__ import annotations

import gc
import threading
import time

import pytest
from fake_driver import FakeDriver, make_table

from nicoffload.errors import InvalidRequestError

KINDS = {
    "cookies": {"cookies": True},
    "slots": {"cookies": False},
    "driver": {"cookies": False, "tables": [make_table(picker="driver")]},
}


@pytest.fixture(params=KINDS)
def pair(request, open_fake, tmp_path):
    """Two Nics on one NIC, as two processes have them."""
    return tuple(
        open_fake(FakeDriver(path=tmp_path / "nic", shared=True, **KINDS[request.param])) for _ in range(2)
    )


def test_each_sees_the_rules_of_the_other(pair, rule):
    one, two = pair
    first, second = rule(1), rule(2)
    one.add_flows([first])
    assert [each.rule for each in two.flows() if each.ours] == [first]
    two.add_flows([second])
    assert {each.rule for each in one.flows() if each.ours} == {first, second}
    two.remove_flows([first.rule_id])
    assert [each.rule for each in one.flows()] == [second]
    assert len(one.remove_flows([second.rule_id])) == 1
    assert two.flows() == ()


def test_they_take_turns(pair, rule):
    for port in range(1, 21):
        pair[port % 2].add_flows([rule(port)])
    assert [sum(each.ours for each in nic.flows()) for nic in pair] == [20, 20]


def test_a_change_that_another_left_half_done_is_taken_back_by_whoever_comes_next(pair, rule):
    one, two = pair
    half = rule(1)
    one._driver.faults.item = lambda name, index: "raise" if name == "create" else None
    journal = one._journal
    journal.abort = lambda *args, **keywords: None
    one._driver.flow_filters.destroy_many = lambda refs: [None] * len(refs)
    with pytest.raises(Exception, match="could not be undone"):
        one.add_flows([half])
    assert len(two._driver.flow_filters.dump()) == 1
    two.add_flows([rule(2)])
    assert len(two._driver.flow_filters.dump()) in (1, 2)
    assert [each.rule.match.values[-1] for each in two.flows() if each.ours][-1:] == [2]
    assert two._journal.unfinished() == []


def test_threads_share_a_nic(open_fake, rule):
    nic = open_fake(FakeDriver())
    errors = []

    def work(start):
        try:
            for port in range(start, start + 25):
                one = rule(port)
                nic.add_flows([one], atomic=False)
                nic.flow_stats([one.rule_id])
                if port % 2:
                    nic.remove_flows([one.rule_id])
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(1 + 100 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(nic.flows()) == 6 * 12


def test_a_closed_nic_says_so(open_fake, rule, tmp_path):
    for path in (None, tmp_path / "nic"):
        driver = FakeDriver(path=path)
        with open_fake(driver) as nic:
            nic.add_flows([rule(1)])
        nic.close()
        assert driver.closed == 1
        for call in (nic.flows, lambda nic=nic: nic.add_flows([rule(2)])):
            with pytest.raises(InvalidRequestError, match="closed"):
                call()


@pytest.mark.slow
def test_what_the_layer_costs(open_fake, rule):
    """Bulk stays bulk, and a single rule stays quick; the bounds leave room for a busy machine."""
    driver = FakeDriver()
    nic = open_fake(driver)
    rules = [rule(80, ipv4_src=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(20_000)]
    placements = nic._book.compiler().place_many(rules)
    nic._book.out_of_step()
    gc.collect()
    start_s = time.perf_counter()
    refs = driver.flow_filters.create_many(placements)
    driver.flow_filters.dump(refs)
    alone_s = time.perf_counter() - start_s
    driver.flow_filters.destroy_many(refs[:0])
    driver.hardware.rules.clear()
    gc.collect()
    start_s = time.perf_counter()
    nic.add_flows(rules)
    whole_s = time.perf_counter() - start_s
    print(f"\n20,000 rules: driver alone {alone_s:.3f} s, through Nic {whole_s:.3f} s")
    assert len(driver.faults.calls) == 3, "one create for all"
    assert whole_s < 5 * alone_s + 1
