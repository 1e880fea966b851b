"""`nicoffload doctor`."""

from __future__ import annotations

import sqlite3

import pytest

from nicoffload.cli import checks
from nicoffload.cli.checks import check_journal


def by_name(document):
    return {check["name"]: check for check in document["checks"]}


def test_a_sound_machine(cli):
    assert "plugin mock" in cli.ok("doctor")
    found = by_name(cli.json("doctor"))
    assert found["python"]["status"] == "ok"
    assert found["rich"]["status"] == "ok"
    assert found["plugin mock"]["status"] == "ok"
    assert found["state folder"]["status"] == "ok"


def test_a_machine_where_nothing_drives_a_live_nic_is_told(cli, monkeypatch):
    monkeypatch.setenv("NICOFFLOAD_PLUGINS", "mock")
    assert by_name(cli.json("doctor"))["live NICs"]["detail"] == "no plugin drives any here"


def test_a_plugin_that_failed_is_a_problem_with_its_cure(cli, monkeypatch):
    monkeypatch.setenv("NICOFFLOAD_PLUGINS", "mock,itnel")
    document = cli.json("doctor", code=1)
    assert document["ok"] is False
    assert by_name(document)["plugin itnel"]["status"] == "problem"
    assert by_name(document)["plugin itnel"]["cure"]


def test_no_plugin_is_a_problem(cli, monkeypatch):
    monkeypatch.setenv("NICOFFLOAD_PLUGINS", "")
    assert by_name(cli.json("doctor", code=1))["plugins"]["status"] == "problem"


def test_a_library_that_is_missing_is_a_problem_with_its_cure(cli, monkeypatch):
    monkeypatch.setattr(
        checks, "requires", lambda _: ["nonsuch>=1.2", "rich>=13", "jinja2; extra == 'report'"]
    )
    found = by_name(cli.json("doctor", code=1))
    assert found["nonsuch"]["cure"] == "pip install 'nonsuch>=1.2'"
    assert "jinja2" not in found


def test_a_state_folder_that_is_a_file_is_a_problem(cli):
    (cli.folder / "journal").write_text("")
    assert by_name(cli.json("doctor", code=1))["state folder"]["status"] == "problem"


@pytest.mark.parametrize(
    ("euid", "capabilities", "status"), [(0, "0", "ok"), (7, "1000", "ok"), (7, "0", "warning")]
)
def test_rights(cli, monkeypatch, euid, capabilities, status):
    monkeypatch.setattr(checks.os, "geteuid", lambda: euid)
    monkeypatch.setattr(checks.Path, "read_text", lambda *_: f"Name:\tx\nCapEff:\t{capabilities}\n")
    assert checks._rights().status == status


def test_a_journal_in_use_is_sound(cli):
    nic = cli.nic("mlx5")
    cli.ok("flow", "add", nic, "tcp actions=vf:1")
    cli.ok("vf", "lease", nic, "vm-web", "--ttl", "1s")
    path = cli.folder / "journal/journal.sqlite"
    assert [check.status for check in check_journal(path, now_s=0.0)] == ["ok"]
    late = list(check_journal(path, now_s=1e12))
    assert [check.status for check in late] == ["ok", "warning"]
    assert "vm-web held vf:0" in late[1].detail
    assert by_name(cli.json("doctor"))["journal"]["status"] == "ok"


def test_a_change_that_was_cut_off_is_told(cli):
    cli.ok("flow", "add", cli.nic("mlx5"), "tcp actions=vf:1")
    path = cli.folder / "journal/journal.sqlite"
    with sqlite3.connect(path) as journal:
        journal.execute("INSERT INTO changes (nic, title) VALUES ('x', 'add 3 rules')")
    journal.close()
    assert [check.status for check in check_journal(path, now_s=0.0)] == ["ok", "warning"]


@pytest.mark.parametrize("content", [b"", b"no journal", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_journal_is_a_problem(cli, content):
    path = cli.folder / "journal/journal.sqlite"
    path.parent.mkdir()
    path.write_bytes(content)
    checks_found = list(check_journal(path, now_s=0.0))
    assert [check.status for check in checks_found] == ["problem"]
    assert "put aside" in checks_found[0].cure
    assert path.read_bytes() == content
