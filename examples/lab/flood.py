"""Sends packets of 64 bytes as fast as one core can.

Run as ``python -m examples.lab.flood`` in the namespace of the wire.
"""

from __future__ import annotations

import argparse
import json
import socket
import time

from examples.lab.flows import FLOOD_IP, FLOOD_PORT

PAYLOAD_BYTES = 18
"""Of a frame of 64 bytes: 14 Ethernet, 20 IP, 8 UDP, 4 FCS."""

SEGMENTS = 64
_UDP_SEGMENT = 103  # <linux/udp.h>


def flood(source_port: int, seconds: float) -> int:
    """Send one flow for some time; return how many packets.

    Each message is cut into 64 packets by the kernel (UDP_SEGMENT), before the interface if that does not do it. From
    there on each is a packet by itself, and all that has been saved is the sender's system calls.
    """
    port = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port.bind(("", source_port))
    port.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, PAYLOAD_BYTES)
    port.connect((FLOOD_IP, FLOOD_PORT))
    message = bytes(PAYLOAD_BYTES * SEGMENTS)
    end_s = time.perf_counter() + seconds
    sent = 0
    while time.perf_counter() < end_s:
        for _ in range(16):
            port.send(message)
        sent += 16 * SEGMENTS
    return sent


def main() -> None:
    """Send, and print how many as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--source-port", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    print(json.dumps({"sent": flood(options.source_port, options.seconds)}))


if __name__ == "__main__":
    main()
