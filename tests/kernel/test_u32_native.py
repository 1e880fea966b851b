"""u32, qdiscs, bulk and counters on the kernel that the tests run on, held against tc; in a network namespace."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest

from nicoffload.errors import (
    ConflictError,
    DeviceBusyError,
    DeviceGoneError,
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
)
from nicoffload.kernel import Netlink
from nicoffload.kernel.link import read_link, read_link_by
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.tc import (
    OWN_ROOT,
    FilterRef,
    Hook,
    Mirred,
    TcFilters,
    U32Filter,
    U32Filters,
    U32Hash,
    U32Key,
    add_table_command,
    add_u32_command,
    flat_keys,
    linked_keys,
    qdisc,
)
from nicoffload.model import Match
from tests.kernel.against_tc import run_commands, shown, shown_lines
from tests.kernel.random_filters import random_u32

pytestmark = pytest.mark.root


def sh(line: str) -> None:
    subprocess.run(line.split(), check=True, capture_output=True)


@pytest.fixture
def kernel() -> Iterator[LinuxKernel]:
    """The kernel, in a namespace with two pairs of devices."""
    name = f"nicoffload-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces here")
    try:
        with LinuxKernel().namespace(f"/run/netns/{name}") as inside:
            for device in ("ours", "theirs"):
                sh(f"ip link add {device} type veth peer name {device}-peer")
                for end in (device, f"{device}-peer"):
                    sh(f"ip link set {end} addrgenmode none")  # no IPv6 chatter, which would be counted
                    sh(f"ip link set {end} up")
            yield inside
    finally:
        sh(f"ip netns del {name}")


def test_sysfs_is_of_the_namespace_that_netlink_is_of(kernel):
    home = LinuxKernel()
    assert set(kernel.list_sysfs("class/net")) >= {"ours", "theirs", "lo"}
    assert "ours" not in home.list_sysfs("class/net")
    index = int(kernel.read_sysfs("class/net/ours/ifindex"))
    assert read_link(kernel, index).ifname == "ours"
    assert not [one for one in kernel.sightings() if one.ifname]
    functions = {one.pci_address for one in home.sightings() if not one.ifname}
    assert {one.pci_address for one in kernel.sightings()} == functions


def test_where_sysfs_can_not_be_mounted_it_is_not_asked_for_devices_of_another_namespace(monkeypatch):
    def refused():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("nicoffload.kernel.linux._mount_sysfs", refused)
    with LinuxKernel().namespace("/proc/thread-self/ns/net") as inside:
        with pytest.raises(OSError, match="another network namespace") as caught:
            inside.list_sysfs("class/net")
        assert caught.value.errno == errno.EXDEV
        assert inside.list_sysfs("bus")


def hook(kernel: LinuxKernel, device: str) -> Hook:
    with Netlink(kernel, 0) as netlink:
        qdisc.ensure(netlink, socket.if_nametoindex(device))
    return Hook.ingress(socket.if_nametoindex(device))


def redirect() -> tuple[Mirred, ...]:
    return (Mirred(ifindex=socket.if_nametoindex("theirs-peer")),)


def test_random_words_written_by_us_are_what_tc_reads_and_the_other_way_round(kernel, tmp_path):
    made = random_u32(500, [socket.if_nametoindex("ours-peer"), socket.if_nametoindex("theirs-peer")])
    # A pref's root table is numbered when the pref comes: ours and tc's come in one order.
    made = [dataclasses.replace(item, table=0x800 + place) for place, item in enumerate(made)]
    with (
        U32Filters(kernel, hook(kernel, "ours")) as filters,
        U32Filters(kernel, hook(kernel, "theirs")) as of_tc,
    ):
        outcomes = [filters.add_many([item])[0] for item in made]
        assert [one for one in outcomes if isinstance(one, NicOffloadError)] == []
        run_commands([add_u32_command(item, of_tc.hook, socket.if_indextoname) for item in made], tmp_path)
        values, lines = shown("ours")
        assert (values, lines) == shown("theirs")
        for read in (filters.dump(), of_tc.dump()):
            states = sorted(read, key=lambda state: state.ref.pref)
            assert [state.item for state in states] == made
            assert not any(state.foreign for state in states)
        assert filters.delete_many(outcomes) == [None] * len(made)
        assert filters.dump() == []
        assert all(isinstance(answer, NotFoundError) for answer in filters.delete_many(outcomes[:2]))


def test_a_five_tuple_in_a_table_of_its_own_is_what_tc_makes_of_it(kernel, tmp_path):
    match = Match.of(ipv4_src="10.0.0.1", ipv4_dst="10.1.0.0/16", ip_proto=17, tp_src=53, tp_dst="0x50/0xf0")
    leading, inner = linked_keys(match)
    made = [
        U32Filter(keys=leading, actions=(), pref=4, node=1, link=0x123),
        U32Filter(keys=inner, actions=redirect(), pref=4, node=2, table=0x123),
    ]
    with (
        U32Filters(kernel, hook(kernel, "ours")) as filters,
        U32Filters(kernel, hook(kernel, "theirs")) as of_tc,
    ):
        filters.add_table(4, 0x123)
        with pytest.raises(ConflictError):
            filters.add_table(4, 0x123)
        outcomes = filters.add_many(made)
        commands = [add_table_command(4, 0x123, of_tc.hook, socket.if_indextoname)]
        commands += [add_u32_command(item, of_tc.hook, socket.if_indextoname) for item in made]
        run_commands(commands, tmp_path)
        assert shown_lines("ours") == shown_lines("theirs")
        (found,) = [state for state in of_tc.dump() if state.item.table == 0x123]
        assert (found.match, found.foreign) == (match, ())
        table = FilterRef(pref=4, handle=0x123 << 20, chain=0, protocol=0x0800, kind="u32")
        assert isinstance(filters.delete_many([table])[0], DeviceBusyError)
        *answers, last = filters.delete_many([outcomes[1], outcomes[0], table])
        assert answers == [None, None]
        assert isinstance(last, NotFoundError)  # it went with the pref's last filter


def test_a_table_by_hash_is_what_tc_makes_of_it_and_is_read_back_as_it_was(kernel, tmp_path):
    made = [
        U32Filter(
            keys=(U32Key(-4, 0xFFFF, 0x0800),), actions=(), pref=9, table=OWN_ROOT, link=0x12,
            hash=U32Hash(12, 0xFF00), protocol=3,
        ),
        U32Filter(
            keys=(U32Key(12, 0xFFFF_FFFF, 0x0A01_0203),), actions=redirect(), pref=9, table=0x12, bucket=2,
            class_id=0x8000_1234, protocol=3,
        ),
        U32Filter(keys=(), actions=redirect(), pref=9, table=OWN_ROOT, indev="ours", protocol=3),
    ]  # fmt: skip
    with (
        U32Filters(kernel, hook(kernel, "ours")) as filters,
        U32Filters(kernel, hook(kernel, "theirs")) as of_tc,
    ):
        filters.add_table(9, 0x12, buckets=256, protocol=3)
        outcomes = filters.add_many(made[:2])
        commands = [add_table_command(9, 0x12, of_tc.hook, socket.if_indextoname, buckets=256)]
        commands = [commands[0].replace("protocol ip", "protocol all").replace("0x0800", "all")]
        commands += [add_u32_command(item, of_tc.hook, socket.if_indextoname) for item in made[:2]]
        run_commands(commands, tmp_path)
        assert shown_lines("ours") == shown_lines("theirs")
        outcomes += filters.add_many(made[2:])  # tc has a word for it all the same, of no bits
        found = {state.ref: state.item for state in filters.dump()}
        assert [found[ref].keys for ref in outcomes[:2]] == [item.keys for item in made[:2]]
        assert (found[outcomes[0]].hash, found[outcomes[0]].link) == (U32Hash(12, 0xFF00), 0x12)
        assert (found[outcomes[1]].class_id, found[outcomes[1]].bucket) == (0x8000_1234, 2)
        assert outcomes[2] not in found  # it takes every packet, and is nobody's rule
        filters.delete_pref(9, protocol=3)
        filters.delete_pref(9, protocol=3)
        assert filters.dump() == []


def test_a_queue_of_no_length_drops_all(kernel):
    with Netlink(kernel, 0) as netlink:
        ifindex = socket.if_nametoindex("ours")
        qdisc.add_drop_all(netlink, ifindex)
        before = read_link_by(netlink, ifindex).counters["tx_packets"]
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("ours", 0))
            with contextlib.suppress(OSError):
                sender.send(bytes(60))
        assert read_link_by(netlink, ifindex).counters["tx_packets"] == before


def test_a_failure_ends_at_its_own_rule_and_the_others_stand(kernel):
    made = [
        U32Filter(keys=(U32Key(16, 0xFFFF_FFFF, number),), actions=redirect(), pref=1, node=1 + number)
        for number in range(1000)
    ]
    bad = {5, 63, 64, 512, 999}
    for number in bad:
        made[number] = dataclasses.replace(made[number], node=1)
    absent = {77: Mirred(ifindex=0x7FFF_FFFF)}
    for number, action in absent.items():
        made[number] = dataclasses.replace(made[number], actions=(action,))
    with U32Filters(kernel, hook(kernel, "ours")) as filters:
        outcomes = filters.add_many(made)
        refused = {place for place, outcome in enumerate(outcomes) if isinstance(outcome, NicOffloadError)}
        assert refused == bad | absent.keys()
        assert isinstance(outcomes[64], ConflictError)
        assert isinstance(outcomes[77], DeviceGoneError)
        assert {state.ref for state in filters.dump()} == {
            outcome for outcome in outcomes if isinstance(outcome, FilterRef)
        }


def test_what_passes_is_counted_and_read_alike_in_both_ways(kernel):
    match = Match.of(ipv4_dst="10.9.8.7", ip_proto=17, tp_dst=4000)
    with U32Filters(kernel, hook(kernel, "ours")) as filters:
        filters.add_many([U32Filter(keys=flat_keys(match), actions=redirect(), pref=1, node=1)])
        header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, bytes(4), bytes([10, 9, 8, 7]))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("ours-peer", 0))
            for port in (4000, 4000, 4001):
                wire.send(bytes(12) + b"\x08\0" + header + struct.pack(">HHHH", 1, port, 8, 0) + bytes(18))
        (state,) = filters.dump()
        assert (state.match, state.counters.packets, state.in_hw) == (match, 2, False)
        assert state.counters.idle_ns is not None
    with TcFilters(kernel, hook(kernel, "ours")) as any_kind:
        found = any_kind.counters(idle=True)
        row = int(found.counted.argmax())
        assert (found.packets[row], found.bytes[row]) == (2, state.counters.bytes)
        assert found.idle_ns[row] >= 0


def test_qdiscs(kernel):
    ifindex = socket.if_nametoindex("ours")
    wanted = qdisc.IngressQdisc(ifindex=ifindex, ingress_block=7, egress_block=8)
    with Netlink(kernel, 0) as netlink:
        assert qdisc.find(netlink, ifindex) is None
        with pytest.raises(NotFoundError):
            qdisc.delete(netlink, ifindex)
        qdisc.add(netlink, wanted)
        assert qdisc.find(netlink, ifindex) == qdisc.ensure(netlink, ifindex) == wanted
        with pytest.raises(ConflictError):
            qdisc.add(netlink, wanted)
        with U32Filters(kernel, Hook.block(7)) as filters:
            key = U32Key(16, 0xFF, 1)
            filters.add_many([U32Filter(keys=(key,), actions=redirect(), pref=1, node=1)])
            assert [state.item.keys for state in filters.dump()] == [(key,)]
        qdisc.delete(netlink, ifindex)
        assert qdisc.find(netlink, ifindex) is None


def test_the_kernels_own_words_are_in_the_error(kernel):
    item = U32Filter(keys=(U32Key(16, 0xFF, 1),), actions=redirect(), pref=1, node=1)
    with U32Filters(kernel, Hook.ingress(socket.if_nametoindex("ours")), device="ours") as filters:
        (refused,) = filters.add_many([item])
    assert isinstance(refused, InvalidRequestError)
    assert "Qdisc" in refused.kernel_message
    assert "ours" in str(refused)
    with U32Filters(kernel, Hook.ingress(0x7FFF_0000)) as filters:
        (refused,) = filters.add_many([item])
    assert isinstance(refused, DeviceGoneError)


def test_the_seam_of_this_kernel(kernel):
    with pytest.raises(InvalidRequestError, match="no name"):
        kernel.ethtool("a-name-that-is-too-long", bytes(4))
    answer = kernel.ethtool("ours", struct.pack("=I192x", 0x3))  # ETHTOOL_GDRVINFO
    assert answer[4:8] == b"veth"
    assert int(kernel.read_sysfs("class/net/lo/mtu")) > 0
    assert "class" in kernel.list_sysfs("")
    with pytest.raises(InvalidRequestError, match="below sysfs"):
        kernel.read_sysfs("../etc/passwd")
    with pytest.raises(FileNotFoundError):
        kernel.namespace("/run/netns/no-such-namespace").__enter__()
