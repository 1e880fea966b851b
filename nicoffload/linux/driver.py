"""An open live NIC: the facets that its profile has, composed; what a plugin's driver is a page of."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from nicoffload.driver.capabilities import Probed, answers
from nicoffload.driver.contract import Ahead, Driver, Placement, RuleRef, TableState
from nicoffload.errors import NicOffloadError
from nicoffload.kernel.link import read_link
from nicoffload.kernel.tc import QueueStyle
from nicoffload.linux.coming import Explainer
from nicoffload.linux.flower import FlowerTables
from nicoffload.linux.flows import LinuxFlows
from nicoffload.linux.functions import LinuxFunctions
from nicoffload.linux.makers import PciMaker, VfMaker
from nicoffload.linux.mechanism import Mechanism
from nicoffload.linux.nic import LinuxNic
from nicoffload.linux.ntuple import NtupleTables
from nicoffload.linux.rates import LinuxRates
from nicoffload.linux.statistics import LinuxStatistics
from nicoffload.linux.upkeep import RateUpkeep
from nicoffload.model import Capability, DeviceInfo, RateLimit, VfConfig
from nicoffload.profiles.types import NicProfile


class LinuxDriver(Driver):
    """One open live NIC.

    Args:
        nic: The NIC.
        flows: Its flow filters; None for none.
        functions: Its VFs; None for none.
        rates: Their rates; None for none.
        statistics: Counters; None for none.
        upkeep: What sets again what the driver loses; None where it loses nothing.
    """

    def __init__(
        self,
        nic: LinuxNic,
        *,
        flows: LinuxFlows | None = None,
        functions: LinuxFunctions | None = None,
        rates: LinuxRates | None = None,
        statistics: LinuxStatistics | None = None,
        upkeep: RateUpkeep | None = None,
    ) -> None:
        self.nic = nic
        self.flow_filters = self.flows = flows
        self.virtual_functions = self.functions = functions
        self.rates = self.rate_control = rates
        self.statistics = self.counters = statistics
        self.upkeep = self._upkeep = upkeep
        self._explainer = Explainer(nic.place.handle)

    @property
    def info(self) -> DeviceInfo:
        """The NIC, with the present name of its network device."""
        return self.nic.info

    @property
    def profile(self) -> NicProfile:
        """Its profile."""
        return self.nic.profile

    def identity(self) -> str:
        """Return the NIC's place on its bus, which no rename changes."""
        return (
            str(self.nic.place.handle) if self.nic.place.handle.bus != "pci" else self.nic.place.handle.name
        )

    def port(self) -> str:
        """Return the port that the network device stands for, where the NIC has several."""
        return self.nic.port()

    def capabilities(self) -> Sequence[Capability]:
        """Return what the profile declares, refined by what the NIC says now."""
        return answers(self.profile, self.probe())

    def probe(self) -> Probed:
        """Return what is found on the NIC; what can't be read, for want of rights, stays as declared."""
        tables: Sequence[TableState] = ()
        limit: int | None = None
        with contextlib.suppress(NicOffloadError):
            tables = self.flows.tables() if self.flows is not None else ()
        with contextlib.suppress(NicOffloadError):
            limit = self.functions.limit() if self.functions is not None else None
        observed: frozenset[str] = frozenset()
        with contextlib.suppress(NicOffloadError):
            if (
                self.profile.statistics.port is not None
                and read_link(self.nic.kernel, self.nic.pf().ifindex).counters
            ):
                observed = frozenset({"statistics.port"})
        return Probed(tables=tables, vf_limit=limit, mode=self.nic.eswitch_mode(), observed=observed)

    def look_ahead(self, ahead: Ahead) -> None:
        """Show commands from now on for the NIC as it will be."""
        self.nic.ahead = ahead
        self._explainer.forget()
        if self.flows is not None:
            self.flows.forget_shown()

    def equivalents(self, placement: Placement) -> Sequence[str]:
        """Return the `tc` or `ethtool` commands that install a rule."""
        return self._explainer.explained(self.flows.commands(placement)) if self.flows is not None else ()

    def equivalents_of_removal(self, refs: Sequence[RuleRef]) -> Sequence[Sequence[str]]:
        """Return the `tc` or `ethtool` commands that remove rules."""
        return self.flows.removal_commands(refs) if self.flows is not None else [()] * len(refs)

    def equivalents_of_table(self, name: str) -> Sequence[str]:
        """Return the `ethtool` commands that turn on what a table needs."""
        return self._explainer.explained(self.flows.enable_commands(name)) if self.flows is not None else ()

    def equivalents_of_count(self, count: int) -> Sequence[str]:
        """Return the commands that make VFs."""
        return (
            self._explainer.explained(self.functions.count_commands(count))
            if self.functions is not None
            else ()
        )

    def equivalents_of_config(self, config: VfConfig) -> Sequence[str]:
        """Return the `ip` and `devlink` commands that set a VF."""
        return (
            self._explainer.explained(self.functions.config_commands(config))
            if self.functions is not None
            else ()
        )

    def equivalents_of_rate(self, vf: int, limit: RateLimit) -> Sequence[str]:
        """Return the `ip` or `devlink` command that sets a VF's rates."""
        return (
            self._explainer.explained(self.rate_control.commands(vf, limit))
            if self.rate_control is not None
            else ()
        )

    def close(self) -> None:
        """Stop listening for events, all that is held open between calls."""
        if self._upkeep is not None:
            self._upkeep.close()


def mechanisms(
    nic: LinuxNic, *, queues: QueueStyle = QueueStyle.NONE, prefs: range | None = None
) -> list[Mechanism]:
    """Return what serves the tables of a profile, for all mechanisms that need nothing of the plugin's own.

    Args:
        nic: The NIC.
        queues: How its driver is told of a receive queue by flower.
        prefs: The prefs that our filters may have; None for the usual ones.
    """
    tables = nic.profile.tables
    found: list[Mechanism] = []
    if mine := [table for table in tables if table.mechanism == "ntuple"]:
        found.append(NtupleTables(nic, mine))
    if mine := [table for table in tables if table.mechanism == "flower"]:
        more = {} if prefs is None else {"prefs": prefs}
        found.append(FlowerTables(nic, mine, queues=queues, **more))
    return found


def compose(
    nic: LinuxNic, *, serve: Sequence[Mechanism] | None = None, maker: VfMaker | None = None
) -> LinuxDriver:
    """Return a driver with every facet that the NIC's profile has.

    Args:
        nic: The NIC.
        serve: What serves its tables; None for `mechanisms`.
        maker: What makes its VFs; None for those of a PCI function.
    """
    profile = nic.profile
    serving = mechanisms(nic) if serve is None else serve
    has_vfs = profile.sriov is not None and profile.vf is not None
    lost = {*profile.rates.min_tx.lost_on, *profile.rates.max_tx.lost_on}
    has_rates = profile.rates.min_tx.supported != "no" or profile.rates.max_tx.supported != "no"
    rates = LinuxRates(nic) if has_vfs and (has_rates or profile.rates.devlink is not None) else None
    loses = "link_speed_change" in lost or "link_change" in lost
    flows = LinuxFlows(nic, serving) if serving else None
    return LinuxDriver(
        nic,
        flows=flows,
        functions=LinuxFunctions(
            nic,
            maker or PciMaker(nic),
            rules=flows.dump if flows else None,
            on_new_vfs=rates.forget if rates else None,
        )
        if has_vfs
        else None,
        rates=rates,
        statistics=LinuxStatistics(nic) if profile.statistics.port or profile.statistics.vf else None,
        upkeep=RateUpkeep(nic, rates) if rates is not None and loses else None,
    )
