"""The random rules that guests hold against tc leave out no key and no action."""

from __future__ import annotations

import random

from nicoffload.kernel.ntuple_layout import FlowType
from nicoffload.kernel.tc import (
    Csum,
    Gact,
    GotoChain,
    Mirred,
    Pedit,
    Placing,
    PolicePackets,
    PoliceRate,
    QueueMapping,
    TunnelKeySet,
    TunnelKeyUnset,
    Verdict,
    VlanModify,
    VlanPop,
    VlanPush,
)
from nicoffload.kernel.tc.flower import compile_keys, structure
from nicoffload.model import FIELDS, PortRange
from tests.kernel.random_filters import random_filters
from tests.kernel.random_ntuple import random_rules
from tests.kernel.random_vfs import random_requests

# The hook says which port it is; flower has no key for the drop-eligible bit.
NO_KEYS = {"in_port", "vlan_dei"}
ACTIONS = {
    Csum,
    Gact,
    GotoChain,
    Mirred,
    Pedit,
    PolicePackets,
    PoliceRate,
    QueueMapping,
    TunnelKeySet,
    TunnelKeyUnset,
    VlanModify,
    VlanPop,
    VlanPush,
}


def test_five_hundred_of_flower_have_every_key_and_every_action():
    made = random_filters(500, [3, 4], [Placing.HARDWARE])
    assert {name for item in made for name, _ in item.match.shape} == set(FIELDS) - NO_KEYS
    actions = [action for item in made for action in item.actions]
    assert {type(action) for action in actions} == ACTIONS
    verdicts = {action.verdict for action in actions if isinstance(action, Gact)}
    assert verdicts == {Verdict.DROP, Verdict.PASS, Verdict.TRAP}
    assert any(isinstance(value, PortRange) for item in made for _, value in item.match.items())
    kinds = {kind for item in made for kind in _attributes(item)}
    assert len(kinds) > 60


def _attributes(item) -> set[int]:
    data = compile_keys(structure(item.match, item.outer_tpid, item.inner_tpid)).data
    found, start = set(), 0
    while start < len(data):
        length, kind = int.from_bytes(data[start : start + 2], "little"), data[start + 2]
        found.add(kind)
        start += length + 3 & ~3
    return found


def test_five_hundred_of_ethtool_have_every_flow_type_and_every_fate():
    made = random_rules(500, seed=random.randrange(1 << 32))
    assert len({rule.flow for rule in made}) == len(FlowType)
    assert len({type(rule.fate) for rule in made}) == 3
    assert any(rule.rss_context for rule in made)


def test_five_hundred_settings_of_vfs_have_every_value():
    made = random_requests(500, 4, seed=random.randrange(1 << 32))
    assert {one.config.link_state.value for one in made} == {"auto", "enable", "disable"}
    assert {one.config.vlan.protocol for one in made} == {"802.1Q", "802.1ad"}
    assert {(one.config.trust, one.config.spoof_check, one.rss_query) for one in made} == {
        (a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)
    }
