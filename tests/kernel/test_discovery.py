"""NICs found in a sysfs of files, and by udev's library on whatever runs the test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nicoffload.errors import NotFoundError
from nicoffload.kernel.discovery import FoundNetdev, discover, find
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.seam import Sighting

PF, VF, DISK = "0000:03:00.0", "0000:03:10.0", "0000:04:00.0"


class Sysfs(LinuxKernel):
    """A sysfs with PCI functions and network devices, and what udev's library sees there.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root
        self.seen: list[Sighting] = []
        for folder in ("class/net", "bus/pci/devices", "bus/pci/drivers"):
            (root / folder).mkdir(parents=True)

    def function(self, address: str, *, driver: str = "", physfn: str = "", **files: str) -> None:
        folder = self.root / "devices/pci0000:00" / address
        folder.mkdir(parents=True)
        (self.root / "bus/pci/devices" / address).symlink_to(folder)
        values = {"class": "0x020000", "vendor": "0x8086", "device": "0x10c9", **files}
        for name, text in values.items():
            (folder / name).write_text(f"{text}\n", "ascii")
        for name, target in (("driver", driver), ("physfn", physfn)):
            if target:
                (folder / name).symlink_to(f"../{target}")
        self.seen.append(Sighting(pci_address=address))

    def netdev(self, address: str, name: str, ifindex: int) -> None:
        folder = self.root / "devices/pci0000:00" / address / "net" / name
        folder.mkdir(parents=True)
        (folder / "ifindex").write_text(f"{ifindex}\n", "ascii")
        (self.root / "class/net" / name).symlink_to(f"../../devices/pci0000:00/{address}/net/{name}")
        self.seen.append(Sighting(pci_address=address, ifname=name))

    def sightings(self) -> list[Sighting]:
        return self.seen


@pytest.fixture
def sysfs(tmp_path) -> Sysfs:
    one = Sysfs(tmp_path)
    one.function(VF, device="0x10ca", physfn=PF, numa_node="-1")
    one.function(DISK, **{"class": "0x010802"})
    one.function(PF, driver="igb", sriov_totalvfs="7", numa_node="1")
    one.netdev(PF, "enp3s0f0", 9)
    one.netdev(PF, "representor", 4)
    return one


def test_functions_come_by_address_with_what_sysfs_says(sysfs):
    pf, vf = discover(sysfs)
    assert (pf.pci_address, pf.driver, pf.vendor_id, pf.device_id) == (PF, "igb", 0x8086, 0x10C9)
    assert (pf.total_vfs, pf.numa_node, pf.physfn) == (7, 1, "")
    assert pf.netdevs == (
        FoundNetdev(ifindex=4, ifname="representor"),
        FoundNetdev(ifindex=9, ifname="enp3s0f0"),
    )
    assert (vf.pci_address, vf.driver, vf.physfn, vf.total_vfs, vf.numa_node) == (VF, "", PF, 0, None)
    assert vf.netdevs == ()


def test_what_goes_between_the_list_and_the_look_is_left_out(sysfs):
    sysfs.seen.append(Sighting(pci_address="0000:05:00.0"))
    sysfs.seen.append(Sighting(pci_address=PF, ifname="gone"))
    assert [len(one.netdevs) for one in discover(sysfs)] == [2, 0]


def test_a_function_of_which_sysfs_says_nonsense_hides_no_other(sysfs, caplog):
    sysfs.function("0000:02:00.0", vendor="what?")
    told = []
    assert [one.pci_address for one in discover(sysfs, report=told.append)] == [PF, VF]
    assert [error.device for error in told] == ["0000:02:00.0"]
    assert len(discover(sysfs)) == 2
    assert "0000:02:00.0" in caplog.text


def test_a_name_that_went_to_another_function_is_not_believed(sysfs):
    sysfs.seen.append(Sighting(pci_address=VF, ifname="enp3s0f0"))
    assert [len(one.netdevs) for one in discover(sysfs)] == [2, 0]


def test_a_nic_is_found_by_address_and_by_the_name_of_the_moment(sysfs):
    functions = discover(sysfs)
    assert find(functions, PF).pci_address == find(functions, "enp3s0f0").pci_address == PF
    assert find(functions, VF.upper()).pci_address == VF
    for name in ("", "eth7", DISK):
        with pytest.raises(NotFoundError):
            find(functions, name)


def test_udev_s_library_sees_what_sysfs_has():
    devices, nets = Path("/sys/bus/pci/devices"), Path("/sys/class/net")
    expected = {path.name for path in devices.iterdir()} if devices.exists() else set()
    seen = LinuxKernel().sightings()
    assert {one.pci_address for one in seen if not one.ifname} == expected
    below = {path.name for path in nets.iterdir() if any(part in expected for part in path.resolve().parts)}
    assert {one.ifname for one in seen if one.ifname} == below
    assert all(one.pci_address for one in seen)


def test_importing_discovery_does_not_import_pyudev():
    code = (
        "import sys, nicoffload.kernel.discovery, nicoffload.kernel.linux; sys.exit('pyudev' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
