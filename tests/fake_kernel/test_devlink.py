"""Devlink of the fake kernel, spoken by the SDK's own client: modes, ports, functions, rates, words and events."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from nicoffload.errors import (
    AccessDeniedError,
    ConflictError,
    DeviceBusyError,
    DeviceGoneError,
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
)
from nicoffload.kernel import genetlink
from nicoffload.kernel.devlink import (
    Devlink,
    EncapMode,
    EswitchMode,
    FunctionState,
    Handle,
    InlineMode,
    PortFlavour,
    RateChange,
    RateLeaf,
    RateNode,
)
from nicoffload.kernel.events import BusEvent, Change, DevlinkEvent, Events, Topic
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.representors import agrees, identify
from nicoffload.kernel.seam import NETLINK_GENERIC
from nicoffload.kernel.sriov import Sriov
from nicoffload.model import Drop, FlowRule, Match
from nicoffload.testing import FakeKernel
from tests.fake_kernel.plugging import FAMILIES, PF, PROFILES, plugged

NIC = Handle(bus="pci", name=PF)
MAC = 0x02_00_00_00_00_07


@pytest.fixture
def devlink() -> Iterator:
    opened = []

    def open_on(kernel: FakeKernel) -> Devlink:
        opened.append(Devlink(kernel))
        return opened[-1]

    yield open_on
    for one in opened:
        one.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_as_much_devlink_as_its_driver(devlink, family):
    kernel, _ = plugged(family)
    client = devlink(kernel)
    expected = {"i40e", "ice", "mlx4", "mlx5", "sfc_ef10", "sfc_ef100", "sfn5122f"}
    assert client.devices() == ([NIC] if family in expected else [])
    if family not in expected:
        with pytest.raises(DeviceGoneError):
            client.info(NIC)
        return
    assert [port.flavour for port in client.ports(NIC)] == (
        []
        if family in {"sfc_ef10", "sfn5122f"}
        else [PortFlavour.OTHER if family == "mlx4" else PortFlavour.PHYSICAL]
    )
    assert client.info(NIC).driver == PROFILES.get(family).driver
    assert bool(client.info(NIC).versions) is (family != "mlx4")
    modes = client.eswitch(NIC)
    assert modes.mode is (EswitchMode.LEGACY if family in {"ice", "mlx5"} else None)
    if family not in {"ice", "mlx5"}:
        with pytest.raises(NotSupportedError):
            client.set_eswitch(NIC, mode=EswitchMode.SWITCHDEV)


def test_ice_takes_the_mode_without_vfs_only_and_mlx5_with_them(devlink):
    kernel, nic = plugged("ice", vfs=2)
    client = devlink(kernel)
    with pytest.raises(NotSupportedError, match="only if there is no VFs created"):
        client.set_eswitch(NIC, mode=EswitchMode.SWITCHDEV)
    client.set_eswitch(NIC, mode=EswitchMode.LEGACY)  # as it is
    Sriov(kernel, PF).set_vfs(0)
    client.set_eswitch(NIC, mode=EswitchMode.SWITCHDEV)
    Sriov(kernel, PF).set_vfs(2)
    assert len(nic.representors) == 2

    kernel, nic = plugged("mlx5", vfs=2)
    client = devlink(kernel)
    client.set_eswitch(NIC, mode=EswitchMode.SWITCHDEV)
    for port in client.ports(NIC):
        assert agrees(identify(kernel, port.ifname), port)
        assert client.port(NIC, port.index) == port
    assert [(port.pf, port.vf) for port in client.ports(NIC)] == [(0, 0), (0, 1), (None, None)]
    rule = FlowRule(match=Match.of(in_port=2), actions=(Drop(),))
    nic.device.create("flower_fdb", rule, "", None)
    with pytest.raises(DeviceBusyError, match="E-Switch is busy"):
        client.set_eswitch(NIC, mode=EswitchMode.LEGACY)
    with pytest.raises(NotSupportedError, match="flows are configured"):
        client.set_eswitch(NIC, encap_mode=EncapMode.NONE)
    nic.device.destroy("flower_fdb", rule.rule_id, None)
    client.set_eswitch(NIC, encap_mode=EncapMode.NONE, mode=EswitchMode.LEGACY)
    assert client.eswitch(NIC).encap_mode is EncapMode.NONE
    with pytest.raises(NotSupportedError, match="Inline mode can't be set"):
        client.set_eswitch(NIC, inline_mode=InlineMode.NETWORK)
    assert nic.representors == {}


def test_the_function_behind_a_vf_s_port_has_an_address(devlink):
    kernel, nic = plugged("sfc_ef100", vfs=2)
    client = devlink(kernel)
    pf, _, vf = sorted(client.ports(NIC), key=lambda port: port.index)
    client.set_function(NIC, vf.index, hw_addr=MAC)
    assert nic.device.sriov.vfs[1].mac == MAC
    assert client.port(NIC, vf.index).function.hw_addr == MAC
    with pytest.raises(AccessDeniedError, match="port mac change not allowed"):
        client.set_function(NIC, pf.index, hw_addr=MAC)
    with pytest.raises(NotSupportedError, match="state setting"):
        client.set_function(NIC, vf.index, state=FunctionState.ACTIVE)

    kernel, nic = plugged("mlx5", vfs=1, mode="switchdev")
    client = devlink(kernel)
    vf, pf = client.ports(NIC)
    client.set_function(NIC, vf.index, hw_addr=MAC)
    assert nic.device.sriov.vfs[0].mac == MAC
    with pytest.raises(NotSupportedError, match="doesn't support function attributes"):
        client.set_function(NIC, pf.index, hw_addr=MAC)
    with pytest.raises(NotFoundError):
        client.set_function(NIC, 77, hw_addr=MAC)


def test_rates_are_bytes_on_the_wire_and_reach_the_hardware(devlink):
    kernel, nic = plugged("mlx5", vfs=2, mode="switchdev")
    client = devlink(kernel)
    first, _ = (rate.ref for rate in client.rates(NIC))
    assert first == RateLeaf(port=1)
    client.set_rate(NIC, first, RateChange(tx_share_bps=1_000_000, tx_max_bps=2_000_000))
    assert (nic.device.sriov.vfs[0].min_tx.applied, nic.device.sriov.vfs[0].max_tx.applied) == (
        10**6,
        2 * 10**6,
    )
    assert client.rate(NIC, first).tx_max_bps == 2_000_000
    sent = [one.data for one in kernel.requests if one.kind == "netlink"]
    assert any(struct.pack("=HHQ", 12, 167, 250_000) in data for data in sent)
    with pytest.raises(InvalidRequestError, match="mlx5_core: TX rate value not in link speed units"):
        client.set_rate(NIC, first, RateChange(tx_max_bps=1_000_008))
    with pytest.raises(InvalidRequestError, match="exceed link maximum speed"):
        client.set_rate(NIC, first, RateChange(tx_max_bps=10**12))
    with pytest.raises(NotSupportedError, match="TX weight set isn't supported for the leafs"):
        client.set_rate(NIC, first, RateChange(tx_weight=3))
    assert client.rate(NIC, first).tx_max_bps == 2_000_000


def test_nodes_are_made_filled_and_removed(devlink):
    kernel, nic = plugged("mlx5", vfs=2)
    client, group = devlink(kernel), RateNode(name="group")
    with pytest.raises(NotSupportedError, match="supported only in switchdev mode"):
        client.create_node(NIC, group)
    client.set_eswitch(NIC, mode=EswitchMode.SWITCHDEV)
    client.create_node(NIC, group, RateChange(tx_max_bps=5_000_000))
    with pytest.raises(ConflictError):
        client.create_node(NIC, group)
    leaf = RateLeaf(port=2)
    client.set_rate(NIC, leaf, RateChange(parent="group"))
    assert client.rate(NIC, leaf).parent == "group"
    for refused in (
        lambda: client.delete_node(NIC, group),
        lambda: client.set_eswitch(NIC, mode=EswitchMode.LEGACY),
    ):
        with pytest.raises(DeviceBusyError, match=r"Node has children|Rate node"):
            refused()
    with pytest.raises(NotSupportedError, match="Parent set isn't supported for the nodes"):
        client.set_rate(NIC, group, RateChange(parent="other"))
    client.set_rate(NIC, leaf, RateChange(parent=""))
    client.delete_node(NIC, group)
    with pytest.raises(NotFoundError):
        client.delete_node(NIC, group)
    with pytest.raises(NotFoundError):
        client.set_rate(NIC, leaf, RateChange(parent="group"))
    assert {rate.ref for rate in client.rates(NIC)} == {RateLeaf(port=1), RateLeaf(port=2)}
    Sriov(kernel, PF).set_vfs(0)
    assert client.rates(NIC) == []
    assert nic.representors == {}


def test_ice_rounds_down_nests_and_takes_priorities_and_weights(devlink):
    kernel, nic = plugged("ice", vfs=1, mode="switchdev")
    client = devlink(kernel)
    [leaf] = [rate.ref for rate in client.rates(NIC)]
    client.set_rate(NIC, leaf, RateChange(tx_max_bps=1_000_808, tx_priority=7, tx_weight=200))
    assert nic.device.sriov.vfs[0].max_tx.applied == 1_000_000
    assert client.rate(NIC, leaf).tx_max_bps == 1_000_808
    with pytest.raises(InvalidRequestError, match="ice: Priority should be less than 8"):
        client.set_rate(NIC, leaf, RateChange(tx_priority=8))
    with pytest.raises(InvalidRequestError, match="Weight must be between"):
        client.set_rate(NIC, leaf, RateChange(tx_weight=201))
    with pytest.raises(InvalidRequestError):
        client.set_rate(NIC, leaf, RateChange(tx_max_bps=8))
    for name in ("upper", "lower"):
        client.create_node(NIC, RateNode(name=name))
    client.set_rate(NIC, RateNode(name="lower"), RateChange(parent="upper"))
    with pytest.raises(ConflictError, match="already a parent"):
        client.set_rate(NIC, RateNode(name="upper"), RateChange(parent="lower"))
    with pytest.raises(InvalidRequestError, match="Parent to self"):
        client.set_rate(NIC, RateNode(name="upper"), RateChange(parent="upper"))


def test_the_controller_knows_two_families_and_no_third():
    kernel, _ = plugged("ice")
    with Netlink(kernel, NETLINK_GENERIC) as netlink:
        family = genetlink.resolve(netlink, "devlink")
        assert genetlink.resolve(netlink, "nlctrl").number == 0x10
        assert set(family.groups) == {"config"}
        with pytest.raises(NotSupportedError):
            genetlink.resolve(netlink, "ethtool")
        refused, _ = netlink.request(0x99, 0, bytes(4))
        assert refused.errno == 2
        refused, _ = netlink.request(family.number, 0, struct.pack("=BBH", 200, 1, 0))
        assert refused.errno == 95
        refused, _ = netlink.request(family.number, 0, struct.pack("=BBHHH", 1, 1, 0, 5, 1) + b"x" + bytes(3))
        assert (refused.errno, refused.text) == (22, "Attribute failed policy validation")


def test_what_comes_and_goes_is_told_in_the_kernel_s_order():
    kernel = FakeKernel()
    with Events(kernel, [Topic.DEVLINK, Topic.BUS]) as events:
        assert events.read(0) == []
        nic = kernel.plug(PROFILES.get("mlx5"))
        with Devlink(kernel) as client:
            Sriov(kernel, PF).set_vfs(1)
            client.set_eswitch(NIC, mode=EswitchMode.SWITCHDEV)
            client.create_node(NIC, RateNode(name="group"))
            client.delete_node(NIC, RateNode(name="group"))
        kernel.unplug(nic)
        seen = []
        for _ in range(40):  # one datagram of each topic a time; those of other subsystems bring nothing
            seen += events.read(0)
    bus = [(one.change, one.name, one.driver) for one in seen if isinstance(one, BusEvent)]
    vf = "0000:03:10.0"
    assert bus == [
        (Change.APPEARED, PF, ""),
        (Change.BOUND, PF, "mlx5_core"),
        (Change.APPEARED, vf, ""),
        (Change.CHANGED, vf, ""),
        (Change.BOUND, vf, "mlx5_core"),
        (Change.CHANGED, PF, ""),
        (Change.UNBOUND, vf, ""),
        (Change.GONE, vf, ""),
        (Change.UNBOUND, PF, ""),
        (Change.GONE, PF, ""),
    ]
    parts = [(one.change, type(one.part).__name__) for one in seen if isinstance(one, DevlinkEvent)]
    present, gone = Change.PRESENT, Change.GONE
    assert parts == [
        (present, "NoneType"),
        (present, "Port"),
        (present, "Port"),
        (present, "Rate"),
        (present, "Rate"),
        (gone, "Rate"),
        (gone, "Rate"),
        (gone, "Port"),
        (gone, "Port"),
        (gone, "NoneType"),
    ]


def test_a_fault_answers_for_the_driver(devlink):
    faults = [{"effect": {"kind": "answer", "operation": "rate_set", "errno": "EIO"}}]
    kernel, _ = plugged("mlx5", vfs=1, mode="switchdev", faults=faults)
    client = devlink(kernel)
    with pytest.raises(NicOffloadError, match="EIO"):
        client.set_rate(NIC, RateLeaf(port=1), RateChange(tx_max_bps=1_000_000))
