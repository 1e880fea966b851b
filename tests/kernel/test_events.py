"""Events from a kernel that tells what the test wants, and loses what the test wants."""

from __future__ import annotations

import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import DeviceGoneError, NicOffloadError, NotSupportedError
from nicoffload.kernel.attributes import MalformedError, nested, text, u16, u32, u64
from nicoffload.kernel.devlink import Handle, Rate, RateNode
from nicoffload.kernel.events import (
    BusEvent,
    Change,
    DevlinkEvent,
    Events,
    FilterEvent,
    LinkEvent,
    Lost,
    Topic,
)
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.seam import NETLINK_GENERIC, NETLINK_KOBJECT_UEVENT, NETLINK_ROUTE, NetlinkChannel
from tests.kernel.scripted import error, message

NIC = Handle(bus="pci", name="0000:03:00.0")
WHO = text(1, NIC.bus) + text(2, NIC.name)


class Channel(NetlinkChannel):
    """A channel that a descriptor makes readable; what is told is a datagram, or an errno."""

    def __init__(self, kernel: Teller, family: int) -> None:
        self.kernel, self.family = kernel, family
        self.told: list[bytes | int] = []
        self.ends = os.pipe()
        self.closed = False

    def send(self, data: bytes | bytearray | memoryview) -> None:
        self.told += self.kernel.answer(self.family, bytes(data))

    def receive(self, timeout_s: float | None = None) -> bytes:
        if not self.told:
            raise TimeoutError
        one = self.told.pop(0)
        if isinstance(one, int):
            raise OSError(one, os.strerror(one))
        return one

    def join(self, group: int) -> None:
        self.kernel.joined[self.family, group] = self
        os.write(self.ends[1], b"x")  # readable from here on

    def fileno(self) -> int:
        return self.ends[0]

    def close(self) -> None:
        if not self.closed:
            for end in self.ends:
                os.close(end)
        self.closed = True


class Teller(LinuxKernel):
    """A kernel with links by number, and a devlink."""

    def __init__(self, links: dict[int, str] | None = None, *, devlink: bool = True) -> None:
        super().__init__("/nonexistent")
        self.links = links or {}
        self.devlink = devlink
        self.channels: list[Channel] = []
        self.joined: dict[tuple[int, int], Channel] = {}

    def open_netlink(self, family: int) -> NetlinkChannel:
        self.channels.append(Channel(self, family))
        return self.channels[-1]

    def answer(self, family: int, data: bytes) -> list[bytes | int]:
        kind, sequence = struct.unpack_from("=4xHxxI", data)
        if family == NETLINK_ROUTE:
            assert kind == 18
            whole = b"".join(link(16, index, name, sequence) for index, name in self.links.items())
            return [whole + message(3, 2, sequence, struct.pack("=i", 0))]
        if not self.devlink:
            return [error(errno.ENOENT, sequence)]
        groups = nested(7, nested(1, text(1, "config"), u32(2, 9)))
        return [
            message(0x10, 0, sequence, b"\x01\x02\0\0" + u16(1, 25) + u32(3, 1) + groups),
            error(0, sequence),
        ]

    def tell(self, family: int, group: int, *told: bytes | int) -> None:
        self.joined[family, group].told += told


def link(kind: int, ifindex: int, name: str, sequence: int = 0, family: int = 0) -> bytes:
    body = struct.pack("=BxHiII", family, 1, ifindex, 0, 0) + text(3, name)
    return message(kind, 0, sequence, body)


def all_of(events: Events) -> list[object]:
    """Return what was told, to the last datagram."""
    found: list[object] = []
    while any(channel.told for channel in events._kernel.joined.values()):
        found += events.read(0)
    return found


def heard(kernel: Teller, topic: Topic, family: int, group: int, *told: bytes | int, **more) -> list[object]:
    with Events(kernel, [topic], **more) as events:
        kernel.tell(family, group, *told)
        found = all_of(events)
    assert all(channel.closed for channel in kernel.channels)
    return found


def links_heard(kernel: Teller, *told: bytes | int) -> list[object]:
    return heard(kernel, Topic.LINK, NETLINK_ROUTE, 1, *told)


def test_links_are_known_by_number_through_every_name():
    kernel = Teller({1: "lo", 2: "eth0"})
    found = links_heard(
        kernel,
        link(16, 2, "eth0"),
        link(16, 2, "uplink") + link(16, 3, "eth0"),
        link(17, 2, "uplink"),
        link(16, 2, "eth9"),
    )
    assert found == [
        LinkEvent(change=Change.CHANGED, ifindex=2, ifname="eth0"),
        LinkEvent(change=Change.RENAMED, ifindex=2, ifname="uplink", before="eth0"),
        LinkEvent(change=Change.APPEARED, ifindex=3, ifname="eth0"),
        LinkEvent(change=Change.GONE, ifindex=2, ifname="uplink"),
        LinkEvent(change=Change.APPEARED, ifindex=2, ifname="eth9"),
    ]


def test_a_port_that_leaves_its_bridge_stays():
    assert links_heard(Teller({2: "eth0"}), link(17, 2, "eth0", family=7)) == []


def test_lost_events_of_links_come_as_differences():
    kernel = Teller({1: "lo", 2: "eth0", 3: "old"})
    with Events(kernel, [Topic.LINK]) as events:
        kernel.links = {1: "lo", 3: "new", 4: "vf0"}
        kernel.tell(NETLINK_ROUTE, 1, errno.ENOBUFS)
        assert all_of(events) == [
            Lost(topic=Topic.LINK),
            LinkEvent(change=Change.GONE, ifindex=2, ifname="eth0"),
            LinkEvent(change=Change.RENAMED, ifindex=3, ifname="new", before="old"),
            LinkEvent(change=Change.APPEARED, ifindex=4, ifname="vf0"),
        ]


def test_filters_say_which_and_other_messages_of_tc_are_passed_over():
    head = struct.pack("=BxxxiIII", 0, 5, 9, 0xFFFF_FFF2, 7 << 16 | 8)
    found = heard(
        Teller(),
        Topic.FILTER,
        NETLINK_ROUTE,
        4,
        message(44, 0, 0, head + text(1, "flower") + u32(11, 3)) + message(36, 0, 0, head),
        message(45, 0, 0, head),
    )
    about = {"ifindex": 5, "parent": 0xFFFF_FFF2, "pref": 7, "handle": 9}
    assert found == [
        FilterEvent(change=Change.PRESENT, chain=3, kind="flower", **about),
        FilterEvent(change=Change.GONE, chain=0, kind="", **about),
    ]


def test_devlink_tells_devices_and_parts():
    rate = WHO + u16(165, 1) + text(168, "gold") + u64(167, 125)
    found = heard(
        Teller(),
        Topic.DEVLINK,
        NETLINK_GENERIC,
        9,
        message(25, 0, 0, b"\x03\x01\0\0" + WHO) + message(25, 0, 0, b"\x4d\x01\0\0" + rate),
        message(25, 0, 0, b"\x63\x01\0\0" + WHO),
    )
    gold = Rate(handle=NIC, ref=RateNode(name="gold"), tx_max_bps=1000)
    assert found == [
        DevlinkEvent(change=Change.PRESENT, handle=NIC),
        DevlinkEvent(change=Change.GONE, handle=NIC, part=gold),
    ]


def uevent(action: str, *lines: str, path: str = "/devices/pci0000:00/0000:03:10.0") -> bytes:
    return "\0".join([f"{action}@{path}", f"ACTION={action}", *lines, ""]).encode()


def test_functions_come_change_hands_and_go():
    found = heard(
        Teller(),
        Topic.BUS,
        NETLINK_KOBJECT_UEVENT,
        1,
        uevent("add", "SUBSYSTEM=pci"),
        uevent("bind", "SUBSYSTEM=pci", "DRIVER=vfio-pci"),
        uevent("add", "SUBSYSTEM=net"),
        uevent("offline", "SUBSYSTEM=pci"),
        b"libudev\0\xfe\xed",
        uevent("unbind", "SUBSYSTEM=pci"),
        uevent("remove", "SUBSYSTEM=pci"),
    )
    assert [(one.change, one.driver) for one in found] == [
        (Change.APPEARED, ""),
        (Change.BOUND, "vfio-pci"),
        (Change.UNBOUND, ""),
        (Change.GONE, ""),
    ]
    assert {(one.bus, one.name) for one in found} == {("pci", "0000:03:10.0")}
    assert all(isinstance(one, BusEvent) for one in found)


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EMSGSIZE])
def test_what_was_lost_is_told_for_each_topic(number):
    found = heard(Teller(), Topic.BUS, NETLINK_KOBJECT_UEVENT, 1, number, uevent("add", "SUBSYSTEM=pci"))
    assert found[0] == Lost(topic=Topic.BUS)
    assert len(found) == 2


def test_a_broken_socket_is_an_error():
    kernel = Teller()
    with Events(kernel, [Topic.BUS]) as events:
        kernel.tell(NETLINK_KOBJECT_UEVENT, 1, errno.EIO)
        with pytest.raises(DeviceGoneError):
            events.read(0)


def test_events_that_came_before_another_topic_broke_are_not_lost():
    kernel = Teller()
    with Events(kernel, [Topic.LINK, Topic.BUS]) as events:
        kernel.tell(NETLINK_ROUTE, 1, link(16, 2, "eth0"))
        kernel.tell(NETLINK_KOBJECT_UEVENT, 1, errno.EIO)
        assert len(events.read(0)) == 1
        with pytest.raises(DeviceGoneError):
            events.read(0)
        assert events.read(0) == []


def test_a_kernel_without_devlink_leaves_no_socket_open():
    kernel = Teller(devlink=False)
    with pytest.raises(NotSupportedError):
        Events(kernel)
    assert kernel.channels
    assert all(channel.closed for channel in kernel.channels)


def test_a_flood_of_one_topic_keeps_no_other_waiting():
    kernel = Teller()
    with Events(kernel, [Topic.LINK, Topic.BUS]) as events:
        kernel.tell(NETLINK_ROUTE, 1, *[link(16, 2, "eth0")] * 1000)
        kernel.tell(NETLINK_KOBJECT_UEVENT, 1, uevent("add", "SUBSYSTEM=pci"))
        assert len(events.read(0)) == 2


@given(data=st.binary(max_size=120), topic=st.sampled_from(list(Topic)))
def test_no_datagram_breaks_a_reader(data, topic):
    kernel = Teller()
    with Events(kernel, [topic]) as events:
        [channel] = kernel.joined.values()
        channel.told.append(data)
        try:
            events.read(0)
        except NicOffloadError as refused:
            assert isinstance(refused, MalformedError)  # noqa: PT017  (either outcome is right)
