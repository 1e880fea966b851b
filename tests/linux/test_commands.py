"""The commands of many rules, as they are shown: run one after the other, each works."""

from __future__ import annotations

import re

from nicoffload import load_registry
from nicoffload.codec import parse_rule
from nicoffload.driver import Placement
from nicoffload.testing import FakeKernel

RULES = (
    ("tcp4", "tcp,nw_dst=10.0.0.5,tp_dst=443 actions=drop"),
    ("tcp4", "tcp,nw_dst=10.0.0.6,tp_dst=443 actions=drop"),
    ("tcp6", "tcp6,ipv6_dst=2001:db8::1,tp_dst=443 actions=drop"),
    ("udp4", "udp,nw_dst=10.0.0.5,tp_dst=53 actions=drop"),
)


def test_no_two_filters_get_one_place_and_a_qdisc_is_made_once():
    kernel = FakeKernel()
    registry = load_registry(kernel=kernel)
    kernel.plug(registry.profiles.get("mlx5"), pci_address="0000:03:00.0", ifname="uplink0")
    driver = registry.open("0000:03:00.0")
    placements = [
        Placement(rule=parse_rule(text), table="flower_nic", flow_type=flow_type) for flow_type, text in RULES
    ]
    found = [driver.equivalents(placement) for placement in placements]
    assert [len(commands) for commands in found] == [2, 1, 1, 1]
    assert found[0][0] == "tc qdisc add dev uplink0 clsact"
    lines = [commands[-1] for commands in found]
    places = [
        re.search(r"protocol (\S+) pref (\d+) handle (0x[0-9a-f]+) flower", line).groups() for line in lines
    ]
    assert len({place[1:] for place in places}) == len(RULES)
    by_pref = {pref: protocol for protocol, pref, _ in places}
    assert all(by_pref[pref] == protocol for protocol, pref, _ in places)
    # The same again is the same: to show takes nothing.
    assert [driver.equivalents(placement) for placement in placements] == found
