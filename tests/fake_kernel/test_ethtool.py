"""Features and the receive classifier of the fake kernel, driven by the SDK's own encoders."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import struct

import pytest

from nicoffload.errors import (
    ConflictError,
    DeviceGoneError,
    InvalidRequestError,
    NicOffloadError,
    NotFoundError,
    NotSupportedError,
    VerificationError,
)
from nicoffload.kernel.features import FeatureName, read_feature, read_features, set_feature
from nicoffload.kernel.ntuple import NtupleRule, NtupleTable, lower_rule
from nicoffload.kernel.ntuple_layout import IMPLIED, FlowType, encode_rule
from nicoffload.model import FIELDS, Drop, FlowRule, Masked, Match, ToQueue, ToVf
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.config import Config
from nicoffload.testing.emulator.device import Device
from nicoffload.testing.emulator.faults import Faults
from nicoffload.testing.fake_kernel import rxnfc
from tests.fake_kernel.plugging import FAMILIES, PROFILES, plugged, refused
from tests.kernel.random_ntuple import random_rules

WITH_NTUPLE = [
    family for family in FAMILIES if any(table.mechanism == "ntuple" for table in PROFILES.get(family).tables)
]


FIRMWARE_SHAPES = {
    "tcp4": [("ipv4_dst", "tp_dst"), ("ipv4_src", "ipv4_dst", "tp_src", "tp_dst")],
    "udp6": [("ipv6_dst", "tp_dst")],
    "ip4": [("ipv4_dst",)],
    "ether": [("eth_dst",), ("eth_dst", "vlan_vid")],
}


def rules_for(family: str, count: int, seed: int) -> list[NtupleRule]:
    """Return rules that a family's drivers take often, and refuse often enough for one reason or another."""
    chance = random.Random(seed)
    tables = [table for table in PROFILES.get(family).tables if table.mechanism == "ntuple"]
    found = []
    for rule in random_rules(count, seed):
        flow, fields = rule.flow, dict(rule.match.items())
        if chance.random() < 0.8:
            kind = chance.choice(chance.choice(tables).flow_types)
            flow = FlowType[kind.name.removesuffix("_group").upper()]
            names = chance.choice(shapes_of(tables, kind, chance))
            fields = {name: value_of(chance, name) for name in names}
        fields |= {name: Masked(value, FIELDS[name].full_mask) for name, value in IMPLIED[flow].items()}
        fate = chance.choice(
            [Drop(), ToQueue(queue=3), ToQueue(queue=4), ToQueue(queue=99), ToVf(vf=1), ToVf(vf=9)]
        )
        location = chance.choice([None, None, 0, 1, 2, 3, 5, 15, 16, 3000])
        with contextlib.suppress(InvalidRequestError):  # a field that this flow type has no place for
            found.append(NtupleRule(flow=flow, match=Match(**fields), fate=fate, location=location))
    return found


def shapes_of(tables, kind, chance) -> list[tuple[str, ...]]:
    listed = [tuple(one.fields) for table in tables for one in table.shapes if kind.name in one.flow_types]
    if not listed and any(table.mask_model == "firmware_list" for table in tables):
        listed = FIRMWARE_SHAPES.get(kind.name, [])
    names = [name for name in kind.fields if name in FIELDS]
    return listed or [tuple(names[:2]), tuple(name for name in names if chance.random() < 0.5)]


def value_of(chance: random.Random, name: str) -> Masked:
    full = FIELDS[name].full_mask
    value = chance.choice([0x88F7, 0x0806, 0x0800]) if name == "eth_type" else chance.randint(1, min(full, 9))
    return Masked(value & full, full) if chance.random() < 0.9 else Masked(value & 1, 1)


@pytest.mark.parametrize("family", WITH_NTUPLE)
def test_rules_in_bytes_become_what_the_emulated_driver_makes_of_the_same_rules(family):
    profile = PROFILES.get(family)
    # VFs leave an i350 one queue, which is too few to tell rules apart by.
    vfs = 4 if profile.sriov and (profile.sriov.pf_queues(4) or 4) > 2 else 0
    kernel, nic = plugged(family, vfs=vfs, prepared=True)
    twin = Device(profile.document, Config(vfs=vfs, prepared=True), Faults())
    tables = [table.name for table in profile.tables if table.mechanism == "ntuple"]
    taken = 0
    for rule in rules_for(family, 600, seed=7):
        try:
            answer = struct.unpack_from("=I", kernel.ethtool("enp3s0f0", encode_rule(0x32, rule)), 176)[0]
        except OSError as cause:
            answer = cause.errno
        assert answer == directly(twin, tables, rule), rule
        taken += 1
    assert [len(table.entries) for table in nic.device.tables] == [
        len(table.entries) for table in twin.tables
    ]
    assert sum(len(table.entries) for table in twin.tables) > 2
    assert taken > 300


def directly(device: Device, tables: list[str], rule: NtupleRule) -> int:
    """Return the slot, or the errno, of a rule that is given to the emulated driver without any bytes."""
    from nicoffload.errors import errno_number

    name = rule.flow.name.lower()
    group = name == "ether" and dict(rule.match.items()) == {"eth_dst": Masked(0, 1 << 40)}
    fits = [one for one in tables if name in device.table(one).spec.types]
    answers = []
    for table in fits or tables[:1]:
        try:
            entry = device.create(
                table,
                FlowRule(match=rule.match, actions=(rule.fate,)),
                name + "_group" * group,
                rule.location,
            )
        except Refused as cause:
            answers.append(errno_number(cause.errno))
        else:
            return entry.slot
    return answers[0]


@pytest.mark.parametrize("family", WITH_NTUPLE)
def test_a_rule_is_listed_read_back_and_deleted(family):
    kernel, nic = plugged(family, prepared=True)
    table = NtupleTable(kernel, "enp3s0f0")
    before = table.info()
    assert before.rules == 0
    match = (
        Match.of(eth_type=0x88F7)
        if family.startswith("igb")
        else Match.of(ipv4_src="10.0.0.1", ipv4_dst="10.0.0.2", ip_proto=6, tp_src=1000, tp_dst=80)
    )
    flow = FlowType.ETHER if family.startswith("igb") else FlowType.TCP4
    queue = 0 if family == "igb_i350" else 2  # VFs leave it one
    rule = lower_rule(FlowRule(match=match, actions=(ToQueue(queue=queue),)), flow=flow)
    slot = table.insert(rule)
    [state] = table.rules()
    assert state.rule == dataclasses.replace(rule, location=slot)
    assert table.info().rules == 1
    table.delete(slot)
    with pytest.raises(NotFoundError):
        table.delete(slot)
    with pytest.raises(NotFoundError):
        table.get(slot)
    assert table.info() == before
    assert nic.device.table(nic.profile.tables[0].name) is not None


def test_the_size_and_who_chooses_are_told_as_each_driver_tells_them():
    found = {}
    for family in WITH_NTUPLE:
        kernel, _ = plugged(family, prepared=True)
        info = NtupleTable(kernel, "enp3s0f0").info()
        found[family] = (info.size, info.driver_chooses)
    assert found["ixgbe"] == (2046, False)
    assert found["mlx5"] == (1024, False)
    assert found["mlx4"] == (256, False)
    assert found["igb_i350"] == (16, False)
    assert found["sfc_siena"][1] is True
    assert found["sfc_falcon"] == (1 << 13 | 8192, True)


def test_a_device_without_a_classifier_says_so_as_its_driver_does():
    kernel, _ = plugged("igb_82576")
    table = NtupleTable(kernel, "enp3s0f0")
    assert table.info().rules == 0
    rule = lower_rule(FlowRule(match=Match.of(eth_type=0x88F7), actions=(ToQueue(queue=0),)))
    assert refused(kernel.ethtool, "enp3s0f0", encode_rule(0x32, rule)) == "EOPNOTSUPP"
    kernel, _ = plugged("mlx5", vfs=1, mode="switchdev")
    for name in ("lo", "enp3s0f0v0", "enp3s0f0r0"):
        with pytest.raises(NotSupportedError):
            NtupleTable(kernel, name).info()
    assert refused(kernel.ethtool, "absent", bytes(192)) == "ENODEV"
    assert refused(kernel.ethtool, "enp3s0f0", struct.pack("=I", 0x99)) == "EOPNOTSUPP"


def test_turning_the_feature_off_deletes_the_rules_and_blocks_the_table():
    kernel, nic = plugged("ixgbe", vfs=2)
    table = NtupleTable(kernel, "enp3s0f0")
    rule = lower_rule(
        FlowRule(match=Match.of(ipv4_dst="10.0.0.2", ip_proto=17, tp_dst=53), actions=(ToVf(vf=1),)),
        location=5,
    )
    with pytest.raises(NotSupportedError):
        table.insert(rule)
    set_feature(kernel, "enp3s0f0", FeatureName.NTUPLE, on=True)
    assert not nic.device.sriov.is_ready(nic.device.sriov.vfs[0])  # the NIC resets
    assert table.insert(rule) == 5
    with pytest.raises(ConflictError, match="1 ethtool rules"):
        set_feature(kernel, "enp3s0f0", FeatureName.NTUPLE, on=False)
    assert table.locations() == [5]
    set_feature(kernel, "enp3s0f0", FeatureName.NTUPLE, on=False, with_rules=True)
    assert nic.device.table("fdir").entries == {}
    with pytest.raises(NotSupportedError):
        table.insert(rule)


def test_every_netdev_of_every_family_has_the_features_that_its_driver_gives_it():
    states = {}
    for family in FAMILIES:
        kernel, _ = plugged(family)
        assert len(read_features(kernel, "enp3s0f0")) > 5
        for name in FeatureName:
            one = read_feature(kernel, "enp3s0f0", name)
            states[family, name] = "fixed" if one.fixed else "on" if one.active else "off"
            states[family, name] += " on" if one.fixed and one.active else ""
    assert (
        states["igb_82576", FeatureName.NTUPLE] == states["igb_82576", FeatureName.HW_TC_OFFLOAD] == "fixed"
    )
    assert states["igb_i350", FeatureName.HW_TC_OFFLOAD] == "on"
    assert states["ixgbe", FeatureName.HW_TC_OFFLOAD] == states["ixgbe", FeatureName.NTUPLE] == "off"
    assert states["ixgbe", FeatureName.L2_FWD_OFFLOAD] == "off"
    assert states["i40e", FeatureName.NTUPLE] == states["ice", FeatureName.NTUPLE] == "on"
    assert states["sfc_ef100", FeatureName.HW_TC_OFFLOAD] == "fixed on"
    assert states["mlx5", FeatureName.L2_FWD_OFFLOAD] == "fixed"


def test_representors_have_a_feature_of_their_own_and_the_hardware_follows_any():
    kernel, nic = plugged("ice", vfs=1, mode="switchdev")
    assert nic.device.features["hw-tc-offload"] is False
    set_feature(kernel, "enp3s0f0r0", FeatureName.HW_TC_OFFLOAD, on=True)
    assert nic.device.features["hw-tc-offload"] is True
    assert read_feature(kernel, "enp3s0f0", FeatureName.HW_TC_OFFLOAD).active is False
    set_feature(kernel, "enp3s0f0r0", FeatureName.HW_TC_OFFLOAD, on=False)
    assert nic.device.features["hw-tc-offload"] is False


def test_a_feature_that_rules_need_stays_on_and_the_wish_is_noted():
    kernel, nic = plugged("mlx5", vfs=1, mode="switchdev")
    match = Match.of(in_port=2, eth_type=0x0800)
    nic.device.create("flower_fdb", FlowRule(match=match, actions=(Drop(),)), "", None)
    if "feature_in_use" not in nic.device.table("flower_fdb").spec.errors:
        pytest.fail("the profile lost what mlx5e_set_features does")
    with pytest.raises(VerificationError):
        set_feature(kernel, "enp3s0f0r0", FeatureName.HW_TC_OFFLOAD, on=False)
    one = read_feature(kernel, "enp3s0f0r0", FeatureName.HW_TC_OFFLOAD)
    assert (one.active, one.requested) == (True, False)


def test_a_fixed_feature_and_an_absent_device_are_refused():
    kernel, _ = plugged("igb_82576")
    with pytest.raises(NotSupportedError):
        set_feature(kernel, "enp3s0f0", FeatureName.NTUPLE, on=True)
    with pytest.raises(DeviceGoneError):
        read_features(kernel, "absent")


def test_a_fault_answers_for_the_driver():
    faults = [{"effect": {"kind": "answer", "operation": "flow_create", "errno": "EIO"}}]
    kernel, _ = plugged("ixgbe", prepared=True, faults=faults)
    rule = lower_rule(
        FlowRule(match=Match.of(ipv4_dst="10.0.0.2", ip_proto=17, tp_dst=53), actions=(Drop(),)), location=5
    )
    with pytest.raises(NicOffloadError, match="EIO"):
        NtupleTable(kernel, "enp3s0f0").insert(rule)


@pytest.mark.parametrize("rule", random_rules(180, seed=3), ids=lambda rule: rule.flow.name)
def test_the_decoder_reads_what_the_encoder_wrote_and_shares_nothing_with_it(rule):
    rule = dataclasses.replace(
        rule, rss_context=None, l4_bytes=None, spi=None, vlan_protocol=None, user_defined=None
    )
    asked = rxnfc.decode(encode_rule(0x32, rule))
    assert (asked.match, asked.action, asked.location) == (rule.match, rule.fate, rule.location)
    assert asked.flow_type.removesuffix("_group") == rule.flow.name.lower()


def test_rules_do_not_go_to_the_device_that_has_the_name_by_now(monkeypatch):
    kernel, nic = plugged("ixgbe", prepared=True)
    ifindex = kernel.world.netdev_named("enp3s0f0").ifindex
    rule = lower_rule(
        FlowRule(match=Match.of(ipv4_dst="10.0.0.2", ip_proto=17, tp_dst=53), actions=(Drop(),)), location=5
    )
    with pytest.raises(DeviceGoneError, match="is the name of network device") as before:
        NtupleTable(kernel, "enp3s0f0", ifindex=ifindex + 100).insert(rule)
    assert not before.value.uncertain
    assert nic.device.table("fdir").entries == {}
    table = NtupleTable(kernel, "enp3s0f0", ifindex=ifindex)
    assert table.insert(rule) == 5
    answers = iter([str(ifindex).encode(), b"99"])
    monkeypatch.setattr(kernel, "read_sysfs", lambda _path: next(answers))
    with pytest.raises(DeviceGoneError) as after:
        table.delete(5)
    assert after.value.uncertain
