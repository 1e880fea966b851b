"""Live NICs for tests: a vendor's plugin on a fake kernel."""

from __future__ import annotations

from dataclasses import dataclass

from nicoffload import load_registry, open_nic
from nicoffload.driver import Driver, Placement
from nicoffload.model import FlowRule, Match
from nicoffload.registry import Registry
from nicoffload.testing import FakeKernel
from nicoffload.testing.emulator.config import Config
from nicoffload.testing.fake_kernel import FakeNic

ADDRESS = "0000:03:00.0"
_REGISTRY = load_registry()
PROFILES = _REGISTRY.profiles


@dataclass(frozen=True, slots=True)
class Live:
    """A NIC, its plugin's driver, and the kernel between them."""

    kernel: FakeKernel
    nic: FakeNic
    driver: Driver

    @property
    def hardware(self):
        """The emulated hardware."""
        return self.nic.device

    def put(self, table, *actions, slot=None, flow_type="", priority=None, **fields):
        """Install one rule past the compiler, and return the outcome."""
        rule = FlowRule(match=Match.of(**fields), actions=actions, priority=priority)
        [outcome] = self.driver.flow_filters.create_many(
            [Placement(rule=rule, table=table, flow_type=flow_type, slot=slot)]
        )
        return outcome

    def table(self, name):
        """Return the state of a table."""
        return next(state for state in self.driver.flow_filters.tables() if state.table.name == name)

    def open(self, folder):
        """Open the NIC with journal and compiler, as a user would."""
        return open_nic(
            ADDRESS,
            registry=registry(self.kernel),
            state_dir=folder,
            monotonic_s=self.kernel.monotonic_s,
            sleep_s=self.kernel.sleep_s,
        )

    def asked(self, kind):
        """Return what was asked of the kernel of one kind."""
        return [request for request in self.kernel.requests if request.kind == kind]


def registry(kernel: FakeKernel) -> Registry:
    """Return the installed plugins on a kernel."""
    factories = _REGISTRY._factories
    return Registry(_REGISTRY.plugins, PROFILES, factories, kernel)


def live(family: str, *, faults=(), profile=None, **config) -> Live:
    """Plug a NIC into a new kernel and open it: with nothing prepared, unless asked otherwise."""
    kernel = FakeKernel()
    config.setdefault("prepared", False)
    nic = kernel.plug(
        profile or PROFILES.get(family),
        pci_address=ADDRESS,
        ifname="eth0",
        config=Config(**config),
        faults=faults,
    )
    return Live(kernel, nic, reopen(kernel))


def reopen(kernel: FakeKernel) -> Driver:
    """Open the NIC as another process would."""
    return registry(kernel).open(ADDRESS, monotonic_s=kernel.monotonic_s, sleep_s=kernel.sleep_s)
