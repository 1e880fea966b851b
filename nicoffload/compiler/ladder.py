"""The ladder of granularity: which coarser rules a NIC could hold in place of one that it can't.

From fine to coarse: one connection, one service, one address, one VM by MAC and VLAN, one VM by MAC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nicoffload.compiler.result import Refusal, Rung
from nicoffload.compiler.words import describe
from nicoffload.driver.contract import Placement
from nicoffload.model import FIELDS, FieldValue, FlowRule, Masked, Match, ToVf
from nicoffload.model.fields import ETH_P_IP, ETH_P_IPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP

Lower = Callable[[FlowRule], Placement | Refusal]

_WITH_PORTS = (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP)

_EXAMPLES: Mapping[str, int] = {
    "eth_dst": 0x02_00_00_00_00_01,
    "vlan_vid": 1,
    "ipv4_src": 0xC0000201,
    "ipv4_dst": 0xC0000202,
    "ipv6_src": 0x20010DB8 << 96 | 1,
    "ipv6_dst": 0x20010DB8 << 96 | 2,
    "ip_proto": IPPROTO_TCP,
    "tp_src": 49152,
    "tp_dst": 443,
}
"""Stands for a value that is not known, to ask whether the NIC could hold such a rule (addresses of RFC 5737, 3849)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    name: str
    fields: tuple[str, ...]


def build_ladder(
    rule: FlowRule, lower: Lower, vf_macs: Mapping[int, int], vf_vlans: Mapping[int, int]
) -> tuple[Rung, ...]:
    """Return the rungs for a refused rule, finest first.

    Args:
        rule: The rule.
        lower: Says whether the NIC could hold a rule.
        vf_macs: VF index to its MAC address.
        vf_vlans: VF index to its port VLAN.
    """
    facts = _facts(rule, vf_macs, vf_vlans)
    asked = dict(rule.match.items())
    return tuple(
        _rung(step, rule, facts, lower, vf_macs)
        for step in _steps(facts)
        if {name: facts.get(name) for name in step.fields} != asked
    )


def _facts(rule: FlowRule, vf_macs: Mapping[int, int], vf_vlans: Mapping[int, int]) -> dict[str, Masked]:
    """Return the exact values that are known: those of the rule, and MAC and VLAN of the VF that it delivers to."""
    facts: dict[str, Masked] = {}
    for action in rule.actions:
        if isinstance(action, ToVf):
            if action.vf in vf_macs:
                facts["eth_dst"] = _exact("eth_dst", vf_macs[action.vf])
            if action.vf in vf_vlans:
                facts["vlan_vid"] = _exact("vlan_vid", vf_vlans[action.vf])
    exact = {
        name: value
        for name, value in rule.match.items()
        if isinstance(value, Masked) and value.mask == FIELDS[name].full_mask
    }
    return facts | exact


def _exact(name: str, value: int) -> Masked:
    return Masked(value, FIELDS[name].full_mask)


def _steps(facts: Mapping[str, Masked]) -> list[_Step]:
    ether = facts.get("eth_type")
    six = ether is not None and ether.value == ETH_P_IPV6
    src, dst = ("ipv6_src", "ipv6_dst") if six else ("ipv4_src", "ipv4_dst")
    proto = facts.get("ip_proto")
    steps = []
    is_ip = ether is None or ether.value in (ETH_P_IP, ETH_P_IPV6)
    if is_ip and (proto is None or proto.value in _WITH_PORTS):
        steps.append(_Step(name="5-tuple", fields=("eth_type", src, dst, "ip_proto", "tp_src", "tp_dst")))
        steps.append(_Step(name="3-tuple", fields=("eth_type", dst, "ip_proto", "tp_dst")))
    if is_ip:
        steps.append(_Step(name="destination IP", fields=("eth_type", dst)))
    steps.append(_Step(name="MAC+VLAN", fields=("eth_dst", "vlan_vid")))
    steps.append(_Step(name="MAC", fields=("eth_dst",)))
    if "in_port" not in facts:
        return steps
    # Where the packets come in is no matter of granularity: without it, the rule would be one for the other direction.
    return [_Step(name=step.name, fields=("in_port", *step.fields)) for step in steps]


def _rung(
    step: _Step, rule: FlowRule, facts: Mapping[str, Masked], lower: Lower, vf_macs: Mapping[int, int]
) -> Rung:
    known = {name: facts[name] for name in step.fields if name in facts}
    if "eth_type" in step.fields:  # an address of a family says it
        implied = ETH_P_IPV6 if "ipv6_dst" in step.fields else ETH_P_IP
        known.setdefault("eth_type", _exact("eth_type", implied))
    missing = tuple(name for name in step.fields if name not in known)
    examples = {name: _exact(name, _EXAMPLES[name]) for name in missing}
    asked = FlowRule(match=Match(**known, **examples), actions=rule.actions, priority=rule.priority)
    answer = lower(asked)
    return Rung(
        name=step.name,
        rule=None if missing else asked,
        table=answer.table if isinstance(answer, Placement) else "",
        missing=missing,
        also_catches=_also_catches(rule, known, missing, vf_macs),
        reasons=answer.reasons if isinstance(answer, Refusal) else (),
    )


def _also_catches(
    rule: FlowRule, known: Mapping[str, Masked], missing: tuple[str, ...], vf_macs: Mapping[int, int]
) -> str:
    dropped: dict[str, FieldValue] = {
        name: value for name, value in rule.match.items() if name not in known and name not in missing
    }
    if not dropped:
        return "nothing else, and less than the rule asks for"
    caught = describe(known, missing)
    if caught.startswith(("from ", "to ", "with ")):
        caught = f"traffic {caught}"
    return f"all {caught}{_owner(known.get('eth_dst'), vf_macs)}, not only {describe(dropped)}"


def _owner(mac: Masked | None, vf_macs: Mapping[int, int]) -> str:
    for vf, address in vf_macs.items():
        if mac is not None and mac.value == address:
            return f" (VF {vf})"
    return ""
