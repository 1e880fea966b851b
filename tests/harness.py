"""The project's own pytest plugin: golden files, and a budget for skipped tests.

It is loaded by name (``-p tests.harness`` in pyproject.toml), so that tests/ and plugins/*/tests have the same.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# A deadline is a timed assert: on a loaded machine it fails what is right.
settings.register_profile("nicoffload", deadline=None)
settings.load_profile("nicoffload")

_NO_REASON = {"", "unconditional skip", "Skipped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """Compares what a test produced with a file beside it; ``--golden`` writes the file instead.

    Args:
        root: Folder that relative paths start from: the test file's.
        rewrite: Whether to write rather than compare.
    """

    root: Path
    rewrite: bool

    def check_bytes(self, path: str | Path, actual: bytes) -> None:
        """Fail unless the file holds exactly these bytes."""
        target = self.root / path
        if self.rewrite:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(actual)
        elif not target.exists():
            pytest.fail(f"no golden file {target}; write it with: make golden", pytrace=False)
        assert actual == target.read_bytes(), f"{target} differs; if the change is meant: make golden"

    def check_text(self, path: str | Path, actual: str) -> None:
        """Fail unless the file holds exactly this text, in UTF-8."""
        target = self.root / path
        if (
            not self.rewrite and target.exists()
        ):  # compared as text, so that pytest shows a readable difference
            assert actual == target.read_text("utf-8"), (
                f"{target} differs; if the change is meant: make golden"
            )
        else:
            self.check_bytes(path, actual.encode())

    def check_json(self, path: str | Path, actual: object) -> None:
        """Fail unless the file holds this value, as indented JSON with sorted keys."""
        self.check_text(path, json.dumps(actual, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


class SkipBudget:
    """Counts skipped tests, and fails the run when one gives no reason or there are more than the budget allows."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.reasons: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.reasons.append((report.nodeid, _reason(report.longrepr)))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.reasons.append((report.nodeid, _reason(report.longrepr)))

    def faults(self) -> list[str]:
        """Return what is wrong with the skips of this run; nothing where all is well."""
        found = [
            f"{nodeid}: skipped without a reason" for nodeid, reason in self.reasons if reason in _NO_REASON
        ]
        if len(self.reasons) > self.budget:
            found.append(
                f"{len(self.reasons)} skips, and the budget is {self.budget} (skip_budget, pyproject.toml)"
            )
        return found

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.faults() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.reasons:
            return
        terminalreporter.section("skip budget")
        for nodeid, reason in sorted(self.reasons):
            terminalreporter.line(f"{nodeid}: {reason or 'no reason'}")
        for fault in self.faults():
            terminalreporter.line(f"FAULT: {fault}", red=True)


def _reason(longrepr: object) -> str:
    text = str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr or "")
    return text.removeprefix("Skipped: ").strip()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", action="store_true", help="rewrite the golden files rather than compare with them"
    )
    parser.addini("skip_budget", "most skips that a run may have", default="0")


def pytest_configure(config: pytest.Config) -> None:
    # A shell without job control lets what it puts into the background ignore SIGINT, and its children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):  # under xdist only the controller sees every report
        config.pluginmanager.register(SkipBudget(int(config.getini("skip_budget"))), "skip-budget")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Golden files of the test, below its own folder."""
    return Golden(root=request.path.parent, rewrite=bool(request.config.getoption("--golden")))
