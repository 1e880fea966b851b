"""The decoders of what hangs on a device that is no NIC's alone: links, namespaces, classes, programs, object files."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

from nicoffload.errors import DeviceGoneError
from nicoffload.kernel.bpf import possible_cpus, read_object
from nicoffload.kernel.link import read_link, read_speed_bps
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE
from nicoffload.kernel.tc import Hook, htb
from nicoffload.kernel.tc.alike import alike
from nicoffload.kernel.tc.bpf_filter import attached
from nicoffload.kernel.tc.witness import Witness
from nicoffload.kernel.veth import find_link, links, nsid_of
from tests.fuzz import seeds
from tests.fuzz.answers import Answers, acknowledgement, done
from tests.fuzz.run import Decoder

_HEADER, _IFINFO, _TCMSG = 16, 16, 20


def _dumped(read: Callable[[Netlink], object]) -> Callable[[bytes], None]:
    """Return what reads one datagram of a dump."""

    def decode(datagram: bytes) -> None:
        with Netlink(Answers(netlink=[datagram, done()]), NETLINK_ROUTE) as netlink:
            read(netlink)

    return decode


def _requested(read: Callable[[Netlink], object]) -> Callable[[bytes], None]:
    """Return what reads the answer to a request."""

    def decode(datagram: bytes) -> None:
        with Netlink(Answers(netlink=[datagram, acknowledgement()]), NETLINK_ROUTE) as netlink:
            read(netlink)

    return decode


def _report(datagram: bytes) -> None:
    with contextlib.suppress(DeviceGoneError):  # the message was none of a link
        read_link(Answers(netlink=[datagram, acknowledgement()]), 1)


def _witness(datagram: bytes) -> None:
    """Let a dump be watched while something happens, and the dump be what happened."""
    hook = Hook.ingress(struct.unpack_from("=i", datagram.ljust(24, b"\0"), 20)[0])
    with (
        Netlink(Answers(), NETLINK_ROUTE) as netlink,
        Witness(Netlink(Answers(netlink=[datagram]), NETLINK_ROUTE), hook) as witness,
    ):
        del netlink
        witness.disturbed([datagram])


def _texts(data: bytes) -> None:
    cpus, _, speed = data.partition(b"\n")
    files = {"devices/system/cpu/possible": cpus, "class/net/nic0/speed": speed}
    possible_cpus(Answers(files=files))
    read_speed_bps(Answers(files=files), "nic0")


def _object() -> bytes:
    """Return an object of two instructions that load one map: as small as one can be, so that damage hits."""
    texts = b"\0maps\0tc/x\0.rel\0symbols\0license\0m\0"
    load = struct.pack("<BBhi", 0x18, 1, 0, 0) + bytes(8) + bytes.fromhex("9500000000000000")
    symbol = struct.pack("<IBBHQQ", texts.index(b"\0m\0") + 1, 0x11, 0, 1, 0, 20)
    parts = (
        (b"", b"", 0, 0, 0),
        (b"maps", struct.pack("<5I", 2, 4, 8, 16, 0), 1, 0, 0),
        (b"tc/x", load, 1, 0, 0),
        (b".rel", struct.pack("<QQ", 0, 1 << 32 | 1), 9, 4, 2),
        (b"symbols", bytes(24) + symbol, 2, 6, 0),
        (b"license", b"GPL\0", 1, 0, 0),
        (b"", texts, 3, 0, 0),
    )
    body = table = b""
    for name, data, kind, link, info in parts:
        at = 64 + len(body)
        table += struct.pack("<IIQQQQIIQQ", texts.index(name), kind, 0, 0, at, len(data), link, info, 1, 0)
        body += data
    start = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    sections = 64 + len(body)
    head = struct.pack("<16sHHIQQQIHHHHHH", start, 1, 247, 1, 0, 0, sections, 0, 64, 0, 0, 64, len(parts), 6)
    return head + body + table


def devices() -> list[Decoder]:
    """Return the decoders."""
    described = [*seeds.answers("links", 16), *seeds.answers("vfs", 16)]
    head, tc_head = _HEADER + _IFINFO, _HEADER + _TCMSG
    return [
        Decoder(name="link.report", seeds=described, decode=_report, head=head, framed=True),
        Decoder(name="link.list", seeds=described, decode=_dumped(links), head=head, framed=True),
        Decoder(
            name="link.one",
            seeds=described,
            decode=_requested(lambda netlink: find_link(netlink, 1)),
            head=head,
            framed=True,
        ),
        Decoder(
            name="link.namespace",
            seeds=seeds.answers("namespaces", 88),
            decode=_requested(lambda netlink: nsid_of(netlink, 1)),
            head=_HEADER,
            framed=True,
        ),
        Decoder(name="link.texts", seeds=(b"0-7\n100000", b"0\n-1"), decode=_texts),
        Decoder(
            name="tc.classes",
            seeds=seeds.answers("classes", 40),
            decode=_dumped(lambda netlink: htb.counters(netlink, 1)),
            head=tc_head,
            framed=True,
        ),
        Decoder(
            name="tc.programs",
            seeds=seeds.answers("programs", 44),
            decode=_dumped(lambda netlink: attached(netlink, Hook.ingress(1))),
            head=tc_head,
            framed=True,
        ),
        Decoder(
            name="tc.alike",
            seeds=seeds.filters("full"),
            decode=lambda one: alike([one]),
            head=tc_head,
            framed=True,
        ),
        Decoder(name="tc.witness", seeds=seeds.filters("full"), decode=_witness, head=tc_head, framed=True),
        Decoder(name="bpf.object", seeds=[_object()], decode=read_object, head=64),
    ]
