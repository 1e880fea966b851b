"""Which NIC is of which family, and which plugin opens it by which name."""

import dataclasses

import pytest

from nicoffload import load_registry
from nicoffload.driver import Driver, OpenContext
from nicoffload.errors import NotFoundError, NotSupportedError
from nicoffload.kernel.discovery import FoundFunction, discover
from nicoffload.linux.catalog import PciFactory, PciFamilies, pci_id
from nicoffload.testing import FakeKernel
from nicoffload.testing.emulator.config import Config

REGISTRY = load_registry(only=["intel", "mellanox", "solarflare"])
PROFILES = REGISTRY.profiles
FAMILIES = PciFamilies(PROFILES)


class Opened(Driver):
    def __init__(self, opening):
        self.opening = opening

    info = property(lambda self: self.opening.info)
    profile = property(lambda self: self.opening.profile)

    def capabilities(self):
        return ()

    def close(self):
        pass


def function(text, driver="", physfn=""):
    vendor, device = text.split(":")
    return FoundFunction(
        pci_address="0000:01:00.0",
        vendor_id=int(vendor, 16),
        device_id=int(device, 16),
        driver=driver,
        physfn=physfn,
    )


def family(text, **more):
    profile = FAMILIES.profile_of(function(text, **more))
    return profile and profile.family


@pytest.fixture
def kernel():
    return FakeKernel()


@pytest.fixture
def context(kernel):
    return OpenContext(
        profiles=PROFILES,
        kernel=kernel,
        wall_clock_s=lambda: 0.0,
        monotonic_s=kernel.monotonic_s,
        sleep_s=kernel.sleep_s,
    )


def factory(vendor):
    return PciFactory(plugin=vendor, vendor=vendor, make=Opened)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8086:10c9", "igb_82576"),
        ("8086:1521", "igb_i350"),
        ("8086:1533", "igb_i210"),
        ("8086:10fb", "ixgbe"),
        ("8086:1572", "i40e"),
        ("8086:1592", "ice"),
        ("15b3:1007", "mlx4"),
        ("15b3:101d", "mlx5"),
        ("1924:0710", "sfc_falcon"),
        ("1924:0803", "sfc_siena"),  # an SFN5122F, too: only the subsystem tells
        ("1924:0b03", "sfc_ef10"),
        ("10ee:0100", "sfc_ef100"),
    ],
)
def test_a_part_is_of_the_family_of_its_chip(text, expected):
    assert family(text) == expected


@pytest.mark.parametrize("text", ["8086:10b6", "1924:0703", "8086:150e", "ffff:0001"])
def test_a_part_without_offload_or_unknown_is_of_no_family(text):
    assert family(text) is None


def test_no_virtual_function_is_a_nic():
    for name in PROFILES.families():
        for text in PROFILES.get(name).pci_ids.vf:
            assert family(text) is None, text
            assert FAMILIES.is_virtual(function(text))
    assert family("8086:10fb", physfn="0000:01:00.0") is None


def test_every_id_of_a_pf_finds_its_family():
    for name in PROFILES.families():
        for text in PROFILES.get(name).pci_ids.pf:
            assert family(text) == name


def test_two_profiles_of_one_id_are_told_apart_by_the_driver():
    mine = PROFILES.get("ixgbe")
    other = dataclasses.replace(mine, family="aaa", driver="other")

    class Two:
        families = staticmethod(lambda: ["aaa", "ixgbe"])
        get = staticmethod(lambda name: {"aaa": other, "ixgbe": mine}[name])

    two = PciFamilies(Two)
    assert two.profile_of(function("8086:10fb", driver="ixgbe")).family == "ixgbe"
    assert two.profile_of(function("8086:10fb", driver="other")).family == "aaa"


def test_a_machine_lists_each_vendors_nics_once(kernel, context):
    kernel.plug(PROFILES.get("ixgbe"), pci_address="0000:03:00.0", ifname="eth0", config=Config(vfs=2))
    kernel.plug(
        PROFILES.get("mlx5"),
        pci_address="0000:04:00.0",
        ifname="eth1",
        config=Config(mode="switchdev", vfs=2),
    )
    found = factory("intel").discover(context)
    assert [(one.name, one.family, one.ifname, one.driver, one.plugin) for one in found] == [
        ("0000:03:00.0", "ixgbe", "eth0", "ixgbe", "intel")
    ]
    assert [(one.name, one.ifname) for one in factory("mellanox").discover(context)] == [
        ("0000:04:00.0", "eth1")
    ]
    assert not factory("solarflare").discover(context)


def test_a_nic_is_opened_by_address_and_by_name(kernel, context):
    kernel.plug(PROFILES.get("ixgbe"), pci_address="0000:03:00.0", ifname="eth0")
    for name, ifname in (("0000:03:00.0", ""), ("eth0", "eth0")):
        assert factory("intel").claims(name)
        driver = factory("intel").open(name, context)
        assert driver.info.name == "0000:03:00.0"
        assert driver.opening.ifname == ifname


@pytest.mark.parametrize("name", ["mock:ixgbe", "soft:a", "", "a" * 16, "../eth0", "0000:03:00.8"])
def test_other_names_are_not_claimed(name):
    assert not factory("intel").claims(name)


def test_another_vendors_nic_and_a_vf_are_not_found(kernel, context):
    nic = kernel.plug(PROFILES.get("ixgbe"), pci_address="0000:03:00.0", ifname="eth0", config=Config(vfs=1))
    with pytest.raises(NotFoundError):
        factory("mellanox").open("eth0", context)
    virtual = next(one for one in discover(kernel) if one.physfn == nic.pci_address)
    assert pci_id(virtual) in PROFILES.get("ixgbe").pci_ids.vf
    with pytest.raises(NotFoundError) as info:
        factory("intel").open(virtual.pci_address, context)
    assert nic.pci_address in info.value.hint
    with pytest.raises(NotFoundError):
        factory("intel").open("eth9", context)


def test_a_nic_without_its_driver_says_which_to_bind(kernel, context):
    nic = kernel.plug(PROFILES.get("ixgbe"), pci_address="0000:03:00.0", ifname="eth0")
    kernel.write_sysfs("bus/pci/drivers/ixgbe/unbind", nic.pci_address.encode())
    with pytest.raises(NotSupportedError) as info:
        factory("intel").open("0000:03:00.0", context)
    assert "ixgbe" in info.value.hint
    assert not factory("intel").discover(context)
