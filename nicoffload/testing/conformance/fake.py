"""NICs for the kit on the fake kernel: what a plugin for Linux is tried on without hardware and without root."""

from __future__ import annotations

from collections.abc import Sequence

from nicoffload.driver import Driver
from nicoffload.registry import Registry
from nicoffload.testing.conformance.foreign import through_tc
from nicoffload.testing.conformance.packets import to_batch
from nicoffload.testing.conformance.under_test import Ground, NicUnderTest, Packet
from nicoffload.testing.emulator.config import Config
from nicoffload.testing.fake_kernel import FakeKernel
from nicoffload.testing.fake_kernel.world import FakeNic

PCI_ADDRESS = "0000:03:00.0"
NETDEVSIM_NAME = "netdevsim1"
"""Netdevsim is no PCI device: it has a bus of its own."""

_SIMULATED = "netdevsim"
_UNPREPARED = Config(prepared=False)


class FakeNics:
    """Opens a fresh NIC on a fresh fake kernel each time, and sends packets into the one that is open.

    Args:
        registry: The plugins and profiles.
        family: The profile that the NICs have.
        config: How each is at first.
    """

    def __init__(self, registry: Registry, family: str, config: Config = _UNPREPARED) -> None:
        self._registry = registry
        self._profile = registry.profiles.get(family)
        self._config = config
        self.kernel = FakeKernel()
        """The kernel of the NIC that was opened last."""
        self.nic: FakeNic | None = None
        """The NIC that was opened last."""

    @property
    def address(self) -> str:
        """What the NIC is opened by."""
        return NETDEVSIM_NAME if self._profile.family == _SIMULATED else PCI_ADDRESS

    def open(self) -> Driver:
        """Plug a NIC in and open it."""
        self.kernel = kernel = FakeKernel()
        self.nic = kernel.plug(self._profile, pci_address=self.address, config=self._config)
        return self._registry.on(kernel).open(
            self.address,
            wall_clock_s=kernel.monotonic_s,
            monotonic_s=kernel.monotonic_s,
            sleep_s=kernel.sleep_s,
        )

    def send(self, driver: Driver, packets: Sequence[Packet]) -> None:  # noqa: ARG002 - the protocol's signature
        """Send packets into the NIC that was opened last."""
        assert self.nic is not None, "open() comes first"
        device = self.nic.device
        batch = to_batch(packets, device.now_ns)
        with device.session():
            for index, packet in enumerate(packets):
                device.receive(batch, index, index + 1, packet.get("in_port", 0))

    def sleep_s(self, seconds: float) -> None:
        """Let time pass on the kernel of the NIC that was opened last."""
        self.kernel.sleep_s(seconds)


def on_fake_kernel(registry: Registry, family: str, config: Config = _UNPREPARED) -> NicUnderTest:
    """Return a NIC on the fake kernel for the kit.

    Args:
        registry: The plugins and profiles.
        family: The profile that the NIC has.
        config: How it is at first: no VFs, and every feature as its driver has it, unless asked otherwise.
    """
    nics = FakeNics(registry, family, config)
    return NicUnderTest(
        name=nics.address,
        open_driver=nics.open,
        disposable=True,
        ground=Ground.EMULATOR,
        # netdevsim takes rules and forwards nothing by them, on the fake kernel as on a real one.
        packets=None if family == _SIMULATED else nics,
        foreign_rule=through_tc,
        sleep_s=nics.sleep_s,
    )
