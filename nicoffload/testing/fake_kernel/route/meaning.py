"""What a filter means to a driver: flower's keys and tc's actions as the model's match and actions."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from nicoffload import model
from nicoffload.model import (
    FIELDS,
    Action,
    Drop,
    Masked,
    Match,
    Mirror,
    ModifyVlan,
    PopVlan,
    PortRange,
    PushVlan,
    SetField,
    ToPf,
    ToQueue,
    ToUplink,
    ToVf,
    TunnelSet,
    TunnelUnset,
)
from nicoffload.model.values import FIRST_VF_PORT
from nicoffload.testing.fake_kernel.route import actions as act
from nicoffload.testing.fake_kernel.route.action_values import (
    EGRESS_MIRROR,
    EGRESS_REDIRECT,
    PASS,
    PIPE,
    SHOT,
    STOLEN,
    TRAP,
    TUNNEL_SET,
    VLAN_MODIFY,
    VLAN_POP,
    VLAN_PUSH,
    Csum,
    Gact,
    Mirred,
    Pedit,
    Skbedit,
    TunnelKey,
    Vlan,
    goes_to,
)
from nicoffload.testing.fake_kernel.route.flower_keys import Keys
from nicoffload.testing.fake_kernel.route.police import Police
from nicoffload.testing.fake_kernel.route.wire import Rejected

PortOf = Callable[[int], int | None]
"""Returns the switch port that a device stands for, from its number; None where it stands for none of this NIC."""

UPLINK, PF = 0, 1
_PLAIN = frozenset(FIELDS) - {"tun_id"}
_TUNNEL_ID_MASK = (1 << 64) - 1
_UNSAID = frozenset({"vlan_tpid", "cvlan_tpid", "vlan_eth_type", "cvlan_eth_type", "flags", "tun_id"})
"""What a driver is told besides, and what the model says in other words."""
_FRAGMENTS: Mapping[tuple[int, int], tuple[int, int]] = MappingProxyType(
    {
        (0, 1): (0, 3),
        (1, 1): (1, 1),
        (3, 3): (1, 3),
        (1, 3): (3, 3),
        (0, 3): (0, 3),
        (2, 2): (1, 3),
        (2, 3): (1, 3),
    }
)
"""Flower's bits (a fragment, the first one) and mask to the model's value and mask."""


def unsupported(text: str) -> Rejected:
    """Return a driver's refusal."""
    return Rejected(errno.EOPNOTSUPP, text)


def match_of(keys: Keys, in_port: int | None) -> Match:
    """Return what a filter matches.

    Args:
        keys: Its keys.
        in_port: The switch port that it hangs on; None for the uplink.

    Raises:
        Rejected: The model has no field for a key, so that no driver of a profile can take it.
    """
    found: dict[str, Masked | PortRange] = {}
    if in_port is not None:
        found["in_port"] = Masked(in_port, FIELDS["in_port"].full_mask)
    for name, (value, mask) in keys.fields.items():
        if name in _PLAIN:
            found[name] = Masked(value & mask, mask)
        elif name not in _UNSAID:
            raise unsupported(f"Unsupported key: {name}")
    if "tun_id" in keys.fields:
        found["tun_id"] = Masked(keys.fields["tun_id"][0], _TUNNEL_ID_MASK)
    if "flags" in keys.fields:
        value, mask = keys.fields["flags"]
        if (value, mask) not in _FRAGMENTS:
            raise unsupported("Unsupported key: flags")
        found["ip_frag"] = Masked(*_FRAGMENTS[value, mask])
    for name, (first, last) in keys.ranges.items():
        found[name] = PortRange(first, last)
    if keys.indev:
        raise unsupported("Unsupported key: indev")
    return Match(**found)


_NO_OFFLOAD: Mapping[int, str] = MappingProxyType({-1: "continue", 1: "reclassify", PIPE: "pipe"})


def check_offload(actions: Sequence[act.Action]) -> None:
    """Refuse what the kernel does not even hand to a driver (``tc_setup_offload_action``).

    Raises:
        Rejected: There is an action that has no form there.
    """
    for action in actions:
        value = action.value
        if (
            isinstance(value, Gact)
            and value.verdict not in {PASS, SHOT, TRAP}
            and goes_to(value.verdict) is None
        ):
            name = _NO_OFFLOAD.get(value.verdict)
            text = (
                f'Offload of "{name}" action is not supported'
                if name
                else "Unsupported generic action offload"
            )
            raise unsupported(f"act_gact: {text}")
        if isinstance(value, Pedit) and any(key.command > 1 for key in value.keys):
            raise unsupported("act_pedit: Unsupported pedit command offload")
        if isinstance(value, Skbedit) and value.queue is not None and not action.flags & act.SKIP_SW:
            words_of = 'Offload not supported when "queue_mapping" option is used on transmit side'
            raise unsupported(f"act_skbedit: {words_of}")


class Meanings:
    """Turns actions into the model's; those that are alike, once. Of one hook.

    Args:
        port_of: Where devices are on the NIC.
    """

    def __init__(self, port_of: PortOf) -> None:
        self._port_of = port_of

    def actions(self, actions: Sequence[act.Action]) -> tuple[Action, ...]:
        """Return what a filter does.

        Raises:
            Rejected: The model has no word for it, or it has no end.
        """
        out: list[Action] = []
        ended = False
        for action in actions:
            found = self._one(action.value)
            out += found
            ended = ended or any(isinstance(one, _FATES) for one in found)
        if not ended:
            raise unsupported("Rule must have at least one forward/drop action")
        return tuple(out)

    def _one(self, value: act.Value) -> list[Action]:  # noqa: C901, PLR0911  (a case an action)
        match value:
            case Gact(verdict=verdict):
                if goes_to(verdict) is not None:
                    raise unsupported("fake kernel: chains in the hardware are not modelled")
                return [Drop()] if verdict == SHOT else [ToPf()]
            case Mirred(way=way, ifindex=ifindex, verdict=verdict):
                return [self._sent(way, ifindex, verdict)]
            case Csum():
                return []  # hardware makes them anew by itself
            case Vlan(what=what, vid=vid, pcp=pcp, tpid=tpid):
                if what == VLAN_POP:
                    return [PopVlan()]
                if what == VLAN_PUSH:
                    return [PushVlan(vid=vid, pcp=pcp or 0, tpid=tpid)]
                if what == VLAN_MODIFY and pcp is not None:
                    return [ModifyVlan(vid=vid, pcp=pcp)]
                if what == VLAN_MODIFY:
                    return [SetField(field="vlan_vid", value=Masked(vid, 0xFFF))]
                raise unsupported("Unsupported vlan action mode")
            case Pedit():
                return list(fields_of(value))
            case TunnelKey(what=what):
                return [_tunnel(value)] if what == TUNNEL_SET else [TunnelUnset()]
            case Skbedit(queue=int(queue), priority=None, mark=None, packet_type=None):
                return [ToQueue(queue=queue)]
            case Police(rate=rate, verdict=verdict, result=result):
                if rate is None or value.peak or verdict != SHOT or result not in {PASS, PIPE}:
                    raise unsupported("Unsupported police action")
                return [model.Police(rate_bps=rate.bytes_per_s * 8, burst_bytes=max(value.burst_bytes, 1))]
            case _:
                raise unsupported(f"Unsupported action: {value}")

    def _sent(self, way: int, ifindex: int, verdict: int) -> Action:
        port = self._port_of(ifindex)
        if port is None:
            raise unsupported("devices are not on same switch HW, can't offload forwarding")
        if way == EGRESS_MIRROR and verdict == PIPE:
            return Mirror(port=port)
        if way != EGRESS_REDIRECT or verdict != STOLEN:
            raise unsupported("Unsupported mirred action")
        if port >= FIRST_VF_PORT:
            return ToVf(vf=port - FIRST_VF_PORT)
        return ToUplink() if port == UPLINK else ToPf()


_FATES = (ToVf, ToQueue, ToPf, ToUplink, Drop)


def _tunnel(value: TunnelKey) -> TunnelSet:
    if value.key_id is None or value.key_id > 0xFFFFFF or value.no_fragment or value.tos or value.ttl:
        raise unsupported("Unsupported tunnel")
    src, dst = (str(ipaddress.ip_address(end)) for end in (value.src, value.dst))
    return TunnelSet(tun_id=value.key_id, src=src, dst=dst, tp_dst=value.tp_dst or 4789)


_HEADER_BITS = 64 * 8
# Header of a word to the fields in it: first bit from the header's start, and name.
_FIELDS_OF: Mapping[int, tuple[tuple[int, str], ...]] = MappingProxyType(
    {
        1: ((0, "eth_dst"), (48, "eth_src")),
        2: ((8, "ip_tos"), (64, "ip_ttl"), (96, "ipv4_src"), (128, "ipv4_dst")),
        3: ((4, "ip_tos"), (56, "ip_ttl"), (64, "ipv6_src"), (192, "ipv6_dst")),
        4: ((0, "tp_src"), (16, "tp_dst")),
        5: ((0, "tp_src"), (16, "tp_dst")),
    }
)


def fields_of(value: Pedit) -> tuple[SetField, ...]:
    """Return the fields that a pedit writes.

    Raises:
        Rejected: It adds, or writes what is no field.
    """
    masks: dict[int, int] = {}
    values: dict[int, int] = {}
    for key in value.keys:
        if key.command or not key.plain or key.header not in _FIELDS_OF or not 0 <= key.offset <= 60:
            raise unsupported("offloaded pedit of this header or command is not supported")
        shift = _HEADER_BITS - 32 - key.offset * 8
        written = (~key.kept & 0xFFFF_FFFF) << shift
        masks[key.header] = masks.get(key.header, 0) | written
        values[key.header] = values.get(key.header, 0) & ~written | key.value << shift & written
    found: list[SetField] = []
    for header, mask in masks.items():
        left = mask
        for first, name in _FIELDS_OF[header]:
            bits, full = FIELDS[name].bits, FIELDS[name].full_mask
            shift = _HEADER_BITS - first - bits
            its_mask = left >> shift & full
            if its_mask:
                found.append(SetField(field=name, value=Masked(values[header] >> shift & its_mask, its_mask)))
                left &= ~(full << shift)
        if left:
            raise unsupported("attempt to offload an unsupported field")
    return tuple(found)
