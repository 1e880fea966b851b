"""`open_capture`: what it refuses, how far it is, how much memory it takes, and what tcpdump counts."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys

import dpkt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nicoffload.errors import CaptureError, InvalidRequestError
from nicoffload.flexivoffload.capture import open_capture
from nicoffload.packets import HAS_VLAN
from tests.capture import writers
from tests.capture.conftest import read_file

OFFICE = "examples/captures/office.pcap.gz"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "an empty file"),
        (b"frame,time\n1,2\n" * 9, "text"),
        ("déjà vu".encode() * 40, "text"),
        (b"\x28\xb5\x2f\xfd" + bytes(80), "zstd-compressed"),
        (b"\xfd7zXZ\x00" + bytes(80), "xz-compressed"),
        (b"snoop\0\0\0" + bytes(80), "snoop"),
        (b"\x7fELF" + bytes(80), "an executable"),
        (gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "gzip inside gzip"),
        (b"\xa1\xb2", "data that starts with a1 b2"),
        (bytes(100), "data that starts with 00 00"),
        (b"\xd4\xc3\xb2\xa1" + bytes(10), "a pcap file that ends within its header"),
    ],
)
def test_what_is_no_capture_is_named(read, data, what):
    with pytest.raises(CaptureError, match=what) as caught:
        read(data)
    assert "capture" in caught.value.path
    assert "pcapng" in caught.value.hint
    assert isinstance(caught.value, InvalidRequestError)


def test_files_that_cannot_be_opened(tmp_path):
    for path in (tmp_path / "missing", tmp_path, "nul\0byte"):
        with pytest.raises(CaptureError, match="can't be opened"):
            open_capture(path)


def test_closed_reader_says_so(tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(writers.pcap([(0, 0, b"", 0)] * 400_000))
    with open_capture(path) as reader:
        pass
    with pytest.raises(CaptureError, match="can't be read"):
        list(reader)


def test_progress_grows_to_one(tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(writers.pcap([(0, 0, b"", 0)] * 600_000))
    with open_capture(path) as reader:
        seen = [reader.progress for _ in reader]
        assert seen == sorted(seen)
        assert 0 < seen[0] < 1
        assert reader.progress == 1.0


_MEASURE = """
import resource, sys
from nicoffload.flexivoffload.capture import open_capture
peaks = []
for path in sys.argv[1:]:
    with open_capture(path) as reader:
        for _ in reader: pass
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(*peaks)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    paths = []
    for count in (200_000, 1_000_000):
        paths.append(tmp_path / f"{count}.pcap.gz")
        piece = writers.pcap([(k, 0, writers.frame(k), 1514) for k in range(1000)])
        with gzip.open(paths[-1], "wb", 1) as file:
            file.write(piece[:24])
            for _ in range(count // 1000):
                file.write(piece[24:])
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *paths], capture_output=True, text=True, check=True
    )
    short_kib, long_kib = map(int, done.stdout.split())
    assert long_kib - short_kib < 2048


def test_demo_capture_against_dpkt(repo_root):
    got = read_file(repo_root / OFFICE)
    with gzip.open(repo_root / OFFICE) as file:
        packets = wire_bytes = tagged = 0
        ports = []
        for data, size in _dpkt_records(file):
            packets += 1
            wire_bytes += size
            tagged += data[12:14] == b"\x81\x00"
            ports.append(_source_port(data))
    assert (got.packets, got.wire_bytes, got.skipped) == (packets, wire_bytes, ())
    assert got.ports == ports
    assert tagged > 1000
    with open_capture(repo_root / OFFICE) as reader:
        has_tag = ((batch.headers["present"] & HAS_VLAN != 0)[batch.header_index].sum() for batch in reader)
        assert sum(has_tag) == tagged


def _dpkt_records(file):
    # dpkt's reader drops the wire length, which its class for the header of a record keeps.
    dpkt.pcap.FileHdr(file.read(24))
    header = file.read(16)
    while header:
        record = dpkt.pcap.LEPktHdr(header)
        yield file.read(record.caplen), record.len
        header = file.read(16)


def _source_port(data):
    packet = dpkt.ethernet.Ethernet(data).data
    if isinstance(packet, dpkt.ip.IP) and packet.offset:
        return 0
    return getattr(getattr(packet, "data", None), "sport", 0)


def test_demo_vms_are_in_the_demo_capture(repo_root):
    vms = json.loads((repo_root / "examples/captures/office.vms.json").read_text())["vms"]
    assert [vm["vf"] for vm in vms] == list(range(len(vms)))
    sources = set()
    with open_capture(repo_root / OFFICE) as reader:
        for batch in reader:
            sources |= set(batch.headers["eth_src"].tolist())
    for vm in vms:
        assert int(vm["macs"][0].replace(":", ""), 16) in sources, vm["name"]


def tcpdump_count(path):
    listing = subprocess.run(["tcpdump", "-n", "-t", "-q", "-r", path], capture_output=True, check=False)
    return listing.stdout.count(b"\n"), listing.returncode


NEEDS_TCPDUMP = pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")


@NEEDS_TCPDUMP
@settings(max_examples=25)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=3),
)
def test_damaged_pcap_has_the_packets_that_tcpdump_finds(tmp_path_factory, sizes, flips):
    records = [(k, 0, writers.frame(k, 42 + size), 1514) for k, size in enumerate(sizes)]
    data = bytearray(writers.pcap(records))
    for place, bits in flips:
        data[24 + place % (len(data) - 24)] ^= bits
    path = tmp_path_factory.mktemp("damaged") / "capture"
    path.write_bytes(data)
    assert read_file(path).packets == tcpdump_count(path)[0]
