"""What the benchmarks work on: rules and captures, made from a fixed seed."""

from __future__ import annotations

import random
import struct
import time
import uuid
from pathlib import Path

import numpy as np

from nicoffload.model import FlowRule, Masked, Match, ToVf

SEED = 20121101


def five_tuple_rules(count: int) -> list[FlowRule]:
    """Return distinct TCP five-tuple rules to VFs 0 to 7."""
    full32, full16 = 0xFFFFFFFF, 0xFFFF
    kinds = {"eth_type": Masked(0x0800, full16), "ip_proto": Masked(6, 0xFF)}
    numbers = random.Random(SEED)
    return [
        FlowRule(
            match=Match(
                ipv4_src=Masked(0x0A000000 + index, full32),
                ipv4_dst=Masked(0x0A800000 + numbers.randrange(1000), full32),
                tp_src=Masked(1024 + numbers.randrange(60000), full16),
                tp_dst=Masked(443, full16),
                **kinds,
            ),
            actions=(ToVf(vf=index % 8),),
            rule_id=uuid.UUID(int=numbers.getrandbits(128), version=4),
        )
        for index in range(count)
    ]


def write_capture(path: Path, *, packets: int, flows: int) -> None:
    """Write a pcap of UDP packets whose flows have Zipf-like sizes, about 20,000 packets a second of capture time.

    Frames are cut to their headers, as in a capture with a small snap length; sizes on the wire vary.
    """
    numbers = np.random.default_rng(SEED)
    weights = 1 / np.arange(1, flows + 1)
    chosen = numbers.choice(flows, size=packets, p=weights / weights.sum())
    sizes = numbers.choice([64, 350, 1514], size=packets, p=[0.4, 0.2, 0.4])
    frames = [_frame(index) for index in range(flows)]
    with path.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 96, 1))
        head = struct.Struct("<IIII")
        start = 1_700_000_000
        for index, (flow, size) in enumerate(zip(chosen.tolist(), sizes.tolist(), strict=True)):
            seconds, micros = divmod(index * 50, 1_000_000)
            frame = frames[flow]
            out.write(head.pack(start + seconds, micros, len(frame), size))
            out.write(frame)


def _frame(index: int) -> bytes:
    """Return Ethernet, IPv4 and UDP headers of a flow, towards one of eight hosts."""
    host = index % 8
    ethernet = (
        bytes.fromhex("020000000001020000000002")[:5] + bytes([host]) + bytes.fromhex("0200000000020800")
    )
    source = struct.pack(">BBH", 10, 1, index % 65536)
    destination = bytes([10, 2, 0, host + 1])
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 50, 0, 0, 64, 17, 0) + source + destination
    return ethernet + ip + struct.pack(">HHHH", 1024 + index % 60000, 443, 30, 0)


def count_with_dpkt(path: Path, *, packets: int) -> float:
    """Return how many packets a second dpkt reads into five-tuples, as its users write it."""
    import dpkt

    seen: dict[tuple[bytes, bytes, int, int, int], int] = {}
    start = time.perf_counter()
    with path.open("rb") as source:
        for count, (_, data) in enumerate(dpkt.pcap.Reader(source)):
            if count == packets:
                break
            ip = dpkt.ethernet.Ethernet(data).data
            key = (ip.src, ip.dst, ip.p, ip.data.sport, ip.data.dport)
            seen[key] = seen.get(key, 0) + 1
    return packets / (time.perf_counter() - start)


def count_with_reader(path: Path) -> float:
    """Return how many packets a second the project's reader turns into batches."""
    from nicoffload.flexivoffload.capture import open_capture

    start = time.perf_counter()
    with open_capture(path) as reader:
        packets = sum(len(batch) for batch in reader)
    return packets / (time.perf_counter() - start)
