"""Rules and settings as the tests of both data paths ask for them."""

from __future__ import annotations

from nicoffload.driver import Placement
from nicoffload.model import FlowRule, Match, VfConfig


def rule(actions, *, priority=None, **match):
    actions = actions if isinstance(actions, tuple) else (actions,)
    return FlowRule(match=Match.of(**match), actions=actions, priority=priority)


def exact(proto=17, **changes):
    """Return what compares all of a five-tuple, that of the frames of `packets` where nothing else is said."""
    values = {
        "ipv4_src": "192.0.2.1",
        "ipv4_dst": "10.0.0.1",
        "ip_proto": proto,
        "tp_src": 1000,
        "tp_dst": 2000,
    }
    return values | changes


def placed(rules):
    """Return rules for a driver, which takes them with their place."""
    return [Placement(rule=each, table="flows", flow_type="udp4") for each in rules]


def configure(nic, **settings):
    """Set VF 0."""
    nic.configure_vfs([VfConfig(vf=0, **settings)])


def counted_of_vf(nic, which):
    """Return a counter of VF 0."""
    return next(getattr(each, which) for each in nic.stats() if each.name == "vf:0")
