"""Packets to, from and between VFs that the SDK made and set, on PCI devices: each way, VLANs, MACs, namespaces."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from nicoffload.kernel.binding import Binding
from nicoffload.kernel.events import BusEvent, Change, Events, LinkEvent, Topic
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.sriov import Sriov
from nicoffload.kernel.vf import VfLink, VfRequest
from nicoffload.model import VfConfig, VlanTag, parse_mac

KERNEL = LinuxKernel()
MACS = ("02:00:00:00:0a:01", "02:00:00:00:0a:02")
PF, VF0, VF1, WIRE = "10.4.0.1", "10.4.0.2", "10.4.0.3", "10.4.0.4"


class Stage:
    """A PF with two VFs, each VF in a namespace of its own, and the other end of the wire in a third.

    Args:
        nic: The NIC with the VFs.
        far: The NIC at the other end of the wire.
        sh: Runs a program.
    """

    def __init__(self, nic, far, sh: Callable[[str], str]) -> None:
        self.nic, self.far, self.sh = nic, far, sh
        self.vfs = Sriov(KERNEL, nic.address).set_vfs(2)
        self.names = [nic.vf_netdev(number) for number in range(2)]
        self.far_netdev = far.netdev

    def configure(self, *configs: VfConfig) -> None:
        """Set VFs through the SDK."""
        with VfLink(KERNEL, socket.if_nametoindex(self.nic.netdev)) as link:
            assert link.apply([VfRequest(config=config) for config in configs]) == []

    def rebind(self, number: int) -> None:
        """Give a VF its driver anew: it takes on the address that its PF set."""
        binding = Binding(KERNEL, self.vfs[number])
        binding.unbind()
        binding.bind("igbvf")
        self.names[number] = self.nic.vf_netdev(number)

    def set_out(self) -> None:
        """Put each end where it belongs, with an address."""
        ends = [
            (self.names[0], "guest0", VF0),
            (self.names[1], "guest1", VF1),
            (self.far_netdev, "wire", WIRE),
        ]
        for netdev, name, address in ends:
            self.sh(f"ip link set {netdev} netns {name}")
            self.sh(f"ip -n {name} addr add {address}/24 dev {netdev}")
            self.sh(f"ip -n {name} link set {netdev} up")
        self.sh(f"ip addr add {PF}/24 dev {self.nic.netdev}")


@pytest.fixture
def stage(emulated_nics, namespaces, sh) -> Iterator[Stage]:
    for name in ("guest0", "guest1", "wire"):
        namespaces(name)
    one = Stage(*emulated_nics, sh)
    yield one
    if one.far_netdev not in {name for _, name in socket.if_nameindex()}:
        sh(f"ip -n wire link set {one.far_netdev} netns 1")


def test_traffic_passes_from_pf_to_vf_from_vf_to_vf_and_from_vf_to_the_wire(stage, reach):
    stage.configure(*(VfConfig(vf=vf, mac=parse_mac(mac)) for vf, mac in enumerate(MACS)))
    for vf in range(2):
        stage.rebind(vf)
    stage.set_out()
    for vf, mac in enumerate(MACS):
        assert mac in stage.sh(f"ip -n guest{vf} link show dev {stage.names[vf]}")
    assert reach(VF0)
    assert reach(VF1, netns="guest0")
    assert reach(WIRE, netns="guest0")
    assert reach(VF1, netns="wire")
    assert reach(PF, netns="guest1")
    # Each knows the other by the address that the SDK set.
    assert MACS[0] in stage.sh(f"ip -n wire neigh show {VF0}") or reach(VF0, netns="wire")
    assert MACS[0] in stage.sh(f"ip -n wire neigh show {VF0}")


def test_vlans_isolate_vfs_from_each_other_from_the_pf_and_on_the_wire(stage, reach, sh):
    stage.set_out()
    sh("ip netns exec wire modprobe 8021q")
    sh(f"ip -n wire link add link {stage.far_netdev} name tagged type vlan id 30")
    sh("ip -n wire addr add 10.5.0.4/24 dev tagged")
    sh("ip -n wire link set tagged up")
    sh(f"ip -n guest0 addr add 10.5.0.2/24 dev {stage.names[0]}")
    assert reach(VF1, netns="guest0")
    stage.configure(VfConfig(vf=0, vlan=VlanTag(vid=30, pcp=3)))
    assert not reach(VF1, netns="guest0", tries=2)
    assert not reach(VF0, tries=2)
    assert reach("10.5.0.4", netns="guest0")  # tagged on the wire, and the VF sees no tag
    stage.configure(VfConfig(vf=1, vlan=VlanTag(vid=30)))
    assert reach(VF1, netns="guest0")
    stage.configure(VfConfig(vf=1, vlan=VlanTag(vid=31)))
    assert not reach(VF1, netns="guest0", tries=2)
    stage.configure(VfConfig(vf=0, vlan=VlanTag(vid=0)), VfConfig(vf=1, vlan=VlanTag(vid=0)))
    assert reach(VF1, netns="guest0")
    assert not reach("10.5.0.4", netns="guest0", tries=2)


def test_a_vf_goes_into_a_namespace_is_set_from_outside_and_comes_home(stage, sh, reach):
    netdev = stage.names[0]
    index = socket.if_nametoindex(netdev)
    with Events(KERNEL, [Topic.LINK]) as events:
        sh(f"ip link set {netdev} netns guest0")
        assert LinkEvent(change=Change.GONE, ifindex=index, ifname=netdev) in _until(
            events, netdev, Change.GONE
        )
        # Away from home it is still a VF of its PF, whose settings reach it.
        stage.configure(VfConfig(vf=0, mac=parse_mac(MACS[0]), trust=True))
        with VfLink(KERNEL, socket.if_nametoindex(stage.nic.netdev)) as link:
            assert (link.read()[0].mac, link.read()[0].trust) == (parse_mac(MACS[0]), True)
        with KERNEL.namespace("/run/netns/guest0") as inside:
            with Events(inside, [Topic.LINK]):
                assert socket.if_nametoindex(netdev) > 0
            with pytest.raises(OSError, match=r"No such device|no interface"):
                socket.if_nametoindex(stage.nic.netdev)
        sh(f"ip -n guest0 link set {netdev} netns 1")
        _until(events, netdev, Change.APPEARED)
    assert stage.nic.vf_netdev(0) == netdev
    # And where the namespace goes, the VF comes home by itself.
    sh(f"ip link set {netdev} netns guest0")
    sh("ip netns del guest0")
    with Events(KERNEL, [Topic.LINK]) as events:
        if netdev not in {name for _, name in socket.if_nameindex()}:
            _until(events, netdev, Change.APPEARED)
    sh("ip netns add guest0")
    stage.rebind(0)  # only now it takes on the address that it was given while it was away
    stage.set_out()
    assert reach(VF0)


def _until(events: Events, netdev: str, change: Change) -> list[LinkEvent]:
    """Return the events of a device up to a change of it."""
    seen: list[LinkEvent] = []
    while not any(one.change is change for one in seen):
        news = events.read(30)
        assert news, seen
        seen += [one for one in news if isinstance(one, LinkEvent) and one.ifname == netdev]
    return seen


def test_vfs_that_come_and_go_are_told_by_the_bus(emulated_nics):
    nic = emulated_nics[0]
    with Events(KERNEL, [Topic.BUS]) as events:
        made = Sriov(KERNEL, nic.address).set_vfs(2)
        Sriov(KERNEL, nic.address).set_vfs(0)
        seen: list[object] = []
        gone = {BusEvent(change=Change.GONE, bus="pci", name=name) for name in made}
        while not gone <= set(seen):
            news = events.read(30)
            assert news, seen
            seen += news
    for name in made:
        own = [one for one in seen if isinstance(one, BusEvent) and one.name == name]
        assert BusEvent(change=Change.BOUND, bus="pci", name=name, driver="igbvf") in own
        assert (own[0].change, own[-1].change) == (Change.APPEARED, Change.GONE)


def test_the_driver_counts_nothing_of_vfs_whatever_passes(stage, reach):
    stage.set_out()
    assert reach(VF0)
    with VfLink(KERNEL, socket.if_nametoindex(stage.nic.netdev)) as link:
        for one in link.traffic(None):
            assert (one.rx_packets, one.tx_packets, one.rx_bytes, one.tx_bytes) == (None, None, None, None)


def test_frames_of_a_foreign_vlan_do_not_reach_a_vf_that_has_one(stage, reach):
    """A frame with a tag of its own that the far end sends is not for the VF of another VLAN."""
    stage.set_out()
    assert reach(VF0)
    stage.configure(VfConfig(vf=0, vlan=VlanTag(vid=30)))
    mac = bytes.fromhex(_mac(stage, 0).replace(":", ""))
    with KERNEL.namespace("/run/netns/guest0"):
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
        listener.bind((stage.names[0], 0x88B5))
    with listener, KERNEL.namespace("/run/netns/wire"):
        listener.settimeout(1)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((stage.far_netdev, 0))
            heard = b""
            for _ in range(60):  # the VF resets when its VLAN is set, and takes a moment
                for vid in (31, 0, 30):
                    tag = struct.pack(">HH", 0x8100, vid) if vid else b""
                    sender.send(mac + bytes(6) + tag + b"\x88\xb5" + bytes([vid]) + bytes(60))
                with contextlib.suppress(TimeoutError):
                    heard = listener.recv(2000)
                    break
        assert heard[14:15] == bytes([30])


def _mac(stage: Stage, number: int) -> str:
    shown = stage.sh(f"ip -n guest{number} -o link show dev {stage.names[number]}")
    return shown.split("link/ether ")[1].split()[0]
