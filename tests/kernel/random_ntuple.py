"""Random rules of a receive classifier, over every flow type, field and fate."""

from __future__ import annotations

import random

from nicoffload.kernel.ntuple import FlowType, NtupleRule
from nicoffload.kernel.ntuple_layout import IMPLIED, LAYOUT, OWN_FIELDS, VLAN_BITS
from nicoffload.model import FIELDS, Drop, Masked, Match, ToQueue, ToVf

_OWN_BITS = {"l4_bytes": 32, "spi": 32, "vlan_protocol": 16, "user_defined": 64}


def random_rules(count: int, seed: int = 1) -> list[NtupleRule]:
    """Return rules, of each flow type as many, each in a slot of its own."""
    chance = random.Random(seed)
    flows = list(FlowType)
    return [random_rule(chance, flows[number % len(flows)], number) for number in range(count)]


def random_rule(chance: random.Random, flow: FlowType, location: int) -> NtupleRule:
    """Return one rule of a flow type."""
    fields = {name: Masked(value, FIELDS[name].full_mask) for name, value in IMPLIED[flow].items()}
    names = [place.field for place in LAYOUT[flow]] + list(VLAN_BITS)
    if flow is not FlowType.ETHER:
        names.append("eth_dst")
    own = dict.fromkeys(_OWN_BITS)
    for name in names:
        if chance.random() < 0.5 and name in FIELDS:
            fields[name] = _masked(chance, FIELDS[name].bits)
    for name, bits in _OWN_BITS.items():
        if name in OWN_FIELDS and name not in {place.field for place in LAYOUT[flow]}:
            continue
        if chance.random() < 0.3:
            own[name] = _masked(chance, bits)
    return NtupleRule(flow=flow, match=Match(**fields), location=location, **_fate(chance), **own)


def _masked(chance: random.Random, bits: int) -> Masked:
    full = (1 << bits) - 1
    mask = full if chance.random() < 0.6 else chance.randint(1, full)
    return Masked(chance.randint(0, full) & mask, mask)


def _fate(chance: random.Random) -> dict[str, object]:
    fate = chance.choice(
        [
            Drop(),
            ToQueue(queue=chance.randint(0, 0xFFFF)),
            ToVf(vf=chance.randint(0, 254), queue=chance.randint(0, 0xFFFF)),
        ]
    )
    context = chance.randint(1, 0xFFFF_FFFF) if isinstance(fate, ToQueue) and chance.random() < 0.5 else None
    return {"fate": fate, "rss_context": context}
