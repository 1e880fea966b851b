"""`nicoffload plan` and `apply`."""

from __future__ import annotations

import pytest

STATE = """\
vf_count: 4
vfs:
  - {vf: 0, mac: "02:00:00:00:00:01"}
rates:
  - {vf: 0, max_tx_bps: 100M}
flows:
  - tcp,nw_dst=10.0.0.5,tp_dst=443 actions=vf:0
  - match: {eth_type: 0x800, ip_proto: 17, ipv4_dst: 10.0.0.6}
    actions: [{type: vf, vf: 1}]
exact: true
"""


@pytest.fixture
def desired(cli):
    path = cli.folder / "desired.yaml"
    path.write_text(STATE)
    return str(path)


def test_a_plan_changes_nothing_and_shows_the_disruption(cli, desired):
    nic = cli.nic("mlx5")
    out = cli.ok("plan", nic, "--file", desired)
    assert "+  add_flow" in out
    assert "~  set_vf_count" in out
    assert "disruption vf_reset" in out
    assert cli.ok("apply", nic, "--file", desired, "--dry-run") == out
    assert cli.json("flow", "list", nic)["rules"] == []


def test_the_second_apply_finds_nothing_to_do(cli, desired):
    nic = cli.nic("mlx5")
    assert "Done: " in cli.ok("apply", nic, "--file", desired, "--yes")
    assert cli.ok("apply", nic, "--file", desired, "--yes") == "Nothing to do.\n"
    assert cli.json("plan", nic, "--file", desired)["steps"] == []
    assert len(cli.json("flow", "list", nic)["rules"]) == 2
    assert len(cli.json("vf", "list", nic)["vfs"]) == 4


def test_exact_removes_what_is_not_named_and_a_bound_is_kept(cli, desired):
    nic = cli.nic("mlx5")
    cli.ok("flow", "add", nic, "udp,tp_dst=53 actions=vf:3")
    cli.ok("rate", "set", nic, "vf:0", "--min", "10M")
    (cli.folder / "desired.yaml").write_text("rates: [{vf: 0, max_tx_bps: 1G}]\nflows: []\nexact: true\n")
    plan = cli.json("plan", nic, "--file", desired)
    assert {step["action"] for step in plan["steps"]} == {"remove_flow", "set_rate"}
    assert cli.json("apply", nic, "--file", desired, "--yes")["applied"] is True
    assert cli.json("rate", "show", nic)["rates"][0]["read_back"] == {
        "min_tx_bps": 10**7,
        "max_tx_bps": 10**9,
    }


def test_nothing_is_done_without_being_asked(cli, desired):
    nic = cli.nic("mlx5")
    answer = cli("apply", nic, "--file", desired)
    assert answer.code == 2
    assert "--yes" in answer.err
    assert cli("apply", nic, "--file", desired, "--json").code == 2
    assert cli.json("flow", "list", nic)["rules"] == []


@pytest.mark.parametrize(("answered", "rules"), [("y\n", 2), ("n\n", 0), ("\n", 0)])
def test_a_person_is_asked(cli, desired, monkeypatch, answered, rules):
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    nic = cli.nic("mlx5")
    monkeypatch.setattr(sys, "stdin", Terminal(answered))
    answer = cli("apply", nic, "--file", desired)
    assert "[y/N]" in answer.err
    assert answer.code == (0 if rules else 1)
    assert len(cli.json("flow", "list", nic)["rules"]) == rules


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds nothing"),
        ("vf_count: [1\n", "desired.yaml: line 2, column 1"),
        ("vf_count: 1\nvf_count: 2\n", "line 2, column 1: the key vf_count is given twice"),
        ("vf_cuont: 1\n", "did you mean vf_count?"),
        ("{}", "too short"),
        ("- 1\n", "not an object"),
        ("vf_count: -1\n", "below 0"),
        ("vf_count: 100\n", "64"),
        ("vfs: [{vf: 0}]\n", "too short"),
        ("vfs: [{vf: 0, trust: yes}]\n", "true or false"),
        (
            "vfs: [{vf: 0, trust: true}, {vf: 0, trust: false}]\n",
            "/vfs/1/vf: desired.yaml: vf 0 is named in /vfs/0 too",
        ),
        ("vfs: [{vf: 99, trust: true}]\n", "99"),
        ("rates: [{vf: 0, max_tx_bps: 0}]\n", "/rates/0/max_tx_bps"),
        ("rates: [{vf: 0, max_tx_bps: -1}]\n", "/rates/0/max_tx_bps"),
        ("rates: [{vf: 0, max_tx_bps: 10T}]\n", "/rates/0/max_tx_bps"),
        ("rates: [{vf: 0, max_tx_bps: x}]\n", "/rates/0/max_tx_bps"),
        ("rates: [{vf: 99, max_tx_bps: 1G}]\n", "99"),
        ("flows: [tcp actions=drpo]\n", "/flows/0/actions/0: desired.yaml: no action is called 'drpo'"),
        ("flows: [{actions: [{type: drpo}]}]\n", "did you mean drop?"),
        ("flows: [tcp actions=pf, 'tcp actions=pf']\n", "/flows/1: desired.yaml: is the same as /flows/0"),
        ("flows: [{match: {tp_dst: 80}, actions: [{type: pf}]}]\n", "/flows/0/match/tp_dst"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(cli, desired, monkeypatch, text, says):
    (cli.folder / "desired.yaml").write_text(text)
    monkeypatch.chdir(cli.folder)
    answer = cli("plan", cli.nic("mlx5"), "--file", "desired.yaml")
    assert says in answer.err
    assert "desired.yaml" in answer.err or "mock:" in answer.err
    assert answer.code in (2, 4)
    assert answer.out == ""


def test_no_such_file(cli):
    assert cli("plan", "mock:mlx5", "--file", "none.yaml").code == 4


def test_every_rule_of_a_file_that_is_wrong_is_told_at_once(cli):
    path = cli.folder / "wrong.yaml"
    drop = "tcp,tp_dst=80 actions=drop"
    path.write_text(f"flows:\n  - {drop}\n  - tcp,nw_dts=1 actions=drop\n  - {drop}\n  - tcp actions=vf\n")
    answer = cli("plan", "mock:mlx5", "--file", str(path))
    assert answer.code == 2
    assert "3 faults" in answer.err
    for said in ("/flows/1/match: ", "/flows/2: is the same as /flows/0", "/flows/3/actions/0: "):
        assert said in answer.err
