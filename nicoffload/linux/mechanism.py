"""What the tables of one mechanism (ntuple, flower, u32) have in common on a live NIC."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence

from nicoffload.driver.contract import InstalledRule, Outcome, Placement, QueueCounts, RuleRef, TableState
from nicoffload.errors import NicOffloadError, NotSupportedError, Reason
from nicoffload.kernel.features import FeatureName, feature_command, set_feature
from nicoffload.linux.counting import CounterColumns
from nicoffload.linux.explaining import RuleExplainer
from nicoffload.linux.modes import change_mode
from nicoffload.linux.nic import LinuxNic, feature_name
from nicoffload.model import Disruption
from nicoffload.profiles.types import Table

_MODE = frozenset({"table.eswitch_mode"})


class Mechanism(ABC):
    """The tables that a NIC has of one mechanism: a bulk call reaches the kernel as one.

    Args:
        nic: The NIC.
        tables: Those of its profile, in order of preference.
    """

    def __init__(self, nic: LinuxNic, tables: Sequence[Table]) -> None:
        self.nic = nic
        self.tables = tuple(tables)
        self.read_all: Callable[[], Sequence[InstalledRule]] = lambda: self.dump(None)
        """Reads the rules of all mechanisms of the NIC: what stands in one table can be in the way of another."""
        self._explainer = self.explainer()

    @abstractmethod
    def states(self) -> Sequence[TableState]:
        """Return the tables as they are now. Changes nothing."""

    @abstractmethod
    def create(self, placements: Sequence[Placement]) -> Sequence[Outcome]:
        """Install rules, as `FlowFilters.create_many`."""

    @abstractmethod
    def destroy(self, refs: Sequence[RuleRef]) -> Sequence[NicOffloadError | None]:
        """Remove rules, as `FlowFilters.destroy_many`."""

    @abstractmethod
    def dump(self, refs: Sequence[RuleRef] | None) -> Sequence[InstalledRule]:
        """Return rules, as `FlowFilters.dump`."""

    @abstractmethod
    def commands(self, placement: Placement) -> Sequence[str]:
        """Return the shell commands that install a rule."""

    @abstractmethod
    def removal_commands(self, refs: Sequence[RuleRef]) -> Sequence[Sequence[str]]:
        """Return, for each rule, the shell commands that remove it; of one that is not there none.

        What `commands` says afterwards is of a NIC without these rules.
        """

    @abstractmethod
    def count(self, refs: Sequence[RuleRef], rows: Sequence[int], into: CounterColumns) -> None:
        """Read the counters of rules into columns; does nothing where the mechanism has none.

        Args:
            refs: The rules.
            rows: Row of each in the columns.
            into: The columns.
        """

    def queues(self) -> QueueCounts:
        """Return the receive queues that exist."""
        return QueueCounts()

    def enable(self, table: Table) -> None:
        """Turn on what a table needs, as `FlowFilters.enable_table`."""
        for ifname in self._ifnames():
            set_feature(self.nic.kernel, ifname, self._needed(table), on=True)

    def enable_commands(self, table: Table) -> Sequence[str]:
        """Return the shell commands that turn on what a table needs; empty where it needs nothing that is off."""
        if not table.needs.feature:
            return ()
        return [
            feature_command(ifname, feature_name(table.needs.feature), on=True)
            for ifname in self._ifnames()
            if not self._is_on(table, ifname)
        ]

    def set_mode(self, mode: str) -> None:
        """Change the mode of the switch, as `FlowFilters.set_mode`."""
        change_mode(self.nic, mode, flows=0)

    def forget_shown(self) -> None:  # noqa: B027 - most mechanisms show each command by itself
        """Show commands as if none had been shown before."""

    def _ifnames(self) -> list[str]:
        """Return the network devices whose features the tables need."""
        return [self.nic.pf().ifname]

    def _needed(self, table: Table) -> FeatureName:
        if not table.needs.feature:
            raise NotSupportedError(
                f"table {table.name} can't be enabled by software",
                capability=f"flow_filters.{table.name}",
                reasons=list(self.blocked(table))
                or [Reason(code="table.fixed", path="", message="it needs nothing that could be turned on")],
                device=self.nic.device,
            )
        return feature_name(table.needs.feature)

    def _is_on(self, table: Table, ifname: str) -> bool:
        names = (table.needs.feature, *table.needs.feature_or)
        found = [self.nic.feature(name, ifname) for name in names]
        return any(one is None or one.active for one in found)

    # -------------------------------------------------------------------------------------------- what a refusal means

    def explainer(self) -> RuleExplainer:
        """Return what explains refusals; each bulk call begins with a new one, which reads the NIC anew."""
        return RuleExplainer(self.nic, self.tables, self.read_all, self.states)

    def refused(self, error: NicOffloadError, placement: Placement) -> NicOffloadError:
        """Return what a driver's refusal of a rule means."""
        return self._explainer.created(error, placement)

    def not_removed(self, error: NicOffloadError, ref: RuleRef) -> NicOffloadError:
        """Return what a driver's refusal to remove a rule means."""
        return self._explainer.destroyed(error, ref)

    # ------------------------------------------------------------------------------------------------ what blocks it

    def blocked(self, table: Table) -> tuple[Reason, ...]:
        """Return why a table takes no rules now."""
        return tuple(self._obstacles(table))

    def _obstacles(self, table: Table) -> Iterator[Reason]:
        needs = table.needs
        source = needs.source or table.source
        if needs.eswitch_mode and (mode := self.nic.eswitch_mode()) not in (None, needs.eswitch_mode):
            yield Reason(
                code="table.eswitch_mode",
                path="",
                message=f"table {table.name} takes rules in {needs.eswitch_mode} mode, and the eswitch is in {mode}",
                accepted=f"devlink dev eswitch set {self.nic.place.handle} mode {needs.eswitch_mode}",
                source=source,
                errno=needs.errno,
            )
        elif needs.feature:
            off = [name for name in self._ifnames() if not self._is_on(table, name)]
            if off:
                yield Reason(
                    code="table.feature",
                    path="",
                    message=f"{needs.feature} is off on {', '.join(off)}",
                    accepted=f"ethtool -K {off[0]} {needs.feature} on",
                    source=source,
                    errno=needs.errno,
                )
        if needs.mqprio and not self._has_traffic_classes():
            yield Reason(
                code="table.mqprio",
                path="",
                message=f"table {table.name} needs traffic classes, and none are set up",
                accepted="tc qdisc add dev NIC root mqprio … hw 1 mode channel",
                source=source,
                errno=needs.errno,
            )

    def _has_traffic_classes(self) -> bool:
        """Tell whether a transmit queue is of another class than 0, which all are without traffic classes."""
        folder = f"class/net/{self.nic.pf().ifname}/queues"
        try:
            names = [name for name in self.nic.kernel.list_sysfs(folder) if name.startswith("tx-")]
        except OSError:
            return False
        for name in names:
            with contextlib.suppress(OSError):  # EINVAL: the queue is of no class
                if self.nic.kernel.read_sysfs(f"{folder}/{name}/traffic_class").strip() != b"0":
                    return True
        return False

    def cost(self, table: Table, blocked: Iterable[Reason]) -> Disruption | None:
        """Return what enabling a table would cost; None where it is not blocked or can't be enabled from here."""
        codes = {reason.code for reason in blocked}
        if codes == _MODE:
            return Disruption.LINK_FLAP  # its network device is made anew, or closed and opened
        if codes != {"table.feature"}:
            return None
        for name in self._ifnames():
            found = self.nic.feature(table.needs.feature, name)
            if found is not None and not found.active and found.fixed:
                return None
        return Disruption(table.needs.feature_disruption)

    def cost_without_vfs(self, blocked: Iterable[Reason]) -> Disruption | None:
        """Return what enabling a table would cost if no VF existed; None where something else is in the way too."""
        codes = {reason.code for reason in blocked}
        return Disruption.LINK_FLAP if codes == _MODE | {"eswitch.vfs_present"} else None
