"""Which NIC rule would bring a flow to its VM, and whether this NIC can hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nicoffload import Nic
from nicoffload.errors import NicOffloadError, Reason, ResourceExhaustedError
from nicoffload.flexivoffload.headers import address_fields, ip6
from nicoffload.flexivoffload.policy.types import Granularity, Policy, RuleKind, matches_overlap
from nicoffload.flexivoffload.vms import Vm
from nicoffload.model import FlowRule, Masked, Match, ToVf
from nicoffload.packets import HAS_ETH, HAS_IPV4, HAS_IPV6, HAS_PORTS, HAS_VLAN

MAX_VERDICTS = 4096
"""Verdicts kept: there are few shapes of flow, unless a NIC refuses by value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One way to bring a flow to its VM, from the flow itself to all that its VM gets.

    Args:
        name: For people.
        granularity: How coarse it is.
        match: What it catches.
    """

    name: str
    granularity: Granularity
    match: Match


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

    def lower(self, key: np.void, vm: Vm) -> Lowered | Unable:
        """Return the finest rule that the policy allows and the NIC can hold."""
        refused: list[tuple[str, str]] = []
        is_final = True
        for rung in rungs(key, vm):
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
            known = self._ask(rung, vm)
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

    def _ask(self, rung: Rung, vm: Vm) -> tuple[str, str, bool]:
        try:
            answer = self._nic.check(FlowRule(match=rung.match, actions=(ToVf(vf=vm.vf),)))
        except NicOffloadError as error:
            return "", str(error), False
        # A Placement names its table; a Refusal names its reasons.
        reasons = getattr(answer, "reasons", None)
        if reasons is None:
            return answer.table, "", True
        error = answer.error(self._nic.name)
        return "", _words(reasons), not isinstance(error, ResourceExhaustedError)


def _words(reasons: Sequence[Reason]) -> str:
    return "; ".join(dict.fromkeys(str(reason) for reason in reasons)) or "refused without a reason"


def rungs(key: np.void, vm: Vm) -> list[Rung]:
    """Return the ways to bring a flow to its VM, finest first."""
    found: list[Rung] = []
    present = int(key["present"])
    target = address_fields(key, "dst")
    proto = {"ip_proto": int(key["ip_proto"])}
    if present & HAS_PORTS:
        ports = {"tp_src": int(key["tp_src"]), "tp_dst": int(key["tp_dst"])}
        both = {**address_fields(key, "src"), **target, **proto, **ports}
        found.append(Rung(name="5-tuple", granularity=Granularity.FLOW, match=Match.of(**both)))
        del ports["tp_src"]
        some = {**target, **proto, **ports}
        found.append(
            Rung(name="destination and port", granularity=Granularity.DESTINATION, match=Match.of(**some))
        )
    elif int(key["ip_proto"]) not in (6, 17, 132):
        whole = {**address_fields(key, "src"), **target, **proto}
        found.append(
            Rung(name="addresses and protocol", granularity=Granularity.FLOW, match=Match.of(**whole))
        )
    found.append(Rung(name="destination", granularity=Granularity.DESTINATION, match=Match.of(**target)))
    if present & HAS_ETH and int(key["eth_dst"]) in vm.macs:
        mac: dict[str, int] = {"eth_dst": int(key["eth_dst"])}
        if present & HAS_VLAN:
            tagged = {**mac, "vlan_vid": int(key["vlan_vid"])}
            found.append(Rung(name="MAC and VLAN", granularity=Granularity.VM, match=Match.of(**tagged)))
        found.append(Rung(name="MAC", granularity=Granularity.VM, match=Match.of(**mac)))
    return found


def catches(match: Match, key: np.void) -> bool:
    """Tell whether a rung's match catches a flow."""
    for name, value in match.items():
        assert isinstance(value, Masked)
        if name.startswith("ipv6"):
            found = ip6(key, name.removeprefix("ipv6_"))
        else:
            found = int(key[name])
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
