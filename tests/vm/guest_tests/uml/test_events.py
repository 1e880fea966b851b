"""Events of a real kernel: links, filters, devlink and a bus, caused by other programs."""

from __future__ import annotations

import socket
from collections.abc import Callable

from nicoffload.kernel.devlink import Handle, Port, PortFlavour, RateNode
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


def until(events: Events, met: Callable[[list[object]], bool]) -> list[object]:
    """Return events up to those that meet a condition."""
    seen: list[object] = []
    while not met(seen):
        news = events.read(10)
        assert news, seen
        seen += news
    return seen


def test_a_link_comes_changes_its_name_and_goes(sh):
    with Events(LinuxKernel(), [Topic.LINK]) as events:
        sh("ip link add here type dummy")
        ifindex = socket.if_nametoindex("here")
        sh("ip link set here name there")
        sh("ip link del there")
        gone = LinkEvent(change=Change.GONE, ifindex=ifindex, ifname="there")
        seen = until(events, lambda seen: gone in seen)
        ours = [one for one in seen if one.ifindex == ifindex]
        assert ours[0] == LinkEvent(change=Change.APPEARED, ifindex=ifindex, ifname="here")
        assert LinkEvent(change=Change.RENAMED, ifindex=ifindex, ifname="there", before="here") in ours
        assert ours[-1] == gone


def test_leaving_a_bridge_is_not_going(sh):
    sh("ip link add port type dummy")
    sh("ip link add over type bridge")
    sh("ip link set port master over")
    ifindex = socket.if_nametoindex("port")
    with Events(LinuxKernel(), [Topic.LINK]) as events:
        sh("ip link set port nomaster")
        sh("ip link set port name left")
        seen = until(events, lambda seen: any(one.ifname == "left" for one in seen))
        assert Change.GONE not in {one.change for one in seen if one.ifindex == ifindex}
    sh("ip link del left")
    sh("ip link del over")


def test_filters_of_others_are_seen(simulated_nic, sh):
    [netdev] = simulated_nic().netdevs
    ifindex = socket.if_nametoindex(netdev)
    with Events(LinuxKernel(), [Topic.FILTER]) as events:
        sh(f"tc filter add dev {netdev} ingress prio 7 chain 3 protocol ip flower ip_proto udp action drop")
        sh(f"tc filter del dev {netdev} ingress prio 7 chain 3 protocol ip handle 1 flower")
        seen = until(events, lambda seen: any(one.change is Change.GONE for one in seen))
        first = seen[0]
        assert isinstance(first, FilterEvent)
        assert (first.change, first.ifindex, first.chain, first.pref, first.handle, first.kind) == (
            Change.PRESENT,
            ifindex,
            3,
            7,
            1,
            "flower",
        )


def test_functions_ports_and_rates_come_and_go(simulated_nic, sh):
    with Events(LinuxKernel(), [Topic.DEVLINK, Topic.BUS], buses=["netdevsim"]) as events:
        nic = simulated_nic()
        handle = Handle.of(nic.handle)
        nic.set_vfs(1)
        sh(f"devlink dev eswitch set {handle} mode switchdev")
        sh(f"devlink port function rate add {handle}/group")
        sh(f"devlink port function rate del {handle}/group")

        def gone(seen: list[object]) -> bool:
            return any(
                isinstance(one, DevlinkEvent)
                and one.change is Change.GONE
                and getattr(one.part, "ref", None) == RateNode(name="group")
                for one in seen
            )

        seen = until(events, gone)
        assert BusEvent(change=Change.APPEARED, bus="netdevsim", name=handle.name) in seen
        assert DevlinkEvent(change=Change.PRESENT, handle=handle) in seen
        parts = [one.part for one in seen if isinstance(one, DevlinkEvent) and one.change is Change.PRESENT]
        flavours = {part.flavour for part in parts if isinstance(part, Port)}
        assert flavours >= {PortFlavour.PHYSICAL, PortFlavour.PCI_VF}


def test_a_flood_that_nobody_reads_is_told_as_lost_and_links_are_read_anew(sh, tmp_path):
    sh("ip link add first up type dummy")
    batch = tmp_path / "batch"
    batch.write_text(
        "".join(f"link set first alias {'x' * 200}{n}\n" for n in range(8000)) + "link del first\n", "ascii"
    )
    with Events(LinuxKernel(), [Topic.LINK]) as events:
        ifindex = socket.if_nametoindex("first")
        sh(f"ip -batch {batch}")
        seen = until(events, lambda seen: any(getattr(one, "change", None) is Change.GONE for one in seen))
        assert Lost(topic=Topic.LINK) in seen
        assert any(
            isinstance(one, LinkEvent) and one.ifindex == ifindex and one.change is Change.GONE
            for one in seen
        )
