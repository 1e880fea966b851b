"""The conformance kit on the software NIC, with real packets."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
import softrig
from packets import ethernet

from nicoffload.kernel.linux import LinuxKernel
from nicoffload.testing.conformance import NicUnderTest, Verdict, run, select
from nicoffload.testing.conformance.packets import WIRE_BYTES
from nicoffload.testing.conformance.report import lines
from nicoffload.testing.conformance.under_test import Ground
from nicoffload_softnic import build, names
from tests.revision import code_revision

REPORTS = Path(__file__).resolve().parents[3] / "build/vm/host"

softrig.skip_without_root()
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("softnic")]


def frame_of(packet):
    """Return the frame of a packet of the kit, `WIRE_BYTES` long."""
    tags = []
    if "vlan_vid" in packet:
        dei_pcp = packet.get("vlan_dei", 0) << 12 | packet.get("vlan_pcp", 0) << 13
        tags.append((0x8100, packet["vlan_vid"] | dei_pcp))
    room = WIRE_BYTES - 14 - 4 * len(tags)
    kind = packet["eth_type"]
    if kind == 0x0800:
        payload = _ip4(packet, room)
    elif kind == 0x86DD:
        payload = _ip6(packet, room)
    else:
        payload = bytes(room)
    return ethernet(kind, payload, src=packet["eth_src"], dst=packet["eth_dst"], tags=tags)


def _transport(packet, room):
    head = b""
    if "tp_src" in packet:
        head = packet["tp_src"].to_bytes(2, "big") + packet["tp_dst"].to_bytes(2, "big")
    elif packet["ip_proto"] in {1, 58}:
        head = bytes([packet.get("icmp_type", 0), packet.get("icmp_code", 0)])
    return head.ljust(room, b"\0")


def _ip4(packet, room):
    fragment = packet.get("ip_frag", 0)
    offset = (0x2000 if fragment == 1 else 0) | (5 if fragment & 2 else 0)
    head = (
        bytes([0x45, packet.get("ip_tos", 0)])
        + room.to_bytes(2, "big")
        + bytes(2)
        + offset.to_bytes(2, "big")
    )
    head += bytes([packet["ip_ttl"], packet["ip_proto"], 0, 0])
    head += packet["ipv4_src"].to_bytes(4, "big") + packet["ipv4_dst"].to_bytes(4, "big")
    return head + _transport(packet, room - 20)


def _ip6(packet, room):
    word = 6 << 28 | packet.get("ip_tos", 0) << 20
    head = word.to_bytes(4, "big") + (room - 40).to_bytes(2, "big")
    kinds, extra = packet["ip_proto"], b""
    if packet.get("ip_frag", 0):
        offset = 8 if packet["ip_frag"] & 2 else 1
        extra, kinds = bytes([packet["ip_proto"], 0]) + offset.to_bytes(2, "big") + bytes(4), 44
    head += bytes([kinds, packet["ip_ttl"]])
    head += packet["ipv6_src"].to_bytes(16, "big") + packet["ipv6_dst"].to_bytes(16, "big")
    return head + extra + _transport(packet, room - 40 - len(extra))


class Wire:
    """Sends the kit's packets into the port that they name."""

    def __init__(self, rig):
        self.rig = rig

    def send(self, driver, packets):
        self._set_up(driver)
        for packet in packets:
            port = packet.get("in_port", 0)
            before = self._entered(driver, port)
            self._tap(port).send(frame_of(packet))
            for _ in range(10_000):
                if self._entered(driver, port) != before:
                    break
                os.sched_yield()

    def _set_up(self, driver):
        """Set up the VFs that the kit made: nothing is delivered to one that is down."""
        here = {name for _, name in socket.if_nameindex()}
        for vf in range(len(driver.virtual_functions.states())):
            if (ifname := names.vf(self.rig.name, vf)) in here:
                softrig.run(f"ip link set dev {ifname} up")

    def _tap(self, port):
        name = ("wire", "pf")[port] if port < 2 else f"vf{port - 2}"
        return self.rig.taps[name]

    def _entered(self, driver, port):
        seen = driver.statistics.read()[port]
        return sum(getattr(seen, name) or 0 for name in ("rx_packets", "tx_packets", "tx_dropped"))


def _keep(report):
    """Leave the report where `make support` takes it up, beside those of the guests."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / "commit").write_text(code_revision() + "\n", "utf-8")
    (REPORTS / f"conformance-{report.family}.json").write_text(json.dumps(report.to_json()), "utf-8")


def nic_under_test(rig, **options):
    """Return a rig's NIC for the kit."""
    return NicUnderTest(
        **{
            "name": rig.nic_name,
            "open_driver": rig.driver,
            "ground": Ground.SOFTWARE,
            "sleep_s": lambda seconds: None,
            **options,
        }
    )


@pytest.mark.parametrize("data_path", ["ebpf", "u32"])
def test_the_kit_passes(tmp_path, data_path):
    with softrig.rig(tmp_path, vfs=4, rows=500, data_path=data_path) as rig:
        report = run(nic_under_test(rig, packets=Wire(rig)), disruptive=True)
    _keep(report)
    assert report.ok, "\n".join(lines(report))
    for case in report.of(Verdict.NOT_SHOWN):
        print(case)


@pytest.mark.parametrize("data_path", ["ebpf", "u32"])
def test_as_many_vfs_as_there_can_be_on_a_nic_of_the_kits_own(tmp_path, data_path):
    kernel = LinuxKernel()
    with softrig.rig(tmp_path, vfs=0, data_path=data_path) as rig:

        def anew():
            softrig.destroy_if_there(kernel, rig.name)
            build.create(kernel, build.Wanted(name=rig.name, vfs=0, rows=10, data_path=data_path))
            return rig.driver()

        nic = nic_under_test(rig, open_driver=anew, disposable=True)
        report = run(nic, select(["VF-03"]), disruptive=True)
    assert report.ok, "\n".join(lines(report))
    assert [each.verdict for each in report.cases] == [Verdict.PASSED]


@pytest.mark.parametrize("data_path", ["ebpf", "u32"])
def test_a_nic_that_is_found_without_vfs_goes_from_one_state_to_another_as_any(tmp_path, data_path):
    with softrig.rig(tmp_path, vfs=0, rows=500, data_path=data_path) as rig:
        report = run(nic_under_test(rig), select(["NIC-05"]), disruptive=True)
    assert report.ok, "\n".join(lines(report))
    assert [each.verdict for each in report.cases] == [Verdict.PASSED]
