"""Random settings of VFs, over every setting."""

from __future__ import annotations

import random

from nicoffload.kernel.vf import VfReport, VfRequest
from nicoffload.model import LinkState, RateLimit, VfConfig, VlanTag

MBPS = 1_000_000


def random_requests(count: int, vfs: int, seed: int = 1) -> list[VfRequest]:
    """Return requests that name every setting, for each VF in turn."""
    chance = random.Random(seed)
    return [random_request(chance, number % vfs) for number in range(count)]


def random_request(chance: random.Random, vf: int) -> VfRequest:
    """Return one that names every setting."""
    config = VfConfig(
        vf=vf,
        mac=chance.getrandbits(48) & ~(1 << 40),
        vlan=chance.choice(
            [
                VlanTag(vid=0),
                VlanTag(vid=chance.randint(1, 4095), pcp=chance.randint(0, 7)),
                VlanTag(vid=chance.randint(1, 4095), pcp=chance.randint(0, 7), protocol="802.1ad"),
            ]
        ),
        spoof_check=chance.random() < 0.5,
        trust=chance.random() < 0.5,
        link_state=chance.choice(list(LinkState)),
    )
    # netdevsim keeps 16 bits of a rate.
    low, high = sorted(chance.randint(1, 65_535) * MBPS for _ in range(2))
    rate = RateLimit(
        min_tx_bps=low if chance.random() < 0.7 else None, max_tx_bps=high if chance.random() < 0.7 else None
    )
    return VfRequest(config=config, rate=rate, rss_query=chance.random() < 0.5)


def as_reported(request: VfRequest) -> VfReport:
    """Return what the kernel reports of a VF when such a request was made."""
    config, rate = request.config, request.rate
    assert rate is not None
    return VfReport(
        vf=config.vf,
        mac=config.mac,
        vlan=config.vlan,
        min_tx_bps=rate.min_tx_bps or 0,
        max_tx_bps=rate.max_tx_bps or 0,
        spoof_check=config.spoof_check,
        trust=config.trust,
        link_state=config.link_state,
        rss_query=request.rss_query,
    )
