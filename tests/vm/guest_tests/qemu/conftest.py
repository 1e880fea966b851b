"""The emulated NICs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_PCI = Path("/sys/bus/pci/devices")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedNic:
    """The physical function of one emulated NIC.

    Args:
        address: Its PCI address.
    """

    address: str

    @property
    def sysfs(self) -> Path:
        """Its folder in sysfs."""
        return _PCI / self.address

    @property
    def netdev(self) -> str:
        """Name of its network device."""
        [path] = (self.sysfs / "net").iterdir()
        return path.name

    def set_vfs(self, count: int) -> None:
        """Set the number of its VFs."""
        (self.sysfs / "sriov_numvfs").write_text(str(count), "ascii")

    def vf(self, number: int) -> Path:
        """Return the folder in sysfs of a VF."""
        return (self.sysfs / f"virtfn{number}").resolve()

    def vf_netdev(self, number: int) -> str:
        """Return the name of a VF's network device, in this namespace."""
        [path] = (self.vf(number) / "net").iterdir()
        return path.name


@pytest.fixture(scope="session")
def _drivers(sh: Callable[[str], str]) -> None:
    sh("modprobe igb")
    sh("modprobe igbvf")


@pytest.fixture
def emulated_nics(_drivers: None, sh: Callable[[str], str]) -> Iterator[tuple[EmulatedNic, EmulatedNic]]:
    """Both NICs, wired to each other, up, without VFs; VFs made by the test go when it ends."""
    paths = sorted(
        path for path in Path("/sys/bus/pci/drivers/igb").iterdir() if (path / "sriov_numvfs").exists()
    )
    first, second = (EmulatedNic(address=path.name) for path in paths)
    for nic in (first, second):
        sh(f"ip link set {nic.netdev} up")  # a VF whose PF is down gets no address of its own
    yield first, second
    for nic in (first, second):
        nic.set_vfs(0)
        sh(f"ip addr flush dev {nic.netdev}")
