"""A software NIC in namespaces that the test made itself, with raw sockets on each of its devices."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field

import pytest

from nicoffload import load_registry, open_nic
from nicoffload.errors import NicOffloadError
from nicoffload.kernel.bpf import require_bpf
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.model import LinkState, RateLimit, VfConfig, VlanTag
from nicoffload_softnic import build, names

_NUMBERS = itertools.count()


_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where Debian keeps ip, and where not every root looks


def skip_without_namespaces():
    """Skip the module that calls this as it is imported, where namespaces are not to be had."""
    if os.geteuid() != 0 or shutil.which("ip", path=_PATH) is None:
        pytest.skip("needs root and iproute2, for network namespaces", allow_module_level=True)


def skip_without_root():
    """Skip the module that calls this as it is imported, where namespaces or eBPF are not to be had."""
    skip_without_namespaces()
    try:
        require_bpf(LinuxKernel())
    except NicOffloadError as cause:
        pytest.skip(f"needs eBPF: {cause}", allow_module_level=True)


def run(command):
    """Run a command line; its words have no spaces."""
    done = subprocess.run(
        command.split(), capture_output=True, text=True, check=False, env={**os.environ, "PATH": _PATH}
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def run_child(code, **options):
    """Start a process that runs some code, and take what it prints."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, **options)


GSO_NONE, GSO_TCP4, GSO_UDP = 0, 1, 5  # of struct virtio_net_hdr


class Tap:
    """A raw socket on one device: sends frames, and keeps those that come in."""

    def __init__(self, namespace, ifname):
        kernel = LinuxKernel()
        with kernel.namespace(f"/run/netns/{namespace}"):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
            self.socket.bind((ifname, 0))
        self.socket.setsockopt(263, 8, 1)  # PACKET_AUXDATA, which has the VLAN tag
        self.socket.setsockopt(263, 23, 1)  # PACKET_IGNORE_OUTGOING
        self.socket.setblocking(False)

    def send(self, frame):
        self.socket.send(frame)

    def frames(self):
        """Return what came in, each with its VLAN tag put back.

        Sending and forwarding happen within the call that sends, or in the same CPU's soft interrupts right after it.
        """
        found = []
        while True:
            try:
                data, extra, _, address = self.socket.recvmsg(1 << 17, 256)
            except BlockingIOError:
                return found
            if address[2] == socket.PACKET_OUTGOING:
                continue
            for _, _, aux in extra:
                status, tci, tpid = (
                    int.from_bytes(aux[0:4], "little"),
                    int.from_bytes(aux[16:18], "little"),
                    int.from_bytes(aux[18:20], "little"),
                )
                if status & 0x10:  # TP_STATUS_VLAN_VALID
                    data = data[:12] + tpid.to_bytes(2, "big") + tci.to_bytes(2, "big") + data[12:]
            found.append(data)

    def close(self):
        self.socket.close()


def send_offloaded(namespace, ifname, frame, *, gso=GSO_NONE, linear=14, segment=0, checksum=(0, 0)):
    """Send a frame with its offloads still to do.

    Args:
        namespace: Of the device.
        ifname: The device.
        frame: All of it.
        gso: How it is to be cut.
        linear: Bytes of its head that are not in pages of their own, where it is long.
        segment: Bytes of payload in each segment.
        checksum: Where the transport header is, and where in it the checksum; (0, 0) for none to do.
    """
    head = struct.pack("<BBHHHH", any(checksum), gso, linear, segment, *checksum)
    with LinuxKernel().namespace(f"/run/netns/{namespace}"):
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sender.setsockopt(263, 15, 1)  # PACKET_VNET_HDR
        sender.bind((ifname, 0))
    with sender:
        sender.send(head + frame)


@dataclass
class Rig:
    """A NIC and its surroundings: one namespace for the host and the wire, one for each VM."""

    name: str
    vms: list
    state_dir: object
    data_path: str
    taps: dict = field(default_factory=dict)

    @property
    def nic_name(self):
        return names.PREFIX + self.name

    @property
    def home(self):
        return f"{self.name}-home"

    def open(self, **options):
        """Open the NIC; the caller closes it."""
        return open_nic(
            self.nic_name, registry=load_registry(only=["softnic"]), state_dir=self.state_dir, **options
        )

    def driver(self):
        """Open the NIC's driver, without what is above it; the caller closes it."""
        return load_registry(only=["softnic"]).open(self.nic_name)

    def send(self, port, frame):
        self.taps[port].send(frame)

    def sent_and_seen(self, port, frame):
        """Send a frame into a port and return where it came out: port to frames."""
        return self.seen_after(lambda: self.taps[port].send(frame))

    def seen_after(self, send):
        """Return where what a call sends came out: port to frames."""
        for tap in self.taps.values():
            tap.frames()
        send()
        seen = {}
        for _ in range(200):  # a soft interrupt may be left to ksoftirqd, which needs the CPU for a moment
            for name, tap in self.taps.items():
                if found := tap.frames():
                    seen.setdefault(name, []).extend(found)
            if seen:
                break
            os.sched_yield()
        return seen


@contextlib.contextmanager
def rig(state_dir, *, vfs=2, rows=1000, link_bps=None, data_path="ebpf"):
    name = f"t{os.getpid() % 100000:x}{next(_NUMBERS) % 100}"[:8]
    kernel = LinuxKernel()
    made = Rig(
        name=name,
        vms=[f"{name}-vm{index}" for index in range(vfs)],
        state_dir=state_dir,
        data_path=data_path,
    )
    with contextlib.ExitStack() as stack:
        for namespace in (made.home, *made.vms):
            kernel.add_namespace(namespace)
            stack.callback(kernel.remove_namespace, namespace)
            run(f"ip netns exec {namespace} sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
            run(f"ip netns exec {namespace} sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
        with kernel.namespace(f"/run/netns/{made.home}"):
            wanted = build.Wanted(name=name, vfs=vfs, rows=rows, link_bps=link_bps, data_path=data_path)
            build.create(kernel, wanted)
            stack.callback(destroy_if_there, kernel, name)
            for index, vm in enumerate(made.vms):
                run(f"ip link set dev {names.vf(name, index)} netns {vm}")
                run(f"ip -n {vm} link set dev {names.vf(name, index)} up")
                run(f"ip link set dev {names.representor(name, index)} up")
                made.taps[f"vf{index}"] = Tap(vm, names.vf(name, index))
                made.taps[f"r{index}"] = Tap(made.home, names.representor(name, index))
            for role, ifname in (("wire", names.wire(name)), ("pf", names.pf(name))):
                run(f"ip link set dev {ifname} up")
                made.taps[role] = Tap(made.home, ifname)
            for tap in made.taps.values():
                stack.callback(tap.close)
            yield made


def reset_settings(nic):
    """Give every VF the settings of a new one."""
    count = len(nic.vfs())
    vlan = VlanTag(vid=0) if nic.profile.vf.vlan.supported == "yes" else None
    nic.configure_vfs(
        [
            VfConfig(vf=vf, mac=0, vlan=vlan, spoof_check=True, trust=False, link_state=LinkState.AUTO)
            for vf in range(count)
        ]
    )
    nic.set_rates({vf: RateLimit() for vf in range(count)})


def destroy_if_there(kernel, name):
    if names.namespace_of(name) in kernel.namespaces():
        build.destroy(kernel, name)
