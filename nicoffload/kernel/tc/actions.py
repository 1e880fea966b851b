"""Actions of tc, into bytes and back."""

from __future__ import annotations

import ipaddress
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from nicoffload.errors import InvalidRequestError
from nicoffload.kernel.attributes import (
    Buffer,
    attribute,
    be16,
    fields,
    nested,
    network_number,
    number,
    parse,
    string,
    text,
    u8,
    u16,
    walk,
)
from nicoffload.kernel.tc import police
from nicoffload.kernel.tc.values import (
    MAX_CHAIN,
    Checksum,
    Csum,
    Gact,
    GotoChain,
    Header,
    Mirred,
    Pedit,
    PeditKey,
    PolicePackets,
    PoliceRate,
    QueueMapping,
    TcAction,
    TunnelKeySet,
    TunnelKeyUnset,
    UnknownAction,
    Verdict,
    VlanModify,
    VlanPop,
    VlanPush,
)

KIND = 1
OPTIONS = 2
STATS = 4
COOKIE = 6
_FLAGS = 7
# Counters for each processor cost a third of an installation, and gain nothing where the NIC counts. Open vSwitch does
# without them as well.
_NO_PERCPU = 1
_SKIP_SW = 4
_BITFIELD = struct.Struct("=II")
MAX_ACTIONS = 32

_PIPE = 3
_STOLEN = 4
_GOTO = 0x2000_0000
_OPCODE = 0xF000_0000

_GENERIC = struct.Struct("=IIiii")
"""What every action's parameters begin with: index, capab, action, refcnt, bindcnt."""
_PLUS_INT = struct.Struct("=IIiiii")
_MIRRED = struct.Struct("=IIiiiiI")
_PEDIT = struct.Struct("=IIiiiBBxx")
_PEDIT_KEY = struct.Struct("=IIiIII")
_TIMES = struct.Struct("=QQQQ")

PARMS = 2
_CSUM_PARMS = 1
_VLAN_ID, _VLAN_PROTOCOL, _VLAN_PRIORITY = 3, 4, 6
_POP, _PUSH, _MODIFY = 1, 2, 3
_PEDIT_PARMS_EX, _PEDIT_KEYS_EX, _PEDIT_KEY_EX = 4, 5, 6
_SKBEDIT_QUEUE = 4
_SKBEDIT_OTHERS = frozenset({3, 5, 7, 8, 9})

TIMES: Mapping[bytes, int] = MappingProxyType(
    {
        b"gact": 1,
        b"mirred": 1,
        b"vlan": 1,
        b"pedit": 1,
        b"tunnel_key": 1,
        b"skbedit": 1,
        b"csum": 2,
        b"police": 6,
    }
)
"""Which attribute of each kind of action holds its times."""


def encode_actions(actions: Sequence[TcAction], rule_id: bytes | None = None) -> bytes:
    """Return the list of a filter's actions, as the payload of the classifier's attribute.

    Args:
        actions: At most 32.
        rule_id: 16 bytes that go into the cookie of the first one.

    Raises:
        InvalidRequestError: Too many, one that can't be written (`UnknownAction`), or a rule id without an action.
    """
    if len(actions) > MAX_ACTIONS:
        raise InvalidRequestError(f"{len(actions)} actions, and tc takes {MAX_ACTIONS}", path="/actions")
    if rule_id is not None and not actions:
        raise InvalidRequestError("without an action there is no place for the rule id", path="/actions")
    parts = []
    for place, action in enumerate(actions, 1):
        kind, options = _encode(action)
        cookie = attribute(COOKIE, rule_id) if rule_id is not None and place == 1 else b""
        flags = _NO_PERCPU
        if isinstance(action, QueueMapping) and action.hardware:
            flags |= _SKIP_SW
        its_flags = attribute(_FLAGS, _BITFIELD.pack(flags, flags))
        parts.append(nested(place, text(KIND, kind), cookie, its_flags, nested(OPTIONS, options)))
    return b"".join(parts)


def cookie_offset(actions: Sequence[TcAction]) -> int:
    """Return where `encode_actions` puts the rule id: behind the first action's header, kind and cookie's header."""
    return 4 + len(text(KIND, _encode(actions[0])[0])) + 4


def _encode(action: TcAction) -> tuple[str, bytes]:
    found = _ENCODERS.get(type(action))
    if found is None:
        raise InvalidRequestError(f"an action {action!r} can't be written", path="/actions")
    return found[0], found[1](action)


def _generic(verdict: int) -> bytes:
    return _GENERIC.pack(0, 0, verdict, 0, 0)


def _gact(action: Gact) -> bytes:
    return attribute(PARMS, _generic(action.verdict.value))


def _goto(action: GotoChain) -> bytes:
    return attribute(PARMS, _generic(_GOTO | action.chain))


def _mirred(action: Mirred) -> bytes:
    what = 1 + action.copy + 2 * action.ingress
    verdict = _PIPE if action.copy else _STOLEN
    return attribute(PARMS, _MIRRED.pack(0, 0, verdict, 0, 0, what, action.ifindex))


def _vlan_push(action: VlanPush) -> bytes:
    return b"".join(
        (
            attribute(PARMS, _PLUS_INT.pack(0, 0, _PIPE, 0, 0, _PUSH)),
            u16(_VLAN_ID, action.vid),
            be16(_VLAN_PROTOCOL, action.tpid),
            u8(_VLAN_PRIORITY, action.pcp),
        )
    )


def _vlan_pop(_: VlanPop) -> bytes:
    return attribute(PARMS, _PLUS_INT.pack(0, 0, _PIPE, 0, 0, _POP))


def _vlan_modify(action: VlanModify) -> bytes:
    head = attribute(PARMS, _PLUS_INT.pack(0, 0, _PIPE, 0, 0, _MODIFY)) + u16(_VLAN_ID, action.vid)
    head += be16(_VLAN_PROTOCOL, action.tpid)
    return head if action.pcp is None else head + u8(_VLAN_PRIORITY, action.pcp)


def _pedit(action: Pedit) -> bytes:
    keys, extended = [], []
    for key in action.keys:
        keep = ~key.mask & 0xFFFF_FFFF
        # Words are in network order in the packet, and the kernel works on them as it finds them in memory.
        value, kept = (int.from_bytes(word.to_bytes(4, "big"), _HOST) for word in (key.value, keep))
        keys.append(_PEDIT_KEY.pack(kept, value, key.offset, 0, 0, 0))
        extended.append(nested(_PEDIT_KEY_EX, u16(1, key.header.value), u16(2, int(key.add))))
    head = _PEDIT.pack(0, 0, _PIPE, 0, 0, len(keys), 0)
    return attribute(_PEDIT_PARMS_EX, head + b"".join(keys)) + nested(_PEDIT_KEYS_EX, *extended)


def _csum(action: Csum) -> bytes:
    return attribute(_CSUM_PARMS, _PLUS_INT.pack(0, 0, _PIPE, 0, 0, action.update.value))


def _tunnel_set(action: TunnelKeySet) -> bytes:
    first = 3 if action.src.version == 4 else 5
    parts = [
        attribute(PARMS, _PLUS_INT.pack(0, 0, _PIPE, 0, 0, 1)),
        attribute(first, action.src.packed),
        attribute(first + 1, action.dst.packed),
        u8(10, int(not action.csum)),
    ]
    if action.key_id is not None:
        parts.append(attribute(7, action.key_id.to_bytes(4, "big")))
    if action.tp_dst is not None:
        parts.append(be16(9, action.tp_dst))
    return b"".join(parts)


def _tunnel_unset(_: TunnelKeyUnset) -> bytes:
    return attribute(PARMS, _PLUS_INT.pack(0, 0, _PIPE, 0, 0, 2))


def _queue(action: QueueMapping) -> bytes:
    return attribute(PARMS, _generic(_PIPE)) + u16(_SKBEDIT_QUEUE, action.queue)


_ENCODERS: Mapping[type, tuple[str, Callable[..., bytes]]] = MappingProxyType(
    {
        Gact: ("gact", _gact),
        GotoChain: ("gact", _goto),
        Mirred: ("mirred", _mirred),
        VlanPush: ("vlan", _vlan_push),
        VlanPop: ("vlan", _vlan_pop),
        VlanModify: ("vlan", _vlan_modify),
        Pedit: ("pedit", _pedit),
        Csum: ("csum", _csum),
        TunnelKeySet: ("tunnel_key", _tunnel_set),
        TunnelKeyUnset: ("tunnel_key", _tunnel_unset),
        PoliceRate: ("police", police.encode),
        PolicePackets: ("police", police.encode),
        QueueMapping: ("skbedit", _queue),
    }
)


def decode_action(data: Buffer) -> TcAction:
    """Return one action as read; what has no form here is an `UnknownAction`.

    Args:
        data: The attributes of one action.

    Raises:
        MalformedError: It breaks its format.
    """
    found = parse(data)
    kind = string(found.get(KIND, b""))
    decoder = _DECODERS.get(kind)
    if decoder is None or OPTIONS not in found:
        return UnknownAction(kind=kind, detail="" if decoder is None else "no options")
    try:
        action = decoder(found[OPTIONS])
        if isinstance(action, QueueMapping):
            flags = fields(_BITFIELD, found[_FLAGS])[0] if _FLAGS in found else 0
            action = QueueMapping(queue=action.queue, hardware=bool(flags & _SKIP_SW))
    except InvalidRequestError as cause:
        return UnknownAction(kind=kind, detail=cause.message)
    return action


def idle_ns(data: Buffer, packets: int) -> int | None:
    """Return the time since an action was last used; None where it never was, or does not say.

    Args:
        data: The attributes of one action.
        packets: How many it has counted: in the first 10 ms the kernel's times look as if there had been none.

    Raises:
        MalformedError: It breaks its format.
    """
    found = parse(data)
    place = TIMES.get(bytes(found.get(KIND, b"")).rstrip(b"\0"))
    if place is None or OPTIONS not in found:
        return None
    times = parse(found[OPTIONS]).get(place)
    if times is None:
        return None
    _, last_used, _, first_used = fields(_TIMES, times)
    return min(last_used, MAX_TICKS) * CLOCK_TICK_NS if first_used or packets else None


MAX_TICKS = 1 << 39
CLOCK_TICK_NS = 10_000_000
"""Times of actions are in hundredths of a second (USER_HZ) on every architecture that Linux runs NICs on."""


def _decode_gact(options: Buffer) -> TcAction:
    found = parse(options)
    if PARMS not in found:
        return UnknownAction(kind="gact", detail="no parameters")
    verdict = fields(_GENERIC, found[PARMS])[2]
    if 3 in found:
        return UnknownAction(kind="gact", detail="random")
    if verdict >= 0 and verdict & _OPCODE == _GOTO:
        return GotoChain(chain=verdict & MAX_CHAIN)
    if verdict in _VERDICTS:
        return Gact(verdict=Verdict(verdict))
    return UnknownAction(kind="gact", detail=f"verdict {verdict}")


_VERDICTS = frozenset(verdict.value for verdict in Verdict)


def _decode_mirred(options: Buffer) -> TcAction:
    found = parse(options)
    if PARMS not in found:
        return UnknownAction(kind="mirred", detail="no parameters")
    _, _, verdict, _, _, what, ifindex = fields(_MIRRED, found[PARMS])
    copy, ingress = what in {2, 4}, what in {3, 4}
    if what not in {1, 2, 3, 4} or verdict != (_PIPE if copy else _STOLEN):
        return UnknownAction(kind="mirred", detail=f"way {what}, verdict {verdict}")
    return Mirred(ifindex=ifindex, copy=copy, ingress=ingress)


def _decode_vlan(options: Buffer) -> TcAction:
    found = parse(options)
    if PARMS not in found:
        return UnknownAction(kind="vlan", detail="no parameters")
    _, _, verdict, _, _, what = fields(_PLUS_INT, found[PARMS])
    if verdict != _PIPE or what not in {_POP, _PUSH, _MODIFY}:
        return UnknownAction(kind="vlan", detail=f"what {what}, verdict {verdict}")
    if what == _POP:
        return VlanPop()
    vid = number(found[_VLAN_ID], 2) if _VLAN_ID in found else 0
    tpid = network_number(found[_VLAN_PROTOCOL], 2) if _VLAN_PROTOCOL in found else 0x8100
    pcp = number(found[_VLAN_PRIORITY], 1) if _VLAN_PRIORITY in found else None
    if what == _PUSH:
        return VlanPush(vid=vid, pcp=pcp or 0, tpid=tpid)
    return VlanModify(vid=vid, pcp=pcp, tpid=tpid)


def _decode_pedit(options: Buffer) -> TcAction:
    found = parse(options)
    parameters = found.get(_PEDIT_PARMS_EX, found.get(PARMS))
    if parameters is None:
        return UnknownAction(kind="pedit", detail="no parameters")
    _, _, verdict, _, _, count, _ = fields(_PEDIT, parameters)
    extended = [(0, 0)] * count
    if _PEDIT_KEYS_EX in found:
        extended = [_pedit_extension(found[_PEDIT_KEYS_EX][a:b]) for _, a, b in walk(found[_PEDIT_KEYS_EX])]
    if verdict != _PIPE or len(extended) != count or len(parameters) < _PEDIT.size + count * _PEDIT_KEY.size:
        return UnknownAction(kind="pedit", detail=f"{count} keys, verdict {verdict}")
    keys = []
    for place, (header, command) in enumerate(extended):
        start = _PEDIT.size + place * _PEDIT_KEY.size
        kept, value, offset, at, offset_mask, shift = fields(_PEDIT_KEY, parameters[start:])
        if header > Header.UDP.value or command > 1 or at or offset_mask or shift:
            return UnknownAction(kind="pedit", detail=f"key {place}: header {header}, command {command}")
        value, kept = (int.from_bytes(word.to_bytes(4, _HOST), "big") for word in (value, kept))
        keys.append(
            PeditKey(
                header=Header(header),
                offset=offset,
                mask=~kept & 0xFFFF_FFFF,
                value=value,
                add=bool(command),
            )
        )
    return Pedit(keys=tuple(keys))


def _pedit_extension(data: Buffer) -> tuple[int, int]:
    found = parse(data)
    return number(found.get(1, b"\0\0"), 2), number(found.get(2, b"\0\0"), 2)


def _decode_csum(options: Buffer) -> TcAction:
    found = parse(options)
    if _CSUM_PARMS not in found:
        return UnknownAction(kind="csum", detail="no parameters")
    _, _, verdict, _, _, update = fields(_PLUS_INT, found[_CSUM_PARMS])
    if verdict != _PIPE or not 0 < update < 128:
        return UnknownAction(kind="csum", detail=f"update {update}, verdict {verdict}")
    return Csum(update=Checksum(update))


def _decode_tunnel(options: Buffer) -> TcAction:
    found = parse(options)
    if PARMS not in found:
        return UnknownAction(kind="tunnel_key", detail="no parameters")
    _, _, verdict, _, _, what = fields(_PLUS_INT, found[PARMS])
    if verdict == _PIPE and what == 2:
        return TunnelKeyUnset()
    others = {11: "options", 12: "a TOS", 13: "a TTL", 14: "no fragments"}
    strange = [name for place, name in others.items() if place in found and any(found[place])]
    strange += ["no fragments"] if 14 in found and not strange else []
    wide = {3, 4} <= found.keys(), {5, 6} <= found.keys()
    if verdict != _PIPE or what != 1 or strange or not any(wide):
        return UnknownAction(kind="tunnel_key", detail=", ".join(strange) or f"what {what}")
    size = 4 if wide[0] else 16
    ends = [found[place] for place in ((3, 4) if wide[0] else (5, 6))]
    src, dst = (ipaddress.ip_address(network_number(end, size).to_bytes(size, "big")) for end in ends)
    port = network_number(found[9], 2) if 9 in found else 0
    return TunnelKeySet(
        key_id=network_number(found[7], 4) if 7 in found else None,
        src=src,
        dst=dst,
        tp_dst=port or None,
        csum=not (10 in found and number(found[10], 1)),
    )


def _decode_skbedit(options: Buffer) -> TcAction:
    found = parse(options)
    if PARMS not in found or _SKBEDIT_QUEUE not in found or _SKBEDIT_OTHERS & found.keys():
        return UnknownAction(kind="skbedit", detail="not a queue alone")
    if fields(_GENERIC, found[PARMS])[2] != _PIPE:
        return UnknownAction(kind="skbedit", detail="verdict")
    return QueueMapping(queue=number(found[_SKBEDIT_QUEUE], 2))


_DECODERS: Mapping[str, Callable[[Buffer], TcAction]] = MappingProxyType(
    {
        "gact": _decode_gact,
        "mirred": _decode_mirred,
        "vlan": _decode_vlan,
        "pedit": _decode_pedit,
        "csum": _decode_csum,
        "tunnel_key": _decode_tunnel,
        "police": police.decode,
        "skbedit": _decode_skbedit,
    }
)
_HOST = sys.byteorder
