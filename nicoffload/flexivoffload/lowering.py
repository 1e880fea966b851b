"""Which NIC rule would bring a flow to its VM, and whether this NIC can hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nicoffload import Nic
from nicoffload.errors import (
    InvalidRequestError,
    NicOffloadError,
    NotSupportedError,
    Reason,
    ResourceExhaustedError,
)
from nicoffload.flexivoffload.headers import address_fields, ip6
from nicoffload.flexivoffload.policy.types import Granularity, Policy, RuleKind, matches_overlap
from nicoffload.flexivoffload.vms import Vm
from nicoffload.model import FIRST_VF_PORT, FlowRule, Masked, Match, ToUplink, ToVf
from nicoffload.packets import HAS_ETH, HAS_IPV4, HAS_IPV6, HAS_PORTS, HAS_VLAN

_HAVE_PORTS = frozenset({6, 17, 132})
"""TCP, UDP, SCTP: without ports, a packet of these is a later fragment."""

MAX_VERDICTS = 4096
"""Verdicts kept: there are few shapes of flow, unless a NIC refuses by value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One way to bring a flow to its VM, from the flow itself to all that its VM gets.

    Args:
        name: For people.
        granularity: How coarse it is.
        match: What it catches.
        action: Where it goes.
    """

    name: str
    granularity: Granularity
    match: Match
    action: ToVf | ToUplink


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """A rule that the NIC can hold.

    Args:
        rung: Which.
        table: Where it goes.
        refused: The finer rungs, each with why it was passed over.
    """

    rung: Rung
    table: str
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unable:
    """No rule does it.

    Args:
        code: ``nic.unsupported`` or ``nic.table_full``.
        refused: Each rung, with why.
        is_final: Whether the answer stays the same until the NIC changes.
    """

    code: str
    refused: tuple[tuple[str, str], ...]
    is_final: bool

    @property
    def text(self) -> str:
        """All reasons in words."""
        return "; ".join(f"{name}: {why}" for name, why in self.refused)


class Lowering:
    """Asks the NIC what it can hold, once for each shape of flow."""

    def __init__(self, nic: Nic, policy: Policy) -> None:
        self._nic = nic
        self._granularity = policy.granularity
        self._denials = [rule for rule in policy.rules if rule.kind is RuleKind.ONLOAD]
        self._verdicts: dict[Any, tuple[str, str, bool]] = {}

    def lower(self, key: np.void, vm: Vm, *, is_sent: bool = False) -> Lowered | Unable:
        """Return the finest rule that the policy allows and the NIC can hold.

        Args:
            key: The flow.
            vm: Its VM.
            is_sent: Whether the VM sends it, by a VF whose packets need a rule to get to the wire.
        """
        refused: list[tuple[str, str]] = []
        is_final = True
        for rung in sent_rungs(key, vm) if is_sent else rungs(key, vm):
            if rung.granularity not in self._granularity:
                continue
            table, why, final = self._verdict(rung, vm)
            if table:
                return Lowered(rung=rung, table=table, refused=tuple(refused))
            refused.append((rung.name, why))
            is_final &= final
        if not refused:
            refused.append(
                ("flow", "no rule names this flow and no other: it has no addresses, or is a fragment")
            )
        code = "nic.unsupported" if is_final else "nic.table_full"
        return Unable(code=code, refused=tuple(refused), is_final=is_final)

    def _verdict(self, rung: Rung, vm: Vm) -> tuple[str, str, bool]:
        denial = self._denied(rung, vm)
        if denial:
            return "", f"would also catch what rule {denial!r} keeps on the virtual switch", True
        shape = (rung.match.shape, rung.match.eth_type, rung.match.ip_proto, vm.vf)
        known = self._verdicts.get(shape)
        if known is None:
            known = self._ask(rung)
            if known[2] and len(self._verdicts) < MAX_VERDICTS:
                self._verdicts[shape] = known
        return known

    def _denied(self, rung: Rung, vm: Vm) -> str:
        if rung.granularity is Granularity.FLOW:
            return ""
        for rule in self._denials:
            if rule.vm in ("", vm.name) and matches_overlap(rule.match, rung.match):
                return rule.rule_id
        return ""

    def _ask(self, rung: Rung) -> tuple[str, str, bool]:
        try:
            answer: Any = self._nic.check(FlowRule(match=rung.match, actions=(rung.action,)))
        except NicOffloadError as error:
            return "", str(error), isinstance(error, NotSupportedError | InvalidRequestError)
        # A Placement names its table; a Refusal names its reasons.
        reasons = getattr(answer, "reasons", None)
        if reasons is None:
            return answer.table, "", True
        meaning = answer.error(self._nic.name)
        return "", _words(reasons), not isinstance(meaning, ResourceExhaustedError)


def _words(reasons: Sequence[Reason]) -> str:
    return "; ".join(dict.fromkeys(str(reason) for reason in reasons)) or "refused without a reason"


def rungs(key: np.void, vm: Vm) -> list[Rung]:
    """Return the ways to bring a flow to its VM, finest first."""
    found: list[tuple[str, Granularity, Match]] = []
    present = int(key["present"])
    target = address_fields(key, "dst")
    exact = _exact(key)
    if exact is not None:
        found.append((*exact, Match.of(**_flow_fields(key))))
    if present & HAS_PORTS:
        some = {**target, "ip_proto": int(key["ip_proto"]), "tp_dst": int(key["tp_dst"])}
        found.append(("destination and port", Granularity.DESTINATION, Match.of(**some)))
    found.append(("destination", Granularity.DESTINATION, Match.of(**target)))
    # One MAC can stand for many VMs (a router's), unless the list of VMs says whose it is.
    if present & HAS_ETH and int(key["eth_dst"]) in vm.macs:
        mac: dict[str, int] = {"eth_dst": int(key["eth_dst"])}
        if present & HAS_VLAN:
            tagged = {**mac, "vlan_vid": int(key["vlan_vid"])}
            found.append(("MAC and VLAN", Granularity.VM, Match.of(**tagged)))
        found.append(("MAC", Granularity.VM, Match.of(**mac)))
    action = ToVf(vf=vm.vf)
    return [Rung(name=name, granularity=grain, match=match, action=action) for name, grain, match in found]


def sent_rungs(key: np.void, vm: Vm) -> list[Rung]:
    """Return the ways to let a flow that a VM sends by its VF get to the wire: only the flow itself is let through."""
    exact = _exact(key)
    if exact is None:
        return []
    port = FIRST_VF_PORT + vm.vf
    match = Match.of(in_port=port, **_flow_fields(key))
    return [Rung(name=exact[0], granularity=exact[1], match=match, action=ToUplink())]


def _exact(key: np.void) -> tuple[str, Granularity] | None:
    """Return the name of the rule that catches this flow alone; None where none would (a fragment has no ports)."""
    if int(key["present"]) & HAS_PORTS:
        return "5-tuple", Granularity.FLOW
    if int(key["ip_proto"]) in _HAVE_PORTS:
        return None
    return "addresses and protocol", Granularity.FLOW


def _flow_fields(key: np.void) -> dict[str, int | str]:
    fields = {**address_fields(key, "src"), **address_fields(key, "dst"), "ip_proto": int(key["ip_proto"])}
    if int(key["present"]) & HAS_PORTS:
        fields |= {"tp_src": int(key["tp_src"]), "tp_dst": int(key["tp_dst"])}
    return fields


def catches(match: Match, key: np.void) -> bool:
    """Tell whether a rung's match catches a flow."""
    for name, value in match.items():
        assert isinstance(value, Masked)
        end = name.removeprefix("ipv6_")
        found = int(key[name]) if end == name else ip6(key, end)
        needs = _NEEDS.get(name, 0)
        if found != value.value or (needs and not int(key["present"]) & needs):
            return False
    return True


_NEEDS = {
    "ipv4_src": HAS_IPV4,
    "ipv4_dst": HAS_IPV4,
    "ipv6_src": HAS_IPV6,
    "ipv6_dst": HAS_IPV6,
    "tp_src": HAS_PORTS,
    "tp_dst": HAS_PORTS,
    "eth_dst": HAS_ETH,
    "vlan_vid": HAS_VLAN,
}
