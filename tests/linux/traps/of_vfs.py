"""Traps of VFs, their rates, the modes of the switch, and of counters."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

from nicoffload.driver import RuleRef
from nicoffload.errors import (
    ConflictError,
    DeviceBusyError,
    NicOffloadError,
    NotSupportedError,
    VerificationError,
)
from nicoffload.kernel.devlink import Devlink, Handle, RateNode
from nicoffload.model import LinkState, RateLimit, ToVf, VfConfig, VlanTag
from nicoffload.testing.emulator.counters import PORT_VALUES
from tests.linux.plugged import PROFILES, live
from tests.linux.traps import replaced, trap, without_fact

TCP = {"eth_type": 0x0800, "ip_proto": 6}
GBIT = 1_000_000_000
FUNCTIONS = "nicoffload.linux.functions.LinuxFunctions"
RATES = "nicoffload.linux.rates.LinuxRates"


# ------------------------------------------------------------------------------------------------------- making VFs


@trap(
    "sfc_siena",
    does="A write to sriov_numvfs succeeds and makes no VF: they come with a parameter of the module.",
    instead="The number is read back; the error has both numbers and the parameter.",
    by="nicoffload.kernel.sriov.Sriov",
    off=replaced("nicoffload.kernel.sriov.Sriov._verify", lambda self, what, expected, actual: None),
)
def sriov_numvfs_does_nothing():
    nic = live("sfc_siena", vfs=0)
    with pytest.raises(VerificationError) as told:
        nic.driver.virtual_functions.set_count(4)
    assert (told.value.expected, told.value.actual) == ("4", "0")
    assert "max_vfs" in told.value.hint


@trap(
    "mlx4",
    does="A write to sriov_numvfs is ENOENT, as if the NIC were not there: VFs come with a parameter of the module.",
    instead="Making VFs is not supported, and the error names the parameter.",
    by="nicoffload.linux.makers.PciMaker",
    off=replaced("nicoffload.linux.makers.PciMaker._not_made_here", lambda self, refusal: refusal),
)
def sriov_numvfs_is_not_there():
    with pytest.raises(NotSupportedError) as told:
        live("mlx4", vfs=4).driver.virtual_functions.set_count(2)
    assert "num_vfs" in told.value.hint
    assert told.value.reasons[0].code == "vf.module_param"


# ---------------------------------------------------------------------------------------------------------- settings


@trap(
    "ixgbe",
    does="link_state enable succeeds and is not done.",
    instead="Refused before the driver is asked, with the states that work.",
    by=f"{FUNCTIONS}._obstacle",
    off=replaced(f"{FUNCTIONS}._obstacle", lambda self, config, there: None),
)
def link_state_enable_does_nothing():
    functions = live("ixgbe", vfs=2).driver.virtual_functions
    [answer] = functions.configure_many([VfConfig(vf=0, link_state=LinkState.ENABLE)])
    assert isinstance(answer, NotSupportedError)
    assert functions.configure_many([VfConfig(vf=0, link_state=LinkState.DISABLE)]) == [None]


def _retried(family, rate):
    nic = live(family, vfs=2, link_bps=10 * GBIT, **({"mode": "legacy"} if family == "ice" else {}))
    nic.hardware.sriov.reset(0)
    assert nic.driver.virtual_functions.configure_many([VfConfig(vf=0, trust=True)]) == [None]
    nic.hardware.sriov.reset(1)
    assert not isinstance(nic.driver.rates.set_many({1: rate})[1], NicOffloadError)


def _no_patience(monkeypatch):
    monkeypatch.setattr("nicoffload.linux.functions.BUSY_TIMEOUT_S", 0.0)
    monkeypatch.setattr("nicoffload.linux.rates.BUSY_TIMEOUT_S", 0.0)


@trap(
    "i40e",
    does="Every setting of a VF is EAGAIN while the VF resets.",
    instead="Asked again, for two seconds at most.",
    by=f"{FUNCTIONS}._apply, {RATES}._send",
    off=_no_patience,
)
def vf_that_resets_is_busy_i40e():
    _retried("i40e", RateLimit(max_tx_bps=100_000_000))


@trap(
    "ice",
    does="Every setting of a VF is EBUSY while the VF resets.",
    instead="Asked again, for two seconds at most.",
    by=f"{FUNCTIONS}._apply, {RATES}._send",
    off=_no_patience,
)
def vf_that_resets_is_busy_ice():
    _retried("ice", RateLimit(max_tx_bps=100_000_000))


@trap(
    "i40e",
    does="A VF can be EAGAIN for ever.",
    instead="After two seconds it is told as busy.",
    by=f"{FUNCTIONS}._apply",
    off=replaced("nicoffload.linux.functions.BUSY_TIMEOUT_S", 20.0),
)
def asking_again_ends():
    fault = {"effect": {"kind": "answer", "operation": "vf_set", "errno": "EAGAIN"}}
    nic = live("i40e", vfs=2, faults=[fault])
    before_s = nic.kernel.monotonic_s()
    [answer] = nic.driver.virtual_functions.configure_many([VfConfig(vf=0, trust=True)])
    assert isinstance(answer, DeviceBusyError)
    assert nic.kernel.monotonic_s() - before_s < 10


@trap(
    "mlx4",
    does="Linux reports a value of its own for a setting that the driver does not have.",
    instead="Such a setting is none, not off.",
    by="nicoffload.linux.functions",
    off=replaced("nicoffload.linux.functions._reported", lambda setting, value: False),
)
def setting_that_is_not_there_is_reported():
    [state] = live("mlx4", vfs=1).driver.virtual_functions.states()
    assert state.trust is None


# ------------------------------------------------------------------------------------------------------------- rates


@trap(
    "i40e",
    does="A rate is cut to credits of 50 Mbit/s, and reads back as it was asked for.",
    instead="What is applied is told beside what was asked for and what is read, to other processes too.",
    by=f"{RATES}._applied",
    off=replaced(f"{RATES}._applied", lambda self, bps, facts: bps),
)
def rate_is_cut_to_credits():
    nic = live("i40e", vfs=2)
    report = nic.driver.rates.set_many({0: RateLimit(max_tx_bps=99_000_000)})[0]
    assert report.applied == RateLimit(max_tx_bps=50_000_000)
    assert report.read_back == report.requested == RateLimit(max_tx_bps=99_000_000)
    assert nic.hardware.sriov.vfs[0].max_tx.applied == 50_000_000
    low = nic.driver.rates.set_many({1: RateLimit(max_tx_bps=3_000_000)})[1]
    assert low.applied == RateLimit(max_tx_bps=50_000_000)


def _link(nic, bps):
    """Let the link be of another speed, and the kernel tell of it."""
    nic.hardware.set_link(bps)
    for watcher in nic.kernel.world.watchers():
        watcher.netdev_changed(nic.nic.pf)


def _kept(family, speed_bps, other_bps):
    nic = live(family, vfs=2, link_bps=speed_bps, prepared=True)
    limit = RateLimit(max_tx_bps=50_000_000)
    upkeep = nic.driver.upkeep
    assert upkeep is not None
    with contextlib.closing(nic.driver):
        assert not isinstance(nic.driver.rates.set_many({1: limit})[1], NicOffloadError)
        upkeep.wait(0)
        assert not upkeep.wait(0)
        _link(nic, other_bps)
        _link(nic, speed_bps)
        assert upkeep.wait(0)
        upkeep.mend()
        assert nic.driver.rates.read()[1].read_back == limit


@trap(
    "igb_82576",
    does="The rates of all VFs are dropped when the speed of the link changes.",
    instead="Set again on the event of the link.",
    by="nicoffload.linux.upkeep.RateUpkeep",
    off=replaced("nicoffload.linux.upkeep.RateUpkeep.mend", lambda self: ()),
)
def rates_go_with_the_link_igb():
    _kept("igb_82576", GBIT, GBIT // 10)


@trap(
    "ixgbe",
    does="The rates of all VFs are dropped when the speed of the link changes.",
    instead="Set again on the event of the link.",
    by="nicoffload.linux.upkeep.RateUpkeep",
    off=replaced("nicoffload.linux.upkeep.RateUpkeep.mend", lambda self: ()),
)
def rates_go_with_the_link_ixgbe():
    _kept("ixgbe", 10 * GBIT, GBIT)


@trap(
    "ice",
    does="Of a guarantee and a limit the guarantee is set first, and stays when the limit is refused.",
    instead="What the VF had is set again.",
    by=f"{RATES}._put_back",
    off=replaced(f"{RATES}._put_back", lambda self, leaves, vf, before, after: None),
)
def guarantee_stays_when_the_limit_is_refused_ice():
    nic = live("ice", vfs=2, mode="legacy", link_bps=10 * GBIT)
    old = RateLimit(min_tx_bps=100_000_000, max_tx_bps=200_000_000)
    assert not isinstance(nic.driver.rates.set_many({0: old})[0], NicOffloadError)
    refused = RateLimit(min_tx_bps=300_000_000, max_tx_bps=20 * GBIT)
    assert isinstance(nic.driver.rates.set_many({0: refused})[0], NicOffloadError)
    assert nic.driver.rates.read()[0].read_back == old


def _taken_back(mode):
    old, new = (RateLimit(min_tx_bps=bps, max_tx_bps=2 * bps) for bps in (100_000_000, 300_000_000))
    # Two are done for the old rates; of the new ones the guarantee is the third, and the limit the fourth.
    fault = {
        "when": {"operation": "rate_set", "call": 4},
        "effect": {"kind": "answer", "operation": "rate_set", "errno": "EIO"},
    }
    nic = live("mlx5", vfs=2, mode=mode, prepared=True, link_bps=10 * GBIT, faults=[fault])
    assert not isinstance(nic.driver.rates.set_many({0: old})[0], NicOffloadError)
    assert isinstance(nic.driver.rates.set_many({0: new})[0], NicOffloadError)
    assert nic.driver.rates.read()[0].read_back == old


@trap(
    "mlx5",
    does="Of a guarantee and a limit the guarantee is set first, and stays when the limit is refused.",
    instead="What the VF had is set again.",
    by=f"{RATES}._put_back",
    off=replaced(f"{RATES}._put_back", lambda self, leaves, vf, before, after: None),
)
def guarantee_stays_when_the_limit_is_refused_mlx5():
    _taken_back("legacy")


@trap(
    "mlx5",
    does="devlink sets tx_share, then tx_max, and leaves the first when the second is refused.",
    instead="What the VF had is set again.",
    by=f"{RATES}._put_back",
    off=replaced(f"{RATES}._put_back", lambda self, leaves, vf, before, after: None),
)
def devlink_leaves_what_it_set_before_a_refusal():
    _taken_back("switchdev")


@trap(
    "mlx4",
    does="A rate of a VF without a port VLAN is taken with success, limits nothing and reads back as none.",
    instead="None is told as applied, with the reason.",
    by=f"{RATES}._report",
    off=without_fact(
        "mlx4",
        lambda profile: dataclasses.replace(
            profile,
            rates=dataclasses.replace(
                profile.rates, max_tx=dataclasses.replace(profile.rates.max_tx, needs_port_vlan=False)
            ),
        ),
    ),
)
def rate_needs_a_port_vlan():
    nic = live("mlx4", vfs=2)
    report = nic.driver.rates.set_many({0: RateLimit(max_tx_bps=100_000_000)})[0]
    assert report.applied == RateLimit()
    assert "port VLAN" in report.note
    nic.driver.virtual_functions.configure_many([VfConfig(vf=1, vlan=VlanTag(vid=5))])
    assert nic.driver.rates.set_many({1: RateLimit(max_tx_bps=100_000_000)})[1].applied == RateLimit(
        max_tx_bps=100_000_000
    )


# ------------------------------------------------------------------------------------------------ modes of the switch


def _no_obstacles(monkeypatch):
    for module in ("modes", "flower"):
        monkeypatch.setattr(f"nicoffload.linux.{module}.obstacles", lambda nic, *, flows: iter(()))


def _mode_stays(nic, table, condition):
    state = nic.table(table)
    assert state.enable is None, "the change of mode is offered"
    assert f"eswitch.{condition}" in {reason.code for reason in state.blocked}
    before = nic.hardware.mode
    with pytest.raises(ConflictError):
        nic.driver.flow_filters.enable_table(table)
    assert nic.hardware.mode == before


_MODES = "nicoffload.linux.modes.obstacles"


@trap(
    "ice",
    does="The mode of the switch changes only without VFs; with some it is EOPNOTSUPP, as if there were no modes.",
    instead="A table that needs another mode says so beforehand, and the change is a conflict with the VFs.",
    by=_MODES,
    off=_no_obstacles,
)
def mode_changes_without_vfs_only():
    _mode_stays(live("ice", vfs=2), "flower_switchdev", "vfs_present")


@trap(
    "mlx5",
    does="The mode of the switch changes only without flow rules; with some it is EBUSY, as if that would pass.",
    instead="A table that needs another mode says so beforehand, and the change is a conflict with the rules.",
    by=_MODES,
    off=_no_obstacles,
)
def mode_changes_without_rules_only():
    nic = live("mlx5", prepared=True, vfs=2)
    nic.put("flower_fdb", ToVf(vf=1), flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    _mode_stays(nic, "flower_nic", "flows_present")


@trap(
    "mlx5",
    does="The mode of the switch does not change while devlink has rate nodes; it is EBUSY.",
    instead="A table that needs another mode says so beforehand, and the change is a conflict with the nodes.",
    by=_MODES,
    off=_no_obstacles,
)
def mode_changes_without_rate_nodes_only():
    nic = live("mlx5", prepared=True, vfs=2)
    with Devlink(nic.kernel) as devlink:
        devlink.create_node(Handle.of("pci/0000:03:00.0"), RateNode(name="g"))
    _mode_stays(nic, "flower_nic", "rate_nodes_present")


# ---------------------------------------------------------------------------------------------------------- counters


def _counting(profile):
    facts = PROFILES.get("mlx5").table("flower_fdb").counters
    tables = tuple(dataclasses.replace(table, counters=facts) for table in profile.tables)
    return dataclasses.replace(profile, tables=tables)


@trap(
    "ice",
    does="No rule of flower is counted, and tc shows 0 packets.",
    instead="Such a rule has no counter, which is not 0.",
    by="nicoffload.linux.flower.FlowerTables.count",
    off=without_fact("ice", _counting),
)
def rule_without_a_counter_reads_zero():
    nic = live("ice", prepared=True, vfs=4)
    if nic.table("flower_switchdev").enable is not None:
        nic.driver.flow_filters.enable_table("flower_switchdev")
    ref = nic.put("flower_switchdev", ToVf(vf=2), flow_type="tcp4", ipv4_dst="10.0.0.1", tp_dst=80, **TCP)
    assert isinstance(ref, RuleRef), ref
    assert not nic.driver.flow_filters.read_counters([ref]).valid.any()


def _counts_vfs(profile):
    return dataclasses.replace(
        profile,
        statistics=dataclasses.replace(profile.statistics, vf=PROFILES.get("mlx5").statistics.vf),
    )


@trap(
    "igb_i350",
    does="Linux says 0 for the counters of a VF whose driver counts nothing.",
    instead="Such a VF has no counters.",
    by="nicoffload.linux.statistics.LinuxStatistics._vfs",
    off=without_fact("igb_i350", _counts_vfs),
)
def vf_without_counters_reads_zero():
    assert [row.name for row in live("igb_i350", vfs=2).driver.statistics.read()] == ["uplink"]


@trap(
    "mlx4",
    does="A driver counts some values of a VF; Linux says 0 for the others.",
    instead="The others are none.",
    by="nicoffload.linux.statistics",
    off=replaced("nicoffload.linux.statistics._only", lambda stats, counters: stats),
)
def value_that_is_not_counted_reads_zero():
    rows = {row.name: row for row in live("mlx4", vfs=1).driver.statistics.read()}
    assert rows["vf:0"].rx_packets == 0
    assert rows["vf:0"].rx_dropped is None


def _by_representor(monkeypatch):
    """Let the only counters of a VF be those of its representor, as behind a driver without ndo_get_vf_stats."""
    without_fact(
        "mlx5",
        lambda profile: dataclasses.replace(
            profile, statistics=dataclasses.replace(profile.statistics, vf=None)
        ),
    )(monkeypatch)


@trap(
    "mlx5",
    does="A representor counts from the switch's side: what it received, its VF sent.",
    instead="The two are swapped, so that a VF's counters are the VF's.",
    by="nicoffload.linux.statistics.LinuxStatistics._row",
    off=replaced("nicoffload.linux.statistics._MIRRORED", {name: name for name in PORT_VALUES}),
)
def representor_counts_the_other_way_round():
    with pytest.MonkeyPatch.context() as monkeypatch:
        _by_representor(monkeypatch)
        nic = live("mlx5", prepared=True, vfs=2)
        row = nic.hardware.ports.values[2]
        row[PORT_VALUES.index("rx_packets")], row[PORT_VALUES.index("tx_packets")] = 7, 3
        rows = {each.name: each for each in nic.driver.statistics.read()}
    assert rows["vf:0"].facts.source == "nic:representor"
    assert (rows["vf:0"].rx_packets, rows["vf:0"].tx_packets) == (7, 3)


@trap(
    "sfc_ef100",
    does="A representor counts only what went through software, not what the NIC forwarded.",
    instead="Its counters are nobody's: the VF has none.",
    by="nicoffload.linux.statistics.LinuxStatistics._vfs",
    off=without_fact(
        "sfc_ef100",
        lambda profile: dataclasses.replace(
            profile,
            statistics=dataclasses.replace(
                profile.statistics,
                representor=dataclasses.replace(profile.statistics.representor, counts="all"),
            ),
        ),
    ),
)
def representor_counts_the_slow_path_only():
    nic = live("sfc_ef100", prepared=True, vfs=2)
    assert [row.name for row in nic.driver.statistics.read()] == ["uplink"]
