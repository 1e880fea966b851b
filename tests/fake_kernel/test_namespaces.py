"""Network namespaces of the fake kernel: who sees a device that was moved, who hears of it, and how it comes home."""

from __future__ import annotations

import pytest

from nicoffload.errors import DeviceGoneError
from nicoffload.kernel.events import BusEvent, Events, LinkEvent, Topic
from nicoffload.kernel.link import read_link
from nicoffload.kernel.vf import VfLink, VfRequest
from nicoffload.model import VfConfig
from tests.fake_kernel.plugging import plugged


def test_a_vf_goes_into_a_namespace_and_comes_home_with_it():
    kernel, nic = plugged("ice", vfs=2)
    vf = nic.vfs[1].netdev
    kernel.add_namespace("vm")
    kernel.move(vf, "/run/netns/vm")
    with pytest.raises(DeviceGoneError):
        read_link(kernel, vf.ifindex)
    folder = f"bus/pci/devices/{nic.vfs[1].address}"
    assert kernel.list_sysfs(f"{folder}/net") == []
    assert vf.ifname not in {one.ifname for one in kernel.sightings()}
    with kernel.namespace("/run/netns/vm") as inside:
        assert read_link(inside, vf.ifindex).ifname == vf.ifname
        assert inside.list_sysfs("class/net") == [vf.ifname, "lo"]
        assert inside.list_sysfs(f"{folder}/net") == [vf.ifname]
        assert [one.ifname for one in inside.sightings() if one.ifname] == [vf.ifname]
        assert vf.ifname not in kernel.list_sysfs("class/net")
        with pytest.raises(DeviceGoneError):
            read_link(inside, nic.pf.ifindex)
    # The PF's driver sets it wherever it is.
    with VfLink(kernel, nic.pf.ifindex) as link:
        assert link.apply([VfRequest(config=VfConfig(vf=1, trust=True))]) == []
        assert link.read()[1].trust
    kernel.remove_namespace("vm")
    assert read_link(kernel, vf.ifindex).ifname == vf.ifname
    assert kernel.namespaces() == []


def test_a_move_is_a_removal_to_those_who_listen_at_home_and_nobody_else_hears_of_it():
    kernel, nic = plugged("ice", vfs=2)
    vf = nic.vfs[0].netdev
    kernel.add_namespace("vm")
    kernel.add_namespace("other")
    with kernel.namespace("/run/netns/other"):
        elsewhere = Events(kernel, [Topic.LINK, Topic.BUS])
    with Events(kernel, [Topic.LINK, Topic.BUS]) as events, elsewhere:
        kernel.move(vf, "/run/netns/vm")
        heard = events.read(0)
        assert [one.change.value for one in heard if isinstance(one, LinkEvent)] == ["gone"]
        assert elsewhere.read(0) == []
        # Functions are of no namespace.
        kernel.write_sysfs(f"bus/pci/devices/{nic.vfs[0].address}/driver/unbind", nic.vfs[0].address.encode())
        assert [one for one in elsewhere.read(0) if isinstance(one, BusEvent)]
    assert vf.ifindex not in kernel.world.netdevs


def test_a_name_that_is_taken_stays_where_it_is():
    kernel, nic = plugged("ice", vfs=1)
    kernel.add_namespace("vm")
    other = kernel.add_netdev("extra")
    kernel.move(other, "/run/netns/vm")
    again = kernel.add_netdev("extra")
    with pytest.raises(FileExistsError):
        kernel.move(again, "/run/netns/vm")
    with pytest.raises(FileNotFoundError):
        kernel.move(again, "/run/netns/nowhere")
    kernel.move(nic.pf, "/run/netns/vm")
    kernel.unplug(nic)
    with kernel.namespace("/run/netns/vm"):
        assert [one.ifname for one in kernel.world.netdevs.values()] == ["lo", "extra"]
    kernel.remove_namespace("vm")
    assert [one.ifname for one in kernel.world.netdevs.values()] == ["lo", "extra"]
