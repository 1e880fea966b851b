"""An open emulated NIC: its facets, and what it says that it can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nicoffload.driver import Delivery, Driver, PacketPath, Statistics
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
from nicoffload.profiles.types import Counters, NicProfile, Rate, Setting
from nicoffload.testing.emulator import assumptions
from nicoffload.testing.emulator.answer import Refused
from nicoffload.testing.emulator.counters import PORT_VALUES
from nicoffload.testing.emulator.device import Device
from nicoffload.testing.emulator.state import Store
from nicoffload_mock.answers import translate
from nicoffload_mock.flows import MockFlows
from nicoffload_mock.functions import MockFunctions
from nicoffload_mock.rates import MockRates

_SUPPORT = {"yes": Support.YES, "no": Support.NO, "capability": Support.YES}


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
        return [*self._tables(), *self._functions(), *self._rates(), *self._statistics(), *_assumed()]

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

    def _tables(self) -> Iterator[Capability]:
        for table, spec in zip(self._profile.tables, (t.spec for t in self.device.tables), strict=True):
            blocked = self.device.blocked(spec)
            rows = f"{spec.rows} rows" + (" (assumed by the emulator)" if spec.rows_assumed else "")
            why = f"; takes no rules: {blocked[2]}" if blocked else ""
            yield Capability(
                name=f"flow_filters.{table.name}",
                support=Support.PARTIAL if blocked else Support.YES,
                evidence=Evidence.PROBED,
                detail=f"{rows}, masks: {table.mask_model}, targets: {', '.join(sorted(table.actions))}{why}",
                source=table.source,
            )

    def _functions(self) -> Iterator[Capability]:
        sriov, facts = self._profile.sriov, self._profile.vf
        if sriov is None or facts is None:
            yield Capability(name="vf", support=Support.NO, evidence=Evidence.DECLARED, detail="no SR-IOV")
            return
        assumed = "" if sriov.max_vfs else " (assumed by the emulator)"
        works = sriov.method == "sysfs"
        yield Capability(
            name="vf.create",
            support=Support.YES if works else Support.NO,
            evidence=Evidence.DECLARED,
            detail=f"at most {self.device.sriov.limit} VFs{assumed}; {sriov.note or sriov.method}",
            source=sriov.source,
        )
        for name in ("mac", "vlan", "qos", "vlan_protocols", "spoof_check", "trust", "link_state"):
            yield _setting(name, getattr(facts, name), self.device.mode)

    def _rates(self) -> Iterator[Capability]:
        for name in ("min_tx", "max_tx"):
            rate: Rate = getattr(self._profile.rates, name)
            steps = f"steps of {rate.quantum_bps} bit/s, {rate.meaning}" if rate.supported != "no" else ""
            assumed = ", present (assumed by the emulator)" if rate.supported == "capability" else ""
            yield Capability(
                name=f"rates.{name}",
                support=_SUPPORT[rate.supported],
                evidence=Evidence.DECLARED,
                detail=f"{steps}{assumed}",
                source=rate.source,
            )

    def _statistics(self) -> Iterator[Capability]:
        statistics = self._profile.statistics
        tables = [table.counters for table in self._profile.tables if table.counters]
        for name, counters in (
            ("port", statistics.port),
            ("vf", statistics.vf),
            ("rule", tables[0] if tables else None),
        ):
            values = ", ".join(sorted(counters.values)) if counters else "no such counters"
            yield Capability(
                name=f"statistics.{name}",
                support=Support.YES if counters else Support.NO,
                evidence=Evidence.DECLARED,
                detail=values,
                source=counters.source if counters else "",
            )


def _setting(name: str, setting: Setting, mode: str) -> Capability:
    support = _SUPPORT[setting.supported]
    detail = setting.note
    if setting.not_in_mode == mode and support is Support.YES:
        support, detail = Support.NO, f"not in {mode} mode"
    elif setting.no_effect:
        support, detail = (
            Support.PARTIAL,
            f"accepted and without effect: {', '.join(map(str, setting.no_effect))}",
        )
    elif setting.supported == "capability":
        detail = f"{detail} present (assumed by the emulator)".strip()
    return Capability(
        name=f"vf.{name}", support=support, evidence=Evidence.DECLARED, detail=detail, source=setting.source
    )


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
