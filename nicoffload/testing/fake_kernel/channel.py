"""The fake kernel's end of a netlink socket: a queue of datagrams that a selector can wait on."""

from __future__ import annotations

import errno
import math
import os
import select
import socket
from collections import deque
from collections.abc import Callable

from nicoffload.kernel.seam import MAX_DATAGRAM_BYTES, NetlinkChannel
from nicoffload.testing.fake_kernel.world import World

_QUEUE_BYTES = 8 << 20
"""What a receive buffer of 4 MiB holds: Linux doubles what it is asked for (net/core/sock.c, __sock_set_rcvbuf)."""


class FakeChannel(NetlinkChannel):
    """A netlink socket.

    Args:
        world: Where it hears of multicast groups.
        family: Netlink family.
        handle: Answers a datagram with those that come back; None for a family that takes none.
    """

    def __init__(self, world: World, family: int, handle: Callable[[bytes], list[bytes]] | None) -> None:
        self._world = world
        self.namespace = world.here
        """Where it was opened, and stays."""
        self._family = family
        self._handle = handle
        self._queue: deque[bytes] = deque()
        self._held_bytes = 0
        self._lost = False
        # A byte lies in the pair while there is something to read: a selector needs a descriptor.
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.settimeout(0)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Let the kernel work on a datagram; its answers are in the queue before this returns."""
        self._check_open()
        if self._handle is None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        with self._world.within(self.namespace):
            for datagram in self._handle(bytes(data)):
                self._put(datagram)

    def receive(self, timeout_s: float | None = None) -> bytes:
        """Return the next datagram; waiting for one that nobody is left to send ends at once."""
        self._check_open()
        if self._lost:
            self._lost = False
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        if not self._queue and not (timeout_s != 0 and self._arrives(timeout_s)):
            raise TimeoutError(errno.ETIMEDOUT, "no answer from the kernel")
        datagram = self._queue.popleft()
        self._held_bytes -= len(datagram)
        if not self._queue:
            self._theirs.recv(1)
        if len(datagram) > MAX_DATAGRAM_BYTES:
            raise OSError(errno.EMSGSIZE, f"a datagram is longer than {MAX_DATAGRAM_BYTES} bytes")
        return datagram

    def join(self, group: int) -> None:
        """Take part in a multicast group."""
        self._check_open()
        if group < 1:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._world.join(self._family, group, self)

    def fileno(self) -> int:
        """Return what is readable while a datagram waits."""
        return self._theirs.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._world.leave(self)
        self._ours.close()
        self._theirs.close()

    def deliver(self, datagram: bytes) -> None:
        """Put a multicast datagram into the queue, or lose it where the queue is full."""
        if self._held_bytes + len(datagram) > _QUEUE_BYTES:
            self._lost = True
            return
        self._put(datagram)

    def _arrives(self, timeout_s: float | None) -> bool:
        poll = select.poll()  # not select(2), which takes no descriptor from 1024
        poll.register(self._theirs, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)))

    def _put(self, datagram: bytes) -> None:
        if not self._queue:
            self._ours.send(b"\0")
        self._queue.append(datagram)
        self._held_bytes += len(datagram)

    def _check_open(self) -> None:
        if self._theirs.fileno() < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
