"""The fake's dumps of filters against those that a real kernel gave, byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

from nicoffload.testing import FakeKernel
from tests.fake_kernel import tlv
from tests.kernel.test_tc_decoders import datagrams

NEWTFILTER, GETTFILTER, NEWQDISC = 44, 46, 36
CAPTURES = Path(__file__).parents[1] / "kernel/captures"


def request(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags | 1, 7, 0) + payload


def captured() -> list[bytes]:
    """Return the filters of the real kernel's full dump, with the heads of their prefs."""
    return [payload for kind, payload in tlv.messages(datagrams("tc-6.12-full.bin")) if kind == NEWTFILTER]


def number(payload: bytes) -> int:
    return struct.unpack_from("=I", payload, 8)[0]


def is_u32(payload: bytes) -> bool:
    return tlv.text(dict(tlv.split(payload[20:]))[1]) == "u32"


def with_devices(count: int) -> FakeKernel:
    """Return a kernel with devices that have the numbers of those in the capture."""
    kernel = FakeKernel()
    for number in range(2, count + 1):
        assert kernel.add_netdev(f"dev{number}").ifindex == number
    return kernel


def replayed() -> tuple[FakeKernel, list[bytes], list[bytes]]:
    """Return a fake kernel with the captured filters, what was captured, and what it dumps."""
    kernel = with_devices(9)
    wanted = captured()
    ifindex = struct.unpack_from("=i", wanted[0], 4)[0]
    clsact = struct.pack("=BxxxiIII", 0, ifindex, 0xFFFF0000, 0xFFFFFFF1, 0) + tlv.join([(1, b"clsact\0")])
    (answer,) = kernel.route.handle(request(NEWQDISC, 0x604, clsact))
    assert struct.unpack_from("=i", answer, 16) == (0,)
    # Each filter of u32 was asked for with a pref of its own, and to be in the first one's table.
    prefs = [payload[16:20] for payload in wanted if is_u32(payload) and not number(payload) & 0xFFFFF]
    prefs = iter(dict.fromkeys(prefs))
    for payload in wanted:
        if not number(payload) or (is_u32(payload) and not number(payload) & 0xFFFFF):
            continue
        asked = tlv.as_request(payload)
        if is_u32(payload):
            asked = asked[:16] + next(prefs) + asked[20:]
        (answer,) = kernel.route.handle(request(NEWTFILTER, 0x604, asked))
        assert struct.unpack_from("=i", answer, 16) == (0,), answer
    head = struct.pack("=BxxxiIII", 0, ifindex, 0, 0xFFFFFFF2, 0)
    found = [
        p for k, p in tlv.messages(kernel.route.handle(request(GETTFILTER, 0x300, head))) if k == NEWTFILTER
    ]
    return kernel, wanted, found


def test_what_a_real_kernel_dumped_is_dumped_alike_byte_by_byte():
    _, wanted, found = replayed()
    assert len(wanted) == len(found) > 70
    for ours, theirs in zip(found, wanted, strict=True):
        if len(dict(tlv.split(theirs[20:]))) > 2:
            assert tlv.timeless(ours).hex() == tlv.timeless(theirs).hex()
        else:
            assert ours == theirs


def test_a_terse_dump_is_that_of_a_real_kernel():
    wanted = [p for k, p in tlv.messages(datagrams("tc-6.12-terse.bin")) if k == NEWTFILTER]
    kernel, _, _ = replayed()
    flower = [p for p in wanted if tlv.text(dict(tlv.split(p[20:]))[1]) == "flower"]
    ifindex = struct.unpack_from("=i", flower[0], 4)[0]
    head = struct.pack("=BxxxiIII", 0, ifindex, 0, 0xFFFFFFF2, 0) + tlv.join([(15, struct.pack("=II", 1, 1))])
    answers = kernel.route.handle(request(GETTFILTER, 0x300, head))
    found = {}
    for kind, payload in tlv.messages(answers):
        if kind == NEWTFILTER and len(dict(tlv.split(payload[20:]))) > 2:
            found[payload[:20]] = tlv.timeless(payload)
    compared = 0
    for payload in flower:
        if len(dict(tlv.split(payload[20:]))) > 2 and payload[:20] in found:
            assert found[payload[:20]].hex() == tlv.timeless(payload).hex()
            compared += 1
    assert compared
