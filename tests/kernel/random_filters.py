"""Random filters over every key and action that the layer can write, from the generator that pytest-randomly seeds."""

from __future__ import annotations

import ipaddress
import random
import uuid

from nicoffload.kernel.tc import (
    OUR_HANDLES,
    Checksum,
    Csum,
    Gact,
    GotoChain,
    Mirred,
    Placing,
    PolicePackets,
    PoliceRate,
    QueueMapping,
    Targets,
    TcFilter,
    TunnelKeySet,
    TunnelKeyUnset,
    U32Filter,
    Verdict,
    VlanModify,
    VlanPop,
    VlanPush,
    flat_keys,
    lower_actions,
)
from nicoffload.kernel.tc.police import burst_ticks
from nicoffload.model import FIELDS, Masked, Match, PortRange, SetField, ToVf

_PROTOCOLS = {0x0800: (1, 6, 17, 132, 47), 0x86DD: (58, 6, 17, 132, 47)}


def _maybe(chance: float = 0.4) -> bool:
    return random.random() < chance


def _masked(name: str, *, exact: bool = False) -> Masked:
    full = FIELDS[name].full_mask
    mask = full if exact or _maybe() else random.randint(1, full)
    return Masked(random.randint(0, full) & mask, mask)


def _prefix(name: str) -> Masked:
    bits, full = FIELDS[name].bits, FIELDS[name].full_mask
    mask = full ^ (full >> random.randint(1, bits))
    return Masked(random.randint(0, full) & mask, mask)


def random_match(*, tunnel: bool = True) -> Match:
    """Return a match of flower, of any of its keys."""
    found: dict[str, object] = {name: _masked(name) for name in ("eth_src", "eth_dst") if _maybe(0.3)}
    if _maybe(0.3):
        found |= {name: _masked(name, exact=True) for name in ("vlan_vid", "vlan_pcp") if _maybe(0.7)}
        if found.keys() & {"vlan_vid", "vlan_pcp"} and _maybe():
            found |= {name: _masked(name, exact=True) for name in ("cvlan_vid", "cvlan_pcp") if _maybe(0.7)}
    eth_type = random.choice([0x0800, 0x0800, 0x86DD, 0x86DD, 0x0806, None])
    if eth_type is not None:
        found["eth_type"] = Masked(eth_type, 0xFFFF)
    if eth_type in _PROTOCOLS:
        found |= _ip(eth_type)
    if tunnel and _maybe(0.2):
        found |= _tunnel()
    return Match(**found)


def _ip(eth_type: int) -> dict[str, object]:
    family = "ipv4" if eth_type == 0x0800 else "ipv6"
    found: dict[str, object] = {
        f"{family}_{side}": _prefix(f"{family}_{side}")  # tc has no words for other masks
        for side in ("src", "dst")
        if _maybe(0.6)
    }
    found |= {name: _masked(name) for name in ("ip_tos", "ip_ttl") if _maybe(0.3)}
    if _maybe(0.2):
        found["ip_frag"] = Masked(*random.choice([(0, 3), (1, 1), (1, 3), (3, 3)]))
    if _maybe(0.8):
        proto = random.choice(_PROTOCOLS[eth_type])
        found["ip_proto"] = Masked(proto, 0xFF)
        if proto in {6, 17, 132}:
            found |= {name: _port(name) for name in ("tp_src", "tp_dst") if _maybe(0.6)}
            if proto == 6 and _maybe(0.3):
                found["tcp_flags"] = _masked("tcp_flags")
        elif proto in {1, 58}:
            found |= {name: _masked(name) for name in ("icmp_type", "icmp_code") if _maybe(0.6)}
    return found


def _port(name: str) -> Masked | PortRange:
    if _maybe(0.25):
        first = random.randint(1, 0xFFFE)
        return PortRange(first, random.randint(first + 1, 0xFFFF))
    return _masked(name)


def _tunnel() -> dict[str, object]:
    family = random.choice(["ipv4", "ipv6"])
    found: dict[str, object] = {"tun_id": Masked(random.randint(0, 0xFFFF_FFFF), (1 << 64) - 1)}
    found |= {name: _prefix(name) for name in (f"tun_{family}_src", f"tun_{family}_dst") if _maybe(0.7)}
    if _maybe():
        found["tun_tp_dst"] = _masked("tun_tp_dst", exact=True)
    return found


def random_actions(match: Match, ifindexes: list[int], *, queues: bool) -> tuple[object, ...]:
    """Return some actions and one that ends; those that rewrite fit the match.

    At ingress only a NIC chooses a queue, so there are queues only where all filters are for the hardware.
    """
    made = [make() for make in _CHANGES if _maybe(0.2)]
    random.shuffle(made)
    if _maybe(0.3):
        made += _rewrite(match, ifindexes[0])
    if queues and _maybe(0.3):
        made.append(QueueMapping(queue=random.randint(0, 0xFFFF)))
    if _maybe(0.3):
        made.append(Mirred(ifindex=random.choice(ifindexes), copy=True, ingress=_maybe()))
    ends = [
        Gact(verdict=random.choice([Verdict.DROP, Verdict.PASS, Verdict.TRAP])),
        GotoChain(chain=random.randint(5, 9)),
        Mirred(ifindex=random.choice(ifindexes), ingress=_maybe(0.2)),
    ]
    return (*made, random.choice(ends))


def _rewrite(match: Match, ifindex: int) -> list[object]:
    # Whole fields only: tc has no words for some bits of a MAC or IPv6 address.
    names = ["eth_src", "eth_dst"]
    eth_type = match.eth_type.value if match.eth_type else 0
    proto = match.ip_proto.value if isinstance(match.ip_proto, Masked) else 0
    names += {0x0800: ["ipv4_src", "ipv4_dst"], 0x86DD: ["ipv6_src", "ipv6_dst"]}.get(eth_type, [])
    names += ["ip_ttl", "ip_tos"] if eth_type in _PROTOCOLS else []
    names += ["tp_src", "tp_dst"] if proto in {6, 17} else []
    chosen = random.sample(names, random.randint(1, min(3, len(names))))
    changes = [SetField(field=name, value=_masked(name, exact=True)) for name in chosen]
    lowered = lower_actions([*changes, ToVf(vf=0)], match, Targets(ifindexes={2: ifindex}))
    return list(lowered.actions[:-1])


def _address(version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    return kind(random.randint(1 << 24, (1 << (32 if version == 4 else 128)) - 1))


def _tunnel_set() -> TunnelKeySet:
    version = random.choice([4, 6])
    return TunnelKeySet(
        key_id=random.choice([None, 0, random.randint(1, 0xFFFF_FFFF)]),
        src=_address(version),
        dst=_address(version),
        tp_dst=random.choice([None, 4789, 65535]),
        csum=_maybe(),
    )


def _police() -> PoliceRate:
    rate = random.choice([125_000, 1_250_000_000, 12_500_000_000, 200_000_000_000])
    while True:  # tc cuts the time that a bucket takes to fill to whole microseconds; we don't
        burst = rate * random.randint(8, 800_000) // 1_000_000
        of_tc = int(int(1e6 * (burst / rate)) * 15.625) if 1000 < burst < 1 << 28 else 0
        if of_tc and of_tc == burst_ticks(burst, rate, 32):
            return PoliceRate(rate_bytes_per_s=rate, burst_bytes=burst, drop=_maybe(0.8))


_CHANGES = (
    _tunnel_set,
    TunnelKeyUnset,
    _police,
    lambda: PolicePackets(rate_packets_per_s=random.choice([1000, 2_000_000]), burst_packets=500),
    VlanPop,
    lambda: VlanPush(
        vid=random.randint(0, 4094), pcp=random.randint(0, 7), tpid=random.choice([0x8100, 0x88A8])
    ),
    lambda: VlanModify(vid=random.randint(0, 4094), pcp=random.choice([None, 0, 7])),
    lambda: Csum(update=Checksum(random.randint(1, 127))),
)


def random_filters(count: int, ifindexes: list[int], placings: list[Placing]) -> list[TcFilter]:
    """Return filters of flower, each with a pref and a handle of its own, in chains 0 to 3."""
    made = []
    for number in range(count):
        match = random_match()
        rule_id = uuid.UUID(int=random.getrandbits(128)) if _maybe(0.8) else None
        made.append(
            TcFilter(
                match=match,
                actions=random_actions(match, ifindexes, queues=set(placings) == {Placing.HARDWARE}),
                pref=1 + number,
                handle=random.randint(1 if rule_id is None else OUR_HANDLES, 0xFFFF_FFFF),
                chain=0 if placings == [Placing.HARDWARE] else random.choice([0, 0, 1, 3]),
                placing=random.choice(placings),
                rule_id=rule_id,
                outer_tpid=random.choice([0x8100, 0x88A8]) if match.vlan_vid or match.vlan_pcp else 0x8100,
            )
        )
    return made


def random_u32(count: int, ifindexes: list[int]) -> list[U32Filter]:
    """Return filters of u32 for IPv4, each with a pref of its own, which mirror and redirect."""
    made = []
    for number in range(count):
        proto = random.choice([6, 17, 132])
        names = ["ipv4_src", "ipv4_dst", "ip_tos", "ip_ttl", "tp_src", "tp_dst"]
        found = {name: _masked(name) for name in names if _maybe(0.5)}
        match = Match(eth_type=Masked(0x0800, 0xFFFF), ip_proto=Masked(proto, 0xFF), **found)
        mirrors = [Mirred(ifindex=random.choice(ifindexes), copy=True)] if _maybe() else []
        made.append(
            U32Filter(
                keys=flat_keys(match),
                actions=(*mirrors, Mirred(ifindex=random.choice(ifindexes))),
                pref=1 + number,
                node=random.randint(1, 0xFFF),
                table=0x800,
                placing=random.choice([Placing.BOTH, Placing.SOFTWARE]),
                rule_id=uuid.UUID(int=random.getrandbits(128)) if _maybe(0.8) else None,
            )
        )
    return made
