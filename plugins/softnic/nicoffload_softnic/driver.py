"""An open software NIC: its facets, and what it says that it can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nicoffload.driver import Driver, Placement, Statistics
from nicoffload.driver.capabilities import Probed, answers
from nicoffload.model import (
    ByteBasis,
    Capability,
    CounterFacts,
    DeviceInfo,
    TrafficStats,
    format_switch_port,
)
from nicoffload.profiles.types import NicProfile
from nicoffload_softnic import layout, names, shaper
from nicoffload_softnic.device import SoftDevice
from nicoffload_softnic.flows import SoftFlows
from nicoffload_softnic.functions import SoftFunctions
from nicoffload_softnic.rates import SoftRates


class SoftDriver(Driver):
    """One open software NIC.

    Args:
        device: The NIC.
        profile: Its profile.
        info: Its name.
        monotonic_s: Its clock.
    """

    def __init__(
        self, device: SoftDevice, profile: NicProfile, info: DeviceInfo, monotonic_s: Callable[[], float]
    ) -> None:
        self.device = device
        self._profile = profile
        self._info = info
        self.flow_filters: SoftFlows = SoftFlows(device, profile.tables[0], monotonic_s)
        self.virtual_functions: SoftFunctions = SoftFunctions(device)
        self.rates = SoftRates(device)
        self.statistics = SoftStatistics(device)

    @property
    def info(self) -> DeviceInfo:
        """The NIC."""
        return self._info

    @property
    def profile(self) -> NicProfile:
        """Its profile."""
        return self._profile

    def identity(self) -> str:
        """Return the name and what tells this NIC from an earlier one of that name."""
        return f"{names.PREFIX}{self.device.name}/{self.device.instance}"

    def capabilities(self) -> Sequence[Capability]:
        """Return what the profile declares, with the rows that this NIC has."""
        return answers(
            self._profile,
            Probed(
                tables=self.flow_filters.tables(), vf_limit=self.virtual_functions.limit(), mode="switchdev"
            ),
        )

    def equivalents(self, placement: Placement) -> Sequence[str]:  # noqa: ARG002 - the contract's signature
        """Return nothing: no shell command writes the data path's maps in their form."""
        return ()

    def close(self) -> None:
        """Let go of the NIC; its rules and its packets go on."""
        self.device.close()


class SoftStatistics(Statistics):
    """Counters of the uplink, the PF and the VFs, from the data path's memory.

    Args:
        device: The NIC.
    """

    def __init__(self, device: SoftDevice) -> None:
        self._device = device

    def read(self) -> Sequence[TrafficStats]:
        """Return the counters."""
        device = self._device
        device.check_alive()
        queued = shaper.dropped(device) if shaper.is_active(device) else {}
        return [self._row(number, queued) for number in range(layout.FIRST_VF + device.vfs)]

    def _row(self, number: int, queued: Mapping[int, int]) -> TrafficStats:
        device = self._device
        port = device.port(number)
        column = device.traffic[:, number]
        values = {name: int(column[name].sum()) for name in layout.TRAFFIC_VALUES}
        if number >= layout.FIRST_VF:
            values["tx_dropped"] += queued.get(int(port["class_id"]), 0)
        kind = "port" if number == layout.UPLINK else "vf"
        return TrafficStats(
            name=format_switch_port(number),
            epoch=int(port["spare"][0]),
            facts=CounterFacts(source=f"nic:{kind}", byte_basis=ByteBasis.L2),
            **values,
        )
