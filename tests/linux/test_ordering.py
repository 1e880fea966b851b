"""In which order a plan changes mode, VFs, settings and rules on the fake kernel, and how that is taken back."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from nicoffload.errors import ConflictError, KernelError
from nicoffload.model import Disruption, FlowRule, Match, RateLimit, ToUplink, ToVf, VfConfig
from nicoffload.nic import DesiredState
from nicoffload.testing.conformance.proxy import Between, Killed, Strike, _One
from tests.linux.plugged import ADDRESS, live, reopen

MAC = 0x02_00_00_00_00_42
TCP = {"eth_type": 0x0800, "ip_proto": 6}
SWITCHED = [
    ("ice", "legacy"),
    ("ice", "switchdev"),
    ("mlx5", "legacy"),
    ("mlx5", "switchdev"),
    ("sfc_ef100", ""),
]
ORDER = {
    ("ice", "legacy", 0): ["enable_table", "set_vf_count", "configure_vf", "enable_table"],
    ("ice", "legacy", 2): ["set_vf_count", "enable_table", "set_vf_count", "configure_vf", "enable_table"],
}


def to_vf(vf, port=80):
    return FlowRule(match=Match.of(ipv4_dst="10.0.0.1", tp_dst=port, **TCP), actions=(ToVf(vf=vf),))


def from_vf(vf, port=80):
    match = Match.of(in_port=2 + vf, ipv4_src="10.0.0.1", tp_src=port, **TCP)
    return FlowRule(match=match, actions=(ToUplink(),))


def full_state(nic, count=4):
    """Return VFs, a setting, rates where the NIC has them, and rules to and from a VF."""
    rates = {1: RateLimit(max_tx_bps=50_000_000)} if nic.driver.rates is not None else {}
    return DesiredState(
        vf_count=count, vfs=(VfConfig(vf=0, mac=MAC),), rates=rates, flows=(to_vf(0), from_vf(0))
    )


def seen(nic):
    """Return what hardware and switch are like."""
    vfs = [(vf.mac, vf.max_tx.applied) for vf in nic.hardware.sriov.vfs]
    rules = sorted(str(each.rule.match) for each in nic.driver.flow_filters.dump())
    return nic.hardware.mode, vfs, rules


def struck(nic, folder, strike):
    """Open a NIC whose driver fails at one call."""
    from nicoffload import open_nic
    from nicoffload.profiles.load import Catalog
    from nicoffload.registry import Registry

    between = Between(reopen(nic.kernel), strike, durable=True)
    return open_nic(
        ADDRESS,
        registry=Registry((), Catalog(()), [("test", _One(between))]),
        state_dir=folder,
        monotonic_s=nic.kernel.monotonic_s,
        sleep_s=nic.kernel.sleep_s,
    )


@pytest.mark.parametrize("vfs", [0, 2])
@pytest.mark.parametrize(("family", "mode"), SWITCHED)
def test_one_plan_goes_from_few_vfs_to_vfs_settings_and_rules(family, mode, vfs, tmp_path):
    nic = live(family, mode=mode, vfs=vfs)
    wanted = full_state(nic)
    with nic.open(tmp_path) as opened:
        plan = opened.plan(wanted)
        actions = [step.action for step in plan.steps if step.action not in ("add_flow", "set_rate")]
        usual = ["set_vf_count", "configure_vf", *(["enable_table"] if mode else [])]
        assert actions == ORDER.get((family, mode, vfs), usual)
        assert not any(line.startswith("#") for step in plan.steps for line in step.equivalents)
        opened.apply(plan)
        assert opened.plan(wanted).steps == ()
        assert len(opened.vfs()) == 4
        assert opened.vfs()[0].mac == MAC
        assert {each.rule.match for each in opened.flows()} == {rule.match for rule in wanted.flows}


def test_what_has_no_name_yet_is_a_variable_with_the_command_that_finds_it(tmp_path):
    nic = live("mlx5", mode="switchdev")
    with nic.open(tmp_path) as opened:
        lines = [line for step in opened.plan(full_state(nic)).steps for line in step.equivalents]
    finds = [line for line in lines if line.startswith("REP_VF0=$(devlink port show")]
    assert len(finds) == 1
    assert "vfnum 0" in finds[0]
    assert "tc qdisc add dev $REP_VF0 clsact" in lines
    assert any("mirred egress redirect dev $REP_VF0" in line for line in lines)
    assert any(line.startswith("devlink port function rate set $PORT_VF1 ") for line in lines)
    assert lines.index(finds[0]) < lines.index("tc qdisc add dev $REP_VF0 clsact")


def test_rates_of_vfs_that_will_be_in_switchdev_are_shown_by_devlink(tmp_path):
    nic = live("mlx5", mode="legacy", vfs=2)
    wanted = DesiredState(rates={1: RateLimit(max_tx_bps=50_000_000)}, flows=(to_vf(0),))
    with nic.open(tmp_path) as opened:
        lines = [line for step in opened.plan(wanted).steps for line in step.equivalents]
        assert "devlink dev eswitch set pci/0000:03:00.0 mode switchdev" in lines
        assert any(line.startswith("devlink port function rate set $PORT_VF1 ") for line in lines)
        opened.apply(opened.plan(wanted))
        # Afterwards they have names.
        lines = [
            line
            for step in opened.plan(DesiredState(rates={0: RateLimit(max_tx_bps=50_000_000)})).steps
            for line in step.equivalents
        ]
    assert lines == ["devlink port function rate set pci/0000:03:00.0/1 tx_share 0bit tx_max 50000000bit"]


def test_a_plan_is_made_although_no_command_can_be_shown(tmp_path, monkeypatch):
    nic = live("mlx5", mode="switchdev", vfs=2)
    with nic.open(tmp_path) as opened:

        def fails(placement):
            raise KernelError("nobody knows")

        monkeypatch.setattr(opened._driver, "equivalents", fails)
        *_, step = opened.plan(DesiredState(flows=(to_vf(0),))).steps
    assert step.equivalents == ("# no command can be shown: nobody knows",)


def test_vfs_are_made_anew_for_a_mode_that_changes_only_without_them(tmp_path):
    nic = live("ice", mode="legacy", vfs=2)
    with nic.open(tmp_path) as opened:
        wanted = DesiredState(flows=(to_vf(1),))
        plan = opened.plan(wanted)
        assert [step.action for step in plan.steps] == [
            "set_vf_count",
            "enable_table",
            "set_vf_count",
            "enable_table",
            "add_flow",
        ]
        assert plan.disruption is Disruption.LINK_FLAP
        assert plan.steps[0].disruption is Disruption.VF_RESET
        lines = [line for step in plan.steps for line in step.equivalents]
        assert lines[:4] == [
            "echo 0 > /sys/bus/pci/devices/0000:03:00.0/sriov_numvfs",
            "devlink dev eswitch set pci/0000:03:00.0 mode switchdev",
            "ethtool -K eth0 hw-tc-offload on",
            "echo 2 > /sys/bus/pci/devices/0000:03:00.0/sriov_numvfs",
        ]
        assert "ethtool -K $REP_VF1 hw-tc-offload on" in lines
        opened.apply(plan)
        assert opened.plan(wanted).steps == ()
        assert nic.hardware.mode == "switchdev"


@pytest.mark.parametrize(("family", "vfs"), [("ice", 2), ("mlx5", 2)])
def test_a_mode_is_not_changed_under_a_vf_that_somebody_holds(family, vfs, tmp_path):
    nic = live(family, mode="legacy", vfs=vfs)
    with nic.open(tmp_path) as opened:
        lease = opened.lease_vf("alice", ttl_s=60, vf=1)
        plan = opened.plan(DesiredState(flows=(to_vf(0),)))
        with pytest.raises(ConflictError, match="alice"):
            opened.apply(plan)
        assert nic.hardware.mode == "legacy"
        opened.apply(plan, force=True)
        assert nic.hardware.mode == "switchdev"
        # Where the VFs were made anew nobody holds them any more.
        assert opened.leases() == (() if family == "ice" else (lease,))


@pytest.mark.parametrize("family", ["ice", "mlx5", "sfc_ef100"])
def test_rules_of_a_vf_outlive_a_change_of_the_number_of_vfs(family, tmp_path):
    nic = live(family, vfs=2, mode="" if family == "sfc_ef100" else "switchdev")
    with nic.open(tmp_path) as opened:
        opened.apply(opened.plan(DesiredState(flows=(from_vf(0), to_vf(1)))))
        before = seen(nic)
        opened.set_vf_count(3)
        mode, vfs, rules = seen(nic)
        assert (mode, len(vfs), rules) == (before[0], 3, before[2])
        assert opened.check(from_vf(2, port=81)).table.startswith("flower")


def test_a_failed_change_of_the_number_of_vfs_loses_no_rule(tmp_path):
    nic = live("ice", vfs=2, mode="switchdev")
    with nic.open(tmp_path) as opened:
        opened.apply(opened.plan(DesiredState(flows=(from_vf(0), to_vf(1)))))
    before = seen(nic)
    strike = Strike()
    with struck(nic, tmp_path, strike) as opened:
        strike._at = 3  # the rules are gone, the VFs are made, the table is on, and the rules do not come
        with pytest.raises(KernelError) as info:
            opened.set_vf_count(3)
        assert strike.calls[:4] == ["destroy_many", "set_count", "enable_table", "create_many"]
        assert "table flower_switchdev stays enabled" in info.value.__notes__
    assert seen(nic) == before


LONG = [
    ("ice", "legacy", 0),
    ("ice", "legacy", 2),
    ("ice", "switchdev", 2),
    ("mlx5", "legacy", 2),
    ("sfc_ef100", "", 2),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kills", [False, True], ids=["fails", "dies"])
@pytest.mark.parametrize(("family", "mode", "vfs"), LONG)
def test_a_change_that_is_cut_off_anywhere_leaves_the_old_state_or_the_new_one(
    family, mode, vfs, kills, after, tmp_path
):
    for number in itertools.count():
        nic = live(family, mode=mode, vfs=vfs)
        folder = tmp_path / str(number)
        kept = (from_vf(1, port=7),) if mode != "legacy" else ()
        with nic.open(folder) as opened:
            opened.apply(opened.plan(DesiredState(flows=kept)))
        old = seen(nic)
        strike = Strike()
        opened = struck(nic, folder, strike)
        plan = opened.plan(full_state(nic, count=3))
        strike._at, strike._after, strike._kills = len(strike.calls) + number, after, kills
        try:
            with contextlib.suppress(Killed if kills else KernelError):
                opened.apply(plan)
                assert number >= len({step.action for step in plan.steps})
                break
        finally:
            opened.close()
        with nic.open(folder) as opened:
            assert opened.recovery.problems == ()
            assert opened.recovery.missing == ()
        if seen(nic) != old:
            assert kills, strike.calls
            with nic.open(folder) as opened:
                assert opened.plan(plan.desired).steps == (), strike.calls


def test_leases_that_are_forced_end_also_when_the_process_dies(tmp_path):
    nic = live("mlx5", vfs=2)
    with nic.open(tmp_path) as opened:
        opened.lease_vf("alice", ttl_s=10_000, vf=0)
    strike = Strike()
    opened = struck(nic, tmp_path, strike)
    strike._at, strike._after, strike._kills = 0, True, True
    with pytest.raises(Killed):
        opened.set_vf_count(3, force=True)
    opened.close()
    with nic.open(tmp_path) as opened:
        assert opened.leases() == ()


def test_leases_go_on_where_the_driver_took_no_vf_away(tmp_path):
    nic = live("mlx5", vfs=2)
    strike = Strike()
    with struck(nic, tmp_path, strike) as opened:
        lease = opened.lease_vf("alice", ttl_s=10_000, vf=0)
        strike._at = len(strike.calls)
        with pytest.raises(KernelError):
            opened.set_vf_count(3, force=True)
        assert opened.leases() == (lease,)


def test_the_mode_is_set_back_when_what_comes_after_fails(tmp_path):
    nic = live("mlx5", mode="legacy", vfs=2)
    strike = Strike()
    with struck(nic, tmp_path, strike) as opened:
        strike._at = 1
        with pytest.raises(KernelError) as info:
            opened.apply(opened.plan(DesiredState(flows=(to_vf(0),))))
        assert strike.calls[:3] == ["enable_table", "create_many", "set_mode"]
        assert info.value.__notes__ == ["hw-tc-offload may stay on"]
        assert nic.hardware.mode == "legacy"
        opened.configure_vfs([VfConfig(vf=0, trust=True)])
