"""The program as a whole: help, exit codes, pipes, interrupts, bugs, JSON, start-up."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from nicoffload import errors
from nicoffload.cli import output as output_module
from nicoffload.cli.arguments import EXIT_CODES
from nicoffload.cli.output import EXIT_BROKEN_PIPE, EXIT_BUG, EXIT_INTERRUPTED, Output, run
from nicoffload.cli.report import error_lines, error_to_json
from nicoffload.schema import find_faults

PROGRAM = [sys.executable, "-m", "nicoffload.cli.main"]


def family(base):
    return [base, *(member for kind in base.__subclasses__() for member in family(kind))]


def test_every_exit_code_is_in_the_help(cli):
    codes = {int(code) for code in re.findall(r"(?:^|  )(\d+)  ", EXIT_CODES, re.MULTILINE)}
    ours = {kind.exit_code for kind in family(errors.NicOffloadError)}
    assert codes == {0, EXIT_BUG, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE} | ours
    assert EXIT_CODES in cli.ok("--help")


def test_version(cli):
    assert re.fullmatch(r"nicoffload \d+\.\d+\.\d+\S*\n", cli.ok("--version"))


def test_a_misspelt_command_gets_the_near_name(cli):
    answer = cli("devics")
    assert answer.code == 2
    assert "did you mean devices?" in answer.err


@pytest.mark.parametrize("words", [("--json", "profiles"), ("profiles", "--json")])
def test_common_options_stand_on_either_side(cli, words):
    assert json.loads(cli.ok(*words))["command"] == "profiles"


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_options_may_stand_between_nic_and_rules(cli, place):
    words = ["mock:mlx5", "tcp,tp_dst=1 actions=vf:0", "tcp,tp_dst=2 actions=vf:1"]
    words.insert(place, "--json")
    document = json.loads(cli.ok("flow", "check", *words))
    assert [answer["accepted"] for answer in document["answers"]] == [True, True]


def test_words_that_are_too_many_are_told(cli):
    answer = cli("flow", "list", "mock:mlx5", "--json", "surplus")
    assert answer.code == 2
    assert "surplus" in answer.err
    assert cli("flow", "check", "--no-such-option", "mock:mlx5", "tcp actions=drop").code == 2
    assert "NIC" in cli("flow", "check").err


@pytest.mark.parametrize(
    ("closed", "words", "code", "said"),
    [
        (">&-", "profiles", 0, ""),
        ("<&-", "flow check mock:mlx5 --file -", 2, "holds nothing"),
        (">/dev/full", "profiles", 1, "No space left on device"),
        (">/dev/full", "profiles --json", 1, "No space left on device"),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_bug_of_ours(closed, words, code, said):
    command = f"{sys.executable} -m nicoffload.cli.main {words} {closed}"
    done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)
    assert (done.returncode, "bug" in done.stderr) == (code, False), done.stderr
    assert said in done.stderr


def test_devices(cli):
    assert "mock:sfn5122f" in cli.ok("devices")
    document = cli.json("devices")
    assert all(device["emulated"] for device in document["devices"] if device["plugin"] == "mock")


def test_no_nic_at_all_is_no_error(cli, monkeypatch):
    monkeypatch.setenv("NICOFFLOAD_PLUGINS", "")
    assert "No NIC found" in cli.ok("devices")


def test_profiles(cli):
    assert "sfn5122f" in cli.ok("profiles")
    families = {profile["family"] for profile in cli.json("profiles")["profiles"]}
    assert families >= {"ixgbe", "mlx5", "sfc_siena", "sfn5122f"}
    assert "rx_ip" in cli.ok("profiles", "sfn5122f")
    for name in sorted(families):
        assert cli.json("profiles", name)["profile"]["family"] == name
        assert cli.ok("profiles", name).startswith(f"{name}: ")


def test_an_unknown_family_gets_the_near_name(cli):
    answer = cli("profiles", "ixgb")
    assert answer.code == 4
    assert "ixgbe" in answer.err


def test_plugins(cli, monkeypatch):
    assert "mock" in cli.ok("plugins")
    adds = {plugin["name"]: plugin["commands"] for plugin in cli.json("plugins")["plugins"]}
    assert adds["softnic"] == ["soft create", "soft destroy", "soft list"]
    assert adds["mock"] == []
    assert "soft create" in cli.ok("plugins")
    assert "`nicoffload plugins` lists" in cli.ok("--help")
    monkeypatch.setenv("NICOFFLOAD_PLUGINS", "mcok")
    answer = cli("plugins")
    assert answer.code == 0
    assert "failed" in answer.out
    assert "no plugin is called 'mcok'" in answer.err
    assert cli.json("plugins")["plugins"][0]["error"]["code"] == "plugin_load"


def test_an_error_shows_all_that_its_class_adds():
    faults = [
        errors.ConflictError("taken", existing="vm-1", hint="wait"),
        errors.ResourceExhaustedError("full", limit=10, in_use=9),
        errors.VerificationError("differs", expected="5", actual="4"),
        errors.RollbackError("failed", residue=["rule 1", "rule 2"]),
        errors.NotSupportedError(
            "can't: /x: one",
            capability="c",
            reasons=[errors.Reason(code="a", path="/x", message="one", source="f.c")] * 2,
        ),
        errors.from_errno(95, "min_tx was refused", capability="rates", kernel_message="no min_tx"),
    ]
    lines = ["\n".join(error_lines(fault)) for fault in faults]
    assert lines[0] == "error: taken\n  already there: vm-1\n  hint: wait"
    assert lines[1] == "error: full\n  9 in use of 10"
    assert lines[2] == "error: differs\n  asked for: 5\n  read back: 4"
    assert lines[3] == "error: failed\n  left behind: rule 1\n  left behind: rule 2"
    assert lines[4] == "error: can't\n  - /x: one\n      source: f.c\n  - /x: one\n      source: as above"
    assert lines[5] == "error: min_tx was refused\n  - no min_tx\n      the driver would answer: EOPNOTSUPP"
    for fault in faults:
        document = {"schema": "cli-output", "command": "error", "error": error_to_json(fault)}
        assert find_faults(document, "cli-output") == ()


def test_an_interrupt_ends_with_130(capsys):
    def work():
        raise KeyboardInterrupt

    assert run(work, program="nicoffload", output=Output()) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "nicoffload: interrupted\n"


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_bug_asks_to_be_reported(capsys, monkeypatch, debug):
    monkeypatch.setenv("NICOFFLOAD_DEBUG", debug)

    def work():
        raise ZeroDivisionError("oh")

    assert run(work, program="nicoffload", output=Output()) == EXIT_BUG
    err = capsys.readouterr().err
    assert err.startswith("nicoffload: this is a bug: ZeroDivisionError: oh\n")
    assert ("Traceback" in err) == bool(debug)
    assert ("please report" in err) != bool(debug)


def test_progress_is_shown_on_a_terminal_only(capsys, monkeypatch):
    with Output().progress("working", 10) as progress:
        progress(5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Output(color=False).progress("working", 10) as progress:
        progress(5)
    assert "working" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [False, True])
def test_a_cell_is_text_and_not_markup(capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    Output(color=False).table(("a [bold]b[/]", "n"), [("[red]x[/red]", "5"), ("y", "10")], right=("n",))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["a [bold]b[/]   n", "[red]x[/red]   5", "y             10"]


def test_a_file_gets_all_of_a_cell(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    Output().table(("a", "b"), [("x" * 300, "y")])
    assert "x" * 300 in capsys.readouterr().out


def test_a_terminal_gets_colour_unless_it_is_unwanted(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for color in (True, False):
        Output(color=color).table(("a",), [("yes",)])
        assert ("\x1b[32m" in capsys.readouterr().out) is color


def test_a_large_table_is_quick(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    Output().table(("a", "b"), [("yes", "1")] * 5000)
    assert capsys.readouterr().out.count("\n") == 5001


def test_a_reader_that_goes_away_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, "profiles", "--json"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (EXIT_BROKEN_PIPE, b"")


def test_a_signal_while_it_waits_ends_with_130(tmp_path):
    os.mkfifo(tmp_path / "rules")
    program = subprocess.Popen(
        [*PROGRAM, "flow", "check", "mock:mlx5", "--file", str(tmp_path / "rules")], stderr=subprocess.PIPE
    )
    with (tmp_path / "rules").open("w"):  # returns when the program has opened it to read
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (EXIT_INTERRUPTED, b"nicoffload: interrupted\n")


def test_a_terminal_without_utf8_gets_no_traceback():
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run(
        [*PROGRAM, "flow", "check", "mock:mlx5", "tcp,nw_dst=\u00b2 actions=pf"],
        capture_output=True,
        env=env,
        check=False,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["--help"], ["flow", "add", "--help"], ["plugins", "--help"]])
def test_help_loads_the_parser_and_nothing_else(words):
    """`make bench` measures the time that this saves."""
    code = (
        "import atexit, sys; before = set(sys.modules);"
        "atexit.register(lambda: print(*sorted(set(sys.modules) - before), file=sys.stderr));"
        f"from nicoffload.cli.main import main; main({words!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    foreign = {name for name in done.stderr.split() if name.split(".")[0] not in sys.stdlib_module_names}
    assert foreign - {"nicoffload", "nicoffload.errors"} == {
        name for name in foreign if name.split(".")[:2] == ["nicoffload", "cli"]
    }
    assert not {"sqlite3", "ssl", "asyncio", "multiprocessing", "importlib.metadata"} & set(
        done.stderr.split()
    )


def test_styles_are_words_that_are_printed():
    assert set(output_module.STYLES) >= {"yes", "no", "ok", "warning", "problem", "failed"}


@pytest.mark.parametrize("name", ["0000:03:00.0", "03:00.0", "lo"])
def test_a_live_nic_is_told_from_a_slip_of_the_pen(cli, name, monkeypatch):
    monkeypatch.setenv("NICOFFLOAD_PLUGINS", "mock")
    answer = cli("capabilities", name)
    assert answer.code == 4
    assert "no plugin that is in use drives live NICs" in answer.err
    assert "drives live NICs" not in cli("capabilities", "mock:ixbge").err
