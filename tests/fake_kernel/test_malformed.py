"""What nobody should send: the fake kernel refuses it or leaves it alone, as Linux does, and breaks on nothing."""

from __future__ import annotations

import contextlib
import functools
import random

import pytest

from nicoffload.errors import InvalidRequestError
from nicoffload.kernel.seam import NETLINK_GENERIC, NETLINK_ROUTE
from tests.fake_kernel.plugging import PF, plugged
from tests.kernel.scenarios import IGB, SIMULATED
from tests.kernel.test_scenarios import igb, simulated

MUTANTS = 800


@functools.cache
def corpus(kind: str) -> list[tuple[str, bytes]]:
    """Return what the scenarios send, with where it goes."""
    found = []
    for scenarios, make in ((SIMULATED, simulated), (IGB, igb)):
        for scenario in scenarios:
            subject = make()
            scenario(subject, _Silent())
            found += [(one.target, one.data) for one in subject.kernel.requests if one.kind == kind]
    return sorted(set(found))


class _Silent:
    def do(self, what, call):
        with contextlib.suppress(Exception):
            call()


def mutants(samples: list[tuple[str, bytes]], seed: int):
    """Yield samples with some bytes changed, cut out or cut off."""
    chance = random.Random(seed)
    for _ in range(MUTANTS):
        target, data = chance.choice(samples)
        changed = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            if changed:
                changed[chance.randrange(len(changed))] = chance.choice([0, 1, 0xFF, chance.randrange(256)])
        if chance.random() < 0.3:
            del changed[chance.randrange(len(changed) + 1) :]
        yield target, bytes(changed)


@pytest.mark.parametrize("family", ["mlx5", "ice", "ixgbe"])
def test_damaged_datagrams_are_answered_or_left_alone(family):
    kernel, _ = plugged(family, vfs=2)
    for target, data in mutants(corpus("netlink"), seed=len(family)):
        channel = kernel.open_netlink(int(target))
        channel.send(data)
        channel.close()
    assert kernel.world.netdev_named("lo") is not None


@pytest.mark.parametrize("family", ["ixgbe", "sfc_siena", "igb_i350"])
def test_damaged_buffers_are_refused_with_an_errno_or_answered_in_their_length(family):
    kernel, _ = plugged(family, prepared=True)
    samples = corpus("ethtool")
    for _, data in mutants(samples, seed=len(family)):
        with contextlib.suppress(OSError):
            assert len(kernel.ethtool("enp3s0f0", data)) == len(data)


def test_damaged_paths_and_texts_are_refused_with_an_errno():
    kernel, _ = plugged("ice", vfs=2)
    chance = random.Random(3)
    parts = [
        "bus",
        "pci",
        "devices",
        PF,
        "driver",
        "class",
        "net",
        "enp3s0f0",
        "..",
        "",
        "virtfn7",
        "iommu_group",
        "x",
    ]
    texts = [b"0", b"1", b"-1", b"\xff\xfe", b"", b"9" * 5000, b"\0", PF.encode()]
    for _ in range(MUTANTS):
        path = "/".join(chance.choices(parts, k=chance.randint(1, 8)))
        with contextlib.suppress(OSError, InvalidRequestError):
            kernel.read_sysfs(path)
        with contextlib.suppress(OSError, InvalidRequestError):
            kernel.list_sysfs(path)
    files = [f"bus/pci/devices/{PF}/{name}" for name in kernel.list_sysfs(f"bus/pci/devices/{PF}")]
    files += ["bus/pci/drivers_probe", "bus/pci/drivers/ice/bind", "bus/pci/drivers/ice/unbind"]
    for _ in range(MUTANTS // 5):
        with contextlib.suppress(OSError):
            kernel.write_sysfs(chance.choice(files), chance.choice(texts))


def test_a_datagram_of_noise_is_left_alone():
    kernel, _ = plugged("mlx5")
    chance = random.Random(5)
    for family in (NETLINK_ROUTE, NETLINK_GENERIC):
        channel = kernel.open_netlink(family)
        for _ in range(300):
            channel.send(chance.randbytes(chance.randint(0, 200)))
        channel.close()
