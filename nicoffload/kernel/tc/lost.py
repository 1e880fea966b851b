"""What became of filters whose answer was lost: the kernel works on all of a send, heard or not, so we look."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

from nicoffload.errors import ConflictError, KernelError, NicOffloadError
from nicoffload.kernel.attributes import fields
from nicoffload.kernel.netlink import HEADER, Message, Netlink, messages
from nicoffload.kernel.tc import read
from nicoffload.kernel.tc.template import (
    HEAD_BYTES,
    RTM_DELTFILTER,
    RTM_GETTFILTER,
    RTM_NEWTFILTER,
    TCMSG,
)
from nicoffload.kernel.tc.values import FilterState, Hook

Fate = Message | NicOffloadError | None
"""What became of one message: the filter as it stands, None where none does and none should, or the error."""

_CHAIN_BYTES = 8
_ABSENT = frozenset({errno.ENOENT, errno.EINVAL, errno.ENODEV})
"""What a get answers where there is no such filter, pref, chain, hook or device (cls_api.c:tc_get_tfilter)."""
_ATTEMPTS = 2


def look(netlink: Netlink, rows: Sequence[bytes], lost: KernelError, *, replace: bool) -> Iterator[Fate]:
    """Yield what became of each message of a send that has no answer.

    Args:
        netlink: A route socket.
        rows: The messages: new filters, or filters to remove or to read, all of one kind.
        lost: Why there is no answer.
        replace: The filters were to take the places of others.

    An error is `uncertain` where even looking does not tell.
    """
    blind: NicOffloadError | None = None
    for row in rows:
        kind = HEADER.unpack_from(row)[1]
        if blind is not None:
            yield _uncertain(lost, blind)
            continue
        try:
            found = _again(netlink, row)
        except NicOffloadError as cause:
            blind = cause
            yield _uncertain(lost, cause)
            continue
        if kind == RTM_NEWTFILTER:
            yield _installed(found, row, lost, replace=replace)
        elif kind == RTM_DELTFILTER and found is not None:
            yield _without_effect(lost, "the filter still stands")
        else:
            yield found


def place(netlink: Netlink, row: bytes) -> Message | NicOffloadError:
    """Return a new filter without a handle as the kernel placed it, where it did not say where that is."""
    lost = KernelError("the kernel does not say which handle it gave", hint="read the filters of the hook")
    try:
        found = _again(netlink, row)
    except NicOffloadError as cause:
        return _uncertain(lost, cause)
    return found if found is not None else _uncertain(lost, None)


def _again(netlink: Netlink, row: bytes) -> Message | None:
    """Return the filter that a message is about as it stands; None where none does. Try again when that is lost."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _read(netlink, row)
        except KernelError:
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError("every attempt returns or raises")


def _read(netlink: Netlink, row: bytes) -> Message | None:
    _, ifindex, handle, parent, word = TCMSG.unpack_from(row, HEADER.size)
    if not handle:
        return _unplaced(netlink, Hook(ifindex, parent), word >> 16, row)
    kind_at = HEAD_BYTES + _CHAIN_BYTES
    kind_bytes = int.from_bytes(row[kind_at : kind_at + 2], read.HOST) + 3 & ~3
    refused, replies = netlink.request(RTM_GETTFILTER, 0, row[HEADER.size : kind_at + kind_bytes])
    if refused is None:
        return next((reply for reply in replies if reply.kind == RTM_NEWTFILTER), None)
    if refused.errno in _ABSENT:
        return None
    raise refused.error("reading a filter", capability=read.CAPABILITY)


def _unplaced(netlink: Netlink, hook: Hook, pref: int, row: bytes) -> Message | None:
    """Return the one filter of a pref that is what a message without a handle asked for.

    Raises:
        KernelError: More than one is.
    """
    asked = _asked(row)
    found = [
        message
        for datagram in read.request(netlink, hook, pref=pref)
        for message in messages(datagram)
        if message.kind == RTM_NEWTFILTER and _same(read.decode(message.payload), asked)
    ]
    if len(found) > 1:
        raise KernelError(f"{len(found)} filters of pref {pref} are alike")
    return found[0] if found else None


def _asked(row: bytes) -> FilterState | None:
    """Return what a message asks for, as if it stood there already."""
    payload = bytearray(row[HEADER.size :])
    fields_of = list(fields(TCMSG, payload))
    fields_of[2] = fields_of[2] or 1  # a filter without a handle is none, to the decoder
    TCMSG.pack_into(payload, 0, *fields_of)
    return read.decode(payload)


def _installed(found: Message | None, row: bytes, lost: KernelError, *, replace: bool) -> Fate:
    if found is None:
        return _without_effect(lost, "the filter does not stand")
    there, asked = read.decode(found.payload), _asked(row)
    if _same(there, asked) and not (replace and not _alike(there, asked)):
        return found
    if not replace and there is not None and asked is not None and asked.filter.rule_id is not None:
        return ConflictError(
            f"handle {there.ref.handle:#x} of pref {there.ref.pref} is taken",
            existing=str(there.filter.rule_id or ""),
            errno=errno.EEXIST,
        )
    return _uncertain(lost, None)


def _same(there: FilterState | None, asked: FilterState | None) -> bool:
    """Tell a filter by its rule id; one without, by what it says."""
    if (
        there is None
        or asked is None
        or there.ref.kind != asked.ref.kind
        or there.ref.chain != asked.ref.chain
    ):
        return False
    if asked.filter.rule_id is not None:
        return there.filter.rule_id == asked.filter.rule_id
    return there.filter.rule_id is None and _alike(there, asked)


def _alike(there: FilterState | None, asked: FilterState | None) -> bool:
    if there is None or asked is None:
        return False
    one, other = there.filter, asked.filter
    return (one.match, one.actions, one.placing) == (other.match, other.actions, other.placing)


def _without_effect(lost: KernelError, text: str) -> KernelError:
    error = KernelError(f"{lost.message}; {text}", device=lost.device, errno=lost.errno, hint="try again")
    error.__cause__ = lost
    return error


def _uncertain(lost: KernelError, cause: NicOffloadError | None) -> KernelError:
    """Return the error for a filter of which nobody knows whether it stands."""
    text = f"{lost.message}; whether the filter stands could not be read"
    error = KernelError(text, device=lost.device, errno=lost.errno, hint=lost.hint)
    error.uncertain = True
    error.__cause__ = cause or lost
    return error
