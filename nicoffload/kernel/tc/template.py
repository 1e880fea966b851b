"""Messages of one shape: a template, and the places in it that differ from rule to rule, filled by numpy in columns."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nicoffload.kernel.attributes import nested, text, u32
from nicoffload.kernel.netlink import HEADER, NLM_F_ACK, NLM_F_REQUEST
from nicoffload.kernel.tc.values import Hook

Bytes = npt.NDArray[np.uint8]

RTM_NEWTFILTER = 44
RTM_DELTFILTER = 45
RTM_GETTFILTER = 46

TCA_KIND = 1
TCA_OPTIONS = 2
TCA_CHAIN = 11
TCA_DUMP_FLAGS = 15

TCMSG = struct.Struct("=BxxxiIII")
"""Family, ifindex, handle, parent, info: pref in the upper 16 bits, protocol in network order in the lower."""
HEAD_BYTES = HEADER.size + TCMSG.size
_FLAGS_AT, _SEQUENCE_AT = 6, 8
_HANDLE_AT, _INFO_AT = 24, 32
_CHAIN_AT = HEAD_BYTES + 4


def info(pref: int, protocol: int) -> int:
    """Return tcm_info of a pref and an Ethernet type."""
    return pref << 16 | int.from_bytes(protocol.to_bytes(2, "big"), _HOST)


def protocol_of(word: int) -> int:
    """Return the Ethernet type that tcm_info holds."""
    return int.from_bytes((word & 0xFFFF).to_bytes(2, _HOST), "big")


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a message that a column fills.

    Args:
        offset: Of its first byte.
        width: 1, 2, 4, 6, 8 or 16 bytes.
        column: Which column.
        part: Which end of a range the column's value is; None for a plain value.
        network: In network order, else in host order.
    """

    offset: int
    width: int
    column: int
    part: int | None = None
    network: bool = True

    def moved(self, by: int) -> Slot:
        """Return the same slot further behind."""
        return Slot(self.offset + by, self.width, self.column, self.part, self.network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The match of a classifier: attributes, the slots in them, and the protocol that goes with them."""

    data: bytes
    slots: tuple[Slot, ...]
    protocol: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A whole message of one shape.

    Args:
        data: The message, with zeros in its slots.
        slots: Where columns go.
        protocol: Ethernet type of its filters.
        actions_at: Where the actions' attributes begin, so that they may differ as long as their length does not.
        actions_bytes: Their length.
        cookie_at: Where the rule id goes; None without one.
    """

    data: bytes
    slots: tuple[Slot, ...]
    protocol: int
    actions_at: int
    actions_bytes: int
    cookie_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What differs between the messages of one template; row i of each column is filter i.

    Args:
        columns: One a field: integers, two columns (N, 2) for a range, or 16-byte rows.
        handles: uint32[N].
        prefs: uint32[N].
        chains: uint32[N].
        actions: uint8[N, actions_bytes] where filters differ in their actions; None where the template's hold.
        cookies: uint8[N, 16]; None without.
    """

    columns: Sequence[npt.NDArray[np.generic]]
    handles: npt.NDArray[np.uint32]
    prefs: npt.NDArray[np.uint32]
    chains: npt.NDArray[np.uint32]
    actions: Bytes | None = None
    cookies: Bytes | None = None


def head(kind: int, flags: int, hook: Hook) -> bytes:
    """Return the header and tcmsg of a message with zeros for handle and info."""
    return HEADER.pack(0, kind, flags | NLM_F_REQUEST, 0, 0) + TCMSG.pack(0, hook.ifindex, 0, hook.parent, 0)


def new_filter(
    kind: str,
    flags: int,
    hook: Hook,
    keys: Keys,
    *,
    before: bytes = b"",
    actions_kind: int,
    actions: bytes,
    cookie_in_actions: int | None,
) -> Template:
    """Return the template of an RTM_NEWTFILTER.

    Args:
        kind: Name of the classifier.
        flags: Of the message, such as NLM_F_CREATE | NLM_F_EXCL.
        hook: Where.
        keys: The match.
        before: Options that come before it.
        actions_kind: Number of the classifier's attribute for actions.
        actions: What `encode_actions` made; empty for none.
        cookie_in_actions: Where in it the rule id is; None without one.
    """
    start = HEAD_BYTES + 8 + len(text(TCA_KIND, kind)) + 4
    options = before + keys.data
    actions_at = start + len(options) + 4
    if actions:
        options += nested(actions_kind, actions)
    data = head(RTM_NEWTFILTER, flags, hook) + u32(TCA_CHAIN, 0) + text(TCA_KIND, kind)
    data += nested(TCA_OPTIONS, options)
    data = struct.pack("=I", len(data)) + data[4:]
    return Template(
        data=data,
        slots=tuple(slot.moved(start + len(before)) for slot in keys.slots),
        protocol=keys.protocol,
        actions_at=actions_at,
        actions_bytes=len(actions),
        cookie_at=None if cookie_in_actions is None else actions_at + cookie_in_actions,
    )


def del_filter(kind: str, hook: Hook, protocol: int) -> Template:
    """Return the template of an RTM_DELTFILTER."""
    data = head(RTM_DELTFILTER, 0, hook) + u32(TCA_CHAIN, 0) + text(TCA_KIND, kind)
    data = struct.pack("=I", len(data)) + data[4:]
    return Template(data=data, slots=(), protocol=protocol, actions_at=0, actions_bytes=0, cookie_at=None)


def get_filter(kind: str, hook: Hook, protocol: int) -> Template:
    """Return the template of an RTM_GETTFILTER for one filter."""
    template = del_filter(kind, hook, protocol)
    data = bytearray(template.data)
    struct.pack_into("=H", data, 4, RTM_GETTFILTER)
    return Template(
        data=bytes(data), slots=(), protocol=protocol, actions_at=0, actions_bytes=0, cookie_at=None
    )


def fill_block(
    template: Template, rows: Rows, first_sequence: int, acknowledge_every: int, start: int, stop: int
) -> Bytes:
    """Return the messages of some rows as uint8[stop - start, length].

    Every n-th one, and the last, asks for an acknowledgement.

    Args:
        template: Their shape.
        rows: What differs.
        first_sequence: Sequence number of row `start`.
        acknowledge_every: How many messages go into one send.
        start: First row.
        stop: One past the last.
    """
    count = stop - start
    block = np.empty((count, len(template.data)), np.uint8)
    block[:] = np.frombuffer(template.data, np.uint8)
    infos = rows.prefs[start:stop].astype(np.uint32) << np.uint32(16) | np.uint32(info(0, template.protocol))
    _put(block, _HANDLE_AT, rows.handles[start:stop])
    _put(block, _INFO_AT, infos)
    _put(block, _CHAIN_AT, rows.chains[start:stop])
    _put(block, _SEQUENCE_AT, np.arange(first_sequence, first_sequence + count, dtype=np.uint32))
    for slot in template.slots:
        column = rows.columns[slot.column][start:stop]
        block[:, slot.offset : slot.offset + slot.width] = column_bytes(column, slot)
    if rows.actions is not None:
        block[:, template.actions_at : template.actions_at + template.actions_bytes] = rows.actions[
            start:stop
        ]
    if template.cookie_at is not None and rows.cookies is not None:
        block[:, template.cookie_at : template.cookie_at + 16] = rows.cookies[start:stop]
    flags_byte = _FLAGS_AT if _HOST == "little" else _FLAGS_AT + 1
    block[acknowledge_every - 1 :: acknowledge_every, flags_byte] |= NLM_F_ACK
    block[-1, flags_byte] |= NLM_F_ACK
    return block


def _put(block: Bytes, offset: int, column: npt.NDArray[np.uint32]) -> None:
    block[:, offset : offset + 4] = np.ascontiguousarray(column, np.uint32).view(np.uint8).reshape(-1, 4)


def column_bytes(column: npt.NDArray[np.generic], slot: Slot) -> Bytes:
    """Return a column as the bytes of a slot, uint8[N, width]."""
    if slot.width == 16:
        return column.view(np.uint8).reshape(-1, 16)
    if slot.part is not None:
        column = column[:, slot.part]
    size = 8 if slot.width == 6 else slot.width
    order = ">" if slot.network else "="
    wide = np.ascontiguousarray(column).astype(f"{order}u{size}").view(np.uint8).reshape(-1, size)
    return wide[:, size - slot.width :]


_HOST = sys.byteorder
