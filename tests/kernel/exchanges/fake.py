"""The fake kernel as a stage, with devices of the same roles as the real one's."""

from __future__ import annotations

from collections.abc import Callable

from nicoffload.registry import load_registry
from nicoffload.testing import FakeKernel
from nicoffload.testing.emulator.config import Config


def plain(*names: str) -> tuple[FakeKernel, dict[str, int]]:
    """Return a fake kernel with devices that have no hardware, and their numbers."""
    kernel = FakeKernel()
    return kernel, {name: kernel.add_netdev(name).ifindex for name in names}


def netdevsim() -> tuple[FakeKernel, dict[str, int], Callable[[str, int], None]]:
    """Return a fake kernel with two netdevsims that stand for two ports, and what sets the first one's flow table."""
    kernel = FakeKernel()
    profile = load_registry().profiles.get("netdevsim")
    nics = [kernel.plug(profile, pci_address=f"netdevsim{n}", ifname=f"nsim{n}") for n in range(2)]
    table = kernel.route.flow_table(nics[0].pf)

    def knob(name: str, value: int) -> None:
        assert hasattr(table, name)
        setattr(table, name, value)

    return kernel, {"a": nics[0].pf.ifindex, "b": nics[1].pf.ifindex}, knob


def with_vfs(family: str, vfs: int, **config) -> tuple[FakeKernel, dict[str, int]]:
    """Return a fake kernel with one NIC of a family, which has so many VFs, and is up."""
    kernel = FakeKernel()
    name = "netdevsim1" if family == "netdevsim" else "0000:03:00.0"
    profile = load_registry().profiles.get(family)
    nic = kernel.plug(profile, pci_address=name, config=Config(prepared=False, vfs=vfs, **config))
    return kernel, {"pf": nic.pf.ifindex}
