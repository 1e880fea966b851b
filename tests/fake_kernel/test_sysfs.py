"""Sysfs of the fake kernel, read by the SDK and written as test-rig notes say that Linux answers."""

from __future__ import annotations

import pytest

from nicoffload.errors import InvalidRequestError, VerificationError
from nicoffload.kernel.binding import Binding
from nicoffload.kernel.discovery import discover, find
from nicoffload.kernel.pci import PciFunction
from nicoffload.kernel.representors import Role, identify, representors
from nicoffload.kernel.seam import OpenFiles
from nicoffload.kernel.sriov import Sriov
from nicoffload.testing.fake_kernel.errnos import WouldWaitForeverError
from tests.fake_kernel.plugging import FAMILIES, PF, PROFILES, plugged, refused

FOLDER = f"bus/pci/devices/{PF}"


def numvfs(kernel, text: str) -> None:
    kernel.write_sysfs(f"{FOLDER}/sriov_numvfs", text.encode())


@pytest.mark.parametrize("family", FAMILIES)
def test_discovery_finds_every_family_by_its_ids(family):
    kernel, nic = plugged(family, vfs=1 if PROFILES.get(family).sriov else None)
    found = discover(kernel)
    one = find(found, PF)
    assert find(found, "enp3s0f0") is one
    stated = PROFILES.get(family).pci_ids.pf
    assert f"{one.vendor_id:04x}:{one.device_id:04x}" == (stated[0] if stated else "0000:0000")
    assert one.driver == PROFILES.get(family).driver
    assert one.total_vfs == nic.device.sriov.limit
    assert [vf.physfn for vf in found if vf is not one] == [PF] * len(nic.vfs)


def test_each_device_is_told_apart_by_what_sysfs_says():
    kernel, nic = plugged("mlx5", vfs=2, mode="switchdev")
    roles = {one.ifname: identify(kernel, one.ifname).role for one in kernel.world.netdevs.values()}
    assert roles == {
        "lo": Role.OTHER,
        "enp3s0f0": Role.PF,
        "enp3s0f0v0": Role.VF,
        "enp3s0f0v1": Role.VF,
        "enp3s0f0r0": Role.VF_REPRESENTOR,
        "enp3s0f0r1": Role.VF_REPRESENTOR,
    }
    assert len(representors(kernel, nic.switch_id.hex())) == 3
    assert kernel.list_sysfs("class/net/enp3s0f0r1/device/net") == ["enp3s0f0", "enp3s0f0r0", "enp3s0f0r1"]


def test_the_number_of_vfs_is_refused_as_linux_refuses_it():
    kernel, nic = plugged("igb_82576")
    path = f"{FOLDER}/sriov_numvfs"
    for text, name in (
        ("8", "ERANGE"),
        ("70000", "EINVAL"),
        ("-1", "EINVAL"),
        ("two", "EINVAL"),
        ("", "nothing"),
    ):
        assert refused(numvfs, kernel, text) == name
    numvfs(kernel, "3")
    numvfs(kernel, "3\n")
    assert refused(numvfs, kernel, "4") == "EBUSY"
    assert kernel.read_sysfs(path) == b"3\n"
    assert refused(kernel.write_sysfs, f"{FOLDER}/sriov_totalvfs", b"9") == "EACCES"
    assert [vf.address for vf in nic.vfs] == list(Sriov(kernel, PF).state().vfs)
    numvfs(kernel, "0")
    assert nic.vfs == []
    assert refused(kernel.list_sysfs, "bus/pci/devices/0000:03:10.0") == "ENOENT"


def test_a_driver_without_sriov_configure_says_enoent_and_siena_says_yes_and_does_nothing():
    kernel, _ = plugged("mlx4")
    assert refused(numvfs, kernel, "2") == "ENOENT"
    kernel, nic = plugged("sfc_siena")
    numvfs(kernel, "2")
    assert kernel.read_sysfs(f"{FOLDER}/sriov_numvfs") == b"0\n"
    with pytest.raises(VerificationError):
        Sriov(kernel, PF).set_vfs(2)
    assert nic.vfs == []
    kernel, _ = plugged("igb_i210")
    assert refused(numvfs, kernel, "2") == "ENOENT"


def test_a_vf_goes_to_vfio_and_back_with_its_device():
    kernel, nic = plugged("ice")
    Sriov(kernel, PF).set_vfs(2)
    vf = nic.vfs[1]
    ours = Binding(kernel, vf.address)
    before = vf.netdev
    ours.give_to("vfio-pci")
    assert (vf.driver, vf.netdev, nic.device.sriov.vfs[1].driver) == ("vfio-pci", None, "vfio-pci")
    assert PciFunction(kernel, vf.address).iommu_group().members == (vf.address,)
    kernel.processes.append(OpenFiles(pid=7, name="qemu", files=frozenset({f"/dev/vfio/{vf.iommu_group}"})))
    for path, text in (
        ("bus/pci/drivers/vfio-pci/unbind", vf.address),
        (f"{FOLDER}/sriov_numvfs", "0"),
        ("bus/pci/drivers/ice/unbind", PF),
    ):
        with pytest.raises(WouldWaitForeverError, match=r"qemu \(7\)"):
            kernel.write_sysfs(path, text.encode())
    kernel.processes.clear()
    assert ours.give_back() == "iavf"
    assert vf.netdev is not before
    assert vf.netdev.ifindex > before.ifindex


def test_a_driver_that_does_not_match_or_is_not_there_says_enodev():
    kernel, nic = plugged("igb_82576")
    numvfs(kernel, "1")
    vf = nic.vfs[0].address.encode()
    for path, data, name in (
        ("bus/pci/drivers/igb/bind", vf, "ENODEV"),
        ("bus/pci/drivers/igb/unbind", vf, "ENODEV"),
        ("bus/pci/drivers/vfio-pci/bind", vf, "ENODEV"),
        ("bus/pci/drivers/igbvf/bind", vf, "EBUSY"),
        ("bus/pci/drivers_probe", b"0000:09:00.0", "ENODEV"),
        ("bus/pci/drivers/absent/bind", vf, "ENOENT"),
    ):
        assert refused(kernel.write_sysfs, path, data) == name
    assert refused(kernel.read_sysfs, "bus/pci/drivers/igb/bind") == "EACCES"


def test_the_physical_function_loses_its_vfs_and_rules_with_its_driver():
    kernel, nic = plugged("ixgbe")
    numvfs(kernel, "4")
    nic.device.features["ntuple"] = True
    Binding(kernel, PF).unbind()
    assert (nic.vfs, nic.function.netdev, list(kernel.world.netdevs)) == ([], None, [1])
    assert refused(numvfs, kernel, "2") == "ENOENT"
    Binding(kernel, PF).bind("ixgbe")
    assert nic.pf.ifname == "enp3s0f0"
    assert nic.device.features["ntuple"] is False


def test_new_vfs_stay_without_a_driver_where_nobody_probes():
    kernel, nic = plugged("igb_82576")
    sriov = Sriov(kernel, PF)
    sriov.set_autoprobe(on=False)
    sriov.set_vfs(2)
    assert [(vf.driver, vf.netdev) for vf in nic.vfs] == [("", None)] * 2
    kernel.write_sysfs("bus/pci/drivers_probe", nic.vfs[0].address.encode())
    assert [vf.driver for vf in nic.vfs] == ["igbvf", ""]
    assert refused(kernel.write_sysfs, f"{FOLDER}/sriov_drivers_autoprobe", b"maybe") == "EINVAL"


def test_a_reset_takes_its_time():
    kernel, nic = plugged("i40e")
    numvfs(kernel, "1")
    kernel.advance(1)
    function = PciFunction(kernel, nic.vfs[0].address)
    Binding(kernel, nic.vfs[0].address).unbind()
    function.reset()
    vf = nic.device.sriov.vfs[0]
    assert not nic.device.sriov.is_ready(vf)
    kernel.advance(1)
    assert nic.device.sriov.is_ready(vf)
    assert refused(kernel.write_sysfs, f"{FOLDER}/reset", b"2") == "EINVAL"
    assert refused(kernel.write_sysfs, f"{FOLDER}/reset_method", b"magic") == "EINVAL"


def test_paths_are_found_as_in_sysfs():
    kernel, _ = plugged("ice")
    link = kernel.readlink_sysfs("class/net/enp3s0f0")
    assert link == f"../../devices/pci0000:00/{PF}/net/enp3s0f0"
    assert kernel.read_sysfs("class/net/enp3s0f0/device/vendor") == b"0x8086\n"
    assert kernel.read_sysfs("class/net/lo/ifindex") == b"1\n"
    for call, path, name in (
        (kernel.read_sysfs, "class/net/enp3s0f0/absent", "ENOENT"),
        (kernel.read_sysfs, "class/net/enp3s0f0/ifindex/deeper", "ENOTDIR"),
        (kernel.read_sysfs, "class/net", "EISDIR"),
        (kernel.list_sysfs, "class/net/lo/ifindex", "ENOTDIR"),
        (kernel.readlink_sysfs, "class/net/lo/ifindex", "EINVAL"),
        (kernel.read_sysfs, "class/net/lo/phys_switch_id", "EOPNOTSUPP"),
    ):
        assert refused(call, path) == name
    for path in ("/sys/class", "class/../bus"):
        with pytest.raises(InvalidRequestError):
            kernel.read_sysfs(path)
