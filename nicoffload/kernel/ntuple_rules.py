"""Flow rules of the model as rules of a NIC's receive classifier, and back; and as words for `ethtool`."""

from __future__ import annotations

import ipaddress
import shlex
import uuid

from nicoffload.errors import NotSupportedError, Reason
from nicoffload.kernel.ntuple_layout import LAYOUT, OWN_FIELDS, FlowType, NtupleRule, misfits, vlan_tag
from nicoffload.model import ACTION_NAMES, Drop, FlowRule, Masked, Match, ToQueue, ToVf, format_mac

_CAPABILITY = "ntuple"
_WITH_PORTS = {
    (0x0800, 6): FlowType.TCP4,
    (0x0800, 17): FlowType.UDP4,
    (0x0800, 132): FlowType.SCTP4,
    (0x86DD, 6): FlowType.TCP6,
    (0x86DD, 17): FlowType.UDP6,
    (0x86DD, 132): FlowType.SCTP6,
}
_IP_FIELDS = ("ipv4_src", "ipv4_dst", "ipv6_src", "ipv6_dst", "ip_proto", "ip_tos")


def flow_type(match: Match) -> FlowType:
    """Return the narrowest flow type that a match belongs to; it may still lack a place for one of its fields."""
    ether, protocol = _exact(match.eth_type, 0xFFFF), _exact(match.ip_proto, 0xFF)
    if ether not in {0x0800, 0x86DD} or all(getattr(match, name) is None for name in _IP_FIELDS):
        return FlowType.ETHER
    plain = FlowType.IP4 if ether == 0x0800 else FlowType.IP6
    return _WITH_PORTS.get((ether, protocol), plain) if protocol is not None else plain


def _exact(value: object, full: int) -> int | None:
    return value.value if isinstance(value, Masked) and value.mask == full else None


def lower_rule(
    rule: FlowRule, *, location: int | None = None, flow: FlowType | None = None, device: str = ""
) -> NtupleRule:
    """Return a flow rule as a rule of the receive classifier.

    The structure has no priority: where the slot is one, the caller chooses the slot by it. Nor has it a rule's id.

    Args:
        rule: The rule.
        location: Slot; None lets `NtupleTable` or the driver choose.
        flow: Flow type, where the NIC wants another one than the narrowest.
        device: Named in errors.

    Raises:
        NotSupportedError: The structure has no place for a field or an action; its reasons name each.
    """
    chosen = flow or flow_type(rule.match)
    reasons = [
        Reason(
            code="ntuple.field",
            path=f"/match/{name}",
            message=f"an ethtool rule of type {chosen.name.lower()} has no place for it",
        )
        for name in misfits(chosen, rule.match)
    ]
    fates = [action for action in rule.actions if isinstance(action, ToQueue | ToVf | Drop)]
    reasons += [
        Reason(
            code="ntuple.action",
            path="/actions",
            message=f"an ethtool rule can't do {ACTION_NAMES[type(action)]}",
            accepted="queue, vf or drop, alone",
        )
        for action in rule.actions
        if not isinstance(action, ToQueue | ToVf | Drop)
    ]
    if reasons:
        raise NotSupportedError(
            "no ethtool rule says this", capability=_CAPABILITY, reasons=reasons, device=device
        )
    return NtupleRule(flow=chosen, match=rule.match, fate=fates[0], location=location)


def raise_rule(rule: NtupleRule, *, rule_id: uuid.UUID | None = None) -> FlowRule:
    """Return a rule of the receive classifier as a flow rule; the inverse of `lower_rule`.

    Args:
        rule: The rule.
        rule_id: Its id, which the kernel does not keep; None gives it a new one.

    Raises:
        NotSupportedError: It has an RSS context, user-defined data, or another thing the model has no words for.
    """
    foreign = [
        name
        for name in ("rss_context", "vlan_protocol", "l4_bytes", "spi", "user_defined")
        if getattr(rule, name) is not None
    ]
    if foreign:
        reasons = [
            Reason(code="ntuple.foreign", path=f"/{name}", message="a flow rule has no word for it")
            for name in foreign
        ]
        raise NotSupportedError("no flow rule says this", capability=_CAPABILITY, reasons=reasons)
    if rule_id is None:
        return FlowRule(match=rule.match, actions=(rule.fate,))
    return FlowRule(match=rule.match, actions=(rule.fate,), rule_id=rule_id)


_WORDS = {
    "ipv4_src": "src-ip",
    "ipv4_dst": "dst-ip",
    "ipv6_src": "src-ip",
    "ipv6_dst": "dst-ip",
    "tp_src": "src-port",
    "tp_dst": "dst-port",
    "l4_bytes": "l4data",
    "spi": "spi",
    "ip_proto": "l4proto",
    "eth_src": "src",
    "eth_dst": "dst",
    "eth_type": "proto",
}


def add_command(device: str, rule: NtupleRule) -> str:
    """Return the `ethtool` command that installs the same rule.

    Args:
        device: Name of the network device.
        rule: The rule.
    """
    words = ["ethtool", "-N", device, "flow-type", rule.flow.name.lower()]
    for place in LAYOUT[rule.flow]:
        given = getattr(rule if place.field in OWN_FIELDS else rule.match, place.field)
        if given is None:
            continue
        name = _WORDS.get(place.field) or ("tos" if place.start == 12 else "tclass")
        words += _option(name, place.field, given, place.size * 8)
    for name, value, bits in (
        ("vlan-etype", rule.vlan_protocol, 16),
        ("vlan", vlan_tag(rule.match), 16),
        ("user-def", rule.user_defined, 64),
    ):
        if value is not None:
            words += _option(name, name, value, bits)
    if rule.flow is not FlowType.ETHER and isinstance(rule.match.eth_dst, Masked):
        words += _option("dst-mac", "eth_dst", rule.match.eth_dst, 48)
    words += _fate_words(rule)
    if rule.location is not None:
        words += ["loc", str(rule.location)]
    return shlex.join(words)


def delete_command(device: str, location: int) -> str:
    """Return the `ethtool` command that deletes the rule in a slot."""
    return shlex.join(["ethtool", "-N", device, "delete", str(location)])


def _fate_words(rule: NtupleRule) -> list[str]:
    fate = rule.fate
    words = [] if rule.rss_context is None else ["context", str(rule.rss_context)]
    if isinstance(fate, Drop):
        return [*words, "action", "-1"]
    if isinstance(fate, ToVf):
        return [*words, "vf", str(fate.vf), "queue", str(fate.queue)]
    return [*words, "action", str(fate.queue)]


def _option(name: str, field: str, given: Masked, bits: int) -> list[str]:
    ignored = given.mask ^ (1 << bits) - 1  # ethtool's masks name the bits that do not count
    words = [name, _word(field, given.value)]
    return [*words, "m", _word(field, ignored)] if ignored else words


def _word(field: str, value: int) -> str:
    if field in {"ipv4_src", "ipv4_dst"}:
        return str(ipaddress.IPv4Address(value))
    if field in {"ipv6_src", "ipv6_dst"}:
        return str(ipaddress.IPv6Address(value))
    return format_mac(value) if field in {"eth_src", "eth_dst"} else f"{value:#x}"
