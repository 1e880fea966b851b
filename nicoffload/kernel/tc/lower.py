"""From the model's actions to tc's, and back."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.errors import InvalidRequestError, NotSupportedError, Reason
from nicoffload.kernel.tc.rewrite import fields_of, rewrite
from nicoffload.kernel.tc.values import (
    Csum,
    Gact,
    Mirred,
    Pedit,
    PoliceRate,
    QueueMapping,
    TcAction,
    TunnelKeySet,
    TunnelKeyUnset,
    Verdict,
    VlanModify,
    VlanPop,
    VlanPush,
)
from nicoffload.model import (
    FIRST_VF_PORT,
    Action,
    Count,
    Drop,
    Masked,
    Match,
    Mirror,
    ModifyVlan,
    Police,
    PopVlan,
    PushVlan,
    SetField,
    ToPf,
    ToQueue,
    ToUplink,
    ToVf,
    TunnelSet,
    TunnelUnset,
    format_switch_port,
)

CAPABILITY = "flow_filters.tc"
UPLINK, PF = 0, 1


class QueueStyle(enum.Enum):
    """How a driver is told of a receive queue."""

    NONE = "none"
    """It can't be told."""
    SKBEDIT = "skbedit"
    """By ``skbedit queue_mapping`` (ice)."""
    HW_TC = "hw_tc"
    """By a traffic class in place of actions (igb, i40e)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Where the model's ports are on this machine.

    Args:
        ifindexes: Number of the switch port (0 uplink, 1 PF, 2 + N VF N) to the device that stands for it: a
            representor, or what else the driver wants. Without an entry for the PF, the packet just passes to it.
        queues: How the driver is told of a queue.
    """

    ifindexes: Mapping[int, int]
    queues: QueueStyle = QueueStyle.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """What tc is told in place of a rule's actions.

    Args:
        actions: tc's actions.
        hw_tc: Traffic class, where that says where the packet goes.
    """

    actions: tuple[TcAction, ...]
    hw_tc: int | None = None


class Lowering:
    """Lowers the actions of many rules; those that are alike, once.

    Args:
        targets: Where ports are.
    """

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._known: dict[object, Lowered] = {}

    def __call__(self, actions: tuple[Action, ...], match: Match) -> Lowered:
        """Return tc's actions for a rule's; see `lower_actions`."""
        eth_type, ip_proto = match.eth_type, match.ip_proto
        key = (
            actions,
            eth_type.value if type(eth_type) is Masked else None,
            ip_proto.value if type(ip_proto) is Masked else None,
        )
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = lower_actions(actions, match, self._targets)
        return found


def lower_actions(actions: Sequence[Action], match: Match, targets: Targets) -> Lowered:
    """Return tc's actions for a rule's.

    Args:
        actions: The rule's.
        match: The rule's, which says of which protocol the headers are that it rewrites.
        targets: Where ports are.

    Raises:
        NotSupportedError: A target is not there, or tc has no such action; every reason is named.
        InvalidRequestError: An action stands behind the one that ends the packet's way.
    """
    out: list[TcAction] = []
    reasons: list[Reason] = []
    pending: list[SetField] = []
    hw_tc: int | None = None
    ended = False
    for action in actions:
        if isinstance(action, Count):
            continue  # tc counts every rule
        if ended:
            raise InvalidRequestError(
                f"{action} stands behind the action that ends the packet's way",
                path="/actions",
                hint="put it first",
            )
        if isinstance(action, SetField) and not action.field.startswith(("vlan_", "cvlan_")):
            pending.append(action)
            continue
        out += rewrite(pending, match, reasons)
        pending = []
        if isinstance(action, ToQueue) and targets.queues is QueueStyle.HW_TC:
            hw_tc, ended = action.queue, True
            continue
        ended = isinstance(action, ToVf | ToQueue | ToPf | ToUplink | Drop)
        out += _lower(action, targets, reasons)
    out += rewrite(pending, match, reasons)
    if reasons:
        raise NotSupportedError(
            "tc can't do this", capability=CAPABILITY, reasons=reasons, path=reasons[0].path
        )
    return Lowered(actions=tuple(out), hw_tc=hw_tc)


def _lower(action: Action, targets: Targets, reasons: list[Reason]) -> list[TcAction]:  # noqa: PLR0911  (one case an action)
    match action:
        case Drop():
            return [Gact(verdict=Verdict.DROP)]
        case ToVf(vf=vf, queue=queue):
            if queue:
                reasons.append(
                    _reason("target.vf_queue", f"tc can't choose queue {queue} within a VF", "queue 0")
                )
            return _redirect(FIRST_VF_PORT + vf, targets, reasons)
        case ToUplink():
            return _redirect(UPLINK, targets, reasons)
        case ToPf():
            if PF in targets.ifindexes:
                return _redirect(PF, targets, reasons)
            return [Gact(verdict=Verdict.PASS)]
        case ToQueue(queue=queue):
            if targets.queues is QueueStyle.SKBEDIT:
                return [QueueMapping(queue=queue)]
            reasons.append(_reason("target.queue", "the driver takes no queue from tc", "vf, pf or drop"))
            return []
        case Mirror(port=port):
            return _redirect(port, targets, reasons, copy=True)
        case _:
            return _lower_change(action, reasons)


def _lower_change(action: Action, reasons: list[Reason]) -> list[TcAction]:  # noqa: PLR0911  (likewise)
    match action:
        case Police(rate_bps=rate, burst_bytes=burst):
            if rate < 8:
                reasons.append(_reason("rate.too_low", "tc counts whole bytes a second", "8 bit/s or more"))
                return []
            if rate % 8:
                near = f"{rate - rate % 8} or {rate - rate % 8 + 8} bit/s"
                reasons.append(_reason("rate.fraction", "tc counts whole bytes a second", near))
                return []
            return [PoliceRate(rate_bytes_per_s=rate // 8, burst_bytes=burst)]
        case PushVlan(vid=vid, pcp=pcp, tpid=tpid):
            return [VlanPush(vid=vid, pcp=pcp, tpid=tpid)]
        case PopVlan():
            return [VlanPop()]
        case ModifyVlan(vid=vid, pcp=pcp):
            return [VlanModify(vid=vid, pcp=pcp)]
        case TunnelSet(tun_id=key, src=src, dst=dst, tp_dst=port):
            ends = ipaddress.ip_address(src), ipaddress.ip_address(dst)
            return [TunnelKeySet(key_id=key, src=ends[0], dst=ends[1], tp_dst=port)]
        case TunnelUnset():
            return [TunnelKeyUnset()]
        case SetField(field="vlan_vid", value=value) if value.mask == 0xFFF:
            return [VlanModify(vid=value.value)]
        case _:
            reasons.append(_reason("action.unknown", f"tc has no form for {action}", "mod_vlan"))
            return []


def _redirect(port: int, targets: Targets, reasons: list[Reason], *, copy: bool = False) -> list[TcAction]:
    ifindex = targets.ifindexes.get(port)
    if ifindex is None:
        name = format_switch_port(port)
        known = ", ".join(format_switch_port(one) for one in sorted(targets.ifindexes))
        reasons.append(_reason("target.absent", f"no device stands for {name}", known))
        return []
    return [Mirred(ifindex=ifindex, copy=copy)]


def _reason(code: str, message: str, accepted: str) -> Reason:
    return Reason(code=code, path="/actions", message=message, accepted=accepted)


def raise_actions(
    actions: Iterable[TcAction], match: Match, targets: Targets, hw_tc: int | None = None
) -> tuple[tuple[Action, ...], list[str]]:
    """Return the model's actions for tc's, and what of them has no form in the model; the inverse of `lower_actions`.

    `Count` is not read back, and a rate is as the kernel holds it.
    """
    ports = {ifindex: port for port, ifindex in targets.ifindexes.items()}
    out: list[Action] = []
    foreign: list[str] = []
    for action in actions:
        if isinstance(action, Csum):
            continue  # belongs to the rewriting before it
        found = fields_of(action, match) if isinstance(action, Pedit) else _raise(action, ports)
        if found is None:
            foreign.append(f"action {action}")
        else:
            out += found
    if hw_tc is not None:
        out.append(ToQueue(queue=hw_tc))
    return tuple(out), foreign


def _raise(action: TcAction, ports: Mapping[int, int]) -> list[Action] | None:  # noqa: C901, PLR0911  (likewise)
    match action:
        case Gact(verdict=verdict) if verdict in _FATES:
            return [_FATES[verdict]]
        case Mirred(ifindex=ifindex, copy=copy, ingress=False) if ifindex in ports:
            return [Mirror(port=ports[ifindex]) if copy else _fate(ports[ifindex])]
        case VlanPush(vid=vid, pcp=pcp, tpid=tpid):
            return [PushVlan(vid=vid, pcp=pcp, tpid=tpid)]
        case VlanPop():
            return [PopVlan()]
        case VlanModify(vid=vid, pcp=int(pcp)):
            return [ModifyVlan(vid=vid, pcp=pcp)]
        case VlanModify(vid=vid, pcp=None):
            return [SetField(field="vlan_vid", value=Masked(vid, 0xFFF))]
        case TunnelKeySet(key_id=int(key), src=src, dst=dst, tp_dst=int(port)) if key <= 0xFFFFFF:
            return [TunnelSet(tun_id=key, src=str(src), dst=str(dst), tp_dst=port)]
        case TunnelKeyUnset():
            return [TunnelUnset()]
        case QueueMapping(queue=queue):
            return [ToQueue(queue=queue)]
        case PoliceRate(rate_bytes_per_s=rate, burst_bytes=burst, drop=True):
            return [Police(rate_bps=rate * 8, burst_bytes=burst)]
        case _:
            return None


_FATES: Mapping[Verdict, Action] = MappingProxyType({Verdict.DROP: Drop(), Verdict.PASS: ToPf()})


def _fate(port: int) -> Action:
    if port == UPLINK:
        return ToUplink()
    return ToPf() if port == PF else ToVf(vf=port - FIRST_VF_PORT)
