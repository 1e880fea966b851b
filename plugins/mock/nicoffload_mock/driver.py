"""An open emulated NIC: its facets, and what it says that it can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nicoffload.driver import Delivery, Driver, PacketPath, Statistics, TableState
from nicoffload.driver.capabilities import Probed, answers
from nicoffload.errors import Reason
from nicoffload.model import (
    ByteBasis,
    Capability,
    CounterFacts,
    DeviceInfo,
    Evidence,
    Support,
    TrafficStats,
    format_switch_port,
)
from nicoffload.packets import PacketBatch
from nicoffload.profiles.types import Counters, NicProfile
from nicoffload.testing.emulator import assumptions
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.counters import PORT_VALUES
from nicoffload.testing.emulator.device import Device
from nicoffload.testing.emulator.spec import TableSpec
from nicoffload.testing.emulator.state import Store
from nicoffload_mock.answers import translate
from nicoffload_mock.flows import MockFlows
from nicoffload_mock.functions import MockFunctions
from nicoffload_mock.rates import MockRates


class MockDriver(Driver):
    """One open emulated NIC.

    Args:
        device: The hardware.
        profile: Its profile.
        info: Its name.
        state: File that keeps it; None for memory.
        store: That file, open.
    """

    def __init__(
        self, device: Device, profile: NicProfile, info: DeviceInfo, state: Path | None, store: Store | None
    ) -> None:
        self.device = device
        self._profile = profile
        self._info = info
        self._state = state
        self._store = store
        self.flow_filters = MockFlows(self) if profile.tables else None
        self.virtual_functions = MockFunctions(self) if profile.sriov else None
        has_rates = profile.rates.min_tx.supported != "no" or profile.rates.max_tx.supported != "no"
        self.rates = MockRates(self) if profile.sriov and has_rates else None
        self.statistics = MockStatistics(self) if profile.statistics.port or profile.statistics.vf else None
        self.packet_path = MockPath(device)

    @property
    def info(self) -> DeviceInfo:
        """The NIC."""
        return self._info

    @property
    def profile(self) -> NicProfile:
        """Its profile."""
        return self._profile

    @property
    def persistent(self) -> bool:
        """Whether a state file keeps the NIC."""
        return self._state is not None

    def identity(self) -> str:
        """Return the state file and the family; the name of the family alone for a NIC in memory."""
        where = f"@{self._state.resolve()}" if self._state is not None else ""
        return f"mock:{self._profile.family}{where}"

    def capabilities(self) -> Sequence[Capability]:
        """Return what the profile declares, and what this NIC assumes where it declares nothing."""
        return [*answers(self._profile, self._probed()), *_assumed()]

    def close(self) -> None:
        """Let go of the state file."""
        if self._store is not None:
            self._store.close()

    @contextmanager
    def translating(self, message: str, capability: str) -> Iterator[None]:
        """Turn an answer of the emulated kernel into an error of the SDK."""
        try:
            yield
        except Refused as answer:
            raise translate(answer, message, capability=capability, device=self._info.name) from answer

    @contextmanager
    def asking(self, operation: str, message: str, capability: str) -> Iterator[None]:
        """Ask the emulated kernel something: a fault may answer."""
        with self.translating(message, capability):
            if self.device.faults.active:
                self.device.faults.check(operation, self.device)
            yield

    def _probed(self) -> Probed:
        """Return what the emulator is, and what of that it only assumes."""
        sriov, blocks = self._profile.sriov, {spec.name: self.device.blocked(spec) for spec in self._specs()}
        assumed = " (assumed by the emulator)"
        return Probed(
            tables=[
                TableState(
                    table=table,
                    rows=spec.rows,
                    in_use=0,
                    blocked=(Reason(code="blocked", path="", message=block[2]),)
                    if (block := blocks[table.name])
                    else (),
                )
                for table, spec in zip(self._profile.tables, self._specs(), strict=True)
            ],
            vf_limit=self.device.sriov.limit if sriov is not None else None,
            vf_limit_evidence=Evidence.DECLARED,
            vf_limit_note="" if sriov is not None and sriov.max_vfs else assumed,
            mode=self.device.mode,
            capability=Support.YES,
            capability_note="present (assumed by the emulator)",
            rows_note=tuple((spec.name, assumed) for spec in self._specs() if spec.rows_assumed),
        )

    def _specs(self) -> list[TableSpec]:
        return [table.spec for table in self.device.tables]


def _assumed() -> Iterator[Capability]:
    yield Capability(
        name="emulator",
        support=Support.YES,
        evidence=Evidence.DECLARED,
        detail="assumed by the emulator: " + "; ".join(assumptions.NOTES),
    )


class MockStatistics(Statistics):
    """Counters of the uplink and the VFs.

    Args:
        driver: The open NIC.
    """

    def __init__(self, driver: MockDriver) -> None:
        self._driver = driver

    def read(self) -> Sequence[TrafficStats]:
        """Return what the profile has counters for; a value that it does not count is None."""
        device, statistics = self._driver.device, self._driver.profile.statistics
        with device.session(), self._driver.asking("stats_read", "reading counters", "statistics"):
            found: list[TrafficStats] = []
            if statistics.port is not None:
                found.append(self._row(0, statistics.port, "port"))
            if statistics.vf is not None:
                found.extend(self._row(2 + vf.index, statistics.vf, "vf") for vf in device.sriov.vfs)
            return found

    def _row(self, port: int, counters: Counters, scope: str) -> TrafficStats:
        device = self._driver.device
        bits = device.faults.width(scope) or counters.bits or 64
        row = device.ports.values[port].tolist()
        values = {
            name: int(value) & (1 << bits) - 1 if name in counters.values else None
            for name, value in zip(PORT_VALUES, row, strict=True)
        }
        facts = CounterFacts(
            source=f"nic:{scope}",
            byte_basis=ByteBasis(counters.byte_basis),
            packet_bits=bits,
            byte_bits=bits,
            refresh_s=counters.refresh_s or 0.0,
        )
        return TrafficStats(name=format_switch_port(port), epoch=device.ports.epoch, facts=facts, **values)


class MockPath(PacketPath):
    """The emulated data path.

    Args:
        device: The hardware.
    """

    def __init__(self, device: Device) -> None:
        self._device = device

    def advance(self, time_ns: int) -> None:
        """Move the NIC's clock."""
        with self._device.session():
            self._device.advance(time_ns)

    def receive(self, batch: PacketBatch, start: int, stop: int, in_port: int) -> Delivery:
        """Send packets in; a packet moves the clock to its own time, never back."""
        with self._device.session():
            ports = self._device.receive(batch, start, stop, in_port)
            return Delivery(port=ports, next_change_ns=self._device.next_event_ns())
