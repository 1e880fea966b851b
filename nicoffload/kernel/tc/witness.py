"""Whether a dump of filters can be believed.

Between two datagrams of a dump the kernel remembers how many prefs it has shown, not which. Where a whole pref goes
meanwhile, those behind it move up and the rest of one is left out; where one comes, a part is shown twice. Nothing in
the answer says so (net/sched/cls_api.c:tcf_chain_dump), so we listen to who changes what while we read.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from nicoffload.errors import KernelError, from_errno
from nicoffload.kernel.attributes import Buffer, fields, number, parse
from nicoffload.kernel.netlink import Message, Netlink, messages
from nicoffload.kernel.tc.template import RTM_NEWTFILTER, TCA_CHAIN, TCMSG
from nicoffload.kernel.tc.values import Hook

_RTM_DELTFILTER = 45
_RTNLGRP_TC = 4
_BLOCK = -1
_HANDLE_AND_PREF = struct.Struct("=8xI4xI")

Place = tuple[int, int, int]
"""Chain, pref and handle."""


class Witness:
    """Hears what happens to the filters of a hook from the moment it is made. Of one thread; close it.

    Args:
        netlink: A route socket, of the hook's namespace.
        hook: The hook.

    Raises:
        NicOffloadError: No socket can be had.
    """

    def __init__(self, netlink: Netlink, hook: Hook) -> None:
        self._hook = hook
        try:
            self._channel = netlink.listen(_RTNLGRP_TC)
        except OSError as cause:
            raise from_errno(
                cause.errno or errno.EIO, "listening to changes of filters", capability="flow_filters"
            ) from cause

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def disturbed(self, datagrams: Sequence[bytes]) -> bool:
        """Tell whether the datagrams of a dump may lack filters, or have some twice.

        Args:
            datagrams: Of a dump that was asked for after this was made.

        Raises:
            MalformedError: What was heard breaks its format.
            KernelError: The socket broke.
        """
        came, gone = False, set()
        try:
            for kind, (chain, pref, _) in self._heard():
                came = came or kind == RTM_NEWTFILTER
                if kind == _RTM_DELTFILTER:
                    gone.add((chain, pref))
        except OverflowError:  # too much happened to hear it all
            return True
        if not came and not gone:
            return False
        shown = [place for datagram in datagrams for _, place in _places(datagram)]
        left = {(chain, pref) for chain, pref, _ in shown}
        return not gone <= left or len(set(shown)) < len(shown)

    def _heard(self) -> Iterator[tuple[int, Place]]:
        """Yield what happened to filters of the hook.

        Raises:
            OverflowError: Some of it was lost.
        """
        while True:
            try:
                datagram = self._channel.receive(0)
            except TimeoutError:
                return
            except OSError as cause:
                if cause.errno in {errno.ENOBUFS, errno.EMSGSIZE}:
                    raise OverflowError from cause
                raise KernelError(
                    f"changes of filters can't be heard: {cause.strerror}", errno=cause.errno
                ) from cause
            for message, place in _places(datagram, both=True):
                _, ifindex, _, parent, _ = fields(TCMSG, message.payload)
                # Of a device both sides count: whoever changes one may name its qdisc in more than one way.
                if ifindex == self._hook.ifindex and (ifindex != _BLOCK or parent == self._hook.parent):
                    yield message.kind, place


def _places(datagram: Buffer, *, both: bool = False) -> Iterator[tuple[Message, Place]]:
    """Yield each filter of a datagram with its place; with `both` also those that went."""
    for message in messages(datagram):
        if message.kind != RTM_NEWTFILTER and not (both and message.kind == _RTM_DELTFILTER):
            continue
        handle, word = fields(_HANDLE_AND_PREF, message.payload)
        if (
            handle or both
        ):  # without a handle a dump says that a pref is there, and an event that it went whole
            chain = parse(message.payload, TCMSG.size).get(TCA_CHAIN)
            yield message, (0 if chain is None else number(chain, 4), word >> 16, handle)
