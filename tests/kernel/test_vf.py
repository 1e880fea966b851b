"""Settings of VFs over rtnetlink: the bytes that ip sends, and a reading that keeps silence apart from zero."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import (
    DeviceGoneError,
    InvalidRequestError,
    KernelError,
    NotSupportedError,
)
from nicoffload.kernel.attributes import MalformedError, attribute, u32, u64
from nicoffload.kernel.netlink import encode
from nicoffload.kernel.vf import VfLink, VfReport, VfRequest, VfSetting, set_commands
from nicoffload.kernel.vf_layout import decode_reports, decode_traffic, encode_settings
from nicoffload.model import ByteBasis, CounterFacts, LinkState, RateLimit, TrafficStats, VfConfig, VlanTag
from tests.kernel.random_vfs import MBPS, random_requests
from tests.kernel.recording import RecordingKernel

NEWLINK, GETLINK, ERROR = 16, 18, 2
FACTS = CounterFacts(source="nic:vf", byte_basis=ByteBasis.L2)
_DUMP = re.compile(r"^ \| [0-9a-f]{5}  ((?:[0-9a-f]{2} +)+)", re.MULTILINE)


def acknowledged(sequence: int, number: int = 0) -> bytes:
    return encode(ERROR, 0, sequence, struct.pack("=i16x", -number))


def header(datagram: bytes, start: int = 0) -> tuple[int, int, int, int]:
    length, kind, flags, sequence = struct.unpack_from("=IHHI", datagram, start)
    return length, kind, flags, sequence


def split(datagram: bytes) -> list[bytes]:
    found = []
    while datagram:
        length = header(datagram)[0]
        found.append(datagram[:length])
        datagram = datagram[length + 3 & ~3 :]
    return found


def link_of(*infos: bytes, vfs: int | None = None):
    """Return a kernel that describes one link with these VFs."""
    body = struct.pack("=BxHiII", 0, 1, 7, 0, 0) + u32(21, len(infos) if vfs is None else vfs)
    body += attribute(22, b"".join(attribute(1, info) for info in infos))

    def answer(asked):
        sequence = header(asked)[3]
        return [encode(NEWLINK, 0, sequence, body), acknowledged(sequence)]

    return RecordingKernel(netlink=answer)


def info(vf: int, *rest: bytes) -> bytes:
    return attribute(1, struct.pack("=I6s26x", vf, b"\x02\0\0\0\0\x09")) + b"".join(rest)


def test_bytes_of_every_setting_stay_what_they_are(golden):
    lines = []
    for request in random_requests(12, 300, seed=2):
        for command, (_, payload) in zip(set_commands("pf0", request), encode_settings(request), strict=True):
            lines.append(f"{command}\n{payload.hex()}\n")
    golden.check_text("golden/vf.txt", "".join(lines))


@pytest.mark.skipif(not (shutil.which("strace") and shutil.which("ip")), reason="needs strace and ip")
def test_ip_sends_the_same_bytes_for_the_equal_command():
    compared = 0
    for request in random_requests(6, 300, seed=4):
        for command, (_, payload) in zip(set_commands("lo", request), encode_settings(request), strict=True):
            traced = subprocess.run(
                ["strace", "-e", "trace=sendmsg", "-e", "write=3", *command.split()],
                capture_output=True,
                text=True,
                check=False,
            ).stderr
            sent = bytes.fromhex("".join(_DUMP.findall(traced)))
            assert header(split(sent)[-1])[1] == NEWLINK
            assert split(sent)[-1][32:] == payload, command
            compared += 1
    assert compared == 6 * len(VfSetting)


def test_settings_go_in_one_send_and_a_refusal_ends_at_its_own():
    def answer(asked):
        sent = split(asked)
        assert [header(one)[2] & 4 for one in sent] == [0] * (len(sent) - 1) + [4]
        refused = [acknowledged(header(sent[2])[3], errno.EINVAL)]
        return [*refused, acknowledged(header(sent[-1])[3], errno.EOPNOTSUPP)]

    kernel = RecordingKernel(netlink=answer)
    requests = random_requests(2, 2)
    with VfLink(kernel, 7, device="pf0") as link:
        first, second = link.apply(requests)
    assert len(kernel.sent) == 1
    assert len(split(kernel.sent[0])) == 2 * len(VfSetting)
    assert all(one[16:32] == struct.pack("=BxHiII", 0, 0, 7, 0, 0) for one in split(kernel.sent[0]))
    assert (first.vf, first.setting) == (0, VfSetting.RATE)
    assert isinstance(first.error, InvalidRequestError)
    assert first.error.path == "/vfs/0/rate"
    assert (second.vf, second.setting) == (1, VfSetting.TRUST)
    assert isinstance(second.error, NotSupportedError)
    assert second.error.capability == "vf.trust"


def test_nothing_asked_sends_nothing():
    kernel = RecordingKernel()
    with VfLink(kernel, 7) as link:
        assert link.apply([VfRequest(config=VfConfig(vf=0))]) == []
    assert kernel.sent == []


def test_what_is_not_reported_is_none_and_what_is_zero_is_zero():
    silent = struct.pack("=II", 0, 0xFFFF_FFFF)
    off = struct.pack("=II", 0, 0)
    kernel = link_of(
        info(0),
        info(1, *(attribute(kind, silent) for kind in (4, 7, 9))),
        info(
            2,
            *(attribute(kind, off) for kind in (4, 5, 7, 9)),
            attribute(6, bytes(12)),
            attribute(2, bytes(12)),
        ),
    )
    with VfLink(kernel, 7) as link:
        absent, minus_one, zero = link.read()
    assert absent == VfReport(vf=0, mac=0x020000000009)
    assert minus_one == VfReport(vf=1, mac=0x020000000009)
    assert zero == VfReport(
        vf=2,
        mac=0x020000000009,
        vlan=VlanTag(vid=0),
        min_tx_bps=0,
        max_tx_bps=0,
        spoof_check=False,
        trust=False,
        link_state=LinkState.AUTO,
        rss_query=False,
    )


def test_rates_are_megabits_in_the_kernel_and_bits_here():
    rate = RateLimit(min_tx_bps=5 * MBPS, max_tx_bps=100_000 * MBPS)
    [(_, payload)] = encode_settings(VfRequest(config=VfConfig(vf=1), rate=rate))
    assert payload.endswith(struct.pack("=III", 1, 5, 100_000))
    with VfLink(link_of(info(1, attribute(6, struct.pack("=III", 1, 5, 100_000)))), 7) as link:
        [report] = link.read()
    assert (report.min_tx_bps, report.max_tx_bps) == (5 * MBPS, 100_000 * MBPS)


def test_a_rate_between_two_megabits_is_refused_with_both():
    with pytest.raises(InvalidRequestError, match="whole number") as refused:
        VfRequest(config=VfConfig(vf=0), rate=RateLimit(max_tx_bps=1_500_000))
    assert refused.value.hint == "ask for 1000000 or 2000000"
    with pytest.raises(InvalidRequestError) as refused:
        VfRequest(config=VfConfig(vf=0), rate=RateLimit(max_tx_bps=9))
    assert refused.value.hint == "ask for 1000000"


def test_a_vf_that_its_driver_can_not_describe_is_counted_but_not_read():
    with VfLink(link_of(info(0), info(2), vfs=3), 7) as link:
        assert [report.vf for report in link.read()] == [0, 2]
        assert link.count() == 3


def test_counters_are_none_where_the_driver_has_none():
    stats = attribute(8, b"".join(u64(kind, 10 + kind) for kind in (0, 1, 2, 3, 4, 5, 7, 8)))
    with VfLink(link_of(info(3, stats)), 7) as link:
        assert link.traffic(FACTS) == [
            TrafficStats(
                name="vf:3",
                rx_packets=10,
                tx_packets=11,
                rx_bytes=12,
                tx_bytes=13,
                rx_dropped=17,
                tx_dropped=18,
                facts=FACTS,
            )
        ]
        [none] = link.traffic(None)
    assert (none.name, none.rx_packets, none.tx_dropped, none.facts) == ("vf:3", None, None, None)


def test_counters_of_more_vfs_than_fit_an_attribute_are_refused():
    told = [
        attribute(
            1,
            info(
                vf, attribute(8, b"".join(u64(n, vf) for n in range(8))), bytes(0) + attribute(99, bytes(120))
            ),
        )
        for vf in range(256)
    ]
    whole = b"".join(told)
    assert len(whole) + 4 > 0xFFFF
    # Linux writes the length's lower 16 bits (nla_nest_end), and what is behind looks like attributes of the link.
    cut = struct.pack("=HH", len(whole) + 4 & 0xFFFF, 22) + whole
    short = attribute(22, b"".join(attribute(1, info(vf)) for vf in range(256)))

    def answer(asked):
        sequence, with_counters = header(asked)[3], struct.unpack_from("=I", asked, 36)[0] == 1
        body = struct.pack("=BxHiII", 0, 1, 7, 0, 0) + u32(21, 256) + (cut if with_counters else short)
        return [encode(NEWLINK, 0, sequence, body), acknowledged(sequence)]

    with VfLink(RecordingKernel(netlink=answer), 7) as link:
        assert (link.count(), len(link.read())) == (256, 256)
        with pytest.raises(KernelError, match="of 256 VFs") as caught:
            link.traffic(FACTS)
    assert "64 KiB" in caught.value.hint


def test_counters_leave_out_a_vf_that_can_not_be_described():
    infos = [info(vf) for vf in range(200) if vf != 7]
    with VfLink(link_of(*infos, vfs=200), 7) as link:
        assert len(link.traffic(None)) == 199


def test_settings_are_asked_for_without_counters():
    kernel = link_of(info(0))
    with VfLink(kernel, 7) as link:
        link.read()
        link.traffic(FACTS)
    assert [struct.unpack_from("=I", one, 36)[0] for one in kernel.sent] == [9, 1]


def test_a_pf_without_vfs_has_none():
    with VfLink(
        RecordingKernel(netlink=lambda asked: [encode(NEWLINK, 0, 1, bytes(16)), acknowledged(1)]), 7
    ) as link:
        assert link.read() == []


def test_an_absent_device_is_gone():
    kernel = RecordingKernel(netlink=lambda asked: [acknowledged(header(asked)[3], errno.ENODEV)])
    with VfLink(kernel, 7, device="pf0") as link, pytest.raises(DeviceGoneError, match="pf0"):
        link.read()
    kernel = RecordingKernel(netlink=lambda asked: [acknowledged(header(asked)[3])])
    with VfLink(kernel, 7, device="pf0") as link, pytest.raises(DeviceGoneError, match="did not describe"):
        link.read()


@pytest.mark.parametrize(
    ("rest", "word"),
    [
        (attribute(5, struct.pack("=II", 0, 3)), "link state"),
        (attribute(2, struct.pack("=III", 0, 4096, 0)), "4096"),
        (attribute(12, attribute(1, struct.pack("=IIIH2x", 0, 5, 0, 0x1234))), "VLAN protocol"),
        (attribute(6, bytes(8)), "8 of 12"),
    ],
)
def test_what_can_not_be_is_not_believed(rest, word):
    with VfLink(link_of(info(0, rest)), 7) as link, pytest.raises(KernelError, match=word):
        link.read()


@given(data=st.binary(max_size=200))
def test_whatever_the_kernel_says_is_read_or_refused(data):
    for decode in (decode_reports, lambda found: decode_traffic(found, FACTS)):
        for payload in (data, attribute(1, data), attribute(1, info(0, data))):
            with contextlib.suppress(MalformedError):
                decode(payload)
