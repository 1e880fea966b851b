"""The virtual switches: Linux's bridge, and a stock Open vSwitch (userspace datapath) in a directory of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from examples.lab.shell import LabError, attempt, favour, kill, run
from examples.lab.topology import HOST, NIC_NAME, RUN_DIR

BRIDGE = "nlabbr"


class VSwitch(ABC):
    """A virtual switch that joins the ports of the host."""

    name: str

    @abstractmethod
    def start(self, ports: Sequence[str]) -> None:
        """Start it, with these ports."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it, and let the ports go. Repeatable."""

    def dropped(self) -> int:
        """Return how many packets it has not taken from its ports in time: none, for one within the kernel."""
        return 0

    @contextlib.contextmanager
    def prompt(self) -> Iterator[None]:
        """Have it run as soon as packets come, whatever else the machine does."""
        yield

    @abstractmethod
    def version(self) -> str:
        """Return what it is, for people."""

    @property
    @abstractmethod
    def pids(self) -> tuple[int, ...]:
        """Its processes, whose CPU time is the virtual switch's; none for one within the kernel."""


class LinuxBridge(VSwitch):
    """Linux's bridge. Packets do not pass through netfilter, which would cost half as much again."""

    name = "bridge"

    def start(self, ports: Sequence[str]) -> None:
        """Make the bridge."""
        for family in ("ip", "ip6", "arp"):
            # Not there without the module br_netfilter.
            attempt("sysctl", "-q", "-w", f"net.bridge.bridge-nf-call-{family}tables=0", netns=HOST)
        run("ip", "-n", HOST, "link", "add", BRIDGE, "type", "bridge")
        for port in ports:
            run("ip", "-n", HOST, "link", "set", port, "master", BRIDGE)
        run("ip", "-n", HOST, "link", "set", BRIDGE, "up")

    def stop(self) -> None:
        """Remove the bridge."""
        attempt("ip", "-n", HOST, "link", "delete", BRIDGE)

    def version(self) -> str:
        """Return what it is."""
        return "Linux bridge"

    @property
    def pids(self) -> tuple[int, ...]:
        """None: it is within the kernel."""
        return ()


class OpenVSwitch(VSwitch):
    """Open vSwitch as its package has it, started by hand: nothing of it touches one that the machine may run.

    Args:
        root: Where its package is installed, or unpacked.
    """

    name = "ovs"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._folder = RUN_DIR / "ovs"
        self._socket = self._folder / "db.sock"
        folders = {name: str(self._folder) for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR")}
        self._environment = {**folders, "OVS_PKGDATADIR": str(self._data)}
        if root != Path("/"):
            libraries = [str(path) for path in (root / "usr/lib").glob("*-linux-*") if path.is_dir()]
            self._environment["LD_LIBRARY_PATH"] = ":".join([*libraries, str(root / "usr/lib")])

    @property
    def _data(self) -> Path:
        return self._root / "usr/share/openvswitch"

    def _program(self, name: str) -> str:
        # ovs-vswitchd itself is called by a link that only an installation makes.
        for folder in ("usr/sbin", "usr/bin", "usr/lib/openvswitch-switch"):
            if (self._root / folder / name).exists():
                return str(self._root / folder / name)
        raise LabError(f"{name} is not below {self._root}; Open vSwitch's package is incomplete")

    def _run(self, name: str, *words: str, netns: str = "") -> str:
        return run(self._program(name), *words, netns=netns, environment=self._environment)

    def _tell(self, *words: str) -> None:
        self._run("ovs-vsctl", f"--db=unix:{self._socket}", "--timeout=10", *words)

    def start(self, ports: Sequence[str]) -> None:
        """Start the database and the switch, and give it the ports."""
        self.stop()
        self._folder.mkdir(parents=True)
        database = self._folder / "conf.db"
        self._run("ovsdb-tool", "create", str(database), str(self._data / "vswitch.ovsschema"))
        self._daemon("ovsdb-server", str(database), f"--remote=punix:{self._socket}")
        self._tell("--no-wait", "init")
        self._daemon("ovs-vswitchd", f"unix:{self._socket}")
        words = ["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev"]
        for port in ports:
            words += ["--", "add-port", BRIDGE, port]
        self._tell(*words)
        for pid in self.pids:
            favour(pid)

    def _daemon(self, name: str, *words: str) -> None:
        files = (
            f"--pidfile={self._folder}/{name}.pid",
            f"--log-file={self._folder}/{name}.log",
            f"--unixctl={self._folder}/{name}.ctl",
        )
        self._run(name, *words, *files, "--detach", "--no-chdir", netns=HOST)

    def stop(self) -> None:
        """End both daemons, also those of a run that was killed, and remove their directory."""
        kill(self._daemons())
        for device in (BRIDGE, "ovs-netdev"):  # its taps outlive it
            attempt("ip", "-n", HOST, "link", "delete", device)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _daemons(self) -> list[int]:
        found = []
        for path in self._folder.glob("*.pid"):
            text = path.read_text("ascii", errors="replace").strip()
            if re.fullmatch(r"\d+", text) and self._is_ours(int(text)):
                found.append(int(text))
        return found

    def _is_ours(self, pid: int) -> bool:
        """Tell whether a process is a daemon of this directory, and not another that got its number."""
        try:
            return str(self._folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    def dropped(self) -> int:
        """Return how many packets found the buffers of its sockets full."""
        return packet_socket_drops(run("ss", "-0", "-a", "-m", "-H", "-O", netns=HOST), NIC_NAME)

    @contextlib.contextmanager
    def prompt(self) -> Iterator[None]:
        """Run the switch before all that has no real-time priority.

        The buffer of its socket holds a hundredth of a second of 100 Mbit/s: a switch that has to wait longer for a
        core loses packets, and they would look lost by what is measured.
        """
        self._schedule(os.SCHED_RR, 1)
        try:
            yield
        finally:
            self._schedule(os.SCHED_OTHER, 0)

    def _schedule(self, policy: int, priority: int) -> None:
        for pid in self.pids:
            with contextlib.suppress(
                ProcessLookupError
            ):  # it died: what is measured tells, and hides no other error
                os.sched_setscheduler(pid, policy, os.sched_param(priority))

    def version(self) -> str:
        """Return what it is."""
        return "Open vSwitch" + self._run("ovs-vswitchd", "--version").split("\n", 1)[0].rpartition(")")[2]

    @property
    def pids(self) -> tuple[int, ...]:
        """The switch; its database does nothing while packets flow."""
        path = self._folder / "ovs-vswitchd.pid"
        return (int(path.read_text("ascii")),) if path.exists() else ()


def packet_socket_drops(text: str, prefix: str) -> int:
    """Return the packets that packet sockets dropped for want of room.

    Args:
        text: Output of `ss -0 -a -m -H -O`: a line a socket.
        prefix: That the names of their interfaces begin with; sockets of all interfaces are left out.
    """
    found = re.findall(rf":{prefix}\w* .*skmem:\([^)]*,d(\d+)\)", text)
    return sum(int(count) for count in found)
