"""Each command that changes a NIC shows, when asked, what it would do and the commands that would do the same."""

from __future__ import annotations

import pytest

from nicoffload import load_registry, registry
from nicoffload.testing import FakeKernel
from nicoffload.testing.emulator.config import Config

NIC = "0000:03:00.0"
RULE = "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.5,tp_dst=443 actions=vf:1"
ADD = "ethtool -N uplink0 flow-type tcp4 src-ip 10.0.0.1 dst-ip 10.0.0.5 dst-port 0x1bb vf 1 queue 0 loc 0"
REMOVE = "ethtool -N uplink0 delete 0"
CASES = (
    (("vf", "create", NIC, "4"), "echo 4 > /sys/bus/pci/devices/0000:03:00.0/sriov_numvfs"),
    (("vf", "set", NIC, "0", "--trust", "on"), "ip link set dev uplink0 vf 0 trust on"),
    (
        ("rate", "set", NIC, "1", "--max", "100M"),
        "ip link set dev uplink0 vf 1 min_tx_rate 0 max_tx_rate 100",
    ),
    (("flow", "add", NIC, RULE), ADD),
)


@pytest.fixture
def kernel(monkeypatch):
    """A fake kernel with an ixgbe, which the program takes for its own."""
    kernel = FakeKernel()
    plugins = load_registry(kernel=kernel)
    kernel.plug(
        plugins.profiles.get("ixgbe"), pci_address=NIC, ifname="uplink0", config=Config(prepared=True, vfs=2)
    )
    monkeypatch.setattr(registry, "load_registry", lambda: plugins)
    return kernel


def changes(kernel):
    """Return what was asked of the kernel that changes something, as far as it can be seen from outside."""
    found = [one for one in kernel.requests if one.kind == "write"]
    found += [one for one in kernel.requests if one.kind == "ethtool" and one.data[0] in {0x31, 0x32, 0x3B}]
    netlink = [one for one in kernel.requests if one.kind == "netlink" and one.target == "0"]
    return found + [one for one in netlink if one.data[4:6] not in {b"\x12\0", b"\x2e\0", b"\x26\0"}]


@pytest.mark.parametrize(("words", "command"), CASES)
def test_a_dry_run_changes_nothing_and_says_how_it_would_be_done(cli, kernel, words, command):
    kernel.requests.clear()
    said = cli.ok(*words, "--dry-run", "--explain")
    assert f"same as: {command}" in said.splitlines()
    assert changes(kernel) == []
    assert "same as: " not in cli.ok(*words, "--dry-run")


@pytest.mark.parametrize(("words", "command"), CASES[:3])
def test_explained_it_is_done_as_well(cli, kernel, words, command):
    assert f"same as: {command}" in cli.ok(*words, "--explain").splitlines()
    assert "same as: " not in cli.ok(*words, "--explain")  # it is as it should be
    plan = cli.json(*words, "--dry-run")
    assert (plan["command"], plan["steps"], plan["applied"]) == ("plan", [], False)


def test_a_rule_that_goes_is_explained_too(cli, kernel):
    cli.ok("flow", "add", NIC, RULE)
    said = cli.ok("flow", "del", NIC, RULE, "--dry-run", "--explain")
    assert "remove_flow" in said
    assert f"same as: {REMOVE}" in said.splitlines()
    (step,) = cli.json("flow", "del", NIC, "--all", "--dry-run")["steps"]
    assert step["equivalents"] == [REMOVE]
    assert len(cli.json("flow", "list", NIC, "--ours")["rules"]) == 1
    assert f"same as: {REMOVE}" in cli.ok("flow", "del", NIC, RULE, "--explain").splitlines()
    assert cli.json("flow", "list", NIC, "--ours")["rules"] == []
    assert cli.json("flow", "add", NIC, RULE, "--explain")["installed"]  # of JSON there is one document


def test_an_emulated_nic_has_no_such_commands(cli):
    said = cli.ok("vf", "create", "mock:ixgbe", "4", "--dry-run", "--explain")
    assert "no tc, ip or ethtool command does the same" in said
