"""What tests inside a guest can use: which guest it is, a simulated NIC, namespaces, Open vSwitch."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vm.rig.layout import GUESTS

_EVIDENCE = {"uml": ("/proc/cpuinfo", "User Mode Linux"), "qemu": ("/sys/class/dmi/id/sys_vendor", "QEMU")}


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run anywhere but in the guest that the environment names: a pass elsewhere would be a lie."""
    guest = os.environ.get("NICOFFLOAD_VM", "")
    path, word = _EVIDENCE.get(guest, ("/dev/null", "-"))
    if not Path(path).exists() or word not in Path(path).read_text("utf-8"):
        raise pytest.UsageError(f"NICOFFLOAD_VM={guest!r}, but this is no such guest; run: make test-vm")


def pytest_report_header() -> str:
    return f"guest: {GUESTS[os.environ['NICOFFLOAD_VM']].level}, Linux {platform.release()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="session", autouse=True)
def guest(record_testsuite_property: Callable[[str, object], None]) -> str:
    """Name of the guest, `uml` or `qemu`; the report names it, the level and the kernel."""
    name = os.environ["NICOFFLOAD_VM"]
    record_testsuite_property("guest", name)
    record_testsuite_property("level", GUESTS[name].level)
    record_testsuite_property("kernel", platform.release())
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a program said.

    Args:
        status: Its exit status.
        out: Its output.
        err: Its errors.
    """

    status: int
    out: str
    err: str


def _tell(*words: object, env: dict[str, str] | None = None) -> Said:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, env=env)
    return Said(status=done.returncode, out=done.stdout, err=done.stderr)


@pytest.fixture(scope="session")
def tell() -> Callable[..., Said]:
    """Run a program that may fail, and return what it said."""
    return _tell


@pytest.fixture(scope="session")
def sh() -> Callable[[str], str]:
    """Run a program that must not fail, given as one line of words, and return its output."""

    def run(line: str) -> str:
        said = _tell(*line.split())
        assert said.status == 0, f"{line}: {said.err or said.out}"
        return said.out

    return run


@pytest.fixture(scope="session")
def ask(sh: Callable[[str], str]) -> Callable[[str], object]:
    """Run a program that answers in JSON, and return the value."""
    return lambda line: json.loads(sh(line) or "[]")


@pytest.fixture(scope="session")
def results() -> Path:
    """The folder whose files the guest brings back: build/vm/<guest> on the host."""
    return Path("/run/out")


@pytest.fixture
def nicoffload(tell: Callable[..., Said], tmp_path: Path) -> Callable[..., Said]:
    """Run the command line of the SDK, which may fail, with a journal of the test's own."""

    def run(*words: object) -> Said:
        env = {**os.environ, "NICOFFLOAD_STATE_DIR": str(tmp_path / "state"), "NO_COLOR": "1"}
        return tell(sys.executable, "-m", "nicoffload.cli.main", *words, env=env)

    return run


@pytest.fixture
def conformance(nicoffload: Callable[..., Said], results: Path) -> Callable[..., dict[str, object]]:
    """Run the conformance kit on a NIC and bring its report back: `conformance("netdevsim", nic)`.

    The report becomes build/vm/<guest>/conformance-<name>.json.
    """

    def run(name: str, nic: str, *words: object) -> dict[str, object]:
        said = nicoffload("conformance", nic, "--json", "--disruptive", "--ground", "emulated-device", *words)
        assert said.out, said.err
        (results / f"conformance-{name}.json").write_text(said.out, "utf-8")
        report: dict[str, object] = json.loads(said.out)
        report["exit_status"] = said.status
        return report

    return run


@pytest.fixture(scope="session")
def reach() -> Callable[..., bool]:
    """Tell whether an address answers within some tries of a second: `reach("10.0.0.2", tries=30, netns=None)`.

    A link takes its time after it is set up, and the first answer may be lost to that.
    """

    def try_all(address: str, *, tries: int = 30, netns: str | None = None) -> bool:
        inside = ["ip", "netns", "exec", netns] if netns else []
        return any(_tell(*inside, "ping", "-c", "1", "-W", "1", address).status == 0 for _ in range(tries))

    return try_all


@pytest.fixture
def namespaces(sh: Callable[[str], str]) -> Iterator[Callable[[str], str]]:
    """Make named network namespaces, with loopback up; they go when the test ends."""
    made: list[str] = []

    def make(name: str) -> str:
        sh(f"ip netns add {name}")
        made.append(name)
        sh(f"ip -n {name} link set lo up")
        return name

    yield make
    for name in made:
        sh(f"ip netns del {name}")


def _wait_for_uptime(seconds: float) -> None:
    """Open vSwitch 3.1 counts no processors in a system that is up for less than ten seconds, and stays deaf."""
    uptime = float(Path("/proc/uptime").read_text("utf-8").split()[0])
    time.sleep(max(0.0, seconds - uptime))


class OpenVSwitch:
    """Open vSwitch's daemons with a database of their own.

    Args:
        prefix: Folder that its packages are unpacked into.
        folder: Empty folder for database, sockets and logs.
    """

    def __init__(self, prefix: Path, folder: Path) -> None:
        self._prefix, self._folder = prefix, folder
        self._env = {
            **os.environ,
            "PATH": f"{prefix}/usr/lib/openvswitch-switch:{prefix}/usr/sbin:{prefix}/usr/bin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": f"{prefix}/usr/lib/x86_64-linux-gnu",
            **{f"OVS_{name}DIR": str(folder) for name in ("RUN", "LOG", "DB", "SYSCONF")},
        }

    def tell(self, *words: object) -> str:
        """Run one of its programs, which must not fail, and return its output."""
        said = _tell(*words, env=self._env)
        assert said.status == 0, f"{words}: {said.err or said.out}"
        return said.out.strip()

    def start(self) -> None:
        _wait_for_uptime(10)
        database = self._folder / "conf.db"
        self.tell("ovsdb-tool", "create", database, self._prefix / "usr/share/openvswitch/vswitch.ovsschema")
        self.start_again()

    def start_again(self) -> None:
        """Start the daemons; the database has kept what was set."""
        database, socket = self._folder / "conf.db", f"--remote=punix:{self._folder}/db.sock"
        self.tell("ovsdb-server", database, socket, "--pidfile", "--detach", "--no-chdir", "--log-file")
        self.tell("ovs-vsctl", "--no-wait", "init")
        self.tell("ovs-vswitchd", "--pidfile", "--detach", "--no-chdir", "--log-file")

    def log(self) -> str:
        """Return what the switch has logged."""
        return (self._folder / "ovs-vswitchd.log").read_text("utf-8")

    def stop(self) -> None:
        """End the daemons. Repeatable."""
        for daemon in ("ovs-vswitchd", "ovsdb-server"):
            if (self._folder / f"{daemon}.pid").exists():
                self.tell("ovs-appctl", "-t", daemon, "exit")


@pytest.fixture
def vswitch(tmp_path: Path) -> Iterator[OpenVSwitch]:
    """Open vSwitch, running."""
    switch = OpenVSwitch(Path(os.environ["NICOFFLOAD_OVS"]), tmp_path)
    try:
        switch.start()
        yield switch
    finally:
        switch.stop()
