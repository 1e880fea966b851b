"""What the generic plugin finds, says and does, on a kernel in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nicoffload import open_nic
from nicoffload.errors import NotFoundError, NotSupportedError
from nicoffload.model import (
    Drop,
    Evidence,
    FlowRule,
    Match,
    RateLimit,
    Support,
    ToQueue,
    ToVf,
    VfConfig,
)
from nicoffload.registry import load_registry
from nicoffload.testing import FakeKernel
from nicoffload.testing.emulator.config import Config

PROFILES = load_registry().profiles
ALONE = ("generic",)


def machine(family, *, address="0000:03:00.0", ifname="enp3s0f0", only=ALONE, **config):
    """A kernel with one NIC, and the plugins that are asked; without its vendor's, it is a NIC that nobody lists."""
    kernel = FakeKernel()
    config.setdefault("prepared", False)
    kernel.plug(PROFILES.get(family), pci_address=address, ifname=ifname, config=Config(**config))
    return kernel, load_registry(only=only, kernel=kernel)


def answers(driver):
    return {one.name: one for one in driver.capabilities()}


def test_a_nic_is_shown_once_and_by_its_vendors_plugin():
    _, registry = machine("mlx5", only=("generic", "mellanox"))
    assert [(one.name, one.plugin) for one in registry.devices()] == [("0000:03:00.0", "mellanox")]
    assert registry.open("enp3s0f0").profile.family == "mlx5"


@pytest.mark.parametrize("name", ["0000:03:00.0", "enp3s0f0"])
def test_a_nic_that_nobody_lists_is_opened_by_address_and_by_name(name):
    _, registry = machine("mlx5")
    assert [(one.name, one.family, one.driver) for one in registry.devices()] == [
        ("0000:03:00.0", "generic", "mlx5_core")
    ]
    driver = registry.open(name)
    assert driver.identity() == "0000:03:00.0"
    assert driver.info.ifname == "enp3s0f0"


def test_what_is_probed_and_what_nobody_knows_are_told_apart():
    _, registry = machine("mlx5", mode="switchdev", vfs=2, prepared=True)
    found = answers(registry.open("0000:03:00.0"))
    assert found["flow_filters.flower_switchdev"].support is Support.UNKNOWN
    assert found["flow_filters.flower_switchdev"].evidence is Evidence.PROBED
    assert found["flow_filters.flower_legacy"].support is Support.PARTIAL
    assert "switchdev" in found["flow_filters.flower_legacy"].detail
    assert found["vf.create"].evidence is Evidence.PROBED
    assert found["vf.trust"].support is Support.UNKNOWN
    assert found["statistics.vf"].support is Support.NO


def test_a_rule_on_a_nic_that_no_profile_names_comes_with_a_word_on_what_its_driver_may_do(tmp_path):
    unlisted = replace(
        PROFILES.get("igb_i210"), pci_ids=replace(PROFILES.get("igb_i210").pci_ids, pf=("8086:abcd",))
    )
    kernel = FakeKernel()
    kernel.plug(unlisted, config=Config(prepared=False))
    with open_nic("0000:03:00.0", registry=load_registry(kernel=kernel), state_dir=tmp_path) as nic:
        assert nic.info.family == "generic"
        rule = FlowRule(
            match=Match.of(eth_type=0x88F7, eth_dst="02:00:00:00:00:01"), actions=(ToQueue(queue=1),)
        )
        [told] = [one for one in nic.check(rule).caveats if "no profile describes this NIC" in one]
    assert "driver igb" in told
    assert "igb_i210" in told, "it says where to read of what igb is known to do"


def test_what_only_a_rule_tells_is_tried_when_asked_for_and_leaves_nothing(tmp_path):
    _, registry = machine("mlx5", mode="switchdev", vfs=2, prepared=True)
    with open_nic("0000:03:00.0", registry=registry, state_dir=tmp_path) as nic:
        nic.try_out()
        found = {one.name: one for one in nic.capabilities()}
        assert found["flow_filters.flower_switchdev"].support is Support.YES
        assert found["flow_filters.flower_switchdev"].evidence is Evidence.OBSERVED
        assert nic.flows() == ()


def test_a_table_that_refuses_a_simple_rule_is_told(tmp_path):
    _, registry = machine("igb_i350", prepared=True)
    with open_nic("0000:03:00.0", registry=registry, state_dir=tmp_path) as nic:
        nic.try_out()
        found = {one.name: one for one in nic.capabilities()}
        assert found["flow_filters.flower"].support is Support.NO
        assert "refused a simple rule" in found["flow_filters.flower"].detail


def test_a_nic_without_anything_says_so_and_has_no_facet_for_it():
    _, registry = machine("igb_82576")
    driver = registry.open("0000:03:00.0")
    assert driver.flow_filters is None
    assert answers(driver)["flow_filters"].support is Support.NO


def test_nothing_is_written_while_a_nic_is_found_opened_and_asked():
    kernel, registry = machine("ice")
    kernel.requests.clear()
    registry.devices()
    registry.open("0000:03:00.0").capabilities()
    assert not [one for one in kernel.requests if one.kind == "write"]


def test_rules_and_vfs_of_a_nic_that_nobody_lists(tmp_path):
    _, registry = machine("mlx5", mode="switchdev", vfs=2, prepared=True)
    rules = [
        FlowRule(match=Match.of(ipv4_dst=number, ip_proto=6, tp_dst=80), actions=(ToVf(vf=number % 2),))
        for number in range(1, 21)
    ]
    with open_nic("0000:03:00.0", registry=registry, state_dir=tmp_path) as nic:
        report = nic.add_flows([*rules, FlowRule(match=Match.of(eth_dst=0x020000000001), actions=(Drop(),))])
        assert len(report.installed) == 21
        assert all(each.in_hardware for each in report.installed)
        (state,) = nic.configure_vfs([VfConfig(vf=1, mac=0x020000000007)])
        assert state.mac == 0x020000000007
    with open_nic("0000:03:00.0", registry=registry, state_dir=tmp_path / "other") as again:
        # Of a journal that is lost nothing is needed to know which rules are ours.
        assert {each.rule.rule_id for each in again.flows() if each.ours} >= {rule.rule_id for rule in rules}


def test_what_the_driver_refuses_is_an_error_with_the_kernels_words(tmp_path):
    _, registry = machine("mlx5", mode="switchdev", vfs=2, prepared=True)
    with open_nic("0000:03:00.0", registry=registry, state_dir=tmp_path) as nic:
        with pytest.raises(NotSupportedError) as refused:
            nic.configure_vfs([VfConfig(vf=0, trust=True)])
        assert refused.value.errno is not None
        assert nic.vfs()[0].trust in (None, False)


def test_a_simulated_nic_has_its_own_bus(tmp_path):
    _, registry = machine("netdevsim", address="netdevsim1", ifname="eni1np1")
    assert [one.name for one in registry.devices()] == ["netdevsim/netdevsim1"]
    with open_nic("netdevsim/netdevsim1", registry=registry, state_dir=tmp_path) as nic:
        nic.set_vf_count(2)
        (report,) = nic.set_rates({1: RateLimit(max_tx_bps=20_000_000)})
        assert report.read_back == RateLimit(max_tx_bps=20_000_000)
        assert [state.pci_address for state in nic.vfs()] == ["", ""]


@pytest.mark.parametrize("name", ["nonsuch0", "0000:09:00.0", "netdevsim/netdevsim9", "lo"])
def test_what_is_no_nic_is_told(name):
    _, registry = machine("mlx5")
    with pytest.raises(NotFoundError) as told:
        registry.open(name)
    assert told.value.hint
