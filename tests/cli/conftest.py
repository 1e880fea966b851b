"""Runs the program within this process, on emulated NICs whose state is in a folder of the test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from nicoffload.cli.main import main
from nicoffload.schema import find_faults


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run printed, and how it ended."""

    code: int
    out: str
    err: str


class Cli:
    """The program, with a state folder of its own."""

    def __init__(self, capsys, folder):
        self._capsys = capsys
        self.folder = folder

    def __call__(self, *words: str) -> Answer:
        try:
            code = main(["--state-dir", str(self.folder / "journal"), *words])
        except SystemExit as end:
            code = int(end.code or 0)
        printed = self._capsys.readouterr()
        assert "Traceback" not in printed.err
        return Answer(code, printed.out, printed.err)

    def ok(self, *words: str) -> str:
        answer = self(*words)
        assert (answer.code, answer.err) == (0, "")
        return answer.out

    def json(self, *words: str, code: int = 0) -> Any:
        """Return the JSON answer, once it keeps to the schema that it names."""
        answer = self(*words, "--json")
        assert answer.code == code, answer
        document = json.loads(answer.out or answer.err)
        assert find_faults(document, document["schema"]) == ()
        return document

    def nic(self, family: str, *options: str) -> str:
        """Return the name of an emulated NIC that lives as long as the test."""
        return ",".join([f"mock:{family}", f"state={self.folder / family}.json", *options])


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("NICOFFLOAD_PLUGINS", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    return Cli(capsys, tmp_path)
