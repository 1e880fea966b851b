"""What users of other tools complain of, one test a complaint; docs/explanation/complaints.md has the words.

They run on emulated NICs and on the fake kernel: no hardware and no root, which is the last of the complaints.
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nicoffload import load_registry, open_nic
from nicoffload.cli.main import main
from nicoffload.errors import (
    ConflictError,
    DeviceGoneError,
    NotSupportedError,
    ResourceExhaustedError,
    RollbackError,
    VerificationError,
)
from nicoffload.flexivoffload.capture import open_capture
from nicoffload.flexivoffload.policy import Tier, parse_policy
from nicoffload.flexivoffload.policy.decide import judge_first_packets
from nicoffload.flexivoffload.replay import Replay
from nicoffload.flexivoffload.report import make_report
from nicoffload.flexivoffload.vms import load_vms
from nicoffload.model import Disruption, Evidence, FlowRule, Match, RateLimit, Support, ToVf, VfConfig
from nicoffload.nic import DesiredState
from nicoffload.packets import HAS_ETH, HAS_IPV4, HAS_PORTS, HEADER_DTYPE
from nicoffload.testing import FakeKernel
from nicoffload.testing.conformance import NicUnderTest
from nicoffload.testing.conformance.bench import opened
from nicoffload.testing.conformance.fake import FakeNics
from nicoffload.testing.conformance.packets import packet_for, to_batch
from nicoffload.testing.conformance.proxy import Between, Killed, Strike
from nicoffload.testing.emulator.config import Config
from tests.linux.plugged import live

REGISTRY = load_registry()
MAC = 0x02_00_00_00_00_77
NOBODY = 65_534


def rule(number, vf=0):
    match = Match.of(ip_proto=6, ipv4_src="10.0.0.1", ipv4_dst="10.0.0.2", tp_src=number, tp_dst=443)
    return FlowRule(match=match, actions=(ToVf(vf=vf),), rule_id=uuid.UUID(int=number))


@pytest.fixture
def bench():
    """Open an emulated NIC as the kit does: its journal is durable, and calls can be made to fail or to kill."""
    benches = []

    def opener(name):
        context = opened(
            NicUnderTest(
                name=name,
                open_driver=lambda: REGISTRY.open(name),
                disposable=True,
                sleep_s=lambda seconds: None,
            )
        )
        benches.append(context)
        return context.__enter__()

    yield opener
    for context in benches:
        context.__exit__(None, None, None)


def kept(nic):
    return [(vf.mac, vf.vlan, vf.spoof_check) for vf in nic.vfs()]


def test_complaint_01_an_unsupported_setting_leaves_the_vf_as_it_was(mock_nic):
    nic = mock_nic("sfc_siena")
    before = kept(nic)
    with pytest.raises(NotSupportedError) as caught:
        nic.configure_vfs([VfConfig(vf=0, mac=MAC, trust=True)])
    assert caught.value.capability == "vf.trust"
    assert kept(nic) == before


def test_complaint_02_a_misspelt_rate_is_told_with_its_place(tmp_path, capsys):
    path = tmp_path / "desired.yaml"
    path.write_text("rates:\n  - {vf: 0, max_tx_rate: 100M}\n")
    code = main(["--state-dir", str(tmp_path), "plan", "mock:ixgbe", "--file", str(path)])
    said = capsys.readouterr().err
    assert code == 2
    assert "/rates/0/max_tx_rate" in said
    assert "max_tx_bps" in said


def test_complaint_03_a_vf_whose_owner_is_gone_is_found_and_given_out_again(bench):
    found = bench("mock:igb_i350,vfs=1")
    now = [1000.0]
    with found.nic(durable=True, wall_clock_s=lambda: now[0]) as nic:
        nic.lease_vf("a VM that was deleted", ttl_s=60)
    now[0] += 61
    with found.nic(durable=True, wall_clock_s=lambda: now[0]) as nic:
        assert nic.leases() == ()
        assert nic.lease_vf("the next VM", ttl_s=60).vf == 0


def test_complaint_04_the_old_state_is_on_disk_before_the_first_change(bench):
    found = bench("mock:ixgbe")
    before = [vf.mac for vf in found.vfs.states()]
    nic = found.nic(Between(found.driver, Strike(0, after=True, kills=True), durable=True))
    with pytest.raises(Killed):
        nic.configure_vfs([VfConfig(vf=0, mac=MAC), VfConfig(vf=1, mac=MAC + 1)])
    nic.close()
    assert found.vfs.states()[0].mac == MAC, "the process died after the first change"
    with found.nic(durable=True) as nic:
        assert nic.recovery.undone or nic.recovery.completed
        assert [vf.mac for vf in nic.vfs()] in (before, [MAC, MAC + 1, *before[2:]])


def test_complaint_05_a_late_clean_up_does_not_touch_the_new_owners_vf(bench):
    found, now, strike = bench("mock:ixgbe"), [1000.0], Strike()
    with found.nic(Between(found.driver, strike), wall_clock_s=lambda: now[0]) as nic:
        old = nic.lease_vf("old", ttl_s=60, vf=3)
        now[0] += 61
        new = nic.lease_vf("new", ttl_s=60, vf=3)
        strike.calls.clear()
        outcome = nic.release_vf(old)
        assert not outcome
        assert "new holds the VF" in outcome.detail
        assert strike.calls == []
        assert nic.leases() == (new,)


def test_complaint_06_no_vf_is_given_twice(tmp_path):
    name = f"mock:ixgbe,vfs=6,state={tmp_path / 'nic.json'}"
    nics = [open_nic(name, registry=REGISTRY, state_dir=tmp_path / "journal", owner=f"{n}") for n in range(3)]
    try:
        given = [nics[number % 3].lease_vf(f"vm-{number}", ttl_s=60).vf for number in range(6)]
        assert sorted(given) == list(range(6))
        with pytest.raises(ResourceExhaustedError, match="no VF is free"):
            nics[0].lease_vf("one more", ttl_s=60)
    finally:
        for nic in nics:
            nic.close()


def test_complaint_07_stale_vf_is_reset_on_release(bench):
    found, strike = bench("mock:ixgbe"), Strike()
    with found.nic(Between(found.driver, strike)) as nic:
        lease = nic.lease_vf("vm", ttl_s=60, vf=2)
        strike.calls.clear()
        assert nic.release_vf(lease)
        assert strike.calls == ["reset"]
    assert all(vf.ready for vf in found.settled())


def test_complaint_08_a_nic_that_is_gone_is_said_to_be_gone(mock_nic):
    nic = mock_nic(
        "ixgbe", faults=[{"when": {"operation": "vf_set", "call": 2}, "effect": {"kind": "remove"}}]
    )
    nic.configure_vfs([VfConfig(vf=0, mac=MAC)])
    with pytest.raises((DeviceGoneError, RollbackError)) as caught:
        nic.configure_vfs([VfConfig(vf=1, mac=MAC)])
    assert "removed" in f"{caught.value} {caught.value.__cause__} {caught.value.kernel_message}"
    with pytest.raises(DeviceGoneError):
        nic.vfs()


def test_complaint_09_making_vfs_waits_until_each_is_there(mock_nic):
    nic = mock_nic("i40e", vfs=0, faults=[{"effect": {"kind": "slow_vfs", "extra_s": 1.5}}])
    nic.set_vf_count(8)
    assert [vf.ready for vf in nic.vfs()] == [True] * 8
    nic = mock_nic("i40e", vfs=0, faults=[{"effect": {"kind": "missing_vfs", "count": 1}}])
    with pytest.raises((VerificationError, RollbackError)):
        nic.set_vf_count(8)


@pytest.mark.parametrize("family", ["ice", "i40e"])
def test_complaint_09_a_live_nic_waits_for_each_vf_too(family, tmp_path):
    nic = live(family, vfs=0, faults=[{"effect": {"kind": "slow_vfs", "extra_s": 1.5}}])
    with nic.open(tmp_path) as opened:
        opened.set_vf_count(8)
        assert all(each.pci_address for each in opened.vfs())
        assert len(nic.nic.vfs) == 8
        opened.configure_vfs([VfConfig(vf=7, mac=MAC)])
        assert opened.vfs()[7].mac == MAC
    assert nic.kernel.monotonic_s() >= 1.5


def test_complaint_10_a_renamed_interface_is_still_the_same_nic():
    nics = FakeNics(REGISTRY, "igb_i350", Config(prepared=False))
    driver = nics.open()
    identity = driver.identity()
    driver.virtual_functions.set_count(1)
    nics.nic.pf.ifname = "wan0"
    other = nics.kernel.add_netdev("enp3s0f0")
    assert driver.virtual_functions.configure_many([VfConfig(vf=0, mac=MAC)]) == [None]
    assert nics.nic.device.sriov.vfs[0].mac == MAC
    assert driver.identity() == identity
    assert other.ifname == "enp3s0f0", "another device has the old name by now, and was not touched"


def test_complaint_11_a_representor_is_never_taken_for_a_nic():
    nics = FakeNics(REGISTRY, "mlx5", Config(prepared=True))
    nics.open().virtual_functions.states()
    names = {netdev.ifname for netdev in nics.kernel.world.netdevs.values()}
    assert len(names) > 3, "there are representors"
    live = [nic for nic in REGISTRY.on(nics.kernel).devices() if not nic.emulated]
    assert [(nic.pci_address, nic.ifname) for nic in live] == [(nics.address, nics.nic.pf.ifname)]


def test_complaint_12_taking_vfs_away_is_shown_and_refused_under_a_lease(mock_nic, tmp_path, capsys):
    path = tmp_path / "desired.yaml"
    path.write_text("vf_count: 2\n")
    assert main(["--state-dir", str(tmp_path), "plan", "mock:ixgbe,vfs=4", "--file", str(path)]) == 0
    said = capsys.readouterr().out
    assert "make 2 VFs where there are 4" in said
    assert "disruption vf_reset" in said, "what it costs those who use the VFs is shown"
    nic = mock_nic("ixgbe", vfs=4)
    plan = nic.plan(DesiredState(vf_count=2))
    assert plan.disruption is Disruption.VF_RESET
    nic.lease_vf("payroll", ttl_s=60, vf=0)
    with pytest.raises(ConflictError, match="payroll"):
        nic.apply(plan)
    assert len(nic.vfs()) == 4


def test_complaint_13_what_succeeded_and_is_not_so_is_an_error_with_its_cause(mock_nic):
    quiet = [{"effect": {"kind": "do_nothing", "operation": "vf_set"}}]
    with pytest.raises(VerificationError) as caught:
        mock_nic("ixgbe", faults=quiet).configure_vfs([VfConfig(vf=0, mac=MAC)])
    assert caught.value.path == "/mac"
    refusing = [{"effect": {"kind": "answer", "operation": "vf_set", "errno": "EPERM"}}]
    with pytest.raises(PermissionError) as caught:
        mock_nic("ixgbe", faults=refusing).configure_vfs([VfConfig(vf=0, mac=MAC)])
    assert caught.value.__cause__ is not None, "the first cause is not overwritten"


def test_complaint_14_a_second_try_does_all_of_it(bench):
    found = bench("mock:ixgbe")
    desired = DesiredState(
        vfs=(VfConfig(vf=0, mac=MAC),),
        rates={0: RateLimit(max_tx_bps=10**8)},
        flows=(rule(1), rule(2)),
        exact=True,
    )
    for number in (0, 1, 2):
        nic = found.nic(Between(found.driver, Strike(number, after=True, kills=True), durable=True))
        with pytest.raises(Killed):
            nic.apply(nic.plan(desired))
        nic.close()
    with found.nic(durable=True) as nic:
        nic.apply(nic.plan(desired))
        assert nic.plan(desired).steps == ()
        assert nic.vfs()[0].mac == MAC
        assert len(nic.flows()) == 2


def test_complaint_15_a_rule_that_the_nic_refuses_is_never_counted_as_offloaded(mock_nic):
    nic = mock_nic("ixgbe", faults=[{"effect": {"kind": "lie", "about": "flows"}}])
    with pytest.raises((VerificationError, RollbackError)):
        nic.add_flows([rule(1)])
    assert not any(each.ours for each in nic.flows()), "what reads back as another rule is none of ours"
    other = mock_nic("ixgbe")
    wrong = FlowRule(match=Match.of(ipv6_dst="2001:db8::1"), actions=(ToVf(vf=0),))
    report = other.add_flows([rule(1), wrong], atomic=False)
    assert [each.rule.rule_id for each in report.installed] == [rule(1).rule_id]
    ((refused, why),) = report.refused
    assert refused == wrong
    assert why.reasons
    assert [each.rule.rule_id for each in other.flows()] == [rule(1).rule_id]


def test_complaint_16_no_rule_for_it_ever_reaches_the_nic(repo_root):
    captures = repo_root / "examples/captures"
    policy = parse_policy(
        "version: 1\ndefault: offload\nrules:\n"
        "  - {id: policed, match: 'tcp,tp_dst=5205', action: onload}\n"
        "  - {id: answers, match: 'tcp,tp_src=5205', action: onload}\n"
    )
    with (
        open_nic("mock:sfn5122f", registry=REGISTRY) as nic,
        open_capture(captures / "office.pcap.gz") as reader,
    ):
        replay = Replay(nic, policy, load_vms(captures / "office.vms.json"))
        for batch in reader:
            replay.feed(batch)
            ports = [dict(each.rule.match.items()).get("tp_dst") for each in nic.flows()]
            assert not any(port is not None and port.value == 5205 for port in ports)
        replay.finish()
        report = make_report(replay, capture="office", skipped=0, ended_early="")
    policed = [flow for flow in report.flows if re.search(r"^tcp.*tp_(src|dst)=5205\b", flow.flow)]
    assert policed
    assert not any(flow.offloaded.packets for flow in policed)
    assert report.offloaded.packets > 0, "the rest is offloaded"


def test_complaint_16_what_must_pass_the_virtual_switch_is_never_offloaded():
    policy = parse_policy(
        "version: 1\ndefault: offload\nrules:\n"
        "  - {id: policed, match: 'tcp,tp_dst=443', action: onload}\n"
        "  - {id: fast, priority: 100, match: tcp, action: offload}\n"
    )
    row = np.zeros(1, HEADER_DTYPE)
    row["present"] = HAS_ETH | HAS_IPV4 | HAS_PORTS
    row["eth_type"], row["ip_proto"], row["tp_dst"] = 0x800, 6, 443
    zero = np.zeros(1, np.int32)
    verdict = judge_first_packets(policy, row, zero, zero, ["vm"])
    assert Tier(int(verdict.tier[0])) is Tier.DENY, "a denial stands above any priority"


def test_complaint_17_statistics_say_what_they_count_and_survive_a_removal(mock_nic):
    nic = mock_nic("mlx5")
    nic.add_flows([rule(7)])
    nic.packet_path.receive(to_batch([packet_for(rule(7))] * 5), 0, 5, 0)
    (last,) = nic.remove_flows([rule(7).rule_id])
    assert (last.packets, last.facts.source, last.facts.byte_basis.value) == (5, "nic:rule", "unknown")
    silent = mock_nic("ixgbe")
    silent.add_flows([rule(7)])
    assert silent.flow_stats().row(0).packets is None, "an ixgbe counts no rules: None, and not 0"


def test_complaint_18_a_slow_nic_with_many_vfs_is_waited_for(mock_nic):
    nic = mock_nic("ice", vfs=0, faults=[{"effect": {"kind": "slow_vfs", "extra_s": 1.0}}])
    nic.set_vf_count(256)
    assert sum(vf.ready for vf in nic.vfs()) == 256
    nic.configure_vfs([VfConfig(vf=vf, mac=MAC + vf) for vf in range(64)])
    assert [vf.mac for vf in nic.vfs()[:64]] == [MAC + vf for vf in range(64)]


def use_each_family():
    """Open a NIC of each family, emulated, and on the fake kernel by the plugin that drives it."""
    for family in REGISTRY.profiles.families():
        with open_nic(f"mock:{family}", registry=REGISTRY) as nic:
            assert nic.info.emulated
            assert nic.capabilities()
        if REGISTRY.profiles.get(family).pci_ids.pf:
            driver = FakeNics(REGISTRY, family, Config(prepared=True)).open()
            assert driver.info.plugin == REGISTRY.profiles.get(family).vendor
            assert driver.capabilities()
            driver.close()


def test_complaint_18_a_slow_live_nic_with_many_vfs_is_waited_for(tmp_path):
    nic = live("ice", vfs=0, faults=[{"effect": {"kind": "slow_vfs", "extra_s": 1.0}}])
    with nic.open(tmp_path) as opened:
        opened.set_vf_count(64)
        opened.configure_vfs([VfConfig(vf=vf, mac=MAC + vf) for vf in range(64)])
        assert [vf.mac for vf in opened.vfs()] == [MAC + vf for vf in range(64)]


def test_complaint_19_a_nic_that_no_profile_names_is_probed_and_used(tmp_path):
    known = REGISTRY.profiles.get("mlx5")
    unlisted = replace(known, pci_ids=replace(known.pci_ids, pf=("15b3:ffff",)))
    kernel = FakeKernel()
    kernel.plug(unlisted, config=Config(prepared=True, mode="switchdev", vfs=2))
    with open_nic("0000:03:00.0", registry=REGISTRY.on(kernel), state_dir=tmp_path) as nic:
        assert (nic.info.family, nic.info.plugin) == ("generic", "generic")
        told = {one.name: one for one in nic.capabilities()}
        assert told["vf.create"].evidence is Evidence.PROBED
        assert told["flow_filters.flower_switchdev"].support is Support.UNKNOWN, "no list, no promise"
        nic.add_flows([rule(1)])
        assert [each.rule.rule_id for each in nic.flows() if each.ours] == [rule(1).rule_id]


def test_complaint_20_all_of_this_runs_without_hardware_and_without_root():
    use_each_family()  # loads what a stranger to this folder may not be allowed to read
    child = os.fork()
    if not child:
        failed = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            use_each_family()
            failed = int(os.geteuid() == 0)
        finally:
            os._exit(failed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_every_complaint_is_answered_by_a_test_or_a_sentence(repo_root):
    page = (repo_root / "docs/explanation/complaints.md").read_text("utf-8")
    sections = re.split(r"^## (\d+)\. ", page, flags=re.MULTILINE)[1:]
    answers = dict(zip(map(int, sections[::2]), sections[1::2], strict=True))
    assert sorted(answers) == list(range(1, 21))
    here = set(
        re.findall(r"^def (test_complaint_\d\d_\w+)\(", Path(__file__).read_text("utf-8"), re.MULTILINE)
    )
    named = set()
    for number, text in answers.items():
        tests = re.findall(r"`(test_complaint_\d\d_\w+)`", text)
        assert tests or "Not answered by a test:" in text, f"complaint {number} has neither test nor sentence"
        assert all(test.startswith(f"test_complaint_{number:02}_") for test in tests)
        assert re.search(r"[\w-]+#\d+|[\w-]+/[\w-]+", text), f"complaint {number} names nobody who had it"
        named.update(tests)
    assert named == here
