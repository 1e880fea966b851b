"""Watches what reaches a virtual switch: the packets that enter by its ports, through an AF_PACKET ring.

The ring has slots of one length (TPACKET_V2), so that all that came is taken over at once, without a loop over packets.
Of each packet only the headers are copied. Source: Linux, Documentation/networking/packet_mmap.rst.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from nicoffload.errors import AccessDeniedError, InvalidRequestError, KernelError, NotFoundError
from nicoffload.packets import PacketBatch, RawFrames, parse_frames

# <linux/if_packet.h>, <asm-generic/socket.h>; the socket module names none of them.
_SOL_PACKET: Final = 263
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_PACKET_IGNORE_OUTGOING: Final = 23
_TPACKET_V2: Final = 1
_SO_ATTACH_FILTER: Final = 26
_ETH_P_ALL: Final = 3
_TP_STATUS_USER: Final = 1
_TP_STATUS_VLAN_VALID: Final = 1 << 4
_TP_STATUS_VLAN_TPID_VALID: Final = 1 << 6
_ETH_P_8021Q: Final = 0x8100

_LINK_ETHERNET: Final = 1
SNAP_BYTES: Final = 128
"""Enough for two VLAN tags, IPv6 and TCP with options."""

_SLOT_BYTES: Final = 256
_BLOCK_BYTES: Final = 1 << 16
RING_PACKETS: Final = 1 << 16
"""The most packets that can wait, 16 MiB: at 100,000 a second two thirds of a second, as a bulk call may take."""

_SLOT = np.dtype(
    [
        ("status", "u4"),
        ("wire_bytes", "u4"),
        ("captured_bytes", "u4"),
        ("mac", "u2"),
        ("net", "u2"),
        ("seconds", "u4"),
        ("nanoseconds", "u4"),
        ("vlan_tci", "u2"),
        ("vlan_tpid", "u2"),
        ("rest", "V228"),
    ]
)
"""struct tpacket2_hdr, and what follows it in its slot."""

_MAX_PORTS: Final = 250  # the jumps of a classic BPF program reach that far


class PacketTap:
    """The packets that enter some network interfaces; those that leave by them are not seen. A context manager.

    A packet that the kernel has not yet cut into segments (GSO) is one packet of its whole length.

    Args:
        interfaces: Names, in the network namespace of the calling thread.

    Raises:
        InvalidRequestError: None is named, or more than 250.
        NotFoundError: There is no such interface.
        AccessDeniedError: The process lacks CAP_NET_RAW.
        KernelError: The kernel refuses the ring.
    """

    def __init__(self, interfaces: Sequence[str]) -> None:
        if not 0 < len(interfaces) <= _MAX_PORTS:
            raise InvalidRequestError(
                f"a tap watches 1 to {_MAX_PORTS} interfaces, not {len(interfaces)}", path="interfaces"
            )
        indexes = [_index(name) for name in interfaces]
        self._missed = 0
        self._next = 0
        self._nothing = parse_frames(frames_of(np.empty(0, _SLOT)))
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        except PermissionError as cause:
            raise AccessDeniedError(
                "to watch packets takes CAP_NET_RAW", path="interfaces", hint="run it as root"
            ) from cause
        try:
            self._set_up(indexes)
        except OSError as cause:
            self._socket.close()
            raise KernelError(
                f"the kernel refuses to show packets: {cause.strerror}", errno=cause.errno
            ) from cause

    def _set_up(self, indexes: Sequence[int]) -> None:
        tap = self._socket
        tap.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        tap.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        attach_filter(tap, filter_program(indexes, SNAP_BYTES))
        size = RING_PACKETS * _SLOT_BYTES
        request = struct.pack("=IIII", _BLOCK_BYTES, size // _BLOCK_BYTES, _SLOT_BYTES, RING_PACKETS)
        # What came before the filter was there is thrown away with this (packet_set_ring in net/packet/af_packet.c).
        tap.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._memory = mmap.mmap(tap.fileno(), size)
        self._slots: npt.NDArray[np.void] = np.frombuffer(self._memory, _SLOT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching. Repeatable."""
        self._slots = np.empty(0, _SLOT)
        self._memory.close()
        self._socket.close()

    @property
    def missed(self) -> int:
        """Packets so far that found the ring full, so that nothing is known of them."""
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)  # reading sets it back to 0
        self._missed += struct.unpack("=II", raw)[1]
        return self._missed

    def read(self) -> PacketBatch:
        """Return what came since the last time; does not wait."""
        ready = self._ready()
        if not len(ready):
            return self._nothing
        taken = self._slots[ready]
        self._slots["status"][ready] = 0  # the kernel may fill them again
        self._next = (self._next + len(ready)) % RING_PACKETS
        return parse_frames(frames_of(taken))

    def _ready(self) -> npt.NDArray[np.int64]:
        """Return the slots that hold packets, oldest first: they follow each other from the next one on."""
        size = len(self._slots)
        # Most of the time few have come, and to look at every slot of the ring takes milliseconds.
        window = 64
        while True:
            order = np.arange(self._next, self._next + window) % max(size, 1)
            is_filled = (self._slots["status"][order] & _TP_STATUS_USER) != 0
            if not is_filled.all():
                return order[: int(np.argmin(is_filled))]
            if window == size:
                return order
            window = min(window * 8, size)


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as cause:
        raise NotFoundError(
            f"there is no network interface {name!r} here", path="interfaces", hint="ip link lists them"
        ) from cause


def frames_of(slots: npt.NDArray[np.void]) -> RawFrames:
    """Return the frames in some slots of a ring, with the VLAN tag that Linux keeps beside a frame put back into it.

    Args:
        slots: Slots of a TPACKET_V2 ring, 256 bytes each.
    """
    count = len(slots)
    raw = np.array(slots).view(np.uint8).reshape(count, _SLOT_BYTES)
    start = slots["mac"].astype(np.int64)
    is_tagged = (slots["status"] & _TP_STATUS_VLAN_VALID) != 0
    tagged = np.flatnonzero(is_tagged)
    if len(tagged):
        # Before each frame is more room than a tag takes: both addresses move up, and the tag comes behind them.
        start[tagged] -= 4
        addresses = tagged[:, None], start[tagged, None] + np.arange(12)
        raw[addresses] = raw[tagged[:, None], addresses[1] + 4]
        is_named = (slots["status"][tagged] & _TP_STATUS_VLAN_TPID_VALID) != 0
        tpid = np.where(is_named, slots["vlan_tpid"][tagged], _ETH_P_8021Q)
        tci = slots["vlan_tci"][tagged]
        for place, value in ((12, tpid >> 8), (13, tpid & 0xFF), (14, tci >> 8), (15, tci & 0xFF)):
            raw[tagged, start[tagged] + place] = value
    added = np.where(is_tagged, 4, 0)
    return RawFrames(
        data=raw.tobytes(),
        offset=np.arange(count, dtype=np.int64) * _SLOT_BYTES + start,
        captured_bytes=slots["captured_bytes"].astype(np.int64) + added,
        wire_bytes=slots["wire_bytes"].astype(np.int64) + added,
        time_ns=slots["seconds"].astype(np.int64) * 1_000_000_000 + slots["nanoseconds"].astype(np.int64),
        link_type=np.full(count, _LINK_ETHERNET, np.int64),
    )


def filter_program(indexes: Sequence[int], snap_bytes: int) -> bytes:
    """Return a classic BPF program that takes the first bytes of packets of some interfaces, and no others.

    Args:
        indexes: Interface indexes, at most 250.
        snap_bytes: How much to take of each packet.
    """
    load_index = struct.pack("=HBBI", 0x20, 0, 0, 0xFFFFF008)  # ld #ifidx: SKF_AD_OFF + SKF_AD_IFINDEX
    count = len(indexes)
    tests = [
        struct.pack("=HBBI", 0x15, count - place, 0, index)  # jeq #index, take
        for place, index in enumerate(indexes)
    ]
    leave = struct.pack("=HBBI", 0x06, 0, 0, 0)
    take = struct.pack("=HBBI", 0x06, 0, 0, snap_bytes)
    return b"".join((load_index, *tests, leave, take))


def attach_filter(tap: socket.socket, program: bytes) -> None:
    """Let a socket take only what a classic BPF program takes.

    Raises:
        OSError: The kernel refuses the program.
    """
    code = ctypes.create_string_buffer(program, len(program))
    tap.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    )
