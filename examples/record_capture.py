"""Record a capture of real traffic: real programs in network namespaces, seen from a host's uplink.

    sudo python3 examples/record_capture.py examples/captures/office

Clients and VMs are namespaces. They hang on two bridges that one link joins, the uplink of a host; tcpdump listens
there, so that the capture holds what the NIC of such a host would see: frames of wire size, headers only. All
traffic stays between the namespaces, which are removed at the end, also after a failure or a signal.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import ipaddress
import json
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

PREFIX = "nicoffload-"
HOST = f"{PREFIX}host"
VLAN = 100
SNAP_BYTES = 96
LINK_RATE = "50mbit"
MAX_GZIP_BYTES = 3_000_000
NEEDED = ("ip", "tc", "ethtool", "tcpdump", "iperf3", "curl", "dig", "dnsmasq", "ncat", "ping", "python3")
# What PACKET_AUXDATA says of a frame whose tag the kernel has taken off.
PACKET_AUXDATA, TP_STATUS_VLAN_VALID, SOL_PACKET = 8, 1 << 4, 263


PROVENANCE = """# Captures

## `{name}.pcap.gz`

Real traffic of real programs, recorded by `examples/record_capture.py --seed {seed}` on
{started} UTC, {duration_s} s long, on {kernel}.
It is the uplink of a host with {vms} VMs, to which {clients} clients talk: network namespaces on two
bridges, joined by one link, where tcpdump listened. Segmentation and checksum offloads were off, so frames
have wire size; each machine sends at {rate} at most. Headers only: {snap_bytes} bytes of each packet. The
addresses are private, the payloads zeros or test patterns; no person's traffic is in it.

`{name}.vms.json` lists the VMs: name, VF, MAC and IP addresses.

What runs: web pages and downloads (python3 http.server, curl; IPv4, IPv6, and in VLAN 100), names (dig,
dnsmasq), streams and bursts (iperf3, TCP and UDP), a terminal that is mostly idle and a database-like service
(ncat, python3 sockets), connections to closed ports (ncat), ping, also fragmented. The VLAN tags are set by an
access port in the script, for kernels without VLAN devices.

### Count by other tools

{counts}

### Programs

{programs}

### Licence

Apache-2.0, like the rest of the project, which recorded it itself.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A namespace with one interface, `eth0`; a tagged one reaches the wire through an access port of `VLAN`."""

    name: str
    number: int
    is_vm: bool
    tagged: bool = False

    @property
    def namespace(self) -> str:
        """Name of its network namespace."""
        return PREFIX + self.name

    @property
    def mac(self) -> str:
        """Locally administered MAC address."""
        return f"02:00:00:00:{1 if self.is_vm else 2:02x}:{self.number:02x}"

    @property
    def ipv4(self) -> str:
        """IPv4 address, of a subnet of /24."""
        return f"10.0.{VLAN if self.tagged else 0}.{self.number}"

    @property
    def ipv6(self) -> str:
        """IPv6 address, of a subnet of /112."""
        return str(ipaddress.IPv6Address(f"fd00::{VLAN if self.tagged else 0}:{self.number}"))


VMS = tuple(
    Machine(name=name, number=11 + index, is_vm=True, tagged=name == "legacy")
    for index, name in enumerate(("web", "dns", "stream", "shell", "db", "legacy"))
)
CLIENTS = tuple(
    Machine(name=name, number=101 + index, is_vm=False, tagged=name == "desk4")
    for index, name in enumerate(("desk1", "desk2", "desk3", "desk4"))
)
WEB, DNS, STREAM, SHELL, DB, LEGACY = VMS
DESK1, DESK2, DESK3, DESK4 = CLIENTS


def run(*command: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")


class Lab:
    """The namespaces and every process in them; `close` ends and removes all."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline = time.monotonic() + deadline_s
        self._namespaces: list[str] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()

    def build(self) -> None:
        """Make the namespaces, the bridges, the uplink, and the access ports."""
        for name in (HOST, *(machine.namespace for machine in (*VMS, *CLIENTS))):
            run("ip", "netns", "add", name)
            self._namespaces.append(name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for bridge in ("br-vms", "br-net"):
            run("ip", "-n", HOST, "link", "add", "name", bridge, "type", "bridge")
            run("ip", "-n", HOST, "link", "set", bridge, "up")
        self._link(HOST, "uplink", HOST, "uplink-net")
        run("ip", "-n", HOST, "link", "set", "uplink", "master", "br-vms")
        run("ip", "-n", HOST, "link", "set", "uplink-net", "master", "br-net")
        for machine in (*VMS, *CLIENTS):
            self._attach(machine)

    def _attach(self, machine: Machine) -> None:
        port, bridge = f"p-{machine.name}", "br-vms" if machine.is_vm else "br-net"
        self._link(machine.namespace, "eth0", HOST, port, mac=machine.mac)
        if machine.tagged:
            self._link(HOST, f"t-{machine.name}", HOST, f"a-{machine.name}")
            self.start(HOST, sys.executable, __file__, "--access-port", port, f"a-{machine.name}")
            port = f"t-{machine.name}"
        run("ip", "-n", HOST, "link", "set", port, "master", bridge)
        for address in (f"{machine.ipv4}/24", f"{machine.ipv6}/112"):
            nodad = ("nodad",) if ":" in address else ()
            run("ip", "-n", machine.namespace, "addr", "add", address, "dev", "eth0", *nodad)
        # An access link, without which a page of 400 KB passes at the speed of memory.
        shaper = ("tbf", "rate", LINK_RATE, "burst", "16k", "latency", "100ms")
        run("ip", "netns", "exec", machine.namespace, "tc", "qdisc", "add", "dev", "eth0", "root", *shaper)

    def _link(self, left: str, left_name: str, right: str, right_name: str, mac: str = "") -> None:
        address = ("address", mac) if mac else ()
        peer = ("peer", "name", right_name, "netns", right)
        run("ip", "-n", left, "link", "add", "name", left_name, *address, "type", "veth", *peer)
        for namespace, name in ((left, left_name), (right, right_name)):
            # Without these the stack hands over segments of up to 64 KiB and unfinished checksums, unlike a wire.
            off = [word for feature in ("tso", "gso", "gro", "tx", "rx", "sg") for word in (feature, "off")]
            run("ip", "netns", "exec", namespace, "ethtool", "-K", name, *off)
            run("ip", "-n", namespace, "link", "set", name, "up")

    @property
    def remaining_s(self) -> float:
        """Seconds until the traffic ends."""
        return max(self._deadline - time.monotonic(), 0.0)

    def start(self, namespace: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a program in a namespace, with a pipe to its standard input and one from its standard error."""
        with self._lock:
            process = subprocess.Popen(
                ("ip", "netns", "exec", namespace, *command),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE if command[0] == "tcpdump" else subprocess.DEVNULL,
            )
            self._processes.append(process)
        return process

    def call(self, machine: Machine, *command: str) -> None:
        """Run a program in a machine until it ends, or the traffic does."""
        process = self.start(machine.namespace, *command)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.remaining_s)

    def close(self) -> None:
        """End every program and remove every namespace."""
        with self._lock:
            for process in self._processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
        for name in self._namespaces:
            subprocess.run(("ip", "netns", "del", name), capture_output=True, check=False)


def start_servers(lab: Lab, root: Path) -> None:
    """Start what the VMs offer."""
    for size in (1, 8, 30, 120, 400, 20_000):
        (root / f"{size}k").write_bytes(bytes(size * 1024))
    for machine in (WEB, LEGACY):
        serve = ("-m", "http.server", "80", "--bind", "::", "--directory", str(root))
        lab.start(machine.namespace, "python3", *serve)
    dns = (
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--pid-file=",
        "--user=root",
    )
    lab.start(
        DNS.namespace, "dnsmasq", *dns, "--address=/office.test/10.0.0.11", "--address=/office.test/fd00::11"
    )
    for port in range(5201, 5207):
        lab.start(STREAM.namespace, "iperf3", "--server", "--port", str(port))
    for machine, service in ((SHELL, "22"), (DB, "5432")):
        lab.start(machine.namespace, "ncat", "--listen", "--keep-open", "--exec", "/bin/cat", service)


def wait_until_up(machine: Machine, probe: Machine, port: str) -> None:
    """Wait until a machine answers on a TCP port."""
    for _ in range(100):
        ask = ("ip", "netns", "exec", probe.namespace, "ncat", "-z", machine.ipv4, port)
        if not subprocess.run(ask, capture_output=True, check=False).returncode:
            return
        time.sleep(0.1)
    raise SystemExit(f"{machine.name} does not answer on port {port}")


def browse(lab: Lab, client: Machine, target: str, sizes: Sequence[int], pause_s: float, seed: int) -> None:
    """Fetch pages of several sizes, each over a connection of its own."""
    chance = random.Random(seed)  # noqa: S311 - it picks pages, not keys
    while lab.remaining_s > 1:
        lab.call(
            client, "curl", "--silent", "--output", "/dev/null", f"http://{target}/{chance.choice(sizes)}k"
        )
        time.sleep(chance.uniform(0.3, 1.7) * pause_s)


def resolve(lab: Lab, client: Machine, pause_s: float, seed: int) -> None:
    """Ask for names, of which some don't exist."""
    chance = random.Random(seed)  # noqa: S311 - it picks pages, not keys
    while lab.remaining_s > 1:
        name = chance.choice(("www.office.test", "mail.office.test", "nowhere.test"))
        lab.call(client, "dig", f"@{DNS.ipv4}", "+tries=1", "+time=1", name, chance.choice(("A", "AAAA")))
        time.sleep(chance.uniform(0.3, 1.7) * pause_s)


def type_slowly(lab: Lab, client: Machine, seed: int) -> None:
    """Keep a terminal session open: some typing, long silences."""
    chance = random.Random(seed)  # noqa: S311 - it picks pages, not keys
    session = lab.start(client.namespace, "ncat", SHELL.ipv4, "22")
    assert session.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        while lab.remaining_s > 1:
            for _ in range(chance.randint(5, 30)):
                session.stdin.write(b"x")
                session.stdin.flush()
                time.sleep(chance.uniform(0.05, 0.25))
            time.sleep(min(chance.uniform(2, 9), lab.remaining_s))


def query(lab: Lab, client: Machine, rate: int, seconds: float) -> None:
    """Send requests to the database's port at a rate, and read each answer."""
    lab.call(client, sys.executable, __file__, "--requests", DB.ipv4, "5432", str(rate), str(seconds))


def stream(lab: Lab, client: Machine, delay_s: float, port: int, *options: str) -> None:
    """Move data with iperf3 after a while."""
    time.sleep(delay_s)
    lab.call(client, "iperf3", "--repeating-payload", "--client", STREAM.ipv4, "--port", str(port), *options)


def download(lab: Lab, client: Machine, delay_s: float, url: str, rate: str) -> None:
    """Fetch one large file at a limited rate."""
    time.sleep(delay_s)
    lab.call(client, "curl", "--silent", "--output", "/dev/null", "--limit-rate", rate, url)


def knock(lab: Lab, client: Machine) -> None:
    """Try ports on which nobody listens."""
    for machine in (WEB, SHELL, DB):
        for port in (23, 445, 3389, 8443, 6379):
            lab.call(client, "ncat", "-z", "-w", "1", machine.ipv4, str(port))
            time.sleep(0.4)


def make_traffic(lab: Lab, seed: int) -> None:
    """Run all clients side by side until the time is over."""
    small, mixed = (1, 8, 30), (1, 1, 8, 8, 30, 120, 400)
    long_s = str(int(lab.remaining_s) - 6)
    jobs: list[Callable[[], None]] = [
        lambda: browse(lab, DESK1, WEB.ipv4, mixed, 0.35, seed + 1),
        lambda: browse(lab, DESK2, f"[{WEB.ipv6}]", mixed, 0.4, seed + 2),
        lambda: browse(lab, DESK3, WEB.ipv4, small, 0.3, seed + 3),
        lambda: browse(lab, DESK4, LEGACY.ipv4, mixed, 0.8, seed + 4),
        lambda: browse(lab, DESK4, f"[{LEGACY.ipv6}]", small, 1.6, seed + 5),
        lambda: resolve(lab, DESK1, 0.4, seed + 6),
        lambda: resolve(lab, DESK2, 0.6, seed + 7),
        lambda: type_slowly(lab, DESK1, seed + 8),
        lambda: type_slowly(lab, DESK3, seed + 9),
        lambda: query(lab, DESK1, 12, lab.remaining_s),
        lambda: query(lab, DESK2, 40, lab.remaining_s - 8),
        lambda: query(lab, DESK3, 110, lab.remaining_s - 12),
        lambda: stream(lab, DESK3, 2, 5201, "--reverse", "--bitrate", "4M", "--time", long_s),
        lambda: stream(lab, DESK1, 9, 5202, "--bitrate", "3M", "--time", "15"),
        lambda: stream(
            lab, DESK2, 5, 5203, "--udp", "--bitrate", "1M/40", "--length", "1000", "--time", "28"
        ),
        lambda: stream(lab, DESK1, 20, 5204, "--udp", "--bitrate", "16M", "--length", "1200", "--time", "3"),
        lambda: stream(lab, DESK3, 30, 5205, "--reverse", "--bitrate", "20M", "--time", "4"),
        lambda: stream(
            lab, DESK2, 15, 5206, "--udp", "--reverse", "--bitrate", "64k", "--length", "160", "--time", "20"
        ),
        lambda: download(lab, DESK2, 4, f"http://[{WEB.ipv6}]/20000k", "450k"),
        lambda: download(lab, DESK4, 7, f"http://{LEGACY.ipv4}/20000k", "250k"),
        lambda: download(lab, DESK1, 24, f"http://{WEB.ipv4}/20000k", "1600k"),
        lambda: knock(lab, DESK2),
        lambda: lab.call(DESK1, "ping", "-q", "-i", "0.5", SHELL.ipv4),
        lambda: lab.call(DESK3, "ping", "-q", "-i", "1", "-s", "3000", WEB.ipv4),
        lambda: lab.call(DESK2, "ping", "-q", "-i", "1", DB.ipv6),
    ]
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(lab.remaining_s + 1)


@contextlib.contextmanager
def tcpdump(lab: Lab, path: Path) -> Iterator[None]:
    """Capture at the uplink; fail where the kernel lost a packet on the way to the file."""
    options = ("-i", "uplink", "-n", "-s", str(SNAP_BYTES), "-B", "32768", "-Z", "root")
    process = lab.start(HOST, "tcpdump", *options, "-w", str(path))
    assert process.stderr is not None
    first = process.stderr.readline()
    while first and b"listening on" not in first:
        first = process.stderr.readline()
    if not first:
        raise SystemExit("tcpdump does not start")
    yield
    process.send_signal(signal.SIGINT)
    report = process.stderr.read().decode()
    process.wait()
    if "\n0 packets dropped by kernel" not in report:
        raise SystemExit(f"the capture is not whole: {report.strip()}")


def access_port(port: str, trunk: str) -> None:
    """Relay frames for ever: tagged with `VLAN` towards the trunk, untagged towards the port."""
    sides = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for _ in (port, trunk)]
    for side, name in zip(sides, (port, trunk), strict=True):
        side.bind((name, 0))
        side.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    inner, outer = sides

    def relay(source: socket.socket, sink: socket.socket, *, tag: bool) -> None:
        while True:
            frame, notes, _, address = source.recvmsg(65536, 64)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            status, tci = next(
                (
                    (int.from_bytes(data[:4], sys.byteorder), int.from_bytes(data[16:18], sys.byteorder))
                    for level, kind, data in notes
                    if (level, kind) == (SOL_PACKET, PACKET_AUXDATA)
                ),
                (0, 0),
            )
            is_tagged = bool(status & TP_STATUS_VLAN_VALID)
            if tag and not is_tagged:
                sink.send(frame[:12] + b"\x81\x00" + VLAN.to_bytes(2, "big") + frame[12:])
            elif not tag and is_tagged and tci & 0xFFF == VLAN:
                sink.send(frame)

    threading.Thread(target=relay, args=(inner, outer), kwargs={"tag": True}, daemon=True).start()
    relay(outer, inner, tag=False)


def requests(host: str, port: str, rate: str, seconds: str) -> None:
    """Send requests over one connection at a rate, each after the answer to the last."""
    end = time.monotonic() + float(seconds)
    with socket.create_connection((host, int(port))) as connection:
        while time.monotonic() < end:
            connection.sendall(bytes(120))
            received = 0
            while received < 120:
                received += len(connection.recv(120 - received))
            time.sleep(1 / float(rate))


def first_line(*command: str) -> str:
    """Return the first line that a program prints about its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[0] if lines else "unknown"


def provenance(name: str, capture: Path, started: datetime, duration_s: float, seed: int) -> str:
    """Return the text that says where the capture comes from."""
    listing = subprocess.run(
        ("tcpdump", "-n", "-r", str(capture)), capture_output=True, text=True, check=True
    ).stdout
    counts = [f"tcpdump counts {len(listing.splitlines()):,} packets."]
    if shutil.which("capinfos"):
        shown = subprocess.run(
            ("capinfos", "-M", "-c", "-d", "-u", "-E", str(capture)),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        counts += ["capinfos says:", "", "```", *shown.splitlines()[1:], "```"]
    versions = (
        ("tcpdump", "--version"),
        ("iperf3", "--version"),
        ("curl", "--version"),
        ("dig", "-v"),
        ("dnsmasq", "--version"),
        ("ncat", "--version"),
        ("ping", "-V"),
        ("python3", "--version"),
        ("ip", "-V"),
        ("tc", "-V"),
        ("ethtool", "--version"),
    )
    programs = [f"- {command[0]}: {first_line(*command)}" for command in versions]
    return PROVENANCE.format(
        name=name,
        seed=seed,
        started=f"{started:%Y-%m-%d %H:%M}",
        duration_s=f"{duration_s:.0f}",
        kernel=f"Linux {platform.release()} ({platform.machine()})",
        vms=len(VMS),
        clients=len(CLIENTS),
        rate=LINK_RATE,
        snap_bytes=SNAP_BYTES,
        counts="\n".join(counts),
        programs="\n".join(programs),
    )


def record(target: Path, duration_s: float, seed: int) -> None:
    """Record, and write the capture, the list of VMs and the provenance."""
    lab = Lab(duration_s)
    started = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        raw, root = Path(folder) / "raw.pcap", Path(folder) / "files"
        root.mkdir()
        try:
            lab.build()
            start_servers(lab, root)
            for machine, probe, port in ((WEB, DESK1, "80"), (DB, DESK1, "5432"), (LEGACY, DESK4, "80")):
                wait_until_up(machine, probe, port)
            with tcpdump(lab, raw):
                make_traffic(lab, seed)
        finally:
            lab.close()
        packed = gzip.compress(raw.read_bytes(), mtime=0)
        if len(packed) > MAX_GZIP_BYTES:
            raise SystemExit(f"the capture has {len(packed):,} bytes gzipped, more than {MAX_GZIP_BYTES:,}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_suffix(".pcap.gz").write_bytes(packed)
        vms = [
            {"name": vm.name, "vf": index, "macs": [vm.mac], "ips": [vm.ipv4, vm.ipv6]}
            for index, vm in enumerate(VMS)
        ]
        target.with_suffix(".vms.json").write_text(json.dumps({"vms": vms}, indent=2) + "\n")
        text = provenance(target.name, raw, started, duration_s, seed)
        (target.parent / "README.md").write_text(text)


def check_machine() -> None:
    """End with one line where something is missing."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"missing programs: {', '.join(missing)}")
    if os.geteuid():
        raise SystemExit("needs root, to make network namespaces")
    left = (
        [path.name for path in Path("/run/netns").glob(f"{PREFIX}*")] if Path("/run/netns").is_dir() else []
    )
    taken = sorted(set(left) & {HOST, *(machine.namespace for machine in (*VMS, *CLIENTS))})
    if taken:
        raise SystemExit(
            f"namespaces of another recording exist; where none runs: ip netns del {taken[0]} (and so on)"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Record a capture of real traffic between network namespaces."
    )
    parser.add_argument("target", type=Path, nargs="?", help="files to write, without suffix")
    parser.add_argument("--seconds", type=float, default=48, help="length of the recording, 35 to 60")
    parser.add_argument("--seed", type=int, default=1, help="seed of the clients' choices")
    parser.add_argument("--access-port", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--requests", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.access_port:
        access_port(*options.access_port)
    elif options.requests:
        requests(*options.requests)
    elif options.target is None or not 35 <= options.seconds <= 60:
        parser.error("a target is needed, and 35 to 60 seconds")
    else:
        check_machine()
        # So that a signal, too, leads through the clean-up.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        record(options.target, options.seconds, options.seed)


if __name__ == "__main__":
    main()
