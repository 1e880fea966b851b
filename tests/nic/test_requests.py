"""What is asked for wrongly is told before anything is done, with the place in the request and a cure."""

from __future__ import annotations

import pytest

from nicoffload import open_nic
from nicoffload.codec import parse_rule
from nicoffload.errors import InvalidRequestError, NotFoundError, NotSupportedError
from nicoffload.model import RateLimit
from nicoffload.nic import DesiredState

RULES = [
    "udp,tp_dst=53 actions=vf:1",
    "tcp,tp_dst=80 actions=vf:1",
    "tcp,nw_src=10.0.0.0/8 actions=vf:2",
]


def test_a_plan_refuses_rates_that_the_profile_rules_out():
    with open_nic("mock:ixgbe") as nic, pytest.raises(NotSupportedError) as refused:
        nic.plan(DesiredState(rates={1: RateLimit(min_tx_bps=10**8), 2: RateLimit(max_tx_bps=10**6)}))
    assert [reason.path for reason in refused.value.reasons] == [
        "/rates/1/min_tx_bps",
        "/rates/2/max_tx_bps",
    ]


@pytest.mark.parametrize("how", ["add", "plan"])
def test_a_refusal_names_its_rule(how):
    rules = [parse_rule(text) for text in RULES]
    with open_nic("mock:ixgbe") as nic, pytest.raises(NotSupportedError) as refused:
        nic.add_flows(rules) if how == "add" else nic.plan(DesiredState(flows=tuple(rules)))
    assert refused.value.path.startswith("/flows/2")
    assert f"rule 3 of 3 (id {rules[2].rule_id})" in str(refused.value)


def test_a_vf_beyond_the_last_is_named_as_such():
    with (
        open_nic("mock:ixgbe") as nic,
        pytest.raises(NotFoundError, match="there is no VF 99; there are") as e,
    ):
        nic.set_rates({99: RateLimit(max_tx_bps=10**7)})
    assert e.value.path == "/vf"


def test_text_in_place_of_rules_and_rates():
    with open_nic("mock:ixgbe") as nic:
        for wrong in ([RULES[0]], RULES[0]):
            with pytest.raises(InvalidRequestError) as refused:
                nic.add_flows(wrong)
            assert "parse_rule" in refused.value.hint
        with pytest.raises(InvalidRequestError, match="VF indices"):
            nic.set_rates({"vf:0": RateLimit()})
        with pytest.raises(InvalidRequestError, match="RateLimit"):
            nic.set_rates({0: 10**7})


@pytest.mark.parametrize("call", ["tables", "flows", "vfs", "rates", "stats", "leases"])
def test_a_closed_nic_says_so(call):
    nic = open_nic("mock:ixgbe")
    nic.close()
    with pytest.raises(InvalidRequestError, match="the NIC is closed"):
        getattr(nic, call)()
