"""What a packet costs on its way through the software NIC, and its tables against a C program with libbpf.

Needs root; for the comparison with C also gcc and libbpf-dev. Everything is in namespaces of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nicoffload import load_registry
from nicoffload.driver import Placement
from nicoffload.kernel import Netlink, veth
from nicoffload.kernel.bpf import BpfMap, MapShape, attach_ingress, create_map, load_program
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.seam import NETLINK_ROUTE
from nicoffload.kernel.tc import Hook, bpf_filter, qdisc
from nicoffload.model import FlowRule, Match, RateLimit, ToUplink, ToVf
from nicoffload_softnic import build, layout, names
from nicoffload_softnic.keys import encode_columns, form_of
from nicoffload_softnic.store import Block

Figures = dict[str, float]
HERE = Path(__file__).resolve().parent
_FLOWS = 100_000
_FRAME_MAC = "02:00:00:00:01:01"
_DROP = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)
"""mov r0, TC_ACT_SHOT; exit."""
_PASS = _DROP
"""mov r0, XDP_PASS; exit: XDP's number for pass is tc's for drop."""
_XDP = 6
_TEST_RUN, _LINK_CREATE, _LOAD = 10, 28, 5
_LIVE_FRAMES = 2
_BPF_XDP = 37
_BATCH = 64


@contextlib.contextmanager
def namespace(stack: contextlib.ExitStack, name: str) -> Iterator[str]:
    """Make a namespace; it goes at the end."""
    kernel = LinuxKernel()
    kernel.add_namespace(name)
    stack.callback(kernel.remove_namespace, name)
    yield f"/run/netns/{name}"


def sh(command: str) -> None:
    """Run a command line."""
    subprocess.run(command.split(), check=True, capture_output=True)


class Generator:
    """Sends 64-byte UDP frames as fast as it can from within the kernel, each of the next source address.

    It is an XDP program that the kernel runs on frames of its own (BPF_PROG_TEST_RUN with live frames): what a packet
    costs before it reaches the NIC is small, and the same for all that are compared.
    """

    def __init__(self, kernel: LinuxKernel) -> None:
        shape = MapShape(kind=2, key_bytes=4, value_bytes=16, max_entries=1, flags=1 << 10)
        self._kernel = kernel
        self._map: BpfMap = create_map(kernel, "generator", shape)
        self._state = self._map.memory().view(np.uint32).reshape(-1)
        self._program = load_xdp(kernel, generator_code(self._map.descriptor))

    def aim(self, ifindex: int, flows: int) -> None:
        """Send into a device of the present namespace."""
        self._state[:] = (0, flows, ifindex, 0)

    def run(self, packets: int) -> float:
        """Send packets and return the CPU time of each in ns, with all that the kernel did for it."""
        data = bytearray(frame())
        attributes = bytearray(80)
        struct.pack_into(
            "=IIIIQQIIIIQQIII", attributes, 0, self._program, 0, len(data), 0, address(data), 0, packets, 0,
            0, 0, 0, 0, _LIVE_FRAMES, 0, _BATCH,
        )  # fmt: skip
        before = cpu_ns()
        self._kernel.bpf(_TEST_RUN, attributes)
        return (cpu_ns() - before) / packets


def generator_code(descriptor: int) -> bytes:
    """Return the generator: count up to the number of flows, write that into the source address, redirect."""

    def op(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
        return struct.pack("<BBhi", code, dst | src << 4, off, imm)

    return b"".join(
        [
            op(0xB7, 0),
            op(0x61, 8, 1, 0),  # r8 = data
            op(0x61, 3, 1, 4),  # r3 = data_end
            op(0xBF, 4, 8),
            op(0x07, 4, imm=42),
            op(0x2D, 4, 3, 18),  # too short: out
            op(0x62, 10, off=-4, imm=0),
            op(0x18, 1, 1, imm=descriptor),
            op(0),
            op(0xBF, 2, 10),
            op(0x07, 2, imm=-4),
            op(0x85, imm=1),  # map_lookup_elem
            op(0x15, 0, off=11),
            op(0x61, 7, 0, 0),  # r7 = state[0]
            op(0x07, 7, imm=1),
            op(0x61, 3, 0, 4),  # r3 = flows
            op(0xAD, 7, 3, 1),
            op(0xB7, 7),
            op(0x63, 0, 7, 0),
            op(0x61, 1, 0, 8),  # r1 = ifindex
            op(0xDC, 7, imm=32),  # to network order
            op(0x63, 8, 7, 26),  # the source address
            op(0xB7, 2),
            op(0x85, imm=23),  # redirect
            op(0x95),
        ]
    )


def load_xdp(kernel: LinuxKernel, code: bytes) -> int:
    """Load an XDP program."""
    instructions, licence = bytearray(code), bytearray(b"GPL\0")
    log = bytearray(1 << 16)
    attributes = bytearray(
        struct.pack(
            "=IIQQIIQ",
            _XDP,
            len(code) // 8,
            address(instructions),
            address(licence),
            1,
            len(log),
            address(log),
        ).ljust(128, b"\0")
    )
    try:
        return kernel.bpf(_LOAD, attributes)
    except OSError as cause:
        raise RuntimeError(bytes(log).split(b"\0", 1)[0].decode()[-800:]) from cause


def address(buffer: bytearray) -> int:
    """Return where a buffer is."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def frame() -> bytes:
    """Return the frame of which only the source address changes."""
    ethernet = bytes.fromhex(_FRAME_MAC.replace(":", "")) + bytes.fromhex("0200000000010800")
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 46, 0, 0, 64, 17, 0, bytes(4), bytes([10, 0, 0, 1]))
    return ethernet + ip + struct.pack(">HHHH", 1000, 2000, 26, 0) + bytes(18)


def cpu_ns() -> int:
    """Return the CPU time of this thread and of the kernel's threads for soft interrupts."""
    total = time.thread_time_ns()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if (folder / "comm").read_text().startswith("ksoftirqd"):
                    total += int((folder / "schedstat").read_text().split()[0])
    return total


def accept_frames(kernel: LinuxKernel, ifindex: int) -> None:
    """Let a veth take frames that XDP sends to its peer: it does while it has an XDP program of its own."""
    program = load_xdp(kernel, _PASS)
    kernel.bpf(_LINK_CREATE, bytearray(struct.pack("=IIII", program, ifindex, _BPF_XDP, 0).ljust(64, b"\0")))


def drop_all(kernel: LinuxKernel, ifname: str, *, before_tc: bool = False) -> None:
    """Drop what a device of the present namespace receives, where its stack would begin.

    Args:
        kernel: Where.
        ifname: Of the device.
        before_tc: By TCX too, which is the cheapest place that the kernel has; otherwise by tc alone.
    """
    program = load_program(kernel, "sink", _DROP, "GPL")
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        ifindex = veth.find_by_name(netlink, ifname).ifindex
        qdisc.ensure(netlink, ifindex)
        bpf_filter.attach(netlink, Hook.ingress(ifindex), program, "sink")
        if before_tc:
            attach_ingress(kernel, ifindex, program)


def index_of(kernel: LinuxKernel, ifname: str) -> int:
    """Return the number of a device of the present namespace."""
    with Netlink(kernel, NETLINK_ROUTE) as netlink:
        return veth.find_by_name(netlink, ifname).ifindex


def path_figures(rounds: int = 25, packets: int = _FLOWS) -> Figures:
    """Compare lookup, count and redirect with a drop at the port and with the Linux bridge, in turns.

    The best run of each counts: what else runs on the machine only ever adds to the CPU time of a packet. The floor is
    a drop by a filter of tc; what it costs by TCX, where the NIC's programs are, is told beside it.
    """
    kernel = LinuxKernel()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    tag = f"snb{os.getpid() % 10000}"
    with contextlib.ExitStack() as stack:
        path = {
            one: stack.enter_context(namespace(stack, f"{tag}-{one}"))
            for one in ("home", "vm", "bridge", "vm2")
        }
        stack.enter_context(kernel.namespace(path["home"]))
        build.create(kernel, build.Wanted(name=tag, vfs=1, rows=_FLOWS + 10))
        stack.callback(build.destroy, kernel, tag)
        targets = {
            "softnic": softnic_target(kernel, tag, path),
            "floor": floor_target(kernel, "floor"),
            "tcx": floor_target(kernel, "tcx", before_tc=True),
            "bridge": bridge_target(kernel, path),
        }
        driver = load_registry(only=["softnic"]).open(names.PREFIX + tag)
        stack.callback(driver.close)
        generator = Generator(kernel)
        cases = {
            "floor": ("floor", 1),
            "floor_tcx": ("tcx", 1),
            "bridge": ("bridge", 1),
            "flow": ("softnic", 1),
            "flows": ("softnic", _FLOWS),
        }
        cases["floor_flows"] = ("floor", _FLOWS)
        install(driver, _FLOWS)
        found: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(rounds + 1):
            for name, (target, flows) in cases.items():
                generator.aim(targets[target], flows)
                cost = generator.run(packets)
                if number:  # the first round warms up
                    found[name].append(cost)
        seen = int(driver.device.counters["packets"].sum())  # type: ignore[attr-defined]
        if seen != 2 * (rounds + 1) * packets:
            raise RuntimeError(f"the software NIC counted {seen} of {2 * (rounds + 1) * packets} packets")
    ratio = {
        "softnic_over_bridge": ("flow", "bridge"),
        "softnic_over_floor": ("flow", "floor"),
        "softnic_over_floor_100k": ("flows", "floor_flows"),
    }
    best = {name: min(costs) for name, costs in found.items()}
    return {name: best[up] / best[down] for name, (up, down) in ratio.items()} | {
        f"softnic_ns_{name}": cost for name, cost in best.items()
    }


def softnic_target(kernel: LinuxKernel, name: str, path: dict[str, str]) -> int:
    """Return the wire of a software NIC whose VF drops all."""
    with kernel.namespace(names.namespace_path(name)) as inside:
        accept_frames(inside, layout.ifindex_of(layout.UPLINK))
    sh(f"ip link set dev {names.wire(name)} up")
    sh(f"ip link set dev {names.vf(name, 0)} netns {Path(path['vm']).name}")
    with kernel.namespace(path["vm"]):
        sh(f"ip link set dev {names.vf(name, 0)} up")
        drop_all(kernel, names.vf(name, 0))
    return index_of(kernel, names.wire(name))


def floor_target(kernel: LinuxKernel, name: str, *, before_tc: bool = False) -> int:
    """Return a device whose other end drops all, in the same namespace."""
    wire, port = f"{name}w", f"{name}p"
    sh(f"ip link add {wire} type veth peer name {port}")
    sh(f"ip link set dev {wire} up")
    sh(f"ip link set dev {port} up")
    accept_frames(kernel, index_of(kernel, port))
    drop_all(kernel, port, before_tc=before_tc)
    return index_of(kernel, wire)


def bridge_target(kernel: LinuxKernel, path: dict[str, str]) -> int:
    """Return a device whose other end is a port of a bridge; behind another port a VM drops all."""
    host, vm = Path(path["bridge"]).name, Path(path["vm2"]).name
    sh(f"ip link add bridgew type veth peer name p0 netns {host}")
    sh(f"ip -n {host} link add v0 type veth peer name eth0 netns {vm}")
    sh(f"ip -n {vm} link set dev eth0 address {_FRAME_MAC} up")
    sh(f"ip -n {host} link add br0 type bridge")
    for device in ("p0", "v0"):
        sh(f"ip -n {host} link set dev {device} master br0 up")
    sh(f"ip -n {host} link set dev br0 up")
    sh("ip link set dev bridgew up")
    sh(f"bridge -n {host} fdb replace {_FRAME_MAC} dev v0 master static")
    with kernel.namespace(path["bridge"]):
        for table in ("ip", "ip6", "arp"):
            switch = Path(f"/proc/sys/net/bridge/bridge-nf-call-{table}tables")
            if switch.exists():
                switch.write_text("0")
        accept_frames(kernel, index_of(kernel, "p0"))
    with kernel.namespace(path["vm2"]):
        drop_all(kernel, "eth0")
    return index_of(kernel, "bridgew")


def install(driver: object, flows: int) -> None:
    """Give the NIC a rule for each source address."""
    filters = driver.flow_filters  # type: ignore[attr-defined]
    outcomes = filters.create_many(placements(flows))
    bad = [one for one in outcomes if isinstance(one, Exception)]
    if bad:
        raise RuntimeError(f"{len(bad)} rules were refused, the first: {bad[0]}")


def placements(flows: int) -> list[Placement]:
    """Return five-tuple rules that differ in their source address."""
    action = (ToVf(vf=0),)
    return [
        Placement(
            rule=FlowRule(
                match=Match.of(ipv4_src=number, ipv4_dst=0x0A000001, ip_proto=17, tp_src=1000, tp_dst=2000),
                actions=action,
            ),
            table="flows",
            flow_type="udp4",
        )
        for number in range(flows)
    ]


def table_figures(rounds: int = 5) -> Figures:
    """Compare inserting and reading 100,000 flows with a C program that uses libbpf's batch calls, in turns.

    The CPU time of the best run of each. Ours is inserted from columns, and read by rule as the SDK does: first
    after the NIC was opened, and again, as counters are read again and again.
    """
    kernel = LinuxKernel()
    tag = f"snt{os.getpid() % 10000}"
    ours: dict[str, list[float]] = {"insert": [], "first_read": [], "read": [], "objects": []}
    theirs: dict[str, list[float]] = {"insert": [], "first_read": [], "read": []}
    made = placements(_FLOWS)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        peer = compile_peer(Path(folder))
        home = stack.enter_context(namespace(stack, f"{tag}-home"))
        stack.enter_context(kernel.namespace(home))
        for _ in range(rounds):
            build.create(kernel, build.Wanted(name=tag, vfs=1, rows=_FLOWS))
            try:
                driver = load_registry(only=["softnic"]).open(names.PREFIX + tag)
                ours["insert"].append(insert_columns(driver))
                driver.close()
                driver = load_registry(only=["softnic"]).open(names.PREFIX + tag)
                refs = [one.ref for one in driver.flow_filters.dump()]  # type: ignore[union-attr]
                for what in ("first_read", *["read"] * 3):
                    start = time.thread_time_ns()
                    counters = driver.flow_filters.read_counters(refs)  # type: ignore[union-attr]
                    ours[what].append((time.thread_time_ns() - start) / _FLOWS)
                if int(counters.valid.sum()) != _FLOWS:
                    raise RuntimeError("not all counters were read")
                driver.flow_filters.destroy_many(refs)  # type: ignore[union-attr]
                if not ours["objects"]:
                    start = time.thread_time_ns()
                    install_made(driver, made)
                    ours["objects"].append((time.thread_time_ns() - start) / _FLOWS)
                driver.close()
            finally:
                build.destroy(kernel, tag)
            if peer is not None:
                done = subprocess.run([peer, str(_FLOWS)], check=True, capture_output=True, text=True)
                for what, cost in zip(theirs, map(float, done.stdout.split()), strict=True):
                    theirs[what].append(cost)
    figures = {f"softnic_{what}_ns": min(ours[what]) for what in theirs}
    figures["softnic_rule_objects_ns"] = min(ours["objects"])
    for what in theirs if peer is not None else ():
        figures[f"softnic_{what}_over_c"] = min(ours[what]) / min(theirs[what])
        figures[f"libbpf_{what}_ns"] = min(theirs[what])
    return figures


def install_made(driver: object, made: list[Placement]) -> None:
    """Install rules that are made."""
    outcomes = driver.flow_filters.create_many(made)  # type: ignore[attr-defined]
    if any(isinstance(one, Exception) for one in outcomes):
        raise RuntimeError("rules were refused")


def insert_columns(driver: object) -> float:
    """Install flows from columns, as a flow manager has them, and return ns a flow: encoding, records, map."""
    filters = driver.flow_filters  # type: ignore[attr-defined]
    filters.tables()  # read what is there: nothing
    like = Match.of(ipv4_src=1, ipv4_dst=0x0A000001, ip_proto=17, tp_src=1000, tp_dst=2000)
    numbers = np.arange(_FLOWS, dtype=np.uint64)
    values = dict(zip((name for name, _ in like.shape), like.values, strict=True))
    ids = np.frombuffer(b"".join(uuid.uuid4().bytes for _ in range(_FLOWS)), np.uint8).reshape(-1, 16)
    start = time.thread_time_ns()
    columns = [numbers if name == "ipv4_src" else values[name] for name, _ in like.shape]
    form = form_of(like.shape)
    block = Block(
        keys=encode_columns(form, columns, _FLOWS),
        mask=form.mask,
        named=False,
        out=np.full(_FLOWS, layout.FIRST_VF, np.uint16),
        mirror=np.full(_FLOWS, layout.NO_PORT, np.uint16),
        priority=np.zeros(_FLOWS, np.uint16),
        flags=np.zeros(_FLOWS, np.uint8),
        rule_ids=ids,
    )
    slots, error = filters._store.insert(block)
    cost = (time.thread_time_ns() - start) / _FLOWS
    if error is not None or len(slots) != _FLOWS:
        raise RuntimeError(f"only {len(slots)} flows went in: {error}")
    return cost


def compile_peer(folder: Path) -> str | None:
    """Build the C program; None where the compiler or libbpf is missing."""
    target = folder / "libbpf_batch"
    if shutil.which("gcc") is None:
        print("bench: softnic: no comparison with C: it needs gcc and libbpf-dev", file=sys.stderr)
        return None
    command = ["gcc", "-O2", "-o", str(target), str(HERE / "libbpf_batch.c"), "-lbpf"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        print("bench: softnic: no comparison with C: it needs libbpf-dev", file=sys.stderr)
        return None
    return str(target)


def rate_figures(seconds: float = 4.0) -> Figures:
    """Measure what TCP gets through the shaper, in Mbit/s of frames as the NIC counts them on the wire.

    Maximums of 100 Mbit/s and 1 Gbit/s; then a port of 500 Mbit/s with guarantees of 300, 150 and 50, all VFs busy, and
    the last VF alone.
    """
    found: Figures = {}
    with rate_rig(1, None) as (driver, sockets):
        for mbps in (100, 1000):
            driver.rates.set_many({0: RateLimit(max_tx_bps=mbps * 1_000_000)})
            found[f"softnic_max_{mbps}_mbps"] = measured(driver, sockets, [0], seconds)[0]
    with rate_rig(3, 500_000_000) as (driver, sockets):
        wanted = {0: 300, 1: 150, 2: 50}
        driver.rates.set_many({vf: RateLimit(min_tx_bps=mbps * 1_000_000) for vf, mbps in wanted.items()})
        got = measured(driver, sockets, list(wanted), seconds)
        found |= {f"softnic_min_{wanted[vf]}_mbps": rate for vf, rate in got.items()}
        found["softnic_alone_500_mbps"] = measured(driver, sockets, [2], seconds)[2]
    return found


@contextlib.contextmanager
def rate_rig(vfs: int, link_bps: int | None) -> Iterator[tuple[Any, dict[int, socket.socket]]]:
    """Make a NIC whose VFs have a TCP connection each to the wire."""
    kernel = LinuxKernel()
    tag = f"snr{os.getpid() % 10000}"
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(namespace(stack, f"{tag}-home"))
        rooms = [stack.enter_context(namespace(stack, f"{tag}-vm{vf}")) for vf in range(vfs)]
        stack.enter_context(kernel.namespace(home))
        build.create(kernel, build.Wanted(name=tag, vfs=vfs, link_bps=link_bps))
        stack.callback(build.destroy, kernel, tag)
        driver: Any = load_registry(only=["softnic"]).open(names.PREFIX + tag)
        stack.callback(driver.close)
        sh(f"ip addr add 10.0.0.254/24 dev {names.wire(tag)}")
        sh(f"ip link set dev {names.wire(tag)} up")
        rules = []
        for vf in range(vfs):
            room, device = Path(rooms[vf]).name, names.vf(tag, vf)
            sh(f"ip link set dev {device} netns {room}")
            sh(f"ip -n {room} addr add 10.0.0.{vf + 1}/24 dev {device}")
            sh(f"ip -n {room} link set dev {device} up")
            rules.append(FlowRule(match=Match.of(ipv4_dst=f"10.0.0.{vf + 1}"), actions=(ToVf(vf=vf),)))
            rules.append(FlowRule(match=Match.of(eth_type=0x0806, in_port=f"vf:{vf}"), actions=(ToUplink(),)))
            rules.append(FlowRule(match=Match.of(eth_type=0x0800, in_port=f"vf:{vf}"), actions=(ToUplink(),)))
            arp = Match.of(eth_type=0x0806, eth_dst=mac_of(kernel, rooms[vf], device))
            rules.append(FlowRule(match=arp, actions=(ToVf(vf=vf),)))
        install_made(driver, [Placement(rule=rule, table="flows", flow_type="") for rule in rules])
        listener = socket.create_server(("10.0.0.254", 5201))
        stack.callback(listener.close)
        sockets = {}
        for vf, room in enumerate(rooms):
            with kernel.namespace(room):
                sender = socket.socket()
            stack.callback(sender.close)
            sender.connect(("10.0.0.254", 5201))
            receiver = listener.accept()[0]
            stack.callback(receiver.close)
            threading.Thread(target=drain, args=(receiver,), daemon=True).start()
            sockets[vf] = sender
        yield driver, sockets


def mac_of(kernel: LinuxKernel, room: str, device: str) -> int:
    """Return the address of a device."""
    with kernel.namespace(room), Netlink(kernel, NETLINK_ROUTE) as netlink:
        return veth.find_by_name(netlink, device).mac


def drain(receiver: socket.socket) -> None:
    """Receive until the sender is gone."""
    with contextlib.suppress(OSError):
        while receiver.recv(1 << 20):
            pass


def measured(
    driver: Any, sockets: dict[int, socket.socket], busy: list[int], seconds: float
) -> dict[int, float]:
    """Return what VFs sent while all of `busy` sent as fast as they could, by index, in Mbit/s."""
    stop = threading.Event()

    def send(sender: socket.socket) -> None:
        block = bytes(1 << 17)
        while not stop.is_set():
            sender.sendall(block)

    threads = [threading.Thread(target=send, args=(sockets[vf],)) for vf in busy]
    for thread in threads:
        thread.start()
    time.sleep(1)  # what a bucket holds at first is spent then

    def read() -> dict[int, int]:
        return {vf: int(driver.device.traffic[:, layout.FIRST_VF + vf]["tx_bytes"].sum()) for vf in busy}

    before, start = read(), time.perf_counter()
    time.sleep(seconds)
    after, took = read(), time.perf_counter() - start
    stop.set()
    for thread in threads:
        thread.join()
    return {vf: (after[vf] - before[vf]) * 8 / took / 1e6 for vf in busy}


if __name__ == "__main__":
    parts = {"path": path_figures, "tables": table_figures, "rates": rate_figures}
    print(json.dumps(parts[sys.argv[1]]()))
