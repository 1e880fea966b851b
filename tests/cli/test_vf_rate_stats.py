"""`nicoffload vf`, `rate`, `stats`, `capabilities`."""

from __future__ import annotations

import re

import pytest


def test_list_and_set(cli):
    nic = cli.nic("ixgbe")
    assert cli.ok("vf", "list", nic).startswith("8 of 63 VFs\n")
    row = cli.ok(
        "vf", "set", nic, "vf:1", "--mac", "02:00:00:00:00:01", "--vlan", "100/3", "--spoof-check", "off"
    )
    assert "02:00:00:00:00:01  100/3  off" in row
    state = cli.json("vf", "list", nic)["vfs"][1]
    assert (state["mac"], state["vlan"]["vid"], state["spoof_check"]) == ("02:00:00:00:00:01", 100, False)
    assert cli.json("vf", "set", nic, "1", "--trust", "on", "--vlan", "none")["vf"]["trust"] is True
    assert "none" in cli.ok("vf", "list", nic)


def test_create(cli):
    nic = cli.nic("ixgbe")
    assert "has 4 VFs" in cli.ok("vf", "create", nic, "4")
    assert len(cli.json("vf", "create", nic, "2")["vfs"]) == 2
    assert cli.ok("vf", "create", nic, "0").startswith(nic)
    assert cli.ok("vf", "list", nic) == "0 of 63 VFs\n"


def test_a_lease_has_an_owner_and_an_epoch(cli):
    nic = cli.nic("ixgbe")
    lease = cli.json("vf", "lease", nic, "vm-web", "--vf", "3", "--ttl", "10m")["lease"]
    assert (lease["vf"], lease["owner"]) == (3, "vm-web")
    taken = cli("vf", "lease", nic, "vm-db", "--vf", "3")
    assert taken.code == 5
    assert "already there: vm-web" in taken.err
    assert "vm-web" in cli.ok("vf", "list", nic)
    renewed = cli.json(
        "vf", "lease", nic, "vm-web", "--vf", "3", "--ttl", "1h", "--renew", str(lease["epoch"])
    )["lease"]
    assert renewed["epoch"] == lease["epoch"]
    assert renewed["expires_at_s"] > lease["expires_at_s"]
    refused = cli("vf", "create", nic, "0")
    assert refused.code == 5
    assert "vm-web" in refused.err
    late = cli.json("vf", "release", nic, "vf:3", "--epoch", str(lease["epoch"] - 1), code=5)
    assert late["released"] is False
    assert late["detail"]
    assert cli.ok("vf", "release", nic, "vf:3", "--epoch", str(lease["epoch"])) == "vf:3 is free.\n"
    again = cli.json("vf", "release", nic, "vf:3", "--epoch", str(lease["epoch"]), code=5)
    assert again["released"] is False


def test_the_command_that_gives_a_lease_back_is_printed_and_works(cli):
    nic = cli.nic("ixgbe")
    out = cli.ok("vf", "lease", nic, "vm-web")
    printed = re.search(r"nicoffload (vf release .*)", out)[1]
    assert "is free" in cli.ok(*printed.split())


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (("vf", "set", "NIC", "vf:99", "--trust", "on"), "99", 4),
        (("vf", "set", "NIC", "vf:9999", "--trust", "on"), "0 to 4095", 2),
        (("vf", "set", "NIC", "vf:x", "--trust", "on"), "write vf:0 or 0", 2),
        (("vf", "set", "NIC", "vf:0"), "no setting is given", 2),
        (("vf", "set", "NIC", "vf:0", "--mac", "02:00"), "--mac: '02:00' is no MAC address", 2),
        (("vf", "set", "NIC", "vf:0", "--mac", "01:00:00:00:00:00"), "multicast", 2),
        (("vf", "set", "NIC", "vf:0", "--vlan", "x"), "100@802.1ad or none", 2),
        (("vf", "set", "NIC", "vf:0", "--vlan", "4096"), "0 to 4095", 2),
        (("vf", "set", "NIC", "vf:0", "--vlan", "5@802.1x"), "802.1ad", 2),
        (("vf", "create", "NIC", "64"), "64", 2),
        (("vf", "create", "NIC", "-1"), "-1", 2),
        (("vf", "create", "NIC", "x"), "invalid int", 2),
        (("vf", "lease", "NIC", "vm", "--ttl", "0"), "30s, 10m, 1h or 7d", 2),
        (("vf", "lease", "NIC", "vm", "--renew", "1"), "--renew needs --vf", 2),
        (("vf", "lease", "NIC", "vm", "--vf", "99"), "99", 4),
    ],
)
def test_a_wrong_request_is_told(cli, words, says, code):
    answer = cli(*[cli.nic("ixgbe") if word == "NIC" else word for word in words])
    assert says in answer.err
    assert answer.code == code


def test_a_bound_that_is_not_named_is_kept(cli):
    nic = cli.nic("mlx5")
    assert "max 100M" in cli.ok("rate", "set", nic, "vf:0", "--max", "100M")
    assert "min 10M, max 100M" in cli.ok("rate", "set", nic, "vf:0", "--min", "10M")
    limit = cli.json("rate", "set", nic, "vf:0", "--max", "none")["rates"][0]["read_back"]
    assert limit == {"min_tx_bps": 10_000_000, "max_tx_bps": None}
    assert "min 10M, max none" in cli.ok("rate", "show", nic)
    assert len(cli.json("rate", "show", nic)["rates"]) == 8


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (("vf:0", "--max", "0"), "0 means no traffic to one driver", 2),
        (("vf:0", "--max", "-1"), "not negative", 2),
        (("vf:0", "--max=-1"), "not negative", 2),
        (("vf:0", "--max", "10T"), "1600000000000", 2),
        (("vf:0", "--min", "10TB"), "bits, not bytes", 2),
        (("vf:0", "--min", "2G", "--max", "1G"), "exceeds the limit", 2),
        (("vf:0",), "no rate is given", 2),
        (("vf:99", "--max", "1G"), "99", 4),
    ],
)
def test_a_wrong_rate_is_told(cli, words, says, code):
    answer = cli("rate", "set", cli.nic("mlx5"), *words)
    assert says in answer.err
    assert answer.code == code


def test_a_rate_that_the_nic_lacks_names_the_reason(cli):
    answer = cli("rate", "set", cli.nic("ixgbe"), "vf:0", "--min", "10M")
    assert answer.code == 3
    assert "  - " in answer.err


def test_absent_counters_are_a_dash_and_null(cli):
    assert "-" in cli.ok("stats", "mock:mlx5")
    uplink = cli.json("stats", "mock:mlx5")["counters"][0]
    assert (uplink["name"], uplink["rx_packets"], uplink["rx_dropped"]) == ("uplink", 0, None)


@pytest.mark.parametrize("family", ["ixgbe", "mlx5", "sfn5122f", "sfc_falcon", "igb_i350"])
def test_capabilities(cli, family):
    document = cli.json("capabilities", f"mock:{family}")
    assert document["device"]["family"] == family
    assert {row["support"] for row in document["capabilities"]} >= {"yes"}
    out = cli.ok("capabilities", f"mock:{family}", "--sources")
    assert "source" in out
    assert "evidence" in out


def test_what_the_emulator_assumes_is_a_list_below_the_table(cli):
    out = cli.ok("capabilities", "mock:ixgbe")
    assert "\nassumed by the emulator:\n  - tables of one NIC" in out
    assert max(len(line) for line in out.splitlines() if line.startswith("emulator")) < 100
