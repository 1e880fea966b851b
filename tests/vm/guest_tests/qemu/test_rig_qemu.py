"""What the QEMU guest with its emulated SR-IOV NICs must offer to the tests that count on it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest


def test_the_kernel_is_the_distributions(guest):
    assert guest == "qemu"
    assert "Debian" in Path("/proc/version").read_text("utf-8")
    assert Path("/proc/sys/kernel/tainted").read_text("ascii") == "0\n"


def test_vfs_come_and_go(emulated_nics):
    for nic in emulated_nics:
        assert (nic.sysfs / "sriov_totalvfs").read_text("ascii") == "7\n"
        nic.set_vfs(7)
        assert (nic.sysfs / "sriov_numvfs").read_text("ascii") == "7\n"
        assert len({nic.vf(number) for number in range(7)}) == 7
        assert {(nic.vf(number) / "driver").resolve().name for number in range(7)} == {"igbvf"}
        nic.set_vfs(0)
        assert list(nic.sysfs.glob("virtfn*")) == []


@pytest.mark.parametrize(("first", "then", "expected"), [(0, 8, errno.ERANGE), (2, 3, errno.EBUSY)])
def test_the_kernel_refuses_a_wrong_number_of_vfs(emulated_nics, first, then, expected):
    nic = emulated_nics[0]
    nic.set_vfs(first)
    with pytest.raises(OSError, match=os.strerror(expected)) as refused:
        nic.set_vfs(then)
    assert refused.value.errno == expected
    assert (nic.sysfs / "sriov_numvfs").read_text("ascii") == f"{first}\n"


def test_packets_go_from_one_nic_to_the_other(emulated_nics, namespaces, sh, reach):
    here, there = emulated_nics
    name = namespaces("far")
    netdev = there.netdev
    sh(f"ip link set {netdev} netns {name}")
    try:
        sh(f"ip -n {name} addr add 10.1.0.2/24 dev {netdev}")
        sh(f"ip -n {name} link set {netdev} up")
        sh(f"ip addr add 10.1.0.1/24 dev {here.netdev}")
        assert reach("10.1.0.2")
    finally:
        sh(f"ip -n {name} link set {netdev} netns 1")


def test_packets_go_from_the_pf_to_its_vf_in_a_namespace(emulated_nics, namespaces, sh, reach):
    nic = emulated_nics[0]
    nic.set_vfs(2)
    name = namespaces("guest")
    netdev = nic.vf_netdev(1)
    sh(f"ip link set {netdev} netns {name}")
    sh(f"ip -n {name} addr add 10.2.0.2/24 dev {netdev}")
    sh(f"ip -n {name} link set {netdev} up")
    sh(f"ip addr add 10.2.0.1/24 dev {nic.netdev}")
    assert reach("10.2.0.2")


def test_a_vlan_set_on_the_pf_isolates_its_vf(emulated_nics, namespaces, sh, reach):
    nic = emulated_nics[0]
    nic.set_vfs(1)
    name = namespaces("guest")
    netdev = nic.vf_netdev(0)
    sh(f"ip link set {netdev} netns {name}")
    sh(f"ip -n {name} addr add 10.3.0.2/24 dev {netdev}")
    sh(f"ip -n {name} link set {netdev} up")
    sh(f"ip addr add 10.3.0.1/24 dev {nic.netdev}")
    assert reach("10.3.0.2")
    sh(f"ip link set {nic.netdev} vf 0 vlan 30")
    assert not reach("10.3.0.2", tries=3)
    sh(f"ip link set {nic.netdev} vf 0 vlan 0")
    assert reach("10.3.0.2")


def test_every_function_has_an_iommu_group_of_its_own(emulated_nics):
    nic = emulated_nics[0]
    nic.set_vfs(7)
    functions = [nic.sysfs, *(nic.vf(number) for number in range(7))]
    groups = [(function / "iommu_group").resolve() for function in functions]
    assert len(set(groups)) == 8
    assert all(len(list((group / "devices").iterdir())) == 1 for group in groups)


def test_a_vf_goes_to_vfio_and_back(emulated_nics, sh):
    nic = emulated_nics[0]
    nic.set_vfs(1)
    vf = nic.vf(0)
    sh("modprobe vfio-pci")

    def bind(driver: str) -> str:
        (vf / "driver/unbind").write_text(vf.name, "ascii")
        (vf / "driver_override").write_text(f"{driver}\n", "ascii")
        Path("/sys/bus/pci/drivers_probe").write_text(vf.name, "ascii")
        return (vf / "driver").resolve().name

    assert bind("vfio-pci") == "vfio-pci"
    assert Path(f"/dev/vfio/{(vf / 'iommu_group').resolve().name}").is_char_device()
    assert bind("") == "igbvf"
