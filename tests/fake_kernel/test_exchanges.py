"""The fake kernel in the exchanges that real kernels were recorded in: the same answers and the same errnos.

`make test-vm` plays them on the real kernels again, beside the fake one.
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from nicoffload.kernel.linux import LinuxKernel
from tests.kernel.exchanges import fake, filters, offload, u32, vfs
from tests.kernel.exchanges.stage import Stage

RECORDED = Path(__file__).parents[1] / "kernel/captures"


def recorded(name: str) -> list[str]:
    """Return what a real kernel answered: user-mode Linux 6.12, or Debian's 6.12 on QEMU's igb."""
    return (RECORDED / f"exchange-{name}.txt").read_text("utf-8").splitlines()


def test_filters_without_hardware():
    kernel, roles = fake.plain("a", "b")
    with Stage(kernel, roles) as stage:
        assert filters.play(stage) == recorded("filters")


def test_words_without_hardware():
    kernel, roles = fake.plain("a", "b")
    with Stage(kernel, roles) as stage:
        assert u32.play(stage) == recorded("u32")


def test_filters_in_hardware():
    kernel, roles, knob = fake.netdevsim()
    with Stage(kernel, roles) as stage:
        assert offload.play(stage, kernel, ("nsim0", "nsim1"), knob) == recorded("offload")


def test_vfs_of_netdevsim():
    with Stage(*fake.with_vfs("netdevsim", 2)) as stage:
        assert vfs.play(stage) == recorded("vfs-netdevsim")


def test_vfs_of_igb():
    with Stage(*fake.with_vfs("igb_82576", 2, link_bps=1_000_000_000)) as stage:
        assert vfs.play(stage) == recorded("vfs-igb")


@pytest.mark.root
def test_words_on_the_kernel_that_the_tests_run_on():
    name = f"nicoffload-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces here")
    try:
        with LinuxKernel().namespace(f"/run/netns/{name}") as kernel:
            subprocess.run(
                ["ip", "link", "add", "sa", "type", "veth", "peer", "name", "sb"],
                check=True,
                capture_output=True,
            )
            with Stage(kernel, {role: socket.if_nametoindex(f"s{role}") for role in "ab"}) as stage:
                real = u32.play(stage)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert real == recorded("u32")
