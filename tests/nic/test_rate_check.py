"""Rates that a NIC can't keep are refused before it is asked, with what it takes; others go through in its steps."""

import pytest

from nicoffload import open_nic
from nicoffload.errors import NotSupportedError
from nicoffload.model import RateLimit


@pytest.mark.parametrize(
    ("nic_name", "limit", "path", "accepted"),
    [
        ("mock:ixgbe", RateLimit(max_tx_bps=5_000_000), "/rates/0/max_tx_bps", "11000000"),
        ("mock:ixgbe", RateLimit(min_tx_bps=50_000_000), "/rates/0/min_tx_bps", "none"),
        ("mock:i40e", RateLimit(min_tx_bps=50_000_000), "/rates/0/min_tx_bps", "none"),
    ],
)
def test_a_rate_that_the_nic_refuses_is_refused_with_its_cure(nic_name, limit, path, accepted):
    with open_nic(nic_name) as nic:
        before = nic.rates()
        with pytest.raises(NotSupportedError) as caught:
            nic.set_rates({0: limit})
        assert nic.rates() == before
    reason = caught.value.reasons[0]
    assert reason.path == path
    assert accepted in reason.accepted
    assert reason.source


def test_all_reasons_come_at_once():
    with open_nic("mock:ixgbe") as nic, pytest.raises(NotSupportedError) as caught:
        nic.set_rates({0: RateLimit(min_tx_bps=1, max_tx_bps=5), 3: RateLimit(max_tx_bps=1)})
    assert [reason.path for reason in caught.value.reasons] == [
        "/rates/0/min_tx_bps",
        "/rates/0/max_tx_bps",
        "/rates/3/max_tx_bps",
    ]


def test_a_rate_between_two_steps_of_the_interface_is_reported_and_no_error():
    with open_nic("mock:i40e") as nic:
        report = nic.set_rates({0: RateLimit(max_tx_bps=102_500_000)})[0]
    assert report.requested == RateLimit(max_tx_bps=102_500_000)
    assert report.read_back == RateLimit(max_tx_bps=102_000_000)
    assert report.applied == RateLimit(max_tx_bps=100_000_000)
    assert report.note
