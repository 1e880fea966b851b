"""The same exchanges with this real kernel and with the fake one: answer by answer, errno by errno."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from nicoffload.kernel.linux import LinuxKernel
from tests.kernel.exchanges import fake, filters, offload, u32, vfs
from tests.kernel.exchanges.stage import Stage

_OUT = Path("/run/out")


@pytest.fixture
def devices(sh):
    """Two devices without a qdisc."""
    sh("ip link add sa type veth peer name sb")
    yield {"a": socket.if_nametoindex("sa"), "b": socket.if_nametoindex("sb")}
    sh("ip link del sa")


def compare(name: str, real: list[str], ours: list[str]) -> None:
    (_OUT / f"exchange-{name}.txt").write_text("\n".join(real) + "\n", "utf-8")
    assert ours == real


def test_filters_without_hardware(devices):
    with Stage(LinuxKernel(), devices) as stage:
        real = filters.play(stage)
    kernel, roles = fake.plain("a", "b")
    with Stage(kernel, roles) as stage:
        ours = filters.play(stage)
    compare("filters", real, ours)


def test_u32_without_hardware(devices):
    with Stage(LinuxKernel(), devices) as stage:
        real = u32.play(stage)
    kernel, roles = fake.plain("a", "b")
    with Stage(kernel, roles) as stage:
        ours = u32.play(stage)
    compare("u32", real, ours)


def test_filters_in_hardware(simulated_nic, sh):
    nic = simulated_nic(ports=2)
    for netdev in nic.netdevs:
        sh(f"tc qdisc del dev {netdev} clsact")
    kernel = LinuxKernel()
    roles = {name: socket.if_nametoindex(netdev) for name, netdev in zip("ab", nic.netdevs, strict=True)}
    with Stage(kernel, roles) as stage:
        real = offload.play(
            stage,
            kernel,
            tuple(nic.netdevs),
            lambda name, value: nic.flow(name).write_text(str(value), "ascii"),
        )
    imitation, roles, knob = fake.netdevsim()
    with Stage(imitation, roles) as stage:
        ours = offload.play(stage, imitation, ("nsim0", "nsim1"), knob)
    compare("offload", real, ours)


def test_settings_of_vfs(simulated_nic):
    nic = simulated_nic()
    nic.set_vfs(2)
    with Stage(LinuxKernel(), {"pf": socket.if_nametoindex(nic.netdevs[0])}) as stage:
        real = vfs.play(stage)
    with Stage(*fake.with_vfs("netdevsim", 2)) as stage:
        ours = vfs.play(stage)
    compare("vfs-netdevsim", real, ours)
