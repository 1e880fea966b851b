"""The tc command that does the same: what ``--explain`` prints, and what the tests run to compare kernel state."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from types import MappingProxyType

from nicoffload.errors import NotSupportedError, Reason
from nicoffload.kernel.tc import matchall
from nicoffload.kernel.tc.flower import compile_keys, explain_protocol, structure
from nicoffload.kernel.tc.u32 import OWN_ROOT, U32Filter
from nicoffload.kernel.tc.values import (
    Checksum,
    Csum,
    FilterRef,
    Gact,
    GotoChain,
    Header,
    Hook,
    Mirred,
    Pedit,
    PeditKey,
    Placing,
    PolicePackets,
    PoliceRate,
    QueueMapping,
    TcAction,
    TcFilter,
    TunnelKeySet,
    TunnelKeyUnset,
    Verdict,
    VlanModify,
    VlanPop,
    VlanPush,
)
from nicoffload.model import FIELDS, Masked, PortRange, format_mac
from nicoffload.model.fields import Kind

NameOf = Callable[[int], str]
"""Returns the name of a device from its index."""

_PLACING: Mapping[Placing, list[str]] = MappingProxyType(
    {Placing.BOTH: [], Placing.SOFTWARE: ["skip_hw"], Placing.HARDWARE: ["skip_sw"]}
)
_MATCH: Mapping[str, str] = MappingProxyType(
    {
        "eth_src": "src_mac",
        "eth_dst": "dst_mac",
        "vlan_vid": "vlan_id",
        "vlan_pcp": "vlan_prio",
        "cvlan_vid": "cvlan_id",
        "cvlan_pcp": "cvlan_prio",
        "ipv4_src": "src_ip",
        "ipv4_dst": "dst_ip",
        "ipv6_src": "src_ip",
        "ipv6_dst": "dst_ip",
        "ip_proto": "ip_proto",
        "ip_tos": "ip_tos",
        "ip_ttl": "ip_ttl",
        "ip_frag": "ip_flags",
        "tp_src": "src_port",
        "tp_dst": "dst_port",
        "tcp_flags": "tcp_flags",
        "icmp_type": "type",
        "icmp_code": "code",
        "tun_id": "enc_key_id",
        "tun_ipv4_src": "enc_src_ip",
        "tun_ipv4_dst": "enc_dst_ip",
        "tun_ipv6_src": "enc_src_ip",
        "tun_ipv6_dst": "enc_dst_ip",
        "tun_tp_dst": "enc_dst_port",
    }
)
_FRAGMENTS: Mapping[tuple[int, int], str] = MappingProxyType(
    {
        (0, 1): "nofrag",
        (0, 3): "nofrag",
        (1, 1): "frag",
        (1, 3): "frag/firstfrag",
        (2, 2): "frag/nofirstfrag",
        (3, 3): "frag/nofirstfrag",
    }
)
_PROTOCOLS: Mapping[int, str] = MappingProxyType({1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"})
_CHECKSUMS: Mapping[Checksum, str] = MappingProxyType(
    {
        Checksum.IPV4: "ip4h",
        Checksum.ICMP: "icmp",
        Checksum.IGMP: "igmp",
        Checksum.TCP: "tcp",
        Checksum.UDP: "udp",
        Checksum.UDPLITE: "udplite",
        Checksum.SCTP: "sctp",
    }
)
_VERDICTS: Mapping[Verdict, str] = MappingProxyType(
    {Verdict.PASS: "ok", Verdict.DROP: "drop", Verdict.PIPE: "pipe", Verdict.TRAP: "trap"}
)


def add_command(item: TcFilter, hook: Hook, name_of: NameOf, *, kind: str = "flower") -> str:
    """Return the command that installs a filter.

    Args:
        item: The filter.
        hook: Where.
        name_of: Names devices.
        kind: ``flower`` or ``matchall``.

    Raises:
        NotSupportedError: The classifier can't match it, or tc has no words for a part that the kernel does take.
    """
    words = ["tc", "filter", "add", *hook_words(hook, name_of)]
    if kind == "matchall":
        protocol = matchall.compile_keys(item.match).protocol
    else:
        protocol = compile_keys(structure(item.match, item.outer_tpid, item.inner_tpid)).protocol
    words += _where(item.chain, protocol, item.pref)
    words += ["handle", f"{item.handle:#x}"] if item.handle else []
    words.append(kind)
    if kind == "flower":
        words += _match_words(item)
    if item.hw_tc is not None:
        words += ["hw_tc", str(item.hw_tc)]
    words += _PLACING[item.placing]
    words += action_words(item.actions, name_of, item.rule_id.hex if item.rule_id else "")
    return " ".join(words)


def add_u32_command(item: U32Filter, hook: Hook, name_of: NameOf) -> str:
    """Return the command that installs a u32 filter."""
    words = ["tc", "filter", "add", *hook_words(hook, name_of), *_where(item.chain, item.protocol, item.pref)]
    words += ["handle", f"{item.table:x}:{item.bucket:x}:{item.node:x}"] if item.node else []
    words += ["u32"] if item.table == OWN_ROOT else ["u32", "ht", f"{item.table:x}:{item.bucket:x}:"]
    words += _PLACING[item.placing]
    words += ["classid", f"{item.class_id >> 16:x}:{item.class_id & 0xFFFF:x}"] if item.class_id else []
    words += ["indev", item.indev] if item.indev else []
    for key in item.keys:
        at = f"nexthdr+{key.offset}" if key.next_header else str(key.offset)
        words += ["match", "u32", f"{key.value:#010x}", f"{key.mask:#010x}", "at", at]
    if not item.keys:
        words += ["match", "u32", "0", "0", "at", "0"]
    if item.hash is not None:
        words += [
            "link",
            f"{item.link:x}:",
            "hashkey",
            "mask",
            f"{item.hash.mask:#010x}",
            "at",
            str(item.hash.offset),
        ]
    elif item.link:
        words += ["link", f"{item.link:x}:", "offset", "at", "0", "mask", "0f00", "shift", "6", "eat"]
    words += action_words(item.actions, name_of, item.rule_id.hex if item.rule_id else "")
    return " ".join(words)


def add_table_command(
    pref: int, table: int, hook: Hook, name_of: NameOf, *, buckets: int = 1, chain: int = 0
) -> str:
    """Return the command that makes a hash table of u32."""
    where = [*hook_words(hook, name_of), *_where(chain, 0x0800, pref)]
    return " ".join(["tc", "filter", "add", *where, "handle", f"{table:x}:", "u32", "divisor", str(buckets)])


def delete_command(ref: FilterRef, hook: Hook, name_of: NameOf) -> str:
    """Return the command that removes a filter, or a hash table of u32."""
    handle = f"{ref.handle:#x}"
    if ref.kind == "u32":
        table, bucket, node = ref.handle >> 20, ref.handle >> 12 & 0xFF, ref.handle & 0xFFF
        handle = f"{table:x}:{bucket:x}:{node:x}" if node else f"{table:x}:"
    where = [*hook_words(hook, name_of), *_where(ref.chain, ref.protocol, ref.pref)]
    return " ".join(["tc", "filter", "del", *where, "handle", handle, ref.kind])


def hook_words(hook: Hook, name_of: NameOf) -> list[str]:
    """Return how tc names a hook."""
    if hook.ifindex < 0:
        return ["block", str(hook.parent)]
    named = {0xFFFF_FFF2: ["ingress"], 0xFFFF_FFF3: ["egress"]}
    parent = ["parent", f"{hook.parent >> 16:x}:"]
    return ["dev", name_of(hook.ifindex), *named.get(hook.parent, parent)]


def _where(chain: int, protocol: int, pref: int) -> list[str]:
    words = ["chain", str(chain)] if chain else []
    return [*words, "protocol", explain_protocol(protocol), "pref", str(pref)]


def _match_words(item: TcFilter) -> list[str]:
    match = item.match
    words: list[str] = []
    names = {name for name, _ in match.shape}
    inner = names & {"cvlan_vid", "cvlan_pcp"}
    outer = inner or names & {"vlan_vid", "vlan_pcp"}
    eth_type = match.eth_type.value if isinstance(match.eth_type, Masked) else None
    if inner:
        words += ["vlan_ethtype", explain_protocol(item.inner_tpid)]
        words += ["cvlan_ethtype", explain_protocol(eth_type)] if eth_type is not None else []
    elif outer and eth_type is not None:
        words += ["vlan_ethtype", explain_protocol(eth_type)]
    # tc wants the protocol before what depends on it.
    ordered = sorted(match.items(), key=lambda pair: (pair[0] != "ip_proto", list(FIELDS).index(pair[0])))
    for name, value in ordered:
        if name != "eth_type":
            words += [_MATCH[name], _value_text(name, value)]
    return words


def _value_text(name: str, value: Masked | PortRange) -> str:
    if isinstance(value, PortRange):
        return f"{value.first}-{value.last}"
    spec = FIELDS[name]
    if name == "ip_frag":
        return _FRAGMENTS[value.value, value.mask]
    if name == "ip_proto":
        # tc knows icmp only under IPv4, and takes any number in hexadecimal.
        return _PROTOCOLS.get(value.value, f"{value.value:x}")
    if name == "tun_tp_dst" and value.mask != spec.full_mask:
        raise _no_words(f"/match/{name}", "a mask on the tunnel's port")
    full = value.mask == spec.full_mask
    if spec.kind is Kind.MAC:
        plain = format_mac(value.value)
        return plain if full else f"{plain}/{format_mac(value.mask)}"
    if spec.kind in {Kind.IPV4, Kind.IPV6}:
        return _address(name, value)
    if name in {"tcp_flags", "ip_tos", "ip_ttl"}:  # tc reads these masks as hexadecimal
        return f"{value.value:#x}/{value.mask:#x}"
    return str(value.value) if full else f"{value.value}/{value.mask}"


def _address(name: str, value: Masked) -> str:
    spec = FIELDS[name]
    length = value.mask.bit_count()
    if value.mask != spec.full_mask ^ (spec.full_mask >> length):
        raise _no_words(f"/match/{name}", "a mask that is no prefix")
    form = ipaddress.IPv4Address if spec.kind is Kind.IPV4 else ipaddress.IPv6Address
    plain = str(form(value.value))
    return plain if length == spec.bits else f"{plain}/{length}"


def action_words(actions: tuple[TcAction, ...], name_of: NameOf, cookie: str = "") -> list[str]:
    """Return how tc names actions; the cookie goes to the first.

    Raises:
        NotSupportedError: tc has no words for a part that the kernel does take.
    """
    words: list[str] = []
    for place, action in enumerate(actions):
        words += ["action", *_action(action, name_of)]
        if not place and cookie:
            words += ["cookie", cookie]
        words.append("no_percpu")
        if isinstance(action, QueueMapping) and action.hardware:
            words.append("skip_sw")  # tc wants it last
    return words


def _action(action: TcAction, name_of: NameOf) -> list[str]:  # noqa: C901, PLR0911  (one case an action)
    match action:
        case Gact(verdict=verdict):
            return [_VERDICTS[verdict]]
        case GotoChain(chain=chain):
            return ["goto", "chain", str(chain)]
        case Mirred(ifindex=ifindex, copy=copy, ingress=ingress):
            way = "mirror" if copy else "redirect"
            return ["mirred", "ingress" if ingress else "egress", way, "dev", name_of(ifindex)]
        case VlanPop():
            return ["vlan", "pop"]
        case VlanPush(vid=vid, pcp=pcp, tpid=tpid):
            return _vlan("push", vid, pcp, tpid)
        case VlanModify(vid=vid, pcp=pcp, tpid=tpid):
            return _vlan("modify", vid, pcp, tpid)
        case QueueMapping(queue=queue):
            return ["skbedit", "queue_mapping", str(queue), "pipe"]
        case TunnelKeyUnset():
            return ["tunnel_key", "unset", "pipe"]
        case TunnelKeySet():
            return _tunnel(action)
        case Csum(update=update):
            return ["csum", *" and ".join(_CHECKSUMS[one] for one in update).split(), "pipe"]
        case Pedit(keys=keys):
            return ["pedit", "ex", *_munge_all(keys), "pipe"]
        case PoliceRate() | PolicePackets():
            return _police(action)
        case _:
            raise _no_words("/actions", f"{action}")


def _vlan(what: str, vid: int, pcp: int | None, tpid: int) -> list[str]:
    words = ["vlan", what, "id", str(vid), "protocol", explain_protocol(tpid)]
    return [*words, *(["priority", str(pcp)] if pcp is not None else []), "pipe"]


def _tunnel(action: TunnelKeySet) -> list[str]:
    words = ["tunnel_key", "set", "src_ip", str(action.src), "dst_ip", str(action.dst)]
    words += ["id", str(action.key_id)] if action.key_id is not None else []
    words += ["dst_port", str(action.tp_dst)] if action.tp_dst is not None else []
    return [*words, "csum" if action.csum else "nocsum", "pipe"]


def _police(action: PoliceRate | PolicePackets) -> list[str]:
    exceed = "drop/pipe" if action.drop else "pipe/pipe"
    if isinstance(action, PolicePackets):
        rate = ["pkts_rate", str(action.rate_packets_per_s), "pkts_burst", str(action.burst_packets)]
    else:
        rate = ["rate", f"{action.rate_bytes_per_s * 8}bit", "burst", f"{action.burst_bytes}b", "mtu", "1mb"]
    return ["police", *rate, "conform-exceed", exceed]


# Header, word, bits: the word of tc that writes just those, and the bits below them.
_MUNGE: Mapping[Header, tuple[tuple[str, int, int, int], ...]] = MappingProxyType(
    {
        Header.IP4: (
            ("ip tos", 0, 0x00FF_0000, 16),
            ("ip ttl", 8, 0xFF00_0000, 24),
            ("ip src", 12, 0xFFFF_FFFF, 0),
            ("ip dst", 16, 0xFFFF_FFFF, 0),
        ),
        Header.IP6: (("ip6 traffic_class", 0, 0x0FF0_0000, 20), ("ip6 hoplimit", 4, 0x0000_00FF, 0)),
        Header.TCP: (("tcp sport", 0, 0xFFFF_0000, 16), ("tcp dport", 0, 0x0000_FFFF, 0)),
        Header.UDP: (("udp sport", 0, 0xFFFF_0000, 16), ("udp dport", 0, 0x0000_FFFF, 0)),
    }
)


# Header, words that tc writes one after the other for a longer field, and the text of the field's number.
_LONG_MUNGE: tuple[tuple[str, Header, tuple[tuple[int, int], ...], Callable[[int], str]], ...] = (
    ("eth dst", Header.ETH, ((0, 0xFFFF_FFFF), (4, 0xFFFF_0000)), format_mac),
    ("eth src", Header.ETH, ((4, 0x0000_FFFF), (8, 0xFFFF_FFFF)), format_mac),
    (
        "ip6 src",
        Header.IP6,
        tuple((at, 0xFFFF_FFFF) for at in range(8, 24, 4)),
        lambda n: str(ipaddress.IPv6Address(n)),
    ),
    (
        "ip6 dst",
        Header.IP6,
        tuple((at, 0xFFFF_FFFF) for at in range(24, 40, 4)),
        lambda n: str(ipaddress.IPv6Address(n)),
    ),
)


def _munge_all(keys: tuple[PeditKey, ...]) -> list[str]:
    """Return how tc names the keys of a pedit."""
    words: list[str] = []
    while keys:
        found, used = _munge_long(keys) or (_munge(keys[0]), 1)
        words += found
        keys = keys[used:]
    return words


def _munge_long(keys: tuple[PeditKey, ...]) -> tuple[list[str], int] | None:
    """Return how tc names a longer field at the start of the keys, and how many of them it takes."""
    for name, header, places, text in _LONG_MUNGE:
        first = keys[: len(places)]
        if [(key.header, key.offset, key.mask, key.add) for key in first] != [
            (header, offset, mask, False) for offset, mask in places
        ]:
            continue
        value = 0
        for key in first:
            low = (key.mask & -key.mask).bit_length() - 1
            value = value << key.mask.bit_count() | key.value >> low
        return ["munge", *name.split(), "set", text(value)], len(places)
    return None


def _munge(key: PeditKey) -> list[str]:
    """Return how tc names one key."""
    what = "add" if key.add else "set"
    for name, offset, bits, low in _MUNGE.get(key.header, ()):
        if key.offset == offset and key.mask and not key.mask & ~bits:
            value, retain = key.value >> low, key.mask >> low
            shown = str(ipaddress.IPv4Address(value)) if bits == 0xFFFF_FFFF else f"{value:#x}"
            part = [] if key.mask == bits else ["retain", f"{retain:#x}"]
            return ["munge", *name.split(), what, shown, *part]
    if key.header is Header.NETWORK:
        return [
            "munge",
            "offset",
            str(key.offset),
            "u32",
            what,
            f"{key.value:#x}",
            "retain",
            f"{key.mask:#x}",
        ]
    raise _no_words("/actions", f"{key}")


def _no_words(path: str, what: str) -> NotSupportedError:
    reason = Reason(code="tc.no_words", path=path, message=f"tc has no words for {what}")
    return NotSupportedError(
        "there is no tc command that does the same", capability="equivalents", reasons=[reason], path=path
    )
