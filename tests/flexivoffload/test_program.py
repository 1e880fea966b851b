"""The program ``flexivoffload``: what it prints, that its JSON fits its schema, that a slip ends in a clear error."""

from __future__ import annotations

import json
import re

import pytest

from nicoffload.cli.flexiv import main
from nicoffload.flexivoffload.explain import explain, find_flow
from nicoffload.schema import find_faults

POLICY = """
version: 1
default: onload
rules:
  - {id: web, match: 'tcp,tp_dst=80', action: offload}
  - {id: no-ssh, match: 'tcp,tp_dst=22', action: onload}
"""


@pytest.fixture
def files(bench, tmp_path):
    """A capture, a policy and a list of VMs, as arguments."""
    path = bench.capture(bench.two_way(400))
    (tmp_path / "p.yaml").write_text(POLICY, "utf-8")
    vms = [{"name": "web", "vf": 0, "macs": ["02:00:00:00:01:00"], "ips": ["10.0.0.1"]}]
    (tmp_path / "vms.json").write_text(json.dumps({"vms": vms}), "utf-8")
    return [
        str(path),
        "--nic",
        "mock:sfn5122f",
        "--policy",
        str(tmp_path / "p.yaml"),
        "--vms",
        str(tmp_path / "vms.json"),
    ]


def test_json_fits_its_schema_and_adds_up(files, capsys):
    assert main(["replay", *files, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert find_faults(answer, "replay-report") == ()
    totals = answer["totals"]
    for what in ("packets", "bytes"):
        assert totals[what] == sum(totals[path][what] for path in ("offloaded", "onloaded", "skipped"))
    assert totals["packets"] == 400
    assert totals["offloaded"]["packets"] > 0


def test_tables_for_people(files, capsys):
    assert main(["replay", *files, "--top", "1"]) == 0
    shown = capsys.readouterr()
    assert re.search(r"^total +400 ", shown.out, re.MULTILINE)
    assert "the 1 largest of 8 flows" in shown.out
    assert re.search(r"replayed 400 packets in .* packets/s", shown.err)


def test_html_is_one_file_that_needs_nothing_else(files, capsys, tmp_path):
    target = tmp_path / "new" / "report.html"
    assert main(["replay", *files, "--html", str(target)]) == 0
    page = target.read_text("utf-8")
    assert page.count("<svg") == 4
    assert "400 packets" in page
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r'(src|href)="(?!#)|url\((?!#)|@import|https?://', without_names)


def test_html_of_a_capture_without_packets(bench, files, tmp_path):
    empty = bench.capture([], "empty.pcap")
    assert main(["replay", str(empty), *files[1:], "--html", str(tmp_path / "e.html")]) == 0
    assert "<svg" not in (tmp_path / "e.html").read_text("utf-8")


def test_why_tells_the_story_of_a_flow(files, capsys, tmp_path):
    asked = "tcp,nw_src=10.9.0.1,nw_dst=10.0.0.1,tp_dst=80"
    assert main(["why", *files, "--flow", asked]) == 0
    first = capsys.readouterr().out
    assert (
        "The policy wants it on the NIC from the first packet on (rule 'web'): 5-tuple rule in table rx_ip."
        in first
    )
    assert "It moved to the NIC" in first
    assert main(["replay", *files, "--json"]) == 0
    (tmp_path / "report.json").write_text(capsys.readouterr().out, "utf-8")
    assert main(["why", "--report", str(tmp_path / "report.json"), asked]) == 0
    assert capsys.readouterr().out == first
    assert main(["why", "--report", str(tmp_path / "report.json"), asked, "--json"]) == 0
    assert find_faults(json.loads(capsys.readouterr().out), "why") == ()


def test_why_names_what_the_nic_can_not_do(files, capsys):
    files[2] = "mock:sfc_siena"
    assert main(["why", *files, "--flow", "tcp,nw_src=10.9.0.1,tp_dst=80,nw_dst=10.0.0.1"]) == 0
    assert "This NIC can't hold a rule for it: 5-tuple:" in capsys.readouterr().out


def test_why_needs_one_flow(files, capsys):
    assert main(["why", *files, "--flow", "tcp,tp_dst=80"]) == 2
    assert "flows match" in capsys.readouterr().err
    assert main(["why", *files, "--flow", "tcp,tp_dst=81"]) == 4
    assert "no flow of the capture matches" in capsys.readouterr().err
    assert main(["why", files[0]]) == 2
    assert "missing" in capsys.readouterr().err


def test_every_code_that_a_replay_gives_has_a_sentence(files, capsys):
    from nicoffload.flexivoffload.explain import explain

    assert main(["replay", *files, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    for flow in answer["flows"]["listed"]:
        assert find_flow(answer, flow["flow"]) is flow
        for line in explain(flow, answer["start_ns"]):
            assert "{" not in line


def test_policy_check_shows_the_order_of_obedience(files, capsys, tmp_path):
    assert main(["policy", "check", files[4]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("1 deny")
    assert "no-ssh" in lines[1]
    assert main(["policy", "check", files[4], "--json"]) == 0
    assert find_faults(json.loads(capsys.readouterr().out), "policy-check") == ()
    (tmp_path / "bad.yaml").write_text("version: 1\nruls: []\n", "utf-8")
    assert main(["policy", "check", str(tmp_path / "bad.yaml")]) == 2
    assert "bad.yaml:2:1: /ruls" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"vms": [{"name": "a", "vf": 4000, "ips": ["10.0.0.1"]}]}, "VFs 0 to"),
        (
            {
                "vms": [
                    {"name": "a", "vf": 0, "ips": ["10.0.0.1"]},
                    {"name": "b", "vf": 0, "ips": ["10.0.0.2"]},
                ]
            },
            "VF 0",
        ),
        ({"vms": [{"name": "a", "vf": 0, "ips": ["10.0.0.x"]}]}, "no IP address"),
        ({"vms": [{"name": "a", "vf": 0, "mcas": []}]}, "did you mean macs?"),
        ({"vms": [{"name": "a", "vf": 0, "ips": ["10.0.0.1"], "max_tx": 0}]}, "0 means"),
        ({"vms": [{"name": "a", "vf": 0, "ips": ["10.0.0.1"], "max_tx": "10T"}]}, "max_tx"),
        ({"vms": [{"name": "a", "vf": 0, "ips": ["10.0.0.1"], "max_tx": -1}]}, "max_tx"),
    ],
)
def test_a_slip_in_the_list_of_vms(files, capsys, tmp_path, document, words):
    (tmp_path / "vms.json").write_text(json.dumps(document), "utf-8")
    assert main(["replay", *files]) == 2
    assert words in capsys.readouterr().err


def test_a_policy_that_names_no_vm(files, capsys, tmp_path):
    (tmp_path / "p.yaml").write_text("version: 1\nrules:\n  - {id: a, vm: wbe, action: onload}\n", "utf-8")
    assert main(["replay", *files]) == 2
    assert "there is no VM 'wbe'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"), [("[" * 100_000, "nested too deeply"), ('{"vms": [], "vms": []}', "twice")]
)
def test_a_list_of_vms_that_is_no_json(files, capsys, tmp_path, text, words):
    (tmp_path / "vms.json").write_text(text, "utf-8")
    assert main(["replay", *files]) == 2
    assert words in capsys.readouterr().err
    assert main(["why", "--report", str(tmp_path / "vms.json"), "tcp"]) == 2
    assert words in capsys.readouterr().err


def test_guessed_vms_are_told(files, capsys):
    assert main(["replay", *files[:5]]) == 0
    assert "stand for VMs" in capsys.readouterr().out


def test_what_is_no_capture(files, capsys, tmp_path):
    files[0] = str(tmp_path / "p.yaml")
    assert main(["replay", *files]) == 2
    assert "not a packet capture" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 4, 6])
def test_an_error_names_its_file_once(files, capsys, place):
    files[place] = "/nowhere/file"
    assert main(["replay", *files]) == 2
    assert capsys.readouterr().err.count("/nowhere/file") == 1


def test_rules_are_seen_in_a_capture_shorter_than_a_tick(bench, files, capsys):
    bench.capture(bench.two_way(40))
    assert main(["replay", *files, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["operations"]["adds"] > 0
    assert max(row["table_rows"] for row in answer["intervals"]["rows"]) > 0


def test_a_capture_of_loopback_says_why_nothing_stands_for_a_vm(bench, files, capsys):
    ends = {"src": "127.0.0.1", "dst": "127.0.0.1", "sport": 40_000, "dport": 80}
    path = bench.capture([bench.packet(time_ns=10**18 + number, **ends) for number in range(5)])
    assert main(["replay", str(path), *files[1:5]]) == 0
    assert "no destination can stand for a VM (loopback" in capsys.readouterr().out


def test_a_misspelt_key_of_a_vm_is_one_fault(files, capsys, tmp_path):
    (tmp_path / "vms.json").write_text('{"vms": [{"name": "a", "vf": 0, "ip": ["10.0.0.1"]}]}', "utf-8")
    assert main(["replay", *files]) == 2
    shown = capsys.readouterr().err
    assert "did you mean ips?" in shown
    assert "missing" not in shown


@pytest.mark.parametrize("more", ["", ', "ips": []'])
def test_a_vm_without_any_address(files, capsys, tmp_path, more):
    (tmp_path / "vms.json").write_text('{"vms": [{"name": "a", "vf": 0' + more + "}]}", "utf-8")
    assert main(["replay", *files]) == 2
    assert "VM 'a' has no address" in capsys.readouterr().err


def test_a_slip_in_the_asked_flow_is_shown_as_typed_and_before_the_work(files, capsys):
    assert main(["why", *files, "--flow", "tcp,nw_srcc=1.2.3.4"]) == 2
    shown = capsys.readouterr().err
    assert "did you mean nw_src?" in shown
    assert "actions" not in shown
    assert "replayed" not in shown


def test_an_option_of_another_command_names_the_right_help(files, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["replay", *files, "--report", "x"])
    assert ended.value.code == 2
    assert "flexivoffload replay --help" in capsys.readouterr().err


def test_steps_of_one_move_are_told_in_one_sentence():
    step = {"time_ns": 5, "code": "placement.idle", "policy_rule": ""}
    decisions = [
        {**step, "from": "offloaded", "to": "draining"},
        {**step, "from": "draining", "to": "onload"},
        {**step, "time_ns": 9, "from": "offloaded", "to": "draining"},
    ]
    count = {"packets": 0, "bytes": 0}
    flow = {"flow": "tcp", "vm": "a", "direction": "rx", "state": "onload", "first_s": 0.0, "last_s": 0.0}
    flow |= {"offloaded": count, "onloaded": count, "dropped": count, "counter_disagreements": 0}
    told = "\n".join(explain({**flow, "decisions": decisions, "decisions_left_out": 0}, 0))
    assert told.count("It left the NIC because") == 2
    assert "offloaded → draining → onload" in told
