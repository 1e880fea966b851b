"""Answers of this kernel of every kind, read without complaint; kept for `tests/fuzz`, which damages them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nicoffload.errors import InvalidRequestError, NotSupportedError
from nicoffload.kernel import Netlink, genetlink
from nicoffload.kernel.bpf import load_program
from nicoffload.kernel.bridge import HwMode, read_hwmode
from nicoffload.kernel.devlink import Devlink, EswitchMode, Handle, RateChange, RateLeaf, RateNode
from nicoffload.kernel.events import Events, Topic
from nicoffload.kernel.features import read_features
from nicoffload.kernel.seam import NETLINK_GENERIC, NETLINK_ROUTE
from nicoffload.kernel.tc import Hook, qdisc
from nicoffload.kernel.tc.bpf_filter import attach, attached
from nicoffload.kernel.tc.htb import HtbClass, add_htb, counters, set_class
from nicoffload.kernel.veth import links, nsid_of
from nicoffload.kernel.vf import VfLink
from tests.fuzz import seeds
from tests.fuzz.tap import TappedKernel
from tests.kernel.random_vfs import random_requests

OUT = Path("/run/out/fuzz-seeds")
MBPS = 1_000_000
RETURNS_0 = bytes.fromhex("b700000000000000 9500000000000000")


@pytest.fixture
def kernel() -> TappedKernel:
    return TappedKernel()


def keep(kind: str, kernel: TappedKernel) -> None:
    heard = kernel.take()
    assert heard, kind
    OUT.mkdir(exist_ok=True)
    (OUT / f"{kind}.bin").write_bytes(seeds.pack(heard))


def test_links_and_virtual_functions(kernel, simulated_nic):
    nic = simulated_nic()
    nic.set_vfs(4)
    netdev = nic.netdevs[0]
    with VfLink(kernel, socket.if_nametoindex(netdev)) as link:
        assert link.apply(random_requests(4, 4)) == []
        kernel.take()
        assert len(link.read()) == link.count() == len(link.traffic(None)) == 4
        keep("vfs", kernel)
        wrong = link.apply(random_requests(9, 9)[4:])
        assert {type(one.error) for one in wrong} == {InvalidRequestError}
        keep("acknowledgements", kernel)


def test_qdiscs_and_bridges(kernel, simulated_nic, sh):
    [netdev] = simulated_nic().netdevs
    index = socket.if_nametoindex(netdev)
    sh("ip link add shared type veth peer name shared-peer")
    sh("tc qdisc add dev shared ingress_block 5 egress_block 6 clsact")
    sh("ip link add seam type bridge")
    sh("ip link set shared master seam")
    try:
        with Netlink(kernel, NETLINK_ROUTE) as netlink:
            assert qdisc.find(netlink, index) == qdisc.IngressQdisc(ifindex=index)
            assert qdisc.find(netlink, socket.if_nametoindex("shared")).egress_block == 6
            keep("qdiscs", kernel)
            assert read_hwmode(netlink, index) in {None, *HwMode}
            keep("bridges", kernel)
    finally:
        sh("ip link del shared")
        sh("ip link del seam")


def test_classes_programs_and_links(kernel, sh):
    sh("ip link add shaped type veth peer name shaped-peer")
    sh("ip netns add seeds")
    index = socket.if_nametoindex("shaped")
    try:
        with Netlink(kernel, NETLINK_ROUTE) as netlink:
            add_htb(netlink, index, 1 << 16, 2)
            for minor, parent in ((1, 0), (2, 1), (3, 1)):
                one = HtbClass(
                    class_id=1 << 16 | minor,
                    parent=1 << 16 | parent,
                    rate_bps=minor * 10 * MBPS,
                    ceil_bps=60_000 * MBPS,
                    burst_bytes=1 << 16,
                    ceil_burst_bytes=1 << 16,
                )
                set_class(netlink, index, one)
            kernel.take()
            assert len(counters(netlink, index)) == 3
            keep("classes", kernel)
            qdisc.ensure(netlink, index)
            program = load_program(kernel, "seed", RETURNS_0, "GPL")
            attach(netlink, Hook.ingress(index), program, "seed")
            os.close(program)
            kernel.take()
            found = attached(netlink, Hook.ingress(index))
            assert found is not None
            assert found[1] == "seed"
            keep("programs", kernel)
            assert "shaped" in {one.ifname for one in links(netlink)}
            keep("links", kernel)
            elsewhere = kernel.open_namespace("/run/netns/seeds")
            assert nsid_of(netlink, elsewhere) is None
            sh("ip netns set seeds 7")
            assert nsid_of(netlink, elsewhere) == 7
            os.close(elsewhere)
            keep("namespaces", kernel)
    finally:
        sh("ip link del shaped")
        sh("ip netns del seeds")


def test_families_and_devlink(kernel, simulated_nic):
    nic = simulated_nic()
    nic.set_vfs(3)
    handle = Handle.of(nic.handle)
    with Netlink(kernel, NETLINK_GENERIC) as netlink:
        for name in ("devlink", "nlctrl", "ethtool"):
            assert genetlink.resolve(netlink, name).number
        with pytest.raises(NotSupportedError):
            genetlink.resolve(netlink, "nobody")
    keep("families", kernel)
    with Devlink(kernel) as devlink:
        kernel.take()
        for mode in (EswitchMode.LEGACY, EswitchMode.SWITCHDEV):
            devlink.set_eswitch(handle, mode=mode)
            assert devlink.eswitch(handle).mode is mode
        assert devlink.info(handle).driver == "netdevsim"
        devlink.create_node(handle, RateNode(name="group"), RateChange(tx_max_bps=8 * MBPS))
        leaf = next(rate.ref for rate in devlink.rates(handle) if isinstance(rate.ref, RateLeaf))
        devlink.set_rate(handle, leaf, RateChange(tx_share_bps=8 * MBPS, parent="group"))
        assert len(devlink.rates(handle)) == len(devlink.ports(handle)) == 4
        assert devlink.port(handle, devlink.ports(handle)[0].index).ifname
        keep("devlink", kernel)
        devlink.set_rate(handle, leaf, RateChange(parent=""))
        devlink.delete_node(handle, RateNode(name="group"))


def test_features(kernel, simulated_nic):
    assert len(read_features(kernel, simulated_nic().netdevs[0])) > 40
    keep("features", kernel)


@pytest.mark.parametrize("topic", list(Topic))
def test_events(kernel, simulated_nic, sh, topic):
    with Events(kernel, [topic], buses=["netdevsim"]) as events:
        kernel.take()
        nic = simulated_nic()
        nic.set_vfs(1)
        [netdev] = nic.netdevs
        with VfLink(kernel, socket.if_nametoindex(netdev)) as link:
            link.apply(random_requests(1, 1))
        sh(f"devlink dev eswitch set {nic.handle} mode switchdev")
        sh(f"devlink port function rate add {nic.handle}/group")
        sh(f"devlink port function rate del {nic.handle}/group")
        add = f"tc filter add dev {netdev} ingress"
        sh(f"{add} prio 7 chain 3 protocol ip flower ip_proto udp action drop")
        sh(f"{add} prio 8 matchall action police rate 1gbit burst 1m conform-exceed drop")
        sh(f"tc filter del dev {netdev} ingress")
        sh("ip link add passing type dummy")
        sh("ip link del passing")
        kernel.take()
        for _ in range(300):  # a datagram each, and not each of them holds an event
            events.read(0)
    keep(f"events-{topic.value}", kernel)
