"""PFs, VFs and representors in a sysfs of files: told apart by what they are, whatever they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nicoffload.errors import DeviceBusyError, InvalidRequestError, NotFoundError
from nicoffload.kernel.devlink import Handle, Port, PortFlavour
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.representors import (
    PortName,
    Role,
    agrees,
    identify,
    parse_port_name,
    representors,
    vf_representor,
)

SWITCH = "98039b00001122"
PF, VF0 = "0000:03:00.0", "0000:03:00.2"
NIC = Handle(bus="pci", name=PF)


class Sysfs:
    """A sysfs with network devices.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.kernel = LinuxKernel(root)
        (root / "class/net").mkdir(parents=True)

    def function(self, address: str, *, of: str = "") -> None:
        folder = self.root / "devices/pci0000:00" / address
        folder.mkdir(parents=True)
        if of:
            (folder / "physfn").symlink_to(f"../{of}")

    def netdev(self, name: str, ifindex: int, *, switch="", port="", function="", device="") -> None:
        home = self.root / "devices/virtual" if not function else self.root / "devices/pci0000:00" / function
        folder = home / "net" / name
        folder.mkdir(parents=True)
        (folder / "ifindex").write_text(f"{ifindex}\n", "ascii")
        for file, text in (("phys_switch_id", switch), ("phys_port_name", port)):
            if text:
                (folder / file).write_text(f"{text}\n", "ascii")
        if function or device:
            (folder / "device").symlink_to(f"../../../{function or device}")
        (self.root / "class/net" / name).symlink_to(folder)


@pytest.fixture
def sysfs(tmp_path) -> Sysfs:
    one = Sysfs(tmp_path)
    one.function(PF)
    one.function(VF0, of=PF)
    return one


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("p0", PortName(port=0)),
        ("p12s3", PortName(port=12, split=3)),
        ("l2p7", PortName(line_card=2, port=7)),
        ("pf1", PortName(pf=1)),
        ("pf0vf3", PortName(pf=0, vf=3)),
        ("pf0sf88", PortName(pf=0, sf=88)),
        ("c1pf0vf3", PortName(controller=1, pf=0, vf=3)),
        ("c1pf0", PortName(controller=1, pf=0)),
        ("p1pf0vf7", PortName(port=1, pf=0, vf=7)),
    ],
)
def test_every_form_of_a_port_name_is_taken_apart(name, parts):
    assert parse_port_name(name) == parts


@pytest.mark.parametrize(
    "name",
    ["", "p", "pf", "vf3", "pf0vf", "eth0", "p0 ", "pf0vf3x", "pf0vf3sf1", "p٣", "P0", "p-1", "p" + 20 * "9"],
)
def test_another_form_is_none(name):
    assert parse_port_name(name) is None


@given(name=st.text(max_size=40))
def test_no_text_breaks_the_parser(name):
    parse_port_name(name)


@given(
    controller=st.none() | st.integers(0, 2**32 - 1),
    pf=st.integers(0, 65535),
    vf=st.none() | st.integers(0, 65535),
)
def test_what_the_kernel_writes_is_read_back(controller, pf, vf):
    written = f"{'' if controller is None else f'c{controller}'}pf{pf}{'' if vf is None else f'vf{vf}'}"
    assert parse_port_name(written) == PortName(controller=controller, pf=pf, vf=vf)


def test_names_that_mislead_are_not_believed(sysfs):
    sysfs.netdev("pf0vf0", 3, switch=SWITCH, port="p0", function=PF)  # a PF that is called like a representor
    sysfs.netdev("p0", 4, function=VF0)  # a VF that is called like an uplink
    sysfs.netdev("enp3s0f0", 5, switch=SWITCH, port="pf0vf0", device=f"pci0000:00/{PF}")
    sysfs.netdev("enp3s0f0v0", 6, switch=SWITCH, port="c1pf0vf0", device=f"pci0000:00/{PF}")
    sysfs.netdev("pf0", 7)
    sysfs.netdev("other", 8, switch="77", port="pf0vf0", device=f"pci0000:00/{PF}")
    roles = {
        ifindex: identify(sysfs.kernel, name).role
        for ifindex, name in enumerate(["pf0vf0", "p0", "enp3s0f0", "enp3s0f0v0", "pf0", "other"], 3)
    }
    assert roles == {
        3: Role.PF,
        4: Role.VF,
        5: Role.VF_REPRESENTOR,
        6: Role.VF_REPRESENTOR,
        7: Role.OTHER,
        8: Role.VF_REPRESENTOR,
    }
    vf = identify(sysfs.kernel, "p0")
    assert (vf.pci_address, vf.physfn, vf.ifindex) == (VF0, PF, 4)
    assert identify(sysfs.kernel, "enp3s0f0").pci_address == PF
    assert [one.ifindex for one in representors(sysfs.kernel, SWITCH)] == [3, 5, 6]
    assert vf_representor(sysfs.kernel, SWITCH, 0, pf=0).ifindex == 5
    assert vf_representor(sysfs.kernel, SWITCH, 0, pf=0, controller=1).ifindex == 6
    with pytest.raises(NotFoundError, match="VF 1 of PF 0"):
        vf_representor(sysfs.kernel, SWITCH, 1, pf=0)


@pytest.mark.parametrize(
    ("port", "role"),
    [
        ("p0", Role.UPLINK),
        ("pf1", Role.PF_REPRESENTOR),
        ("pf1sf4", Role.SF_REPRESENTOR),
        ("p0pf0vf2", Role.VF_REPRESENTOR),
        ("odd", Role.OTHER),
        ("", Role.OTHER),
    ],
)
def test_a_port_of_a_switch_without_a_function_is_what_its_port_name_says(sysfs, port, role):
    sysfs.netdev("dev", 9, switch=SWITCH, port=port)
    assert identify(sysfs.kernel, "dev").role is role


def test_a_port_name_without_a_switch_makes_no_representor(sysfs):
    sysfs.netdev("dev", 9, port="pf0vf0", function=PF)
    assert identify(sysfs.kernel, "dev").role is Role.PF


def test_what_is_no_device_is_passed_over_or_refused(sysfs):
    (sysfs.root / "class/net/bonding_masters").write_text("", "ascii")
    assert representors(sysfs.kernel, SWITCH) == []
    for name in ("bonding_masters", "gone"):
        with pytest.raises(NotFoundError):
            identify(sysfs.kernel, name)
    for name in ("", ".", "..", "a/b", "sixteen-letters-", "a b"):
        with pytest.raises(InvalidRequestError):
            identify(sysfs.kernel, name)
    with pytest.raises(InvalidRequestError):
        representors(sysfs.kernel, "")


def test_a_devlink_port_agrees_with_its_own_device_only(sysfs):
    sysfs.netdev("up", 3, switch=SWITCH, port="p0", function=PF)
    sysfs.netdev("rep", 5, switch=SWITCH, port="pf0vf0", device=f"pci0000:00/{PF}")
    uplink, representor = (identify(sysfs.kernel, name) for name in ("up", "rep"))
    physical = Port(handle=NIC, index=0, flavour=PortFlavour.PHYSICAL, ifindex=3, number=0)
    vf = Port(handle=NIC, index=1, flavour=PortFlavour.PCI_VF, ifindex=5, pf=0, vf=0)
    assert agrees(uplink, physical)
    assert agrees(representor, vf)
    assert not agrees(uplink, vf)
    assert not agrees(representor, physical)
    for other in (
        Port(handle=NIC, index=1, flavour=PortFlavour.PCI_VF, ifindex=5, pf=0, vf=1),
        Port(handle=NIC, index=1, flavour=PortFlavour.PCI_SF, ifindex=5, pf=0, vf=0),
        Port(handle=NIC, index=1, flavour=PortFlavour.PHYSICAL, ifindex=5),
    ):
        assert not agrees(representor, other)


class Renaming:
    """A kernel in which a name is another device's at each of some looks at `ifindex`."""

    def __init__(self, kernel, *ifindexes: int) -> None:
        self._kernel, self._ifindexes = kernel, list(ifindexes)

    def __getattr__(self, name):
        return getattr(self._kernel, name)

    def read_sysfs(self, path):
        if path.endswith("/ifindex"):
            return b"%d" % self._ifindexes.pop(0)
        return self._kernel.read_sysfs(path)


def test_what_was_read_of_two_devices_that_had_one_name_is_read_anew(tmp_path):
    sysfs = Sysfs(tmp_path)
    sysfs.netdev("eth0", 7)
    assert identify(Renaming(sysfs.kernel, 7, 8, 8, 8), "eth0").ifindex == 8
    with pytest.raises(DeviceBusyError, match="from device to device"):
        identify(Renaming(sysfs.kernel, *range(7, 17)), "eth0")
