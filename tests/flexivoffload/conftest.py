"""Captures made packet by packet, and replays of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nicoffload import open_nic
from nicoffload.flexivoffload.capture import open_capture
from nicoffload.flexivoffload.manager import ManagerConfig
from nicoffload.flexivoffload.policy import parse_policy
from nicoffload.flexivoffload.replay import Replay
from nicoffload.flexivoffload.report import ReplayReport, make_report
from nicoffload.flexivoffload.vms import Vm

VMS = tuple(
    Vm(name=name, vf=index, macs=(0x020000000100 + index,), ips=(f"10.0.0.{index + 1}",))
    for index, name in enumerate(("web", "db", "log"))
)


@dataclass(frozen=True)
class Packet:
    """One packet of a test capture."""

    time_ns: int
    src: str
    dst: str
    sport: int
    dport: int
    proto: int = 6
    size: int = 100
    vlan: int | None = None
    flags: int = 0x10
    kind: str = "ip"

    def frame(self) -> bytes:
        """Return its first bytes."""
        dst_mac, src_mac = mac_of(self.dst), mac_of(self.src)
        if self.kind == "broadcast":
            dst_mac = b"\xff" * 6
        tag = b"" if self.vlan is None else struct.pack("!HH", 0x8100, self.vlan)
        if self.kind == "arp":
            return dst_mac + src_mac + tag + b"\x08\x06" + bytes(28)
        addresses = b"".join(bytes(int(part) for part in end.split(".")) for end in (self.src, self.dst))
        l4 = struct.pack("!HHIIBBHHH", self.sport, self.dport, 0, 0, 0x50, self.flags, 0, 0, 0)
        if self.proto == 17:
            l4 = struct.pack("!HHHH", self.sport, self.dport, 8, 0)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), 0, 0, 64, self.proto, 0) + addresses
        whole = dst_mac + src_mac + tag + b"\x08\x00" + ip + l4
        return whole[:20] if self.kind == "cut" else whole


def mac_of(ip: str) -> bytes:
    """Return the MAC of a VM by its address, or a made-up one."""
    for vm in VMS:
        if ip in vm.ips:
            return vm.macs[0].to_bytes(6, "big")
    return b"\x02\x00\x00\x00\x09" + bytes([int(ip.rsplit(".", 1)[1])])


def write_pcap(path: Path, packets: Sequence[Packet], *, corrupt_tail: bool = False) -> Path:
    """Write a capture with nanoseconds."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))
        for packet in packets:
            frame = packet.frame()
            wire = max(packet.size, len(frame))
            file.write(
                struct.pack("<IIII", packet.time_ns // 10**9, packet.time_ns % 10**9, len(frame), wire)
            )
            file.write(frame)
        if corrupt_tail:
            file.write(struct.pack("<IIII", 1, 1, 60, 60) + b"short")
    return path


def run_replay(
    path: Path,
    policy: str,
    nic_name: str,
    *,
    vms: tuple[Vm, ...] | None = VMS,
    one_by_one: bool = False,
    config: ManagerConfig | None = None,
    flow_cap: int = 131_072,
) -> tuple[ReplayReport, Replay]:
    """Replay a capture, in bulk or as a stream of batches of one packet."""
    with open_nic(nic_name) as nic, open_capture(path) as reader:
        replay = Replay(nic, parse_policy(policy), vms, config=config, flow_cap=flow_cap)
        for batch in reader:
            if not one_by_one:
                replay.feed(batch)
                continue
            for index in range(len(batch)):
                replay.feed(
                    type(batch)(
                        time_ns=batch.time_ns[index : index + 1],
                        wire_bytes=batch.wire_bytes[index : index + 1],
                        header_index=batch.header_index[index : index + 1] * 0,
                        headers=batch.headers[batch.header_index[index : index + 1]],
                    )
                )
        replay.finish()
        report = make_report(
            replay, capture=str(path), skipped=reader.skipped, ended_early=reader.ended_early
        )
    return report, replay


@dataclass(frozen=True)
class Bench:
    """What tests take from here, as a fixture: test folders are no packages."""

    folder: Path
    packet: type[Packet] = Packet
    vms: tuple[Vm, ...] = VMS

    def capture(self, packets: Sequence[Packet], name: str = "test.pcap", **how: bool) -> Path:
        """Write a capture."""
        return write_pcap(self.folder / name, packets, **how)

    def faults(self, *faults: dict[str, object]) -> Path:
        """Write a fault script."""
        path = self.folder / "faults.json"
        path.write_text(json.dumps({"faults": list(faults)}), "utf-8")
        return path

    replay = staticmethod(run_replay)

    def two_way(
        self, count: int, *, flows: int = 4, step_ns: int = 10_000_000, start_ns: int = 10**18
    ) -> list[Packet]:
        """Return packets of some connections to the VMs, both ways in turn."""
        found = []
        for index in range(count):
            flow = index // 2 % flows
            ends = (f"10.9.0.{flow + 1}", f"10.0.0.{flow % 3 + 1}")
            ports = (40_000 + flow, 80)
            src, dst = ends if index % 2 == 0 else ends[::-1]
            sport, dport = ports if index % 2 == 0 else ports[::-1]
            found.append(
                Packet(
                    time_ns=start_ns + index * step_ns,
                    src=src,
                    dst=dst,
                    sport=sport,
                    dport=dport,
                    size=60 + index % 900,
                )
            )
        return found


@pytest.fixture
def bench(tmp_path):
    """Make captures and replay them."""
    return Bench(folder=tmp_path)
