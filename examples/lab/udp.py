"""UDP with sequence numbers: a sender, a receiver, and what the numbers tell.

Run as ``python -m examples.lab.udp send|receive|drain|flood …`` in the namespaces of the lab.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from examples.lab.flows import FLOOD_PORT, UDP_PORT
from nicoffload.flexivoffload.tap import attach_filter

MARK = b"nicolab0"
PAYLOAD_BYTES = 1400
FRAME_BYTES = PAYLOAD_BYTES + 42
SMALL_BYTES = 22
"""Payload of a frame of 64 bytes, FCS not counted among what is sent."""

SEGMENTS = 64
_SO_RCVBUFFORCE = 33
_UDP_SEGMENT = 103
_TAKE_NOTHING = b"\x06\x00\x00\x00\x00\x00\x00\x00"  # classic BPF: ret 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """What the sequence numbers of a flow tell.

    Args:
        sent: Packets sent, numbered from 0.
        received: Packets received.
        lost: Numbers that never came.
        duplicated: Packets whose number had come before.
        reordered: Packets that came after one with a higher number, duplicates left out.
        farthest: The most numbers that such a packet was late.
    """

    sent: int
    received: int
    lost: int
    duplicated: int
    reordered: int
    farthest: int


def judge(numbers: npt.NDArray[np.int64], sent: int) -> Sequence:
    """Return what became of packets 0 to `sent`, by the numbers in the order in which they came.

    >>> judge(np.array([0, 2, 1, 1]), 4)
    Sequence(sent=4, received=4, lost=1, duplicated=1, reordered=1, farthest=1)
    """
    distinct, first = np.unique(numbers, return_index=True)
    in_order = numbers[np.sort(first)]
    highest = np.maximum.accumulate(in_order) if len(in_order) else in_order
    late = highest - in_order
    return Sequence(
        sent=sent,
        received=len(numbers),
        lost=sent - len(distinct),
        duplicated=len(numbers) - len(distinct),
        reordered=int((late > 0).sum()),
        farthest=int(late.max(initial=0)),
    )


def send(target: str, source_port: int, rate_bps: int, seconds: float) -> int:
    """Send frames of one size at a steady rate; return how many."""
    port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port.bind(("", source_port))
    port.connect((target, UDP_PORT))
    packet = bytearray(MARK + bytes(PAYLOAD_BYTES - len(MARK)))
    per_s = rate_bps / 8 / FRAME_BYTES
    start_s = time.perf_counter()
    number = 0
    total = int(per_s * seconds)
    while number < total:
        due = min(int((time.perf_counter() - start_s) * per_s) + 1, total)
        # What is overdue after a break goes out bit by bit, as a burst would be the sender's loss, not the path's.
        for _ in range(min(due - number, 16)):
            packet[8:16] = number.to_bytes(8, "little")
            port.send(packet)
            number += 1
        time.sleep(0.0004)
    return number


def receive(quiet_s: float, limit: int) -> npt.NDArray[np.int64]:
    """Return the numbers that come, in their order, until none has come for some time."""
    port = _listen(UDP_PORT, 64 << 20)
    numbers = np.zeros(limit, np.int64)
    count = 0
    buffer = bytearray(2048)
    port.settimeout(60)
    while count < limit:
        try:
            size = port.recv_into(buffer)
        except TimeoutError:
            break
        if size >= 16 and buffer.startswith(MARK):
            numbers[count] = int.from_bytes(buffer[8:16], "little")
            count += 1
        if count == 1:
            port.settimeout(quiet_s)
    return numbers[:count]


def _listen(number: int, buffer_bytes: int) -> socket.socket:
    port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
    port.bind(("", number))
    print(json.dumps({"ready": True}), flush=True)
    return port


def drain() -> None:
    """Let packets come up to a socket, and drop them there, until our input ends."""
    port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    attach_filter(port, _TAKE_NOTHING)
    port.bind(("", FLOOD_PORT))
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.read()


def flood(target: str, source_port: int, seconds: float) -> int:
    """Send frames of 64 bytes as fast as one core can; return how many.

    The kernel cuts each message into 64 packets (UDP_SEGMENT), before the interface if that has no such offload.
    """
    port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port.bind(("", source_port))
    port.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, SMALL_BYTES)
    port.connect((target, FLOOD_PORT))
    message = bytes(SMALL_BYTES * SEGMENTS)
    end_s = time.perf_counter() + seconds
    sent = 0
    while time.perf_counter() < end_s:
        for _ in range(16):
            port.send(message)
        sent += 16 * SEGMENTS
    return sent


def main() -> None:
    """Run one of them, and print what it found as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("send", "receive", "drain", "flood"))
    parser.add_argument("--target", default="")
    parser.add_argument("--source-port", type=int, default=0)
    parser.add_argument("--rate-bps", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--sent", type=int, default=0, help="most packets that may come, duplicates included")
    options = parser.parse_args()
    if options.what == "send":
        sent = send(options.target, options.source_port, options.rate_bps, options.seconds)
        print(json.dumps({"sent": sent}))
    elif options.what == "flood":
        print(json.dumps({"sent": flood(options.target, options.source_port, options.seconds)}))
    elif options.what == "drain":
        drain()
    else:
        numbers = receive(3.0, options.sent)
        sent = int(sys.stdin.readline() or 0)
        print(json.dumps(asdict(judge(numbers, sent))))


if __name__ == "__main__":
    main()
