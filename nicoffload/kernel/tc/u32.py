"""The u32 classifier: 32-bit words under a mask, and tables that lead to the next header, as ixgbe offloads them."""

from __future__ import annotations

import struct
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nicoffload.errors import InvalidRequestError, NotSupportedError, Reason
from nicoffload.kernel.attributes import Buffer, MalformedError, attribute, fields, number, text, u32
from nicoffload.kernel.tc.template import Keys, Slot
from nicoffload.kernel.tc.values import Placing, TcAction
from nicoffload.model import FieldValue, Masked, Match
from nicoffload.model.action import check_range
from nicoffload.model.fields import ETH_P_IP, IPPROTO_TCP, IPPROTO_UDP

CAPABILITY = "flow_filters.u32"
ROOT_TABLE = 0x800
OWN_ROOT = 0xFFF
"""Stands for the root table of whichever pref a filter is of; what is read names the table by its number."""
MAX_NODE = 0xFFF

CLASSID, HASH, LINK, DIVISOR, SEL, ACT, INDEV, FLAGS = 1, 2, 3, 4, 5, 7, 8, 11

_SELECTOR = struct.Struct("=BBBxHHhhI")
"""struct tc_u32_sel: flags, offshift, number of keys, offmask, off, offoff, hoff, hmask."""
_KEY = struct.Struct(">II")
_KEY_PLACE = struct.Struct("=ii")
_KEY_BYTES = 16
_TERMINAL, _OFFSET, _VAR_OFFSET, _EAT = 1, 2, 4, 8
_LENGTH_OF_IP_HEADER = 0x0F00
_WORDS_TO_BYTES = 6
_PORTS_BEHIND_PLAIN_IP = 20


@dataclass(frozen=True, slots=True)
class U32Key:
    """One word to compare.

    Args:
        offset: In bytes from the IP header, or from the next header where `next_header`.
        mask: Bits that count, the word read in network order.
        value: The bits.
        next_header: Count from where the table that this filter is in was entered.
    """

    offset: int
    mask: int
    value: int
    next_header: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.mask <= 0xFFFF_FFFF or self.value & ~self.mask or self.value < 0:
            raise InvalidRequestError(f"{self.value:#x}/{self.mask:#x} is no 32-bit value with its mask")
        check_range("offset", self.offset, -0x8000, 0x7FFF)


@dataclass(frozen=True, slots=True)
class U32Hash:
    """Which bits of a packet choose the bucket of the table that a filter leads to.

    Args:
        offset: Of their word, in bytes from the IP header.
        mask: The bits, the word read in network order; the lowest 8 of them count. 0 for the first bucket.
    """

    offset: int
    mask: int

    def __post_init__(self) -> None:
        check_range("offset", self.offset, -0x8000, 0x7FFF)
        check_range("mask", self.mask, 0, 0xFFFF_FFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class U32Filter:
    """A filter of u32, as asked for or as read.

    Args:
        keys: Words that must all be so; none for every packet.
        actions: What to do; empty only with `link`.
        pref: 1 to 65535, lower first.
        node: Its number within table and bucket, 1 to 4095; 0 lets the kernel choose.
        table: The hash table it is in, 1 to 4095; 2048 is the first pref's root, 4095 stands for its own pref's.
        bucket: Which bucket of the table.
        link: The table where it goes on; 0 for none.
        hash: How a packet's bucket in that table is found, and that offsets count from the IP header there too; None
            where they count from behind it, in a table of one bucket.
        indev: Only what entered by the device of this name; empty for any.
        class_id: A number that is kept with it, and read back; 0 for none.
        protocol: Ethernet type.
        placing: Who is to run it.
        rule_id: Kept in the cookie of the first action.
        chain: 0 is where packets begin.
    """

    keys: tuple[U32Key, ...]
    actions: tuple[TcAction, ...]
    pref: int
    node: int = 0
    table: int = ROOT_TABLE
    bucket: int = 0
    link: int = 0
    hash: U32Hash | None = None
    indev: str = ""
    class_id: int = 0
    protocol: int = ETH_P_IP
    placing: Placing = Placing.BOTH
    rule_id: uuid.UUID | None = None
    chain: int = 0

    def __post_init__(self) -> None:
        check_range("number of keys", len(self.keys), 0, 128)
        check_range("pref", self.pref, 1, 0xFFFF)
        check_range("node", self.node, 0, MAX_NODE)
        check_range("table", self.table, 1, 0xFFF)
        check_range("bucket", self.bucket, 0, 0xFF)
        check_range("link", self.link, 0, 0xFFF)
        check_range("class_id", self.class_id, 0, 0xFFFF_FFFF)
        if not self.actions and not self.link:
            raise InvalidRequestError("a u32 filter has an action or leads to a table", path="/actions")

    @property
    def handle(self) -> int:
        """The number that the kernel knows it by; 0 while the kernel is to choose."""
        if self.table == OWN_ROOT:  # which the kernel numbers
            return self.node
        return self.table << 20 | self.bucket << 12 | self.node if self.node else 0


def compile_keys(item: U32Filter) -> Keys:
    """Return the attributes of a filter's words; the columns are table and bucket, then the value of each word."""
    jumps = item.link and item.hash is None
    flags = (_TERMINAL if item.actions else 0) | (_VAR_OFFSET | _EAT if jumps else 0)
    mask = int.from_bytes(_LENGTH_OF_IP_HEADER.to_bytes(2, "big"), _HOST) if jumps else 0
    shift = _WORDS_TO_BYTES if jumps else 0
    hash_at, hash_mask = (item.hash.offset, item.hash.mask) if item.hash is not None else (0, 0)
    data = attribute(HASH, bytes(4))
    slots = [Slot(4, 4, 0, None, network=False)]
    if item.class_id:
        data += u32(CLASSID, item.class_id)
    if item.indev:
        data += text(INDEV, item.indev)
    if item.link:
        data += u32(LINK, item.link << 20)
    at = len(data) + 4 + _SELECTOR.size
    swapped = int.from_bytes(hash_mask.to_bytes(4, "big"), _HOST)
    selector = _SELECTOR.pack(flags, shift, len(item.keys), mask, 0, 0, hash_at, swapped)
    for place, key in enumerate(item.keys):
        slots.append(Slot(at + place * _KEY_BYTES + 4, 4, 1 + place))
        selector += _KEY.pack(key.mask, 0) + _KEY_PLACE.pack(key.offset, -1 if key.next_header else 0)
    return Keys(data=data + attribute(SEL, selector), slots=tuple(slots), protocol=item.protocol)


def shape(item: U32Filter) -> object:
    """Return what decides a message's template; filters that are equal in it share one."""
    words = tuple((key.offset, key.mask, key.next_header) for key in item.keys)
    return words, item.link, item.hash, item.indev, item.class_id, item.protocol, bool(item.actions)


def is_table(handle: int, options: Mapping[int, Buffer]) -> bool:
    """Tell whether what was dumped is a hash table rather than a filter."""
    return DIVISOR in options and SEL not in options and not handle & 0xFFFFF


def decode(options: Mapping[int, Buffer]) -> tuple[tuple[U32Key, ...], int, U32Hash | None, list[str]]:
    """Return a filter's words, the table that it leads to (0: none), by which hash, and what of it has no form here.

    Raises:
        MalformedError: The selector is missing or cut short.
    """
    if SEL not in options:
        raise MalformedError("a u32 filter without a selector")
    selector = options[SEL]
    flags, shift, count, mask, off, at, hash_at, swapped = fields(_SELECTOR, selector)
    foreign: list[str] = []
    keys = []
    if len(selector) < _SELECTOR.size + count * _KEY_BYTES:
        raise MalformedError(f"a u32 selector has no room for {count} keys")
    for place in range(count):
        start = _SELECTOR.size + place * _KEY_BYTES
        key_mask, value = fields(_KEY, selector[start:])
        offset, behind = fields(_KEY_PLACE, selector[start + _KEY.size :])
        if behind not in {0, -1} or not -0x8000 <= offset <= 0x7FFF:
            foreign.append(f"word {offset} behind {behind}")
        elif key_mask:
            keys.append(U32Key(offset, key_mask, value & key_mask, bool(behind)))
    link = number(options[LINK], 4) >> 20 if LINK in options else 0
    plain = (
        int.from_bytes(mask.to_bytes(2, _HOST), "big") == _LENGTH_OF_IP_HEADER and shift == _WORDS_TO_BYTES
    )
    hashed = None
    if link and not flags & (_OFFSET | _VAR_OFFSET | _EAT):
        hashed = U32Hash(hash_at, int.from_bytes(swapped.to_bytes(4, _HOST), "big"))
    elif link and (not plain or off or at or swapped):
        foreign.append("a jump that is not to the next header")
    return tuple(keys), link, hashed, foreign


# ------------------------------------------------------------------------------------------------ IPv4 five-tuples

_IP_FIELDS: Mapping[str, tuple[int, int]] = {
    "ip_tos": (0, 16),
    "ip_ttl": (8, 24),
    "ip_proto": (8, 16),
    "ipv4_src": (12, 0),
    "ipv4_dst": (16, 0),
}
"""Where a field is: the word's offset in the IP header, and its lowest bit within the word."""
_PORT_FIELDS: Mapping[str, int] = {"tp_src": 16, "tp_dst": 0}
_LINKED_PROTOCOLS = (IPPROTO_TCP, IPPROTO_UDP)
# Ports are 20 bytes behind the start only of a header without options, and only the first fragment has them.
_PLAIN_HEADER = U32Key(0, 0x0F00_0000, 0x0500_0000)
_FIRST_FRAGMENT = U32Key(4, 0x0000_1FFF, 0)
_ANY_IPV4 = U32Key(0, 0xF000_0000, 0x4000_0000)
"""Stands for a match without a field: a filter has a word at least, and this one is the IP version."""


def flat_keys(match: Match) -> tuple[U32Key, ...]:
    """Return the words of an IPv4 match in one filter, for the kernel's own use.

    With ports it catches packets whose IP header has no options, and of fragments only the first.

    Raises:
        NotSupportedError: A field has no word here; every one is named.
    """
    header, ports = _words(match)
    if not ports:
        return header
    behind = tuple(U32Key(_PORTS_BEHIND_PLAIN_IP + key.offset, key.mask, key.value) for key in ports)
    return (*_merge_word((*header, _PLAIN_HEADER)), _FIRST_FRAGMENT, *behind)


def linked_keys(match: Match) -> tuple[tuple[U32Key, ...], tuple[U32Key, ...]]:
    """Return the words of a filter that leads to a table of its own, and of the filter in there, as ixgbe takes them.

    The second is empty for a match without ports: the first is then the whole filter.

    Raises:
        NotSupportedError: A field has no word here, or the protocol is neither TCP nor UDP.
    """
    header, ports = _words(match)
    protocol = match.ip_proto
    if ports and not (isinstance(protocol, Masked) and protocol.value in _LINKED_PROTOCOLS):
        raise _cannot([_reason("tp_src", "the ports of this protocol have no table", "TCP or UDP")])
    return header, tuple(U32Key(key.offset, key.mask, key.value, next_header=True) for key in ports)


def decode_match(protocol: int, keys: Sequence[U32Key]) -> tuple[Match, list[str]]:
    """Return the match that words stand for, and the words that stand for nothing here.

    Args:
        protocol: The filter's Ethernet type.
        keys: Its words; those of `linked_keys` may be given together.
    """
    found: dict[str, FieldValue] = {"eth_type": Masked(protocol, 0xFFFF)}
    words: dict[tuple[int, bool], tuple[int, int]] = {}
    for key in keys:
        mask, value = words.get((key.offset, key.next_header), (0, 0))
        words[key.offset, key.next_header] = mask | key.mask, value | key.value
    if protocol != ETH_P_IP:
        return Match(), [f"protocol {protocol:#06x}"]
    if words.get((_ANY_IPV4.offset, False)) == (_ANY_IPV4.mask, _ANY_IPV4.value):
        del words[_ANY_IPV4.offset, False]  # the protocol says as much
    for name, (offset, low) in _IP_FIELDS.items():
        _take(words, (offset, False), name, low, 32 if name.startswith("ipv4") else 8, found)
    plain = words.get((0, False)) == (0x0F00_0000, 0x0500_0000) and words.get((4, False)) == (0x1FFF, 0)
    for name, low in _PORT_FIELDS.items():
        _take(words, (0, True), name, low, 16, found)
        if plain:
            _take(words, (_PORTS_BEHIND_PLAIN_IP, False), name, low, 16, found)
    if plain:
        del words[0, False], words[4, False]
    foreign = [f"word {offset}" for (offset, _), (mask, _) in words.items() if mask]
    return Match(**found), foreign


def _take(
    words: dict[tuple[int, bool], tuple[int, int]],
    place: tuple[int, bool],
    name: str,
    low: int,
    bits: int,
    found: dict[str, FieldValue],
) -> None:
    """Move a field's bits from its word to the match."""
    if place not in words:
        return
    field = ((1 << bits) - 1) << low
    mask, value = words[place]
    if mask & field:
        found[name] = Masked((value & field) >> low, (mask & field) >> low)
        words[place] = mask & ~field, value & ~field


def _words(match: Match) -> tuple[tuple[U32Key, ...], tuple[U32Key, ...]]:
    """Return the words in the IP header, and the word of the ports."""
    reasons = []
    if not (isinstance(match.eth_type, Masked) and match.eth_type.value == ETH_P_IP):
        reasons.append(_reason("eth_type", "only IPv4 is matched by words", "0x0800"))
    header: list[U32Key] = []
    ports: list[U32Key] = []
    for name, value in match.items():
        if name == "eth_type":
            continue
        if not isinstance(value, Masked):
            reasons.append(_reason(name, "a word takes a mask, not a range", "a value and a mask"))
        elif name in _IP_FIELDS:
            offset, low = _IP_FIELDS[name]
            header.append(U32Key(offset, value.mask << low, value.value << low))
        elif name in _PORT_FIELDS:
            low = _PORT_FIELDS[name]
            ports.append(U32Key(0, value.mask << low, value.value << low))
        else:
            reasons.append(_reason(name, "no word is known for it", ", ".join((*_IP_FIELDS, *_PORT_FIELDS))))
    if reasons:
        raise _cannot(reasons)
    return _merge_word(header) or (_ANY_IPV4,), _merge_word(ports)


def _merge_word(keys: Sequence[U32Key]) -> tuple[U32Key, ...]:
    """Return one key a word."""
    words: dict[int, tuple[int, int]] = {}
    for key in keys:
        mask, value = words.get(key.offset, (0, 0))
        words[key.offset] = mask | key.mask, value | key.value
    return tuple(U32Key(offset, mask, value) for offset, (mask, value) in sorted(words.items()))


def _reason(name: str, message: str, accepted: str) -> Reason:
    return Reason(code="field.unknown", path=f"/match/{name}", message=message, accepted=accepted)


def _cannot(reasons: Sequence[Reason]) -> NotSupportedError:
    return NotSupportedError(
        "tc u32 can't match this", capability=CAPABILITY, reasons=reasons, path=reasons[0].path
    )


_HOST = sys.byteorder
