"""NICs of any profile on the fake kernel, opened as a plugin does it."""

from __future__ import annotations

from nicoffload.driver import OpenContext
from nicoffload.kernel.tc import QueueStyle
from nicoffload.linux import LinuxNic, compose, mechanisms
from nicoffload.model import DeviceInfo
from nicoffload.registry import load_registry
from nicoffload.testing import FakeKernel
from nicoffload.testing.emulator.config import Config

ADDRESS = "0000:03:00.0"
PROFILES = load_registry().profiles
PCI_FAMILIES = [family for family in PROFILES.families() if PROFILES.get(family).pci_ids.pf]


class Live:
    """A NIC in a fake kernel, with the driver that was composed for it."""

    def __init__(self, family, *, queues=QueueStyle.NONE, **config):
        self.kernel = FakeKernel()
        self.profile = PROFILES.get(family)
        config.setdefault("prepared", False)
        self.nic = self.kernel.plug(
            self.profile, pci_address=ADDRESS, ifname="enp3s0f0", config=Config(**config)
        )
        self.context = OpenContext(
            profiles=PROFILES,
            kernel=self.kernel,
            wall_clock_s=lambda: 0.0,
            monotonic_s=lambda: self.kernel.world.now_ns / 1e9,
            sleep_s=self.kernel.sleep_s,
        )
        info = DeviceInfo(
            name=ADDRESS, family=family, title=self.profile.title, plugin="test", pci_address=ADDRESS
        )
        linux = LinuxNic(self.context, self.profile, info)
        self.driver = compose(linux, serve=mechanisms(linux, queues=queues))
