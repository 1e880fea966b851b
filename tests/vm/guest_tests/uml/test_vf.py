"""Settings of VFs on a real kernel, held against ip in both directions."""

from __future__ import annotations

import random
import socket
import subprocess

import pytest

from nicoffload.errors import DeviceGoneError, InvalidRequestError, NotSupportedError
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.vf import VfLink, VfReport, VfRequest, set_commands
from nicoffload.model import ByteBasis, CounterFacts, LinkState, RateLimit, VfConfig, VlanTag, parse_mac
from tests.kernel.random_vfs import MBPS, as_reported, random_requests

CONFIGS = 520
VFS = 4


def opened(netdev: str) -> VfLink:
    return VfLink(LinuxKernel(), socket.if_nametoindex(netdev), device=netdev)


def shown_by_ip(ask, netdev: str) -> list[VfReport]:
    """Return what ip shows, as a report."""
    [link] = ask(f"ip -j -d link show dev {netdev}")
    return [_report(found) for found in link["vfinfo_list"]]


def _report(found: dict) -> VfReport:
    [vlan] = found.get("vlan_list") or [{}]
    rate = found.get("rate", {})
    return VfReport(
        vf=found["vf"],
        mac=parse_mac(found["address"]),
        vlan=VlanTag(
            vid=vlan.get("vlan", 0), pcp=vlan.get("qos", 0), protocol=vlan.get("protocol", "802.1Q")
        ),
        min_tx_bps=rate.get("min_tx", 0) * MBPS,
        max_tx_bps=rate.get("max_tx", 0) * MBPS,
        spoof_check=found.get("spoofchk"),
        trust=found.get("trust"),
        link_state=LinkState(found["link_state"]),
        rss_query=found.get("query_rss_en"),
    )


def told_to_ip(requests, netdev: str) -> None:
    lines = [command.removeprefix("ip ") for request in requests for command in set_commands(netdev, request)]
    done = subprocess.run(
        ["ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_random_settings_made_by_us_are_what_ip_reads_and_the_other_way_round(simulated_nic, ask):
    nics = [simulated_nic() for _ in range(2)]
    for nic in nics:
        nic.set_vfs(VFS)
    ours, theirs = (nic.netdevs[0] for nic in nics)
    requests = random_requests(CONFIGS, VFS, seed=random.randrange(1 << 32))
    with opened(ours) as link, opened(theirs) as of_ip:
        for start in range(0, CONFIGS, VFS):
            some = requests[start : start + VFS]
            wanted = [as_reported(request) for request in some]
            assert link.apply(some) == []
            assert link.read() == wanted
            assert shown_by_ip(ask, ours) == wanted
            told_to_ip(some, theirs)
            assert of_ip.read() == wanted


def test_a_refusal_ends_at_its_own_setting(simulated_nic):
    nic = simulated_nic()
    nic.set_vfs(2)
    with opened(nic.netdevs[0]) as link:
        made = [
            VfRequest(
                config=VfConfig(vf=vf, trust=True, vlan=VlanTag(vid=7)), rate=RateLimit(max_tx_bps=MBPS)
            )
            for vf in (0, 2, 1)
        ]
        refused = link.apply(made)
        assert {one.vf for one in refused} == {2}
        assert len(refused) == 3
        assert all(isinstance(one.error, InvalidRequestError) for one in refused)
        assert [(one.vlan.vid, one.trust, one.max_tx_bps) for one in link.read()] == [(7, True, MBPS)] * 2


def test_rates_in_switchdev_mode_are_not_supported(simulated_nic, sh):
    nic = simulated_nic()
    nic.set_vfs(1)
    netdev = nic.netdevs[0]
    sh(f"devlink dev eswitch set {nic.handle} mode switchdev")
    with opened(netdev) as link:
        [refused] = link.apply([VfRequest(config=VfConfig(vf=0), rate=RateLimit(max_tx_bps=MBPS))])
    assert isinstance(refused.error, NotSupportedError)
    assert refused.error.capability == "vf.rate"


def test_linux_says_zero_where_a_driver_counts_nothing_and_we_say_none(simulated_nic):
    nic = simulated_nic()
    nic.set_vfs(1)
    with opened(nic.netdevs[0]) as link:
        [as_linux] = link.traffic(CounterFacts(source="nic:vf", byte_basis=ByteBasis.UNKNOWN))
        assert (as_linux.rx_packets, as_linux.tx_bytes) == (0, 0)
        [honest] = link.traffic(None)
        assert (honest.rx_packets, honest.tx_bytes) == (None, None)


def test_a_device_that_can_have_no_vfs_says_so(sh):
    sh("ip link add plain type veth peer name plain-peer")
    try:
        with opened("plain") as link:
            assert link.read() == []
            assert link.count() == 0
            [refused] = link.apply([VfRequest(config=VfConfig(vf=0, trust=True))])
        assert isinstance(refused.error, NotSupportedError)
    finally:
        sh("ip link del plain")


def test_an_absent_device_is_gone():
    with VfLink(LinuxKernel(), 0x7FFF_0000) as link, pytest.raises(DeviceGoneError):
        link.read()
