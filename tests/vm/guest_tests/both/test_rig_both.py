"""What every guest must offer."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import nicoffload.errors
from tests.vm.rig.layout import GUESTS, KERNEL_SERIES


def test_the_guest_says_which_it_is_and_who_we_are(guest, request):
    assert guest in GUESTS
    assert platform.node() == guest
    assert platform.release().startswith(f"{KERNEL_SERIES}.")
    assert os.geteuid() == 0
    assert request.node.get_closest_marker("vm")


def test_the_checkout_is_the_hosts_and_writes_to_it_stay_here(repo_root):
    assert Path(nicoffload.errors.__file__).is_relative_to(repo_root)
    mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    assert [kind for _, where, kind, *_ in mounts if where == "/"][-1] == "overlay"
    (repo_root / "build").mkdir(exist_ok=True)
    (repo_root / "build/written-in-a-guest").write_text("gone when the guest is", "utf-8")


def test_open_vswitch_forwards_between_namespaces(vswitch, namespaces, sh, reach):
    sh("modprobe openvswitch")
    vswitch.tell("ovs-vsctl", "add-br", "br0")
    for number in (1, 2):
        name = namespaces(f"host{number}")
        sh(f"ip link add port{number} type veth peer name eth0 netns {name}")
        sh(f"ip link set port{number} up")
        sh(f"ip -n {name} addr add 10.9.0.{number}/24 dev eth0")
        sh(f"ip -n {name} link set eth0 up")
        vswitch.tell("ovs-vsctl", "add-port", "br0", f"port{number}")
    assert reach("10.9.0.2", netns="host1")
    assert "in_port" in vswitch.tell("ovs-appctl", "dpctl/dump-flows")
