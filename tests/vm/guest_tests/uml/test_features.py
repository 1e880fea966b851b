"""Features and modes of the NIC's own switch on a real kernel, held against ethtool and bridge."""

from __future__ import annotations

import socket

import pytest

from nicoffload.errors import DeviceGoneError, NotSupportedError, VerificationError
from nicoffload.kernel.bridge import HwMode, hwmode_command, read_hwmode, set_hwmode
from nicoffload.kernel.features import FeatureName, feature_command, read_feature, read_features, set_feature
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE

TC = FeatureName.HW_TC_OFFLOAD
SHOWN_OTHERWISE = {"rx-ntuple-filter": "ntuple-filters"}


def lines(sh, netdev: str) -> dict[str, str]:
    """Return what ethtool says of each feature."""
    pairs = (
        line.strip().split(": ", 1) for line in sh(f"ethtool -k {netdev}").splitlines()[1:] if ": " in line
    )
    return dict(pairs)


def test_features_are_ethtool_s_both_ways(simulated_nic, sh):
    kernel, [netdev] = LinuxKernel(), simulated_nic().netdevs
    for on in (False, True, True):
        set_feature(kernel, netdev, TC, on=on)
        assert lines(sh, netdev)["hw-tc-offload"] == ("on" if on else "off")
    for on in (False, True):
        sh(feature_command(netdev, TC, on=on))
        one = read_feature(kernel, netdev, TC)
        assert (one.active, one.requested, one.fixed) == (on, on, False)


def test_every_feature_is_as_ethtool_shows_it(simulated_nic, sh):
    for netdev in (*simulated_nic().netdevs, "lo"):
        shown = lines(sh, netdev)
        compared = 0
        for one in read_features(LinuxKernel(), netdev):
            text = shown.get(SHOWN_OTHERWISE.get(one.name, one.name))
            if text is not None:
                compared += 1
                assert text.split()[0] == ("on" if one.active else "off"), one
                assert ("[fixed]" in text) is one.fixed, one
        assert compared > 30
        assert {name.value for name in FeatureName} <= {
            one.name for one in read_features(LinuxKernel(), netdev)
        }


def test_what_can_not_change_says_why(simulated_nic, sh):
    kernel, [netdev] = LinuxKernel(), simulated_nic().netdevs
    with pytest.raises(NotSupportedError, match="l2-fwd-offload") as refused:
        set_feature(kernel, netdev, FeatureName.L2_FWD_OFFLOAD, on=True)
    assert "fixed off" in str(refused.value.reasons[0])
    set_feature(kernel, netdev, FeatureName.L2_FWD_OFFLOAD, on=False)
    sh(f"tc filter add dev {netdev} ingress protocol ip flower ip_proto udp skip_sw action drop")
    with pytest.raises(VerificationError):
        set_feature(kernel, netdev, TC, on=False)
    assert lines(sh, netdev)["hw-tc-offload"].startswith("on")
    with pytest.raises(DeviceGoneError):
        read_features(kernel, "nobody")


def test_a_driver_without_modes_is_not_supported_by_us_and_by_bridge(simulated_nic, tell, sh):
    [netdev] = simulated_nic().netdevs
    ifindex = socket.if_nametoindex(netdev)
    sh("ip link add br-test type bridge")
    sh(f"ip link set {netdev} master br-test")
    with Netlink(LinuxKernel(), NETLINK_ROUTE) as netlink:
        assert read_hwmode(netlink, ifindex) is None
        for mode in HwMode:
            with pytest.raises(NotSupportedError):
                set_hwmode(netlink, ifindex, mode)
            assert "Operation not supported" in tell(*hwmode_command(netdev, mode).split()).err
        with pytest.raises(DeviceGoneError):
            set_hwmode(netlink, 0x7FFF_FFFF, HwMode.VEB)
    sh("ip link del br-test")
