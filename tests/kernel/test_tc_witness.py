"""A dump in which a change of somebody else may have left filters out is asked for again."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable

import pytest

from nicoffload.errors import DeviceBusyError, KernelError
from nicoffload.kernel.attributes import u32
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.seam import NetlinkChannel
from nicoffload.kernel.tc import Hook, TcFilters
from tests.kernel.scripted import ScriptedChannel

IFINDEX = 7
NEW, DEL = 44, 45


def change(kind: int, pref: int, handle: int = 1, *, chain: int = 0, ifindex: int = IFINDEX) -> bytes:
    """Return what the kernel says of a filter, as an event or in a dump."""
    body = struct.pack("=BxxxiIII", 0, ifindex, handle, 0xFFFF_FFF2, pref << 16 | 8) + u32(11, chain)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


class Busy(LinuxKernel):
    """A kernel whose filters are changed while it answers.

    Args:
        dumps: The filters of each dump, in order; the last answers all that follow.
        events: What is heard during each dump; none during those that follow. An OSError is raised.
    """

    def __init__(self, dumps: list[list[bytes]], events: list[list[bytes | OSError]]) -> None:
        super().__init__("/nonexistent")
        self.dumps, self.events = dumps, events
        self.asked = 0
        self.joined: list[int] = []
        self.closed = 0

    def answer(self, data: bytes) -> Iterable[bytes]:
        [sequence] = struct.unpack_from("=I", data, 8)
        shown = self.dumps[min(self.asked, len(self.dumps) - 1)]
        self.asked += 1
        for one in shown:
            yield one[:8] + struct.pack("=I", sequence) + one[12:]
        yield struct.pack("=IHHIIi", 20, 3, 2, sequence, 0, 0)

    def open_netlink(self, family: int) -> NetlinkChannel:
        return Channel(self)


class Channel(ScriptedChannel):
    """A socket that is asked, or, once it has joined, one that hears."""

    def __init__(self, kernel: Busy) -> None:
        super().__init__(kernel.answer)
        self.kernel = kernel
        self.heard: list[bytes | OSError] | None = None

    def join(self, group: int) -> None:
        self.kernel.joined.append(group)
        self.heard = list(self.kernel.events.pop(0)) if self.kernel.events else []

    def receive(self, timeout_s: float | None = None) -> bytes:
        if self.heard is None:
            return super().receive(timeout_s)
        if not self.heard:
            raise TimeoutError(errno.ETIMEDOUT, "nothing")
        found = self.heard.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    def close(self) -> None:
        self.kernel.closed += self.heard is not None


WHOLE = [change(NEW, 5, 1), change(NEW, 9, 1), change(NEW, 9, 2)]
SHORT = WHOLE[:2]


def read(kernel: Busy, hook: Hook | None = None) -> list[tuple[int, int]]:
    with TcFilters(kernel, hook or Hook.ingress(IFINDEX)) as filters:
        found = [(int(pref), int(handle)) for pref, handle in _columns(filters)]
    assert kernel.joined == [4] * kernel.asked
    assert kernel.closed == kernel.asked
    return found


def _columns(filters: TcFilters):
    found = filters.counters()
    return zip(found.prefs, found.handles, strict=True)


def test_a_pref_that_goes_meanwhile_makes_the_reading_begin_anew():
    kernel = Busy([SHORT, WHOLE], [[change(DEL, 3)]])
    assert read(kernel) == [(5, 1), (9, 1), (9, 2)]
    assert kernel.asked == 2


def test_so_does_a_whole_chain_and_a_filter_shown_twice_and_what_was_not_heard():
    lost = OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
    for first, event in (
        (SHORT, change(DEL, 0, 0)),
        ([*WHOLE, WHOLE[1]], change(NEW, 3)),
        (SHORT, change(DEL, 5, chain=2)),
        (SHORT, lost),
    ):
        kernel = Busy([first, WHOLE], [[event]])
        assert len(read(kernel)) == 3
        assert kernel.asked == 2


@pytest.mark.parametrize(
    "events",
    [
        [],
        [change(DEL, 9, 3)],
        [change(NEW, 9, 2)],
        [change(DEL, 3, ifindex=8)],
        [change(DEL, 3, ifindex=-1)],
    ],
    ids=["nothing", "a filter of a pref that stays", "a filter that came", "another device", "a block"],
)
def test_what_can_not_have_left_out_anything_costs_no_second_reading(events):
    kernel = Busy([WHOLE], [events])
    assert len(read(kernel)) == 3
    assert kernel.asked == 1


def test_of_a_shared_block_its_own_changes_count():
    block = Hook.block(0xFFFF_FFF2)
    kernel = Busy([SHORT, WHOLE], [[change(DEL, 3, ifindex=-1)]])
    assert len(read(kernel, block)) == 3
    assert kernel.asked == 2


def test_where_it_never_ends_the_reading_gives_up_and_says_so():
    kernel = Busy([SHORT], [[change(DEL, 3)]] * 1000)
    with pytest.raises(DeviceBusyError, match="came and went"):
        read(kernel)
    assert 1 < kernel.asked < 100


def test_a_broken_socket_is_named():
    with pytest.raises(KernelError, match="can't be heard"):
        read(Busy([WHOLE], [[OSError(errno.EBADF, "Bad file descriptor")]]))
