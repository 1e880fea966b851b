"""An open software NIC: its facets, and what it says that it can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nicoffload.driver import Driver, FlowFilters, Placement, Statistics
from nicoffload.driver.capabilities import Probed, answers
from nicoffload.model import Capability, DeviceInfo, TrafficStats
from nicoffload.profiles.types import NicProfile
from nicoffload_softnic import names
from nicoffload_softnic.functions import SoftFunctions
from nicoffload_softnic.path import DataPath
from nicoffload_softnic.rates import SoftRates
from nicoffload_softnic.wire import WireUpkeep


class SoftDriver(Driver):
    """One open software NIC.

    Args:
        device: The NIC's data path.
        profile: Its profile.
        info: Its name.
        monotonic_s: Its clock.
    """

    def __init__(
        self, device: DataPath, profile: NicProfile, info: DeviceInfo, monotonic_s: Callable[[], float]
    ) -> None:
        self.device = device
        self._profile = profile
        self._info = info
        self.flow_filters: FlowFilters = device.flow_filters(profile.tables[0], monotonic_s)
        self.virtual_functions: SoftFunctions = SoftFunctions(device, profile)
        self.rates = SoftRates(device, profile)
        self.statistics = SoftStatistics(device)
        self.upkeep: WireUpkeep = WireUpkeep(device)

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
        self.upkeep.close()
        self.device.close()


class SoftStatistics(Statistics):
    """Counters of the uplink, the PF and the VFs.

    Args:
        path: The NIC's data path.
    """

    def __init__(self, path: DataPath) -> None:
        self._path = path

    def read(self) -> Sequence[TrafficStats]:
        """Return the counters."""
        self._path.check_alive()
        return self._path.counts()
