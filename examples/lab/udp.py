"""UDP with sequence numbers: a sender, a receiver, and what the numbers tell.

Run as ``python -m examples.lab.udp send|receive …`` in the namespaces of the lab.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from examples.lab.flows import UDP_PORT

MARK = b"nicolab0"
PAYLOAD_BYTES = 1400
FRAME_BYTES = PAYLOAD_BYTES + 42
MOST_PACKETS = 1 << 22
"""That a receiver has room for: eight minutes at 100 Mbit/s."""

_SO_RCVBUFFORCE = 33


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


def send(target: str, source_port: int, rate_bps: int, goes_on: Callable[[], bool]) -> int:
    """Send frames of one size at a steady rate until told otherwise; return how many."""
    port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port.bind(("", source_port))
    port.connect((target, UDP_PORT))
    packet = bytearray(MARK + bytes(PAYLOAD_BYTES - len(MARK)))
    per_s = rate_bps / 8 / FRAME_BYTES
    start_s = time.perf_counter()
    number = left_out = 0
    while goes_on():
        due = int((time.perf_counter() - start_s) * per_s) + 1 - left_out
        # What a break has left over is not sent in a burst: the burst would be lost to a buffer, not to the path.
        burst = min(due - number, 64)
        left_out += due - number - burst
        for _ in range(burst):
            packet[8:16] = number.to_bytes(8, "little")
            port.send(packet)
            number += 1
        time.sleep(0.0004)
    return number


def receive(quiet_s: float) -> npt.NDArray[np.int64]:
    """Return the numbers that come, in their order, until none has come for some time."""
    port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
    port.bind(("", UDP_PORT))
    print(json.dumps({"ready": True}), flush=True)
    numbers = np.zeros(MOST_PACKETS, np.int64)
    count = 0
    buffer = bytearray(2048)
    port.settimeout(60)
    while count < MOST_PACKETS:
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


def _input_goes_on() -> bool:
    return not select.select([sys.stdin], [], [], 0)[0]


def main() -> None:
    """Run one of them, and print what it found as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("send", "receive"))
    parser.add_argument("--target", default="")
    parser.add_argument("--source-port", type=int, default=0)
    parser.add_argument("--rate-bps", type=int, default=0)
    options = parser.parse_args()
    if options.what == "send":
        start_s = time.perf_counter()
        sent = send(options.target, options.source_port, options.rate_bps, _input_goes_on)
        print(
            json.dumps({"sent": sent, "rate_bps": sent * FRAME_BYTES * 8 / (time.perf_counter() - start_s)})
        )
    else:
        numbers = receive(3.0)
        sent = int(sys.stdin.readline() or 0)
        print(json.dumps(asdict(judge(numbers, sent))))


if __name__ == "__main__":
    main()
