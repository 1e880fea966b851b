"""PCI functions in a folder that stands for sysfs, with what the kernel does when its files are written."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from tests.kernel.recording import RecordingKernel, refusal

PF = "0000:01:00.0"
KNOWN = {"igb": "pf", "igbvf": "vf"}


class FakePci(RecordingKernel):
    """A kernel with one physical function of seven VFs.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(sysfs=str(root))
        self.root = root
        self.devices = root / "bus/pci/devices"
        self.obeys = True
        """Whether a number of VFs that is written has any effect."""
        for name in (*KNOWN, "vfio-pci"):
            (root / "bus/pci/drivers" / name).mkdir(parents=True)
        self._add(PF, group=1)
        for name, text in (("sriov_totalvfs", "7"), ("sriov_numvfs", "0"), ("sriov_drivers_autoprobe", "1")):
            self.put(PF, name, text)
        self._probe(PF)

    def vf(self, number: int) -> str:
        return f"0000:01:10.{number}"

    def put(self, address: str, name: str, text: str) -> None:
        (self.devices / address / name).write_text(text + "\n", "ascii")

    def holds(self, address: str, name: str) -> str:
        return (self.devices / address / name).read_text("ascii").strip()

    def _add(self, address: str, group: int) -> None:
        folder = self.devices / address
        folder.mkdir(parents=True)
        members = self.root / f"kernel/iommu_groups/{group}/devices"
        members.mkdir(parents=True, exist_ok=True)
        (members / address).symlink_to(folder)
        (folder / "iommu_group").symlink_to(members.parent)
        for name, text in (("driver_override", "(null)"), ("numa_node", "-1"), ("reset_method", "flr bus")):
            self.put(address, name, text)

    def _probe(self, address: str) -> None:
        override = self.holds(address, "driver_override")
        kind = "pf" if address == PF else "vf"
        wanted = [name for name, takes in KNOWN.items() if takes == kind]
        if override != "(null)":
            wanted = [override] if override in {*wanted, "vfio-pci"} else []
        if wanted and not (self.devices / address / "driver").exists():
            (self.devices / address / "driver").symlink_to(self.root / "bus/pci/drivers" / wanted[0])

    def write_sysfs(self, path: str, data: bytes) -> None:
        self.written.append((path, data))
        text = data.decode("ascii")
        if path.startswith("bus/pci/drivers"):
            self._tell_driver(path, text)
            return
        address, name = path.removeprefix("bus/pci/devices/").split("/")
        if not (self.devices / address / name).exists() and name != "reset":
            raise refusal(errno.ENOENT)
        if name == "sriov_numvfs":
            self._set_vfs(int(text))
        elif name == "driver_override":
            self.put(address, name, text.strip() or "(null)")
        elif name != "reset":
            self.put(address, name, text)

    def _set_vfs(self, count: int) -> None:
        before = int(self.holds(PF, "sriov_numvfs"))
        if count > int(self.holds(PF, "sriov_totalvfs")):
            raise refusal(errno.ERANGE)
        if count and before:
            raise refusal(errno.EBUSY)
        if not self.obeys:
            return
        for number in range(before):
            (self.devices / PF / f"virtfn{number}").unlink()
            shutil.rmtree(self.devices / self.vf(number))
            shutil.rmtree(self.root / f"kernel/iommu_groups/{2 + number}")
        for number in range(count):
            self._add(self.vf(number), group=2 + number)
            (self.devices / self.vf(number) / "physfn").symlink_to(self.devices / PF)
            (self.devices / PF / f"virtfn{number}").symlink_to(self.devices / self.vf(number))
            if self.holds(PF, "sriov_drivers_autoprobe") == "1":
                self._probe(self.vf(number))
        self.put(PF, "sriov_numvfs", str(count))

    def _tell_driver(self, path: str, address: str) -> None:
        if not (self.devices / address).exists():
            raise refusal(errno.ENODEV)
        bound = self.devices / address / "driver"
        *_, driver, action = path.split("/")
        if action == "drivers_probe":
            self._probe(address)
        elif action == "unbind":
            if not bound.exists() or bound.resolve().name != driver:
                raise refusal(errno.ENODEV)
            bound.unlink()
        elif bound.exists() or KNOWN.get(driver) != ("pf" if address == PF else "vf"):
            raise refusal(errno.ENODEV)
        else:
            bound.symlink_to(self.root / "bus/pci/drivers" / driver)
