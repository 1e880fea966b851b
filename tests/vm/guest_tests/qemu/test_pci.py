"""VFs, drivers and vfio on emulated SR-IOV NICs behind an IOMMU, and every errno as an error of the SDK."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nicoffload.errors import (
    AccessDeniedError,
    DeviceBusyError,
    DeviceGoneError,
    InvalidRequestError,
    NicOffloadError,
    NotSupportedError,
)
from nicoffload.kernel.binding import Binding
from nicoffload.kernel.devlink import Devlink, Handle
from nicoffload.kernel.features import FeatureName, read_feature, set_feature
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.ntuple import FlowType, NtupleRule, NtupleTable
from nicoffload.kernel.pci import PciFunction
from nicoffload.kernel.sriov import Sriov
from nicoffload.kernel.tc import Gact, Hook, Placing, TcFilter, TcFilters, Verdict
from nicoffload.kernel.vf import VfLink, VfRequest
from nicoffload.model import Drop, LinkState, Match, RateLimit, VfConfig, VlanTag

KERNEL = LinuxKernel()
MBPS = 1_000_000


def vf_link(nic) -> VfLink:
    ifindex = int((nic.sysfs / "net" / nic.netdev / "ifindex").read_text("ascii"))
    return VfLink(KERNEL, ifindex, device=nic.netdev)


def wait_for_link(nic, sh) -> None:
    """Wait until the port is up: igb takes no rate before, and making VFs takes it down for a while."""
    deadline = time.monotonic() + 30
    while "LOWER_UP" not in sh(f"ip link show dev {nic.netdev}"):
        assert time.monotonic() < deadline, "the port stays down"


def refused(nic, request: VfRequest) -> NicOffloadError:
    """Return the error of a request of one setting."""
    with vf_link(nic) as link:
        [one] = link.apply([request])
    return one.error


@pytest.fixture
def on_vfio(emulated_nics, sh) -> tuple[object, Binding]:
    """A NIC with two VFs, the first of them with vfio-pci."""
    sh("modprobe vfio-pci")
    nic = emulated_nics[0]
    vf = Binding(KERNEL, Sriov(KERNEL, nic.address).set_vfs(2)[0])
    vf.give_to("vfio-pci")
    return nic, vf


@pytest.fixture
def holder(on_vfio) -> Iterator[subprocess.Popen]:
    """A process that has the group of that VF open, until it is told to end."""
    nic, _ = on_vfio
    group = PciFunction(KERNEL, nic.vf(0).name).iommu_group()
    code = "import os, sys; os.open(sys.argv[1], os.O_RDWR); print('open', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, f"/dev/vfio/{group.number}"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        yield process
        process.stdin.close()


def test_vfs_go_from_none_to_seven_to_three_to_none(emulated_nics):
    for nic in emulated_nics:
        ours = Sriov(KERNEL, nic.address)
        assert (ours.state().total, ours.state().vfs) == (7, ())
        made = ours.set_vfs(7)
        assert made == tuple(nic.vf(number).name for number in range(7))
        assert {PciFunction(KERNEL, vf).driver() for vf in made} == {"igbvf"}
        assert [PciFunction(KERNEL, vf).vf_index() for vf in made] == list(range(7))
        assert {PciFunction(KERNEL, vf).physical_function() for vf in made} == {nic.address}
        assert len(ours.set_vfs(3)) == 3
        assert ours.set_vfs(0) == ours.state().vfs == ()


def test_without_autoprobe_new_vfs_have_no_driver(emulated_nics):
    ours = Sriov(KERNEL, emulated_nics[0].address)
    ours.set_autoprobe(on=False)
    try:
        [vf] = ours.set_vfs(1)
        assert PciFunction(KERNEL, vf).driver() == ""
        assert not ours.state().autoprobe
    finally:
        ours.set_autoprobe(on=True)


def test_every_function_has_a_group_of_its_own(emulated_nics):
    nic = emulated_nics[0]
    functions = [nic.address, *Sriov(KERNEL, nic.address).set_vfs(7)]
    groups = [PciFunction(KERNEL, function).iommu_group() for function in functions]
    assert [group.members for group in groups] == [(function,) for function in functions]
    assert len({group.number for group in groups}) == 8
    assert PciFunction(KERNEL, nic.address).numa_node() in {None, 0}


def test_a_vf_goes_to_vfio_and_back(on_vfio):
    nic, vf = on_vfio
    assert (vf.driver(), vf.override()) == ("vfio-pci", "vfio-pci")
    assert Path(f"/dev/vfio/{PciFunction(KERNEL, nic.vf(0).name).iommu_group().number}").exists()
    assert vf.give_back() == "igbvf"
    assert vf.override() == ""


def test_a_vf_that_a_process_holds_is_not_taken_from_it(on_vfio, holder):
    nic, vf = on_vfio
    calls = [
        lambda: Sriov(KERNEL, nic.address).set_vfs(0),
        lambda: Sriov(KERNEL, nic.address).set_vfs(5),
        vf.give_back,
        vf.unbind,
        PciFunction(KERNEL, nic.vf(0).name).reset,
        Binding(KERNEL, nic.address).unbind,
    ]
    for call in calls:
        with pytest.raises(DeviceBusyError, match=rf"{nic.vf(0).name} is held by \S+ \({holder.pid}\)"):
            call()
    assert len(Sriov(KERNEL, nic.address).state().vfs) == 2
    assert vf.driver() == "vfio-pci"
    holder.stdin.close()
    holder.wait()
    assert Sriov(KERNEL, nic.address).set_vfs(0) == ()


def test_settings_are_made_and_read_back(emulated_nics, ask, sh):
    nic = emulated_nics[0]
    Sriov(KERNEL, nic.address).set_vfs(2)
    wait_for_link(nic, sh)
    with vf_link(nic) as link:
        wanted = VfConfig(
            vf=1, mac=0x020000000077, vlan=VlanTag(vid=30, pcp=5), spoof_check=False, trust=True
        )
        assert link.apply([VfRequest(config=wanted, rate=RateLimit(max_tx_bps=10 * MBPS))]) == []
        report = link.read()[1]
    assert (report.mac, report.vlan, report.spoof_check, report.trust) == (
        wanted.mac,
        wanted.vlan,
        wanted.spoof_check,
        wanted.trust,
    )
    assert (report.min_tx_bps, report.max_tx_bps) == (0, 10 * MBPS)
    [shown] = ask(f"ip -j -d link show dev {nic.netdev}")
    found = shown["vfinfo_list"][1]
    assert found["address"] == "02:00:00:00:00:77"
    assert found["vlan_list"] == [{"vlan": 30, "qos": 5}]
    assert (found["spoofchk"], found["trust"], found["rate"]["max_tx"]) == (False, True, 10)
    assert (report.rss_query is None) == ("query_rss_en" not in found)


@pytest.mark.parametrize(
    ("request_", "kind", "number"),
    [
        (
            VfRequest(config=VfConfig(vf=0, vlan=VlanTag(vid=5, protocol="802.1ad"))),
            NotSupportedError,
            "EPROTONOSUPPORT",
        ),
        (
            VfRequest(config=VfConfig(vf=0), rate=RateLimit(max_tx_bps=2000 * MBPS)),
            InvalidRequestError,
            "EINVAL",
        ),
        (
            VfRequest(config=VfConfig(vf=0), rate=RateLimit(min_tx_bps=5 * MBPS)),
            InvalidRequestError,
            "EINVAL",
        ),
        (VfRequest(config=VfConfig(vf=0, link_state=LinkState.ENABLE)), NotSupportedError, "EOPNOTSUPP"),
        (VfRequest(config=VfConfig(vf=0), rss_query=True), NotSupportedError, "EOPNOTSUPP"),
        (VfRequest(config=VfConfig(vf=9, trust=True)), InvalidRequestError, "EINVAL"),
    ],
    ids=["802.1ad", "max above link", "min", "link state", "rss query", "vf out of range"],
)
def test_what_the_82576_refuses_is_an_error_of_the_sdk(emulated_nics, sh, request_, kind, number):
    nic = emulated_nics[0]
    Sriov(KERNEL, nic.address).set_vfs(1)
    wait_for_link(nic, sh)  # without a link every rate is EINVAL
    error = refused(nic, request_)
    assert type(error) is kind
    assert error.errno == getattr(errno, number)


def test_a_wrong_number_of_vfs_is_the_same_error_from_us_and_from_the_kernel(emulated_nics):
    nic = emulated_nics[0]
    function = PciFunction(KERNEL, nic.address)
    for text, number in (("8", errno.ERANGE), ("-1", errno.EINVAL), ("many", errno.EINVAL)):
        with pytest.raises(InvalidRequestError) as from_kernel:
            function.write("sriov_numvfs", text, capability="sriov")
        assert from_kernel.value.errno == number
    with pytest.raises(InvalidRequestError) as from_us:
        Sriov(KERNEL, nic.address).set_vfs(8)
    assert from_us.value.errno == errno.ERANGE
    nic.set_vfs(2)
    with pytest.raises(DeviceBusyError) as busy:
        function.write("sriov_numvfs", "3", capability="sriov")
    assert busy.value.errno == errno.EBUSY
    with pytest.raises(AccessDeniedError) as denied:
        function.write("sriov_totalvfs", "7", capability="sriov")
    assert denied.value.errno == errno.EACCES


def test_a_wrong_driver_and_an_absent_function_are_told_apart(emulated_nics):
    nic = emulated_nics[0]
    [vf] = Sriov(KERNEL, nic.address).set_vfs(1)
    binding = Binding(KERNEL, vf)
    binding.unbind()
    with pytest.raises(InvalidRequestError) as wrong:
        binding.bind("igb")
    assert wrong.value.errno == errno.ENODEV
    binding.bind("igbvf")
    with pytest.raises(DeviceGoneError) as gone:
        Binding(KERNEL, "0000:77:00.0").bind("igb")
    assert gone.value.errno == errno.ENODEV


def test_a_vf_is_reset_by_itself_when_no_driver_of_the_host_has_it(on_vfio):
    nic, _ = on_vfio
    PciFunction(KERNEL, nic.vf(0).name).reset()
    function = PciFunction(KERNEL, nic.vf(1).name)
    with pytest.raises(DeviceBusyError, match="igbvf"):  # it would wait for its interface, without end
        function.reset()
    binding = Binding(KERNEL, function.address)
    binding.unbind()
    function.reset()
    binding.bind("igbvf")
    assert function.driver() == "igbvf"


def test_the_82576_has_no_rule_table(emulated_nics):
    table = NtupleTable(KERNEL, emulated_nics[0].netdev)
    with pytest.raises(NotSupportedError) as refused_:
        table.insert(
            NtupleRule(flow=FlowType.ETHER, match=Match.of(eth_type=0x88B5), fate=Drop(), location=0)
        )
    assert refused_.value.errno == errno.EOPNOTSUPP


def test_features_that_the_82576_has_fixed_off_say_so(emulated_nics):
    netdev = emulated_nics[0].netdev
    for name in (FeatureName.HW_TC_OFFLOAD, FeatureName.NTUPLE):
        one = read_feature(KERNEL, netdev, name)
        assert (one.active, one.fixed) == (False, True)
        with pytest.raises(NotSupportedError, match="can't be changed"):
            set_feature(KERNEL, netdev, name, on=True)


def test_a_rule_for_the_hardware_alone_is_refused_in_the_kernels_words_and_one_for_software_is_not_in_it(
    emulated_nics, sh
):
    netdev = emulated_nics[0].netdev
    sh(f"tc qdisc add dev {netdev} clsact")
    try:
        with TcFilters(KERNEL, Hook.ingress(socket.if_nametoindex(netdev))) as filters:
            made = [
                TcFilter(
                    match=Match.of(ipv4_dst=1),
                    actions=(Gact(verdict=Verdict.DROP),),
                    pref=pref,
                    placing=placing,
                )
                for pref, placing in enumerate((Placing.HARDWARE, Placing.SOFTWARE, Placing.BOTH), 1)
            ]
            refused_, *taken = filters.add_many(made)
            assert isinstance(refused_, NotSupportedError)
            assert refused_.errno == errno.EOPNOTSUPP
            assert "TC offload is disabled" in refused_.reasons[0].message
            assert [state.ref for state in filters.dump()] == taken
            assert not any(state.in_hw for state in filters.dump())
    finally:
        sh(f"tc qdisc del dev {netdev} clsact")


def test_the_82576_is_no_device_of_devlink(emulated_nics):
    with Devlink(KERNEL) as devlink:
        assert devlink.devices() == []
        with pytest.raises(DeviceGoneError) as gone:
            devlink.info(Handle(bus="pci", name=emulated_nics[0].address))
        assert gone.value.errno == errno.ENODEV


def test_a_function_that_is_not_there_can_not_be_probed(emulated_nics):
    function = PciFunction(KERNEL, "0000:77:00.0")
    with pytest.raises(DeviceGoneError):
        Binding(KERNEL, function.address).give_to("igbvf")
    with pytest.raises(DeviceGoneError):
        Sriov(KERNEL, function.address).state()


def test_a_vf_may_not_change_its_address_unless_trusted(emulated_nics, tell, sh):
    nic = emulated_nics[0]
    [address] = Sriov(KERNEL, nic.address).set_vfs(1)
    with vf_link(nic) as link:
        assert link.apply([VfRequest(config=VfConfig(vf=0, mac=0x020000000055))]) == []
        binding = Binding(KERNEL, address)
        binding.unbind()
        binding.bind("igbvf")
        netdev = nic.vf_netdev(0)
        sh(f"ip link set {netdev} up")
        assert (
            "Cannot assign requested address"
            in tell(*f"ip link set {netdev} address 02:00:00:00:00:66".split()).err
        )
        assert link.apply([VfRequest(config=VfConfig(vf=0, trust=True))]) == []
        assert tell(*f"ip link set {netdev} address 02:00:00:00:00:66".split()).status == 0
