"""NICs come and go in the fake kernel, with their functions, network devices and representors."""

from __future__ import annotations

import errno
import selectors

import pytest

from nicoffload.kernel.seam import NETLINK_GENERIC, NETLINK_KOBJECT_UEVENT, NETLINK_ROUTE, Sighting
from nicoffload.testing import FakeKernel
from tests.fake_kernel.plugging import FAMILIES, PF, PROFILES, plugged


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prepared", [False, True])
def test_every_family_is_plugged_in_and_out(family, prepared):
    kernel, nic = plugged(family, prepared=prepared)
    assert nic.pf.ifname == "enp3s0f0"
    assert len(nic.vfs) == len(nic.device.sriov.vfs)
    assert {one.ifindex for one in nic.netdevs()} | {1} == kernel.world.netdevs.keys()
    assert Sighting(pci_address=PF) in kernel.sightings()
    assert len(kernel.sightings()) == 1 + len(nic.vfs) + len(list(nic.netdevs()))
    kernel.unplug(nic)
    kernel.unplug(nic)
    assert kernel.sightings() == []
    assert list(kernel.world.netdevs) == [1]


def test_vfs_have_addresses_and_devices_of_their_own_and_the_mode_brings_representors():
    kernel, nic = plugged("mlx5", vfs=2)
    assert [one.address for one in nic.vfs] == ["0000:03:10.0", "0000:03:10.2"]
    assert [one.netdev.ifname for one in nic.vfs] == ["enp3s0f0v0", "enp3s0f0v1"]
    assert nic.representors == {}
    nic.device.set_mode("switchdev")
    kernel.follow(nic)
    assert [one.port_name for one in nic.representors.values()] == ["pf0vf0", "pf0vf1"]
    assert {one.switch_id for one in nic.representors.values()} == {nic.pf.switch_id} != {b""}
    nic.device.sriov.bind(1, "vfio-pci")
    kernel.follow(nic)
    assert nic.vfs[1].netdev is None
    assert nic.vfs[1].driver == "vfio-pci"
    nic.device.set_mode("legacy")
    kernel.follow(nic)
    assert nic.representors == {}


def test_a_nic_that_falls_from_the_bus_is_gone_with_all_that_it_had():
    fault = {"when": {"time_s": 1}, "effect": {"kind": "remove"}}
    kernel, nic = plugged("ixgbe", vfs=3, faults=[fault])
    kernel.advance(0.5)
    assert len(nic.vfs) == 3
    kernel.sleep_s(1)
    assert kernel.sightings() == []
    assert kernel.monotonic_s() == 1.5


@pytest.mark.parametrize("address", ["eth0", PF])
def test_an_address_that_is_none_or_in_use_is_refused(address):
    kernel, _ = plugged("ixgbe")
    with pytest.raises(ValueError, match=r"no PCI address|in use"):
        kernel.plug(PROFILES.get("ixgbe"), pci_address=address)


def test_a_selector_wakes_for_a_multicast_datagram_and_not_without_one():
    kernel = FakeKernel()
    channel = kernel.open_netlink(NETLINK_KOBJECT_UEVENT)
    channel.join(1)
    with selectors.DefaultSelector() as selector:
        selector.register(channel.fileno(), selectors.EVENT_READ)
        assert not selector.select(0)
        for datagram in (b"first", b"second"):
            kernel.world.notify(NETLINK_KOBJECT_UEVENT, 1, datagram)
        assert selector.select(0)
        assert channel.receive(0) == b"first"
        assert selector.select(0)
        assert channel.receive() == b"second"
        assert not selector.select(0)
    with pytest.raises(TimeoutError):
        channel.receive(0)
    channel.close()
    channel.close()
    with pytest.raises(OSError, match="Bad file") as closed:
        channel.send(b"")
    assert closed.value.errno == errno.EBADF
    kernel.world.notify(NETLINK_KOBJECT_UEVENT, 1, b"nobody hears")


def test_a_full_queue_loses_what_comes_and_says_so_once():
    kernel = FakeKernel()
    channel = kernel.open_netlink(NETLINK_ROUTE)
    channel.join(1)
    for _ in range(200):
        kernel.world.notify(NETLINK_ROUTE, 1, bytes(65536))
    with pytest.raises(OSError, match="buffer space") as lost:
        channel.receive(0)
    assert lost.value.errno == errno.ENOBUFS
    assert len(channel.receive(0)) == 65536
    channel.close()


def test_there_are_three_families_and_the_own_namespace():
    kernel = FakeKernel()
    for family in (NETLINK_ROUTE, NETLINK_GENERIC, NETLINK_KOBJECT_UEVENT):
        kernel.open_netlink(family).close()
    with pytest.raises(OSError, match="rotocol"):
        kernel.open_netlink(4)
    with kernel.namespace("/proc/self/ns/net") as same:
        assert same.list_sysfs("class/net") == ["lo"]
    with pytest.raises(FileNotFoundError), kernel.namespace("/run/netns/blue"):
        pass
