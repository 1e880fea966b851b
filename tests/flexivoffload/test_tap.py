"""The tap: what it makes of slots of a ring, which interfaces it watches, and what it sees of real packets."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import numpy as np
import pytest

from nicoffload.errors import InvalidRequestError, NotFoundError
from nicoffload.flexivoffload import tap
from nicoffload.packets import HAS_CVLAN, HAS_PORTS, HAS_VLAN, parse_frames

VLAN_VALID, TPID_VALID = 1 << 4, 1 << 6


def frame(tag=b"", sport=1234):
    ip = struct.pack("!BBHHHBBHII", 0x45, 0, 28, 0, 0, 64, 17, 0, 0x0A000001, 0x0A000002)
    addresses = bytes.fromhex("020000000001 020000000002".replace(" ", ""))
    return addresses + tag + b"\x08\x00" + ip + struct.pack("!HHHH", sport, 53, 8, 0)


def slot(data, *, mac=82, status=1, tci=0, tpid=0, wire=None, seconds=7, nanoseconds=9):
    """Return a slot as Linux fills it: struct tpacket2_hdr, sockaddr_ll, and the frame where `mac` says."""
    length = len(data) if wire is None else wire
    head = struct.pack(
        "=IIIHHIIHH4x", status, length, len(data), mac, mac + 14, seconds, nanoseconds, tci, tpid
    )
    return (head.ljust(mac, b"\xee") + data).ljust(256, b"\xee")


def parsed(*slots):
    return parse_frames(tap.frames_of(np.frombuffer(b"".join(slots), tap._SLOT)))


def test_a_frame_keeps_its_length_and_its_time():
    batch = parsed(slot(frame(), wire=1514), slot(frame(sport=99), mac=80))
    assert batch.wire_bytes.tolist() == [1514, 42]
    assert batch.time_ns.tolist() == [7_000_000_009] * 2
    assert batch.headers["tp_src"][batch.header_index].tolist() == [1234, 99]


@pytest.mark.parametrize(
    ("status", "tpid", "depth"), [(VLAN_VALID, 0, 1), (VLAN_VALID | TPID_VALID, 0x88A8, 1)]
)
def test_the_tag_that_linux_keeps_beside_a_frame_is_put_back(status, tpid, depth):
    batch = parsed(slot(frame()), slot(frame(), status=1 | status, tci=0x6005, tpid=tpid))
    tagged = batch.headers[batch.header_index[1]]
    assert tagged["vlan_tci"] == 0x6005
    assert (tagged["vlan_depth"], tagged["l2_bytes"]) == (depth, 18)
    assert tagged["present"] & HAS_PORTS
    assert batch.wire_bytes.tolist() == [42, 46]
    assert not batch.headers[batch.header_index[0]]["present"] & HAS_VLAN


def test_an_inner_tag_stays_behind_the_outer_one():
    batch = parsed(slot(frame(tag=b"\x81\x00\x00\x07"), status=1 | VLAN_VALID, tci=5))
    (header,) = batch.headers
    assert header["present"] & HAS_CVLAN
    assert (header["vlan_tci"], header["cvlan_tci"]) == (5, 7)


def run_filter(program, index):
    """Interpret the few instructions of classic BPF that a tap uses."""
    place = accumulator = 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", program, 8 * place)
        if code == 0x06:
            return value
        if code == 0x15:
            place += yes if accumulator == value else no
        else:
            assert (code, value) == (0x20, 0xFFFFF008)
            accumulator = index
        place += 1


@pytest.mark.parametrize("count", [1, 2, 13, 250])
def test_the_filter_takes_its_interfaces_and_no_other(count):
    indexes = [3 * number + 2 for number in range(count)]
    program = tap.filter_program(indexes, 128)
    taken = {index for index in range(1000) if run_filter(program, index) == 128}
    assert taken == set(indexes)


def test_an_interface_that_is_not_there_is_named():
    with pytest.raises(NotFoundError, match="no network interface 'nothing0'"):
        tap.PacketTap(["nothing0"])


@pytest.mark.parametrize("count", [0, 251])
def test_a_tap_has_a_number_of_interfaces_that_its_filter_can_hold(count):
    with pytest.raises(InvalidRequestError, match="1 to 250 interfaces"):
        tap.PacketTap(["lo"] * count)


PROGRAM = """
import json, socket, subprocess, sys
from nicoffload.flexivoffload import tap

for words in ("add name tapa type veth peer name tapb", "set tapa up", "set tapb up",
              "add name other0 type veth peer name other1", "set other0 up", "set other1 up"):
    subprocess.run(["ip", "link", *words.split()], check=True)

def send(name, count):
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    port.bind((name, 0))
    for number in range(count):
        port.send(bytes.fromhex(sys.argv[1]).replace(b"!!", (number % 65536).to_bytes(2, "big")))

with tap.PacketTap(["tapa"]) as watch:
    seen = []
    def look():
        batch = watch.read()
        ports = batch.headers["tp_src"][batch.header_index]
        seen.extend(ports[batch.headers["ip_proto"][batch.header_index] == 17].tolist())
    for _ in range(3):  # more than the ring has slots, so it goes round
        send("tapb", 25000)
        send("tapa", 10)      # leaves by it
        send("other1", 10)
        look()
    missed = watch.missed
    send("tapb", tap.RING_PACKETS + 4000)
    look()
    print(json.dumps({"seen": len(seen), "first": seen[:25000] == list(range(25000)), "missed": missed,
                      "missed_then": watch.missed}))
watch.close()
"""


@pytest.mark.root
def test_it_sees_what_enters_by_its_interfaces_and_tells_what_it_missed(tmp_path):
    raw = frame(sport=0x2121).hex()
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", PROGRAM, raw], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["first"]
    assert found["missed"] == 0
    assert found["seen"] <= 3 * 25000 + tap.RING_PACKETS
    # Neighbour discovery of the kernel may take a slot or two.
    assert 4000 <= found["missed_then"] <= 4040
    assert found["seen"] >= 3 * 25000 + tap.RING_PACKETS - 40
