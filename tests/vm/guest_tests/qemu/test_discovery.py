"""NICs of a PCI bus, found without a udev daemon, whatever their devices are called."""

from __future__ import annotations

import socket

from nicoffload.kernel.discovery import discover, find
from nicoffload.kernel.linux import LinuxKernel


def test_pfs_and_vfs_are_found_and_keep_their_key_under_another_name(emulated_nics, sh, tell):
    assert tell("pidof", "udevd", "systemd-udevd").status != 0
    kernel, (first, second) = LinuxKernel(), emulated_nics
    before = {one.pci_address: one for one in discover(kernel)}
    assert {first.address, second.address} <= before.keys()
    pf = before[first.address]
    assert (pf.driver, pf.vendor_id, pf.device_id, pf.total_vfs, pf.physfn) == ("igb", 0x8086, 0x10C9, 7, "")
    assert [one.ifindex for one in pf.netdevs] == [socket.if_nametoindex(first.netdev)]

    first.set_vfs(2)
    after = {one.pci_address: one for one in discover(kernel)}
    vfs = {first.vf(number).name for number in range(2)}
    assert after.keys() - before.keys() == vfs
    for address in vfs:
        assert (after[address].physfn, after[address].driver) == (first.address, "igbvf")
        assert len(after[address].netdevs) == 1

    old, other = first.netdev, second.netdev
    for name, new in ((old, "swap"), (other, old), ("swap", other)):
        sh(f"ip link set {name} down")
        sh(f"ip link set {name} name {new}")
    try:
        swapped = discover(kernel)
        assert find(swapped, old).pci_address == second.address
        assert find(swapped, first.address).netdevs[0].ifindex == pf.netdevs[0].ifindex
        assert find(swapped, first.address).netdevs[0].ifname == other
    finally:
        for name, new in ((other, "swap"), (old, other), ("swap", old)):
            sh(f"ip link set {name} down")
            sh(f"ip link set {name} name {new}")
    first.set_vfs(0)
    assert {one.pci_address for one in discover(kernel)} == before.keys()
