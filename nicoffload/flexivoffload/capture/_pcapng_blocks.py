"""Blocks of pcapng: their layouts, and what an interface description says about its packets."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nicoffload.flexivoffload.capture._tally import CORRUPT_RECORD, UNKNOWN_INTERFACE, Tally
from nicoffload.packets import RawFrames, read_structs

SECTION = 0x0A0D0D0A
INTERFACE = 1
OBSOLETE_PACKET = 2
SIMPLE_PACKET = 3
ENHANCED_PACKET = 6
PACKETS = frozenset({OBSOLETE_PACKET, SIMPLE_PACKET, ENHANCED_PACKET})

SMALLEST_BLOCK_BYTES = 12
_PACKET_HEADER_BYTES = 28
_SIMPLE_HEADER_BYTES = 12
_TRAILER_BYTES = 4

_OPTION_END, _OPTION_TSRESOL, _OPTION_TSOFFSET = 0, 9, 14
_NS_PER_S = 1_000_000_000
_MICROSECONDS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """What an interface description block says.

    Args:
        link_type: Number of the pcap registry.
        snap_bytes: The most bytes captured of a packet; 0 for no limit.
        time_resolution: if_tsresol as in the file: a negative power of 10, or of 2 where the top bit is set.
        time_offset_s: Seconds to add to each time stamp.
    """

    link_type: int
    snap_bytes: int
    time_resolution: int = _MICROSECONDS
    time_offset_s: int = 0


def parse_interface(body: bytes, order: str) -> Interface | None:
    """Return what an interface description says; None where it is too short to be one.

    Args:
        body: The block without its type, lengths and trailer.
        order: Byte order of the section, as in `struct`.
    """
    if len(body) < 8:
        return None
    link_type, _, snap_bytes = struct.unpack_from(f"{order}HHI", body)
    resolution, offset_s = _MICROSECONDS, 0
    for code, value in _options(body[8:], order):
        if code == _OPTION_TSRESOL and len(value) == 1:
            resolution = value[0]
        elif code == _OPTION_TSOFFSET and len(value) == 8:
            (offset_s,) = struct.unpack(f"{order}q", value)
    return Interface(
        link_type=link_type, snap_bytes=snap_bytes, time_resolution=resolution, time_offset_s=offset_s
    )


def _options(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + 4 <= len(data):
        code, size = struct.unpack_from(f"{order}HH", data, position)
        position += 4
        if code == _OPTION_END or position + size > len(data):
            return
        yield code, data[position : position + size]
        position += -(-size // 4) * 4


def time_to_ns(stamp: npt.NDArray[np.uint64], interface: Interface) -> npt.NDArray[np.int64]:
    """Return time stamps of an interface in nanoseconds; a stamp beyond 64 bits of nanoseconds wraps."""
    exponent = interface.time_resolution & 0x7F
    if interface.time_resolution & 0x80:
        ns = _binary_to_ns(stamp, exponent)
    elif exponent <= 9:
        ns = stamp * np.uint64(10 ** (9 - exponent))
    elif exponent <= 28:
        ns = stamp // np.uint64(10 ** (exponent - 9))
    else:
        ns = np.zeros_like(stamp)
    return ns.view(np.int64) + np.uint64(interface.time_offset_s * _NS_PER_S % 2**64).view(np.int64)


def _binary_to_ns(stamp: npt.NDArray[np.uint64], exponent: int) -> npt.NDArray[np.uint64]:
    if exponent >= 64:
        # Not a whole second in 64 bits: all that counts are the upper bits of the stamp.
        return (stamp >> np.uint64(34)) * np.uint64(_NS_PER_S) >> np.uint64(min(exponent - 34, 63))
    seconds = stamp >> np.uint64(exponent)
    fraction = stamp & np.uint64(2**exponent - 1)
    # 34 bits of fraction times 10**9 still fit into 64.
    spare = max(exponent - 34, 0)
    fraction_ns = (fraction >> np.uint64(spare)) * np.uint64(_NS_PER_S) >> np.uint64(exponent - spare)
    return seconds * np.uint64(_NS_PER_S) + fraction_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketBlocks:
    """Packet blocks of one section, in the order of the file.

    Args:
        start: int64[N], where each block starts in the buffer.
        kind: int64[N], the type of each block.
        block_bytes: int64[N], its length.
    """

    start: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int64]
    block_bytes: npt.NDArray[np.int64]


def decode_packets(
    data: bytes,
    blocks: PacketBlocks,
    order: str,
    interfaces: Sequence[Interface],
    last_time_ns: int,
    tally: Tally,
) -> RawFrames:
    """Return the packets of blocks that lie in a buffer; those that contradict themselves are counted instead.

    Args:
        data: The buffer.
        blocks: Where the blocks are; each lies inside the buffer.
        order: Byte order of the section, as in `struct`.
        interfaces: The interfaces of the section.
        last_time_ns: Time of the packet before; a simple packet block has none of its own and takes it.
        tally: Where skipped packets are counted.
    """
    is_simple = blocks.kind == SIMPLE_PACKET
    offset = blocks.start + np.where(is_simple, _SIMPLE_HEADER_BYTES, _PACKET_HEADER_BYTES)
    room = blocks.start + blocks.block_bytes - _TRAILER_BYTES - offset
    captured, wire = np.zeros_like(offset), np.zeros_like(offset)
    interface = np.zeros_like(offset)
    stamp = np.zeros(len(offset), np.uint64)

    full = np.flatnonzero(~is_simple & (room >= 0))
    record = read_structs(data, blocks.start[full] + 8, _packet_layout(order))
    is_obsolete = blocks.kind[full] == OBSOLETE_PACKET
    interface[full] = np.where(is_obsolete, record["interface16"], record["interface"])
    stamp[full] = record["time_hi"].astype(np.uint64) << np.uint64(32) | record["time_lo"]
    captured[full], wire[full] = record["captured"], record["wire"]

    simple = np.flatnonzero(is_simple & (room >= 0))
    wire[simple] = read_structs(data, blocks.start[simple] + 8, np.dtype([("wire", f"{order}u4")]))["wire"]
    captured[simple] = wire[simple]
    if interfaces and interfaces[0].snap_bytes:
        captured[simple] = np.minimum(captured[simple], interfaces[0].snap_bytes)

    corrupt = (room < 0) | (captured > room)
    homeless = ~corrupt & (interface >= len(interfaces))
    for reason, which in ((CORRUPT_RECORD, corrupt), (UNKNOWN_INTERFACE, homeless)):
        if which.any():
            # What a corrupt record says about its length is not to be believed.
            tally.add(reason, int(which.sum()), int(wire[which].sum()) if reason == UNKNOWN_INTERFACE else 0)
    good = np.flatnonzero(~(corrupt | homeless))
    interface = interface[good]
    link_type, time_ns = np.zeros_like(interface), np.zeros_like(interface)
    for number in np.unique(interface).tolist():
        rows = np.flatnonzero(interface == number)
        link_type[rows] = interfaces[number].link_type
        time_ns[rows] = time_to_ns(stamp[good[rows]], interfaces[number])
    return RawFrames(
        data=data,
        offset=offset[good],
        captured_bytes=captured[good],
        wire_bytes=wire[good],
        time_ns=_carry_time(time_ns, is_simple[good], last_time_ns),
        link_type=link_type,
    )


def _carry_time(
    time_ns: npt.NDArray[np.int64], is_simple: npt.NDArray[np.bool_], last_time_ns: int
) -> npt.NDArray[np.int64]:
    if not is_simple.any():
        return time_ns
    known = np.where(is_simple, 0, np.arange(1, len(time_ns) + 1))
    return np.concatenate(([last_time_ns], time_ns))[np.maximum.accumulate(known)]


def _packet_layout(order: str) -> np.dtype[np.void]:
    u4 = f"{order}u4"
    return np.dtype(
        {
            "names": ["interface", "interface16", "time_hi", "time_lo", "captured", "wire"],
            "formats": [u4, f"{order}u2", u4, u4, u4, u4],
            "offsets": [0, 0, 4, 8, 12, 16],
            "itemsize": 20,
        }
    )
