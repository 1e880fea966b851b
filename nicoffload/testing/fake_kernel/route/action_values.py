"""Actions of filters as the kernel keeps them: one frozen value a kind, read from options and written into dumps."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.testing.fake_kernel.route.wire import (
    Rejected,
    be16_of,
    parse,
    put,
    put_be16,
    put_u8,
    put_u16,
    put_u32,
    put_u64,
    u8_of,
    u16_of,
    u32_of,
    u64_of,
    walk,
)

PASS, SHOT, PIPE, STOLEN, TRAP = 0, 2, 3, 4, 8
_VALUE_MAX = TRAP
_OPCODE_SHIFT, _VALUE_MASK = 28, 0x0FFF_FFFF
GOTO_CHAIN = 2 << _OPCODE_SHIFT
_EXTENDED_MAX = 2 << _OPCODE_SHIFT
EGRESS_REDIRECT, EGRESS_MIRROR, INGRESS_REDIRECT, INGRESS_MIRROR = 1, 2, 3, 4
VLAN_POP, VLAN_PUSH, VLAN_MODIFY, _VLAN_POP_ETH, _VLAN_PUSH_ETH = 1, 2, 3, 4, 5
TUNNEL_SET, TUNNEL_RELEASE = 1, 2

_GENERIC = struct.Struct("=IIiii")
_GENERIC_INT = struct.Struct("=IIiiii")
_CSUM = struct.Struct("=IIiiiI")
_MIRRED = struct.Struct("=IIiiiiI")
_PEDIT = struct.Struct("=IIiiiBBxx")
_PEDIT_KEY_BYTES = 24
_VID_LIMIT = 0xFFF
_INHERIT, _QUEUE_RANGE = 0x20, 0x40


def check_verdict(verdict: int) -> None:
    """Refuse what ``tcf_action_check_ctrlact`` refuses.

    Raises:
        Rejected: It is no verdict.
    """
    if not valid_verdict(verdict):
        raise Rejected(errno.EINVAL, "invalid control action")


def valid_verdict(verdict: int) -> bool:
    """Return what ``tcf_action_valid`` does."""
    opcode = verdict & ~_VALUE_MASK  # a signed number in the kernel: whatever is negative passes
    return opcode <= _EXTENDED_MAX if opcode else verdict <= _VALUE_MAX


def goes_to(verdict: int) -> int | None:
    """Return the chain that a verdict leads to; None for none."""
    return verdict & _VALUE_MASK if verdict & ~_VALUE_MASK == GOTO_CHAIN else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gact:
    """``gact``: a verdict and nothing else."""

    verdict: int

    def options(self, index: int) -> bytes:
        """Return its parameters as a dump has them."""
        return put(2, _GENERIC.pack(index, 0, self.verdict, 1, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirred:
    """``mirred``: a device, and which way."""

    verdict: int
    way: int
    ifindex: int
    block: int = 0

    def options(self, index: int) -> bytes:
        """Return its parameters as a dump has them."""
        head = put(2, _MIRRED.pack(index, 0, self.verdict, 1, 1, self.way, self.ifindex))
        return head + (put_u32(4, self.block) if self.block else b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vlan:
    """``vlan``: what to do with a tag; the id and so on of one that is pushed or modified."""

    verdict: int
    what: int
    vid: int = 0
    tpid: int = 0x8100
    pcp: int | None = None
    addresses: bytes = b""

    def options(self, index: int) -> bytes:
        """Return its parameters as a dump has them."""
        parts = [put(2, _GENERIC_INT.pack(index, 0, self.verdict, 1, 1, self.what))]
        if self.what in {VLAN_PUSH, VLAN_MODIFY}:
            parts += [put_u16(3, self.vid), put_be16(4, self.tpid)]
            if self.pcp is not None:
                parts.append(put_u8(6, self.pcp))
        if self.what == _VLAN_PUSH_ETH:
            parts += [put(7, self.addresses[:6]), put(8, self.addresses[6:])]
        return b"".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeditKey:
    """One word that pedit writes: in network order, with the bits that it keeps."""

    kept: int
    value: int
    offset: int
    header: int = 0
    command: int = 0
    plain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pedit:
    """``pedit``: words to rewrite.

    Args:
        verdict: What comes after.
        flags: As asked.
        keys: The words.
        raw: The words as they were sent.
        extended: Whether each word names a header.
    """

    verdict: int
    flags: int
    keys: tuple[PeditKey, ...]
    raw: bytes
    extended: bool

    def options(self, index: int) -> bytes:
        """Return its parameters as a dump has them."""
        head = _PEDIT.pack(index, 0, self.verdict, 1, 1, len(self.keys), self.flags)
        if not self.extended:
            return put(2, head + self.raw)
        each = b"".join(put(6, put_u16(1, key.header) + put_u16(2, key.command)) for key in self.keys)
        # The kernel marks the outer list as nested, and the entries in it not.
        return put(5, each) + put(4, head + self.raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Csum:
    """``csum``: checksums to make anew, as bits."""

    verdict: int
    update: int

    def options(self, index: int) -> bytes:
        """Return its parameters as a dump has them."""
        return put(1, _CSUM.pack(index, 0, self.verdict, 1, 1, self.update))


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelKey:
    """``tunnel_key``: the outer header to wrap into, or to forget."""

    verdict: int
    what: int
    key_id: int | None = None
    src: bytes = b""
    dst: bytes = b""
    tp_dst: int = 0
    csum: bool = True
    no_fragment: bool = False
    tos: int = 0
    ttl: int = 0

    def options(self, index: int) -> bytes:
        """Return its parameters as a dump has them."""
        parts = [put(2, _GENERIC_INT.pack(index, 0, self.verdict, 1, 1, self.what))]
        if self.what == TUNNEL_SET:
            first = 3 if len(self.src) == 4 else 5
            if self.key_id is not None:
                parts.append(put(7, self.key_id.to_bytes(4, "big")))
            parts += [put(first, self.src), put(first + 1, self.dst)]
            if self.tp_dst:
                parts.append(put_be16(9, self.tp_dst))
            parts.append(put_u8(10, not self.csum))
            if self.no_fragment:
                parts.append(put(14, b""))
            if self.tos:
                parts.append(put_u8(12, self.tos))
            if self.ttl:
                parts.append(put_u8(13, self.ttl))
        return b"".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skbedit:
    """``skbedit``: what to note beside the packet; None for what is left as it is."""

    verdict: int
    priority: int | None = None
    queue: int | None = None
    mark: int | None = None
    packet_type: int | None = None
    mask: int | None = None
    inherit: bool = False

    def options(self, index: int) -> bytes:
        """Return its parameters as a dump has them."""
        parts = [put(2, _GENERIC.pack(index, 0, self.verdict, 1, 1))]
        for kind, writer, value in (
            (3, put_u32, self.priority),
            (4, put_u16, self.queue),
            (5, put_u32, self.mark),
            (7, put_u16, self.packet_type),
            (8, put_u32, self.mask),
        ):
            if value is not None:
                parts.append(writer(kind, value))
        if self.inherit:
            parts.append(put_u64(9, _INHERIT))
        return b"".join(parts)


def _read_gact(options: bytes) -> Gact:
    found = parse(options, least={2: _GENERIC.size, 3: 8})
    if 2 not in found:
        raise Rejected(errno.EINVAL)
    if 3 in found:
        raise _not_modelled("gact random")
    return Gact(verdict=_verdict(found[2]))


def _read_mirred(options: bytes) -> Mirred:
    found = parse(options, least={2: _MIRRED.size, 4: 4}, words=True)
    if 2 not in found:
        raise Rejected(errno.EINVAL, "act_mirred: Missing required mirred parameters")
    _, _, verdict, _, _, way, ifindex = _MIRRED.unpack_from(found[2])
    block = u32_of(found[4]) if 4 in found else 0
    if 4 in found and ifindex:
        raise Rejected(errno.EINVAL, "act_mirred: Cannot specify Block ID and dev simultaneously")
    if not EGRESS_REDIRECT <= way <= INGRESS_MIRROR:
        raise Rejected(errno.EINVAL, "act_mirred: Unknown mirred option")
    if not ifindex and 4 not in found:
        raise Rejected(errno.EINVAL, "act_mirred: Must specify device or block")
    return Mirred(verdict=verdict, way=way, ifindex=ifindex, block=block)


def _read_vlan(options: bytes) -> Vlan:
    found = parse(options, least={2: _GENERIC_INT.size, 3: 2, 4: 2, 6: 1, 7: 6, 8: 6})
    if 2 not in found:
        raise Rejected(errno.EINVAL)
    _, _, verdict, _, _, what = _GENERIC_INT.unpack_from(found[2])
    if what in {VLAN_POP, _VLAN_POP_ETH}:
        return Vlan(verdict=verdict, what=what)
    if what == _VLAN_PUSH_ETH:
        if not {7, 8} <= found.keys():
            raise Rejected(errno.EINVAL)
        return Vlan(verdict=verdict, what=what, addresses=found[7][:6] + found[8][:6])
    if what not in {VLAN_PUSH, VLAN_MODIFY} or 3 not in found:
        raise Rejected(errno.EINVAL)
    vid = u16_of(found[3])
    if vid >= _VID_LIMIT:
        raise Rejected(errno.ERANGE)
    tpid = be16_of(found[4]) if 4 in found else 0x8100
    if tpid not in {0x8100, 0x88A8}:
        raise Rejected(errno.EPROTONOSUPPORT)
    pcp = u8_of(found[6]) if 6 in found else None
    if pcp is None and what == VLAN_PUSH:
        pcp = 0
    return Vlan(verdict=verdict, what=what, vid=vid, tpid=tpid, pcp=pcp)


def _read_pedit(options: bytes) -> Pedit:
    found = parse(options, least={2: _PEDIT.size, 4: _PEDIT.size})
    parameters = found.get(2, found.get(4))
    if parameters is None:
        words = "Missing required TCA_PEDIT_PARMS or TCA_PEDIT_PARMS_EX pedit attribute"
        raise Rejected(errno.EINVAL, f"act_pedit: {words}")
    _, _, verdict, _, _, count, flags = _PEDIT.unpack_from(parameters)
    if not count:
        raise Rejected(errno.EINVAL, "act_pedit: Pedit requires keys to be passed")
    raw = parameters[_PEDIT.size : _PEDIT.size + count * _PEDIT_KEY_BYTES]
    if len(raw) < count * _PEDIT_KEY_BYTES:
        words = "Length of TCA_PEDIT_PARMS or TCA_PEDIT_PARMS_EX pedit attribute is invalid"
        raise Rejected(errno.EINVAL, words)
    extended = _pedit_headers(found[5], count) if 5 in found else None
    keys = []
    for place in range(count):
        kept, value = struct.unpack_from(">II", raw, place * _PEDIT_KEY_BYTES)
        offset, at, offset_mask, shift = struct.unpack_from("=iIII", raw, place * _PEDIT_KEY_BYTES + 8)
        if not offset_mask and offset % 4:
            raise Rejected(errno.EINVAL, "act_pedit: Offsets must be on 32bit boundaries")
        header, command = extended[place] if extended else (0, 0)
        keys.append(
            PeditKey(
                kept=kept,
                value=value,
                offset=offset,
                header=header,
                command=command,
                plain=not (at or offset_mask or shift),
            )
        )
    return Pedit(verdict=verdict, flags=flags, keys=tuple(keys), raw=raw, extended=extended is not None)


def _pedit_headers(data: bytes, count: int) -> list[tuple[int, int]]:
    """Return header and command of each word, as ``tcf_pedit_keys_ex_parse`` reads them."""
    found: list[tuple[int, int]] = []
    for kind, start, end in walk(data):
        if len(found) == count:
            raise Rejected(errno.EINVAL, "act_pedit: Can't parse more extended keys than requested")
        if kind != 6:
            raise Rejected(errno.EINVAL, "Unknown attribute, expected extended key")
        each = parse(data, start, end, least={1: 2, 2: 2})
        if not {1, 2} <= each.keys():
            raise Rejected(errno.EINVAL, "Missing required attribute")
        header, command = u16_of(each[1]), u16_of(each[2])
        if header > 5 or command > 1:
            raise Rejected(errno.ERANGE)
        found.append((header, command))
    if len(found) != count:
        raise Rejected(errno.EINVAL, "act_pedit: Not enough extended keys to parse")
    return found


def _read_csum(options: bytes) -> Csum:
    found = parse(options, least={1: _GENERIC_INT.size})
    if 1 not in found:
        raise Rejected(errno.EINVAL)
    _, _, verdict, _, _, update = _CSUM.unpack_from(found[1])
    return Csum(verdict=verdict, update=update)


_TUNNEL_LEAST = {2: _GENERIC_INT.size, 3: 4, 4: 4, 5: 16, 6: 16, 7: 4, 9: 2, 10: 1, 12: 1, 13: 1}


def _read_tunnel_key(options: bytes) -> TunnelKey:
    try:
        found = parse(options, least=_TUNNEL_LEAST, words=True)
    except Rejected as cause:
        raise Rejected(cause.number, "Failed to parse nested tunnel key attributes") from cause
    if 2 not in found:
        raise Rejected(errno.EINVAL, "Missing tunnel key parameters")
    _, _, verdict, _, _, what = _GENERIC_INT.unpack_from(found[2])
    if what == TUNNEL_RELEASE:
        return TunnelKey(verdict=verdict, what=what)
    if what != TUNNEL_SET:
        raise Rejected(errno.EINVAL, "Unknown tunnel key action")
    if 11 in found:
        raise _not_modelled("options of a tunnel")
    ends = next(((a, b, n) for a, b, n in ((3, 4, 4), (5, 6, 16)) if a in found and b in found), None)
    if ends is None:
        raise Rejected(errno.EINVAL, "Missing either ipv4 or ipv6 src and dst")
    src, dst, size = ends
    return TunnelKey(
        verdict=verdict,
        what=what,
        key_id=int.from_bytes(found[7][:4], "big") if 7 in found else None,
        src=found[src][:size],
        dst=found[dst][:size],
        tp_dst=be16_of(found[9]) if 9 in found else 0,
        csum=not (10 in found and u8_of(found[10])),
        no_fragment=14 in found,
        tos=u8_of(found.get(12, b"")),
        ttl=u8_of(found.get(13, b"")),
    )


_SKBEDIT_LEAST = {2: _GENERIC.size, 3: 4, 4: 2, 5: 4, 7: 2, 8: 4, 9: 8, 10: 2}


def _read_skbedit(options: bytes) -> Skbedit:
    found = parse(options, least=_SKBEDIT_LEAST)
    if 2 not in found:
        raise Rejected(errno.EINVAL)
    pure = u64_of(found[9]) if 9 in found else 0
    if pure & _QUEUE_RANGE:
        raise _not_modelled("a range of queues")
    if not found.keys() & {3, 4, 5, 7, 8} and not pure & _INHERIT:
        raise Rejected(errno.EINVAL)
    return Skbedit(
        verdict=_verdict(found[2]),
        priority=u32_of(found[3]) if 3 in found else None,
        queue=u16_of(found[4]) if 4 in found else None,
        mark=u32_of(found[5]) if 5 in found else None,
        packet_type=u16_of(found[7]) if 7 in found else None,
        mask=u32_of(found[8]) if 8 in found else None,
        inherit=bool(pure & _INHERIT),
    )


def _verdict(parameters: bytes) -> int:
    verdict: int = _GENERIC.unpack_from(parameters)[2]
    return verdict


def _not_modelled(what: str) -> Rejected:
    return Rejected(errno.EOPNOTSUPP, f"fake kernel: {what} is not modelled")


READERS: Mapping[str, Callable[[bytes], Gact | Mirred | Vlan | Pedit | Csum | TunnelKey | Skbedit]] = (
    MappingProxyType(
        {
            "gact": _read_gact,
            "mirred": _read_mirred,
            "vlan": _read_vlan,
            "pedit": _read_pedit,
            "csum": _read_csum,
            "tunnel_key": _read_tunnel_key,
            "skbedit": _read_skbedit,
        }
    )
)
"""What reads the options of each kind; police is read by `police`."""
