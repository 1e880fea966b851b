"""The lab's network: a wire, a host with a virtual switch, VMs; each a namespace, the software NIC between them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from examples.lab.shell import LabError, Processes, attempt, kill, run, wait_for
from nicoffload.flexivoffload.vms import Vm
from nicoffload.model import parse_mac

NIC_NAME = "nlab"
NIC = f"soft:{NIC_NAME}"
PREFIX = "nicolab-"
WIRE, HOST = f"{PREFIX}wire", f"{PREFIX}host"
NIC_NETNS = f"nicsoft-{NIC_NAME}"
RUN_DIR = Path("/run/nicoffload-lab")
STATE = {"NICOFFLOAD_STATE_DIR": str(RUN_DIR / "state")}
"""The journal of the lab's NIC is the lab's own."""
MARKS = RUN_DIR / "made"
"""A file for each namespace that the lab makes, that of the NIC too: written before, and removed after."""

WIRE_IP = "10.97.0.1"
TABLE_ROWS = 2048
"""The software NIC without eBPF holds 4095 rules at most, and the lab needs fewer."""
MAX_VMS = 12

SETTINGS = (
    "ipv6.conf.all.disable_ipv6=1",
    "ipv6.conf.default.disable_ipv6=1",
    "ipv4.ip_forward=0",
    "ipv4.tcp_tw_reuse=1",  # each measurement has the same ports as the one before
)
"""Of every namespace of the lab, whatever the machine's are."""

WIRE_PORT = f"{NIC_NAME}w"
PF_PORT = f"{NIC_NAME}pf"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabVm:
    """One VM.

    Args:
        number: From 1 on.
        mac: Of its virtual function.
        pid: A process in its namespace, whose /proc shows its counters.
    """

    number: int
    mac: str
    pid: int

    @property
    def vf(self) -> int:
        """Index of its virtual function."""
        return self.number - 1

    @property
    def netns(self) -> str:
        """Its namespace."""
        return vm_netns(self.number)

    @property
    def ip(self) -> str:
        """Its address."""
        return f"10.97.1.{self.number}"

    @property
    def port(self) -> str:
        """Its interface: the virtual function."""
        return f"{NIC_NAME}vf{self.vf}"

    @property
    def representor(self) -> str:
        """The port of the virtual switch that stands for its interface."""
        return f"{NIC_NAME}r{self.vf}"

    def as_vm(self) -> Vm:
        """Return it as FlexivOffload knows it."""
        return Vm(name=f"vm{self.number}", vf=self.vf, macs=(parse_mac(self.mac),), ips=(self.ip,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What was built.

    Args:
        vms: The VMs.
        wire_pid: A process in the namespace of the wire.
        host_pid: A process in the namespace of the virtual switch.
    """

    vms: tuple[LabVm, ...]
    wire_pid: int
    host_pid: int

    @property
    def switch_ports(self) -> tuple[str, ...]:
        """The ports of the virtual switch: the PF for the wire, and a representor for each VM."""
        return (PF_PORT, *(vm.representor for vm in self.vms))


def vm_netns(number: int) -> str:
    """Return the namespace of a VM."""
    return f"{PREFIX}vm{number}"


def our_namespaces() -> list[str]:
    """Return the namespaces of the lab that exist, whoever made them."""
    names = [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.strip()]
    known = {WIRE, HOST, *(vm_netns(number) for number in range(1, MAX_VMS + 1))}
    return [name for name in names if name in known]


def nic_exists() -> bool:
    """Tell whether the lab's software NIC is there, whoever made it."""
    return NIC_NETNS in run("ip", "netns", "list").split()


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Let one lab run at a time on a machine.

    Raises:
        LabError: Another one runs.
    """
    RUN_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (RUN_DIR / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            file.seek(0)
            raise LabError(
                f"another lab is running, process {file.read().strip()}; wait for it, or end it"
            ) from cause
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def refuse_others() -> None:
    """Leave alone what has a name of the lab and was not made by it.

    Raises:
        LabError: There is such a thing.
    """
    ways = {name: f"ip netns delete {name}" for name in our_namespaces() if not _is_made(name)}
    if nic_exists() and not _is_made(NIC_NETNS):
        ways[NIC] = f"nicoffload soft destroy {NIC_NAME}"
    if ways:
        raise LabError(
            f"{', '.join(ways)}: the lab needs the name and did not make it; if nobody needs it, remove it with "
            f"`{' && '.join(ways.values())}`"
        )


def clean_up() -> bool:
    """Remove what the lab made, also in a run that was killed; tell whether there was something.

    A step that fails keeps no other from being taken; its error is raised after the last one.

    Raises:
        LabError: Something could not be removed.
    """
    namespaces = [name for name in our_namespaces() if _is_made(name)]
    has_nic = nic_exists() and _is_made(NIC_NETNS)
    with contextlib.ExitStack() as steps:  # the last one comes first
        for name in namespaces:
            steps.callback(_remove_namespace, name)
        if has_nic:
            steps.callback(_remove_nic)
        for name in namespaces:
            steps.callback(_end_all_in, name)
    return bool(namespaces) or has_nic


def _end_all_in(netns: str) -> None:
    kill([int(pid) for pid in run("ip", "netns", "pids", netns).split()])


def _remove_nic() -> None:
    _soft("destroy", NIC_NAME)
    _unmark(NIC_NETNS)


def _remove_namespace(name: str) -> None:
    run("ip", "netns", "delete", name)
    _unmark(name)


def _is_made(name: str) -> bool:
    return (MARKS / name).exists()


def _mark(name: str) -> None:
    MARKS.mkdir(parents=True, exist_ok=True)
    (MARKS / name).touch()


def _unmark(name: str) -> None:
    (MARKS / name).unlink(missing_ok=True)


def _soft(*words: str, netns: str = "") -> None:
    run(sys.executable, "-m", "nicoffload.cli.main", "soft", *words, netns=netns, environment=STATE)


def build(processes: Processes, vms: int) -> Topology:
    """Build the lab's network.

    Args:
        processes: Where the processes that hold the namespaces are kept.
        vms: How many VMs, 1 to 12.

    Raises:
        LabError: Something is in the way.
    """
    pids = {}
    for name in (WIRE, HOST, *(vm_netns(number) for number in range(1, vms + 1))):
        _mark(name)
        run("ip", "netns", "add", name)
        for setting in SETTINGS:
            attempt("sysctl", "-q", "-w", f"net.{setting}", netns=name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        pids[name] = processes.start(["sleep", "infinity"], name).pid
    _mark(NIC_NETNS)
    _soft("create", NIC_NAME, "--vfs", str(vms), "--rows", str(TABLE_ROWS), netns=HOST)
    run("ip", "-n", HOST, "link", "set", WIRE_PORT, "netns", WIRE)
    wire_mac = _up(WIRE, WIRE_PORT, WIRE_IP)
    built = []
    for number in range(1, vms + 1):
        name = vm_netns(number)
        vm = LabVm(number=number, mac="", pid=pids[name])
        run("ip", "-n", HOST, "link", "set", vm.port, "netns", name)
        vm = LabVm(number=number, mac=_up(name, vm.port, vm.ip), pid=pids[name])
        _neighbour(name, vm.port, WIRE_IP, wire_mac)
        _neighbour(WIRE, WIRE_PORT, vm.ip, vm.mac)
        built.append(vm)
    topology = Topology(vms=tuple(built), wire_pid=pids[WIRE], host_pid=pids[HOST])
    for port in topology.switch_ports:
        run("ip", "-n", HOST, "link", "set", port, "up")
    wait_for(lambda: _is_up(WIRE, WIRE_PORT), f"{WIRE_PORT} did not come up")
    return topology


def _up(netns: str, port: str, ip: str) -> str:
    """Give an interface its address; return its MAC address."""
    # Without multicast it sends no reports of its own: all that is counted is what is sent.
    run("ip", "-n", netns, "link", "set", port, "multicast", "off", "up")
    run("ip", "-n", netns, "address", "add", f"{ip}/16", "dev", port)
    return str(json.loads(run("ip", "-j", "-n", netns, "link", "show", port))[0]["address"])


def _neighbour(netns: str, port: str, ip: str, mac: str) -> None:
    # Fixed, so that no ARP request comes between: it would be flooded to all VMs.
    run("ip", "-n", netns, "neighbour", "replace", ip, "lladdr", mac, "dev", port, "nud", "permanent")


def _is_up(netns: str, port: str) -> bool:
    return bool(re.search(r"\bLOWER_UP\b", run("ip", "-n", netns, "link", "show", port)))


def cut_segments(topology: Topology, *, on: bool) -> None:
    """Let the ends send packets of the MTU's size rather than big ones that are cut late (GSO), or let them not.

    Equivalent to: `ethtool -K DEV tx off tso off gso off gro off` on the wire and in each VM.
    """
    state = "off" if on else "on"
    ends = [(WIRE, WIRE_PORT), *((vm.netns, vm.port) for vm in topology.vms)]
    for netns, port in ends:
        # One by one: to turn tx off turns tso off as well, and a driver may hold some of them fixed.
        for feature in ("tx", "tso", "gso", "gro"):
            attempt("ethtool", "-K", port, feature, state, netns=netns)
