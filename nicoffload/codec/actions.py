"""Actions as text: ``vf:2``, ``push_vlan:100/3``, ``set_field:10.0.0.1->nw_dst``, ``tunnel_set(id=5,...)``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from nicoffload.codec.foreign import FOREIGN_ACTIONS
from nicoffload.codec.near import did_you_mean
from nicoffload.codec.units import format_rate, parse_rate, parse_size
from nicoffload.errors import InvalidRequestError
from nicoffload.model.action import (
    ACTION_NAMES,
    Action,
    Count,
    Drop,
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
)
from nicoffload.model.fields import FIELDS, FIELDS_BY_TEXT
from nicoffload.model.match import Masked
from nicoffload.model.values import format_switch_port, format_value, parse_switch_port, parse_value

_HEAD = re.compile(r"([A-Za-z_]+)(.*)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,19}|0[xX][0-9a-fA-F]{1,16}")
_VLAN = re.compile(r"([^/@]+)(?:/([^/@]+))?(?:@([^/@]+))?")
_TUNNEL_KEYS: Mapping[str, str] = MappingProxyType(
    {"id": "tun_id", "src": "src", "dst": "dst", "tp_dst": "tp_dst"}
)

FORMS: Mapping[str, str] = MappingProxyType(
    {
        "vf": "vf:N or vf:N.QUEUE",
        "queue": "queue:N",
        "pf": "pf",
        "uplink": "uplink",
        "drop": "drop",
        "mirror": "mirror:PORT (uplink, pf or vf:N)",
        "police": "police:RATE:BURST (police:100M:64k)",
        "push_vlan": "push_vlan:VID[/PCP][@TPID]",
        "pop_vlan": "pop_vlan",
        "mod_vlan": "mod_vlan:VID[/PCP]",
        "set_field": "set_field:VALUE->FIELD",
        "tunnel_set": "tunnel_set(id=N,src=IP,dst=IP[,tp_dst=PORT])",
        "tunnel_unset": "tunnel_unset",
        "count": "count",
    }
)
"""How each action is written, by its name."""


def parse_action(text: str) -> Action:
    """Return the action that a text such as ``vf:2`` names.

    Raises:
        InvalidRequestError: No such action, or its arguments are wrong.
    """
    found = _HEAD.fullmatch(text)
    name, rest = (found[1], found[2]) if found else (text, "")
    if name not in _PARSERS:
        near = FOREIGN_ACTIONS.get(name.lower()) or did_you_mean(name, _PARSERS)
        hint = near or f"one of: {', '.join(_PARSERS)}"
        raise InvalidRequestError(f"no action is called {name!r}", path="/actions", hint=hint)
    if name == "tunnel_set":
        if not (rest.startswith("(") and rest.endswith(")")):
            raise _bad(name, text)
        return _parse_tunnel(rest[1:-1], text)
    if rest and (rest[0] != ":" or name in _WITHOUT_ARGUMENT):
        raise _bad(name, text)
    return _PARSERS[name](rest[1:], text)


def format_action(action: Action) -> str:
    """Return the text of an action; the inverse of `parse_action`."""
    name = ACTION_NAMES[type(action)]
    argument = _argument(action)
    return f"{name}{argument}" if argument.startswith("(") or not argument else f"{name}:{argument}"


def _argument(action: Action) -> str:
    match action:
        case ToVf(vf=vf, queue=queue):
            return f"{vf}.{queue}" if queue else str(vf)
        case ToQueue(queue=queue):
            return str(queue)
        case Mirror(port=port):
            return format_switch_port(port)
        case Police(rate_bps=rate, burst_bytes=burst):
            return f"{format_rate(rate)}:{burst}"
        case PushVlan() | ModifyVlan():
            return _vlan_text(action)
        case SetField(field=field, value=value):
            spec = FIELDS[field]
            return f"{format_value(spec, value.value, value.mask)}->{spec.texts[0]}"
        case TunnelSet(tun_id=tun_id, src=src, dst=dst, tp_dst=tp_dst):
            return f"(id={tun_id},src={src},dst={dst},tp_dst={tp_dst})"
        case _:
            return ""


def _vlan_text(action: PushVlan | ModifyVlan) -> str:
    pcp = f"/{action.pcp}" if action.pcp else ""
    tpid = (
        f"@{action.tpid:#x}" if isinstance(action, PushVlan) and action.tpid != PushVlan(vid=0).tpid else ""
    )
    return f"{action.vid}{pcp}{tpid}"


def _bad(name: str, text: str) -> InvalidRequestError:
    return InvalidRequestError(f"{text!r} is no {name} action", path="/actions", hint=f"write {FORMS[name]}")


def _number(name: str, digits: str, text: str) -> int:
    if not _NUMBER.fullmatch(digits):
        raise _bad(name, text)
    return int(digits, 16 if digits[:2] in ("0x", "0X") else 10)


def _parse_vf(argument: str, text: str) -> Action:
    vf, dot, queue = argument.partition(".")
    return ToVf(vf=_number("vf", vf, text), queue=_number("vf", queue, text) if dot else 0)


def _parse_queue(argument: str, text: str) -> Action:
    return ToQueue(queue=_number("queue", argument, text))


def _parse_mirror(argument: str, text: str) -> Action:
    if not argument:
        raise _bad("mirror", text)
    return Mirror(port=parse_switch_port(argument, "/actions"))


def _parse_police(argument: str, text: str) -> Action:
    rate_text, colon, burst_text = argument.partition(":")
    if not colon:
        raise _bad("police", text)
    rate_bps = parse_rate(rate_text, "/actions")
    if rate_bps is None:
        raise InvalidRequestError("a police action has a rate", path="/actions", hint="leave the action out")
    return Police(rate_bps=rate_bps, burst_bytes=parse_size(burst_text, "/actions"))


def _parse_push_vlan(argument: str, text: str) -> Action:
    vid, pcp, tpid = _vlan_parts("push_vlan", argument, text)
    return PushVlan(vid=vid, pcp=pcp) if tpid is None else PushVlan(vid=vid, pcp=pcp, tpid=tpid)


def _parse_mod_vlan(argument: str, text: str) -> Action:
    vid, pcp, tpid = _vlan_parts("mod_vlan", argument, text)
    if tpid is not None:
        raise _bad("mod_vlan", text)
    return ModifyVlan(vid=vid, pcp=pcp)


def _vlan_parts(name: str, argument: str, text: str) -> tuple[int, int, int | None]:
    found = _VLAN.fullmatch(argument)
    if not found:
        raise _bad(name, text)
    vid, pcp, tpid = (_number(name, part, text) if part else None for part in found.groups())
    return vid or 0, pcp or 0, tpid


def _parse_set_field(argument: str, text: str) -> Action:
    value_text, arrow, name = argument.partition("->")
    if not arrow or not value_text:
        raise _bad("set_field", text)
    spec = FIELDS_BY_TEXT.get(name)
    if spec is None:
        hint = did_you_mean(name, FIELDS_BY_TEXT)
        raise InvalidRequestError(f"no field is called {name!r}", path="/actions", hint=hint)
    return SetField(field=spec.name, value=Masked(*parse_value(spec, value_text)))


def _parse_tunnel(argument: str, text: str) -> Action:
    given: dict[str, str] = {}
    for part in filter(None, argument.split(",")):
        key, equals, value = part.strip().partition("=")
        if key not in _TUNNEL_KEYS or not equals:
            hint = did_you_mean(key, _TUNNEL_KEYS) or f"write {FORMS['tunnel_set']}"
            raise InvalidRequestError(f"tunnel_set has no {part.strip()!r}", path="/actions", hint=hint)
        if key in given:
            raise InvalidRequestError(f"tunnel_set names {key} twice", path="/actions")
        given[key] = value
    if missing := [key for key in ("id", "src", "dst") if key not in given]:
        raise InvalidRequestError(
            f"tunnel_set lacks {' and '.join(missing)}", path="/actions", hint=f"write {FORMS['tunnel_set']}"
        )
    tun_id = _number("tunnel_set", given["id"], text)
    if "tp_dst" not in given:
        return TunnelSet(tun_id=tun_id, src=given["src"], dst=given["dst"])
    port = _number("tunnel_set", given["tp_dst"], text)
    return TunnelSet(tun_id=tun_id, src=given["src"], dst=given["dst"], tp_dst=port)


def _plain(action: Action) -> Callable[[str, str], Action]:
    return lambda _argument, _text: action


_PARSERS: Mapping[str, Callable[[str, str], Action]] = MappingProxyType(
    {
        "vf": _parse_vf,
        "queue": _parse_queue,
        "pf": _plain(ToPf()),
        "uplink": _plain(ToUplink()),
        "drop": _plain(Drop()),
        "mirror": _parse_mirror,
        "police": _parse_police,
        "push_vlan": _parse_push_vlan,
        "pop_vlan": _plain(PopVlan()),
        "mod_vlan": _parse_mod_vlan,
        "set_field": _parse_set_field,
        "tunnel_set": _parse_tunnel,
        "tunnel_unset": _plain(TunnelUnset()),
        "count": _plain(Count()),
    }
)
_WITHOUT_ARGUMENT = frozenset({"pf", "uplink", "drop", "pop_vlan", "tunnel_unset", "count"})
