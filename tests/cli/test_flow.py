"""`nicoffload flow`."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest

WEB = "tcp,nw_dst=10.0.0.5,tp_dst=443 actions=vf:2"
DNS = "udp,nw_dst=10.0.0.6,tp_dst=53 actions=vf:1"


def test_a_refused_rule_names_each_reason_and_what_could_be_held(cli):
    answer = cli("flow", "check", "mock:sfn5122f", "tcp,nw_src=10.0.0.0/8,tp_dst=80 actions=vf:1")
    assert answer.code == 3
    assert "- /match/ipv4_src: " in answer.out
    assert "accepted: " in answer.out
    assert "the driver would answer: EINVAL" in answer.out
    assert "source: " in answer.out
    assert "what this NIC could hold instead" in answer.out
    assert "all TCP to one nw_dst port 80, not only from 10.0.0.0/8" in answer.out


def test_a_target_that_the_nic_lacks_is_a_reason_of_its_own(cli):
    rule = "tcp,nw_src=10.0.0.0/8,tp_dst=80 actions=vf:1"
    assert "- /actions/0: " in cli("flow", "check", "mock:sfc_siena", rule).out
    assert "- /actions/0: " not in cli("flow", "check", "mock:sfn5122f", rule).out


def test_an_accepted_rule_has_its_table(cli):
    out = cli.ok("flow", "check", "mock:mlx5", "tcp,nw_src=10.0.0.0/8,tp_dst=80 actions=vf:1")
    assert "accepted: " in out
    assert "table flower_fdb, flow type tcp4" in out


@pytest.mark.parametrize(("family", "code"), [("mlx5", 0), ("sfn5122f", 3), ("sfc_siena", 3)])
def test_check_as_json(cli, family, code):
    rule = "tcp,nw_src=10.0.0.0/8,tp_dst=80 actions=vf:1"
    document = cli.json("flow", "check", f"mock:{family}", rule, DNS, code=code)
    assert document["answers"][0]["accepted"] is (code == 0)
    assert len(document["answers"]) == 2


def test_rules_are_checked_together_as_add_would_install_them(cli):
    same = f"{WEB[:-1]}1"
    checked = cli("flow", "check", "mock:sfn5122f", WEB, DNS, same)
    assert checked.code == 3
    assert cli("flow", "add", "mock:sfn5122f", WEB, DNS, same).code == 5
    assert [line for line in checked.out.splitlines() if line.startswith("refused: ")] == [f"refused: {same}"]
    assert re.findall(r"slot (\d+)", cli.ok("flow", "check", "mock:ixgbe", WEB, DNS)) == ["0", "1"]
    nic = cli.nic("ixgbe")
    assert cli.ok("flow", "check", nic, WEB) == cli.ok("flow", "check", nic, WEB)


def test_add_list_count_remove(cli):
    nic = cli.nic("mlx5")
    assert "flower_fdb" in cli.ok("flow", "add", nic, WEB, DNS)
    assert WEB in cli.ok("flow", "list", nic)
    assert DNS in cli.ok("flow", "stats", nic)
    assert WEB not in cli.ok("flow", "stats", nic, DNS)
    assert WEB in cli.ok("flow", "del", nic, WEB)
    rules = cli.json("flow", "list", nic)["rules"]
    assert [rule["text"] for rule in rules] == [DNS]
    assert rules[0]["ours"] is True
    cli.ok("flow", "del", nic, rules[0]["rule"]["rule_id"][:8])
    assert cli.ok("flow", "list", nic) == "No rules.\n"
    assert cli.ok("flow", "stats", nic) == "No rules of ours.\n"


def test_each_answer_as_json(cli):
    nic = cli.nic("mlx5")
    added = cli.json("flow", "add", nic, WEB)
    assert [done["text"] for done in added["installed"]] == [WEB]
    assert cli.json("flow", "stats", nic)["flows"][0]["packets"] == 0
    assert cli.json("flow", "del", nic, "--all")["flows"][0]["text"] == WEB
    assert cli.json("flow", "stats", nic)["flows"] == []


def test_a_dry_run_changes_nothing(cli):
    nic = cli.nic("mlx5")
    assert "accepted: " in cli.ok("flow", "add", nic, WEB, "--dry-run")
    assert cli.json("flow", "add", nic, WEB, "--dry-run")["steps"][0]["action"] == "add_flow"
    assert cli.json("flow", "list", nic)["rules"] == []
    assert cli("flow", "add", "mock:sfn5122f", "ip actions=vf:1", "--dry-run").code == 3


@pytest.mark.parametrize("verb", ["check", "add", "del"])
def test_a_rule_that_the_shell_has_cut_is_told_from_one_without_actions(cli, verb):
    cut = cli("flow", verb, "mock:mlx5", "tcp,tp_dst=80", "actions=vf:1")
    assert cut.code == 2
    assert 'hint: quote the rule: "tcp,tp_dst=80 actions=vf:1"' in cut.err


def test_explain_shows_the_place_and_installs(cli):
    nic = cli.nic("mlx5")
    out = cli.ok("flow", "add", nic, WEB, "--explain")
    assert "table flower_fdb, flow type tcp4" in out
    assert "an emulated NIC: no tc, ip or ethtool command does the same" in out
    assert len(cli.json("flow", "list", nic)["rules"]) == 1


def test_all_or_none_unless_best_effort(cli):
    nic = cli.nic("sfn5122f")
    bad = "tcp,nw_src=10.0.0.0/8 actions=vf:1"
    refused = cli("flow", "add", nic, WEB, bad)
    assert refused.code == 3
    assert refused.err.startswith(f"error: {nic}: ")
    assert refused.err.splitlines()[0].endswith(": the rule can't be held")
    assert refused.err.splitlines()[1].startswith("  - ")
    assert cli.json("flow", "list", nic)["rules"] == []
    kept = cli("flow", "add", nic, WEB, bad, "--best-effort")
    assert kept.code == 3
    assert WEB in kept.out
    assert "error: " in kept.err
    document = cli.json("flow", "add", nic, DNS, bad, "--best-effort", code=3)
    assert (len(document["installed"]), len(document["refused"])) == (1, 1)
    assert document["refused"][0]["error"]["reasons"]


def test_a_listing_can_be_added_again(cli):
    nic = cli.nic("mlx5")
    cli.ok("flow", "add", nic, WEB, DNS)
    before = cli.json("flow", "list", nic)
    saved = cli.folder / "rules.json"
    saved.write_text(json.dumps(before))
    cli.ok("flow", "del", nic, "--file", str(saved))
    cli.ok("flow", "add", nic, "--file", str(saved))
    assert cli.json("flow", "list", nic)["rules"] == before["rules"]


@pytest.mark.parametrize(
    "text",
    [
        f"# web and names\n\n{WEB}\n  {DNS}\n",
        json.dumps(
            [{"match": {"ip_proto": 6, "eth_type": "0x800"}, "actions": [{"type": "vf", "vf": 1}]}] * 2
        ),
        '{"actions": [{"type": "drop"}]}\n{"match": {"vlan_vid": 5}, "actions": [{"type": "drop"}]}\n',
    ],
)
def test_rules_come_from_a_file_in_each_form(cli, text, monkeypatch):
    path = cli.folder / "rules"
    path.write_text(text)
    assert len(cli.json("flow", "check", "mock:mlx5", "--file", str(path))["answers"]) == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert len(cli.json("flow", "check", "mock:mlx5", "--file", "-")["answers"]) == 2


ID = "11111111-2222-4333-8444-555555555555"


@pytest.mark.parametrize(
    ("content", "says", "code"),
    [
        ("", "holds nothing", 2),
        (" \n", "holds nothing", 2),
        ("# nothing\n", "no rule is given", 2),
        (
            f"{WEB}\ntcp,tp_dts=1 actions=pf\n",
            "rules.txt, line 2: no match field is called 'tp_dts' (column 5)",
            2,
        ),
        (f"id={ID},tcp actions=pf\nid={ID},udp actions=pf\n", "rules.txt, line 2 has the id of ", 2),
        ('[{"actions": [{"type": "drop"}],\n]', "rules.txt: line 2, column 1", 2),
        ('[{"actions": [{"tpye": "drop"}]}]', "'type' is missing", 2),
        ('{"actions": [{"type": "drop"}], "actions": []}', "given twice", 2),
        ('{"actions": [{"type": "drop"}], "matsch": {}}', "did you mean match?", 2),
        ("\xff\xfe".encode("latin-1"), "no UTF-8", 2),
        (None, "no such file", 4),
    ],
)
def test_a_wrong_file_is_told_with_its_place(cli, content, says, code):
    path = cli.folder / "rules.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    answer = cli("flow", "check", "mock:mlx5", "--file", str(path))
    assert answer.code == code
    assert says in answer.err
    assert answer.out == ""


def test_a_folder_is_no_file(cli):
    answer = cli("flow", "check", "mock:mlx5", "--file", str(cli.folder))
    assert answer.code == 2
    assert "is a folder" in answer.err


def test_the_place_in_a_line_is_pointed_at(cli):
    lines = cli("flow", "check", "mock:mlx5", "tcp,nw_dts=10.0.0.5 actions=vf:2").err.splitlines()
    assert lines == [
        "error: /match: no match field is called 'nw_dts' (column 5)",
        "  tcp,nw_dts=10.0.0.5 actions=vf:2",
        "      ^",
        "  hint: did you mean nw_dst?",
    ]


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (("flow", "check", "mock:sfn5122", WEB), "did you mean sfn5122f?", 4),
        (("flow", "check", "nonsuch0", WEB), "nicoffload devices", 4),
        (("flow", "check", "mock:mlx5"), "no rule is given", 2),
        (("flow", "check", "mock:mlx5", "tcp actions=vf:4095"), "vf:4095", 3),
        (("flow", "del", "mock:mlx5"), "no rule is given", 2),
        (("flow", "del", "mock:mlx5", "abcd1234"), "no rule of ours is abcd1234", 4),
        (("flow", "del", "mock:mlx5", WEB), "no rule of ours is", 4),
        (("flow", "stats", "mock:mlx5", "x"), "neither an id nor a rule", 2),
        (("flow", "chekc", "mock:mlx5"), "did you mean check?", 2),
    ],
)
def test_a_slip_is_told_with_its_cure(cli, words, says, code):
    answer = cli(*words)
    assert answer.code == code
    assert says in answer.err + answer.out


def test_a_vf_beyond_the_last_is_refused(cli):
    answer = cli("flow", "add", cli.nic("mlx5"), "tcp actions=vf:64")
    assert answer.code != 0
    assert "VF" in answer.err or "vf" in answer.err


def test_removing_what_is_not_there_can_be_fine(cli):
    assert cli("flow", "del", cli.nic("mlx5"), WEB, "--missing-ok").code == 0


def test_an_id_that_begins_two_rules_is_not_guessed(cli):
    nic = cli.nic("mlx5")
    cli.ok("flow", "add", nic, f"id=aaaa1111-2222-4333-8444-555555555555,{WEB}", f"id={ID},{DNS}")
    cli.ok("flow", "add", nic, "id=aaaa2222-2222-4333-8444-555555555555,arp actions=pf")
    answer = cli("flow", "del", nic, "aaaa")
    assert answer.code == 2
    assert "could be 2 rules" in answer.err


def test_an_error_as_json_goes_to_stderr(cli):
    answer = cli("flow", "check", "mock:mlx5", "tcp actions=drpo", "--json")
    assert answer.out == ""
    document = json.loads(answer.err)
    assert document["command"] == "error"
    assert document["error"]["column"] == 13
    assert document["error"]["hint"] == "did you mean drop?"
    assert document["error"]["exit_code"] == answer.code == 2
