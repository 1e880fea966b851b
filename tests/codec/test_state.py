"""Settings, rates and counters as JSON values."""

from __future__ import annotations

import json
import uuid

import pytest

from nicoffload.codec import rate_limit_from_json, to_json, vf_config_from_json
from nicoffload.errors import InvalidRequestError
from nicoffload.model import (
    ByteBasis,
    Capability,
    CounterFacts,
    Evidence,
    FlowStats,
    LinkState,
    RateLimit,
    RateReport,
    Support,
    TrafficStats,
    VfConfig,
    VfState,
    VlanTag,
)


@pytest.mark.parametrize(
    "config",
    [
        VfConfig(vf=0),
        VfConfig(
            vf=3, mac=0, vlan=VlanTag(vid=0), spoof_check=False, trust=True, link_state=LinkState.DISABLE
        ),
        VfConfig(vf=3, mac=0x020000000001, vlan=VlanTag(vid=5, pcp=3, protocol="802.1ad")),
    ],
)
def test_a_config_survives(config):
    assert vf_config_from_json(json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize("limit", [RateLimit(), RateLimit(min_tx_bps=1, max_tx_bps=10**9)])
def test_a_limit_survives(limit):
    assert rate_limit_from_json(to_json(limit)) == limit


def test_a_limit_takes_text():
    assert rate_limit_from_json({"max_tx_bps": "1.5G", "min_tx_bps": "none"}) == RateLimit(
        max_tx_bps=1_500_000_000
    )


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"vf": 0, "mack": "x"}, "/vfs/0/mack"),
        ({"vf": 0, "mac": "01:00:00:00:00:01"}, "/vfs/0/mac"),
        ({"vf": 0, "mac": "x"}, "/vfs/0"),
        ({"vf": 0, "vlan": {"vid": 5000}}, "/vfs/0/vlan/vid"),
        ({"vf": 0, "vlan": {}}, "/vfs/0"),
        ({"vf": 0, "link_state": "up"}, "/vfs/0/link_state"),
        ({"vf": 5000}, "/vfs/0/vf"),
        ([], "/vfs/0"),
    ],
)
def test_a_wrong_config_has_its_pointer(document, path):
    with pytest.raises(InvalidRequestError) as caught:
        vf_config_from_json(document, "/vfs/0")
    assert caught.value.path == path


@pytest.mark.parametrize("bound", [0, "0", -1, "-1", "10T", 10**13, "x", True, 1.5])
def test_a_wrong_rate_has_its_pointer(bound):
    with pytest.raises(InvalidRequestError) as caught:
        rate_limit_from_json({"max_tx_bps": bound}, "/rates/2")
    assert caught.value.path == "/rates/2/max_tx_bps"


def test_absent_is_null_and_never_zero():
    facts = CounterFacts(source="nic:rule", byte_basis=ByteBasis.L2)
    rule_id = uuid.UUID(int=7)
    values = [
        FlowStats(rule_id=rule_id, packets=None, bytes=0, facts=facts),
        TrafficStats(name="vf:1", rx_packets=None, tx_packets=3, rx_bytes=None, tx_bytes=None),
        VfState(vf=1, mac=0, vlan=None, spoof_check=None, trust=False, link_state=LinkState.AUTO, rate=None),
        RateReport(vf=1, requested=None, applied=RateLimit(max_tx_bps=5), read_back=None, note="rounded"),
        Capability(name="x", support=Support.PARTIAL, evidence=Evidence.PROBED),
    ]
    flow, traffic, vf, rate, capability = json.loads(json.dumps(to_json(values)))
    assert (flow["rule_id"], flow["packets"], flow["bytes"]) == (str(rule_id), None, 0)
    assert flow["facts"]["byte_basis"] == "l2"
    assert (traffic["rx_packets"], traffic["tx_packets"]) == (None, 3)
    assert (vf["mac"], vf["vlan"], vf["spoof_check"], vf["trust"], vf["link_state"]) == (
        "00:00:00:00:00:00",
        None,
        None,
        False,
        "auto",
    )
    assert (rate["requested"], rate["applied"]) == (None, {"min_tx_bps": None, "max_tx_bps": 5})
    assert (capability["support"], capability["evidence"]) == ("partial", "probed")


def test_what_has_no_json_form_is_a_programming_fault():
    with pytest.raises(TypeError, match="no JSON form"):
        to_json(object())
