"""The contract that a plugin implements: a driver names the facets that its NIC has, each a small contract."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from nicoffload.errors import NicOffloadError, NotSupportedError, Reason
from nicoffload.kernel.seam import Kernel
from nicoffload.model.device import Capability, DeviceInfo, Disruption
from nicoffload.model.rule import FlowRule
from nicoffload.model.stats import FlowCounters, TrafficStats
from nicoffload.model.vf import RateLimit, RateReport, VfConfig, VfState
from nicoffload.profiles.types import NicProfile, Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from nicoffload.packets.batch import PacketBatch

API_VERSION = 1
"""Version of this contract; a plugin that was written for another one is not loaded."""


class Placement(NamedTuple):
    """Where and how a rule goes into a NIC: what the compiler makes of a rule.

    A named tuple, unlike the other values: there are as many as rules, and it takes a third of the time to make.

    Args:
        rule: The rule.
        table: Name of the table.
        flow_type: Name of the flow type within it.
        slot: Location, where the caller picks it.
        caveats: What the user should know: the rule catches less than it says, its priority has no meaning here.
        why: Why it is this table and not one that the profile prefers; empty where it is the first.
    """

    rule: FlowRule
    table: str
    flow_type: str
    slot: int | None = None
    caveats: tuple[str, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        slot = f", slot {self.slot}" if self.slot is not None else ""
        caveats = f" (note: {'; '.join(self.caveats)})" if self.caveats else ""
        return f"table {self.table}, flow type {self.flow_type}{slot}{caveats}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRef:
    """Where a rule is installed.

    Args:
        rule_id: The rule; None for one that is not ours and has no cookie.
        table: Name of the table.
        slot: Location or driver's id within the table; None where rules are found by cookie.
    """

    rule_id: uuid.UUID | None
    table: str
    slot: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledRule:
    """A rule as read from the NIC.

    Args:
        ref: Where it is. `ref.rule_id` is known here only where the table keeps cookies.
        rule: What the NIC says that it matches and does; its rule_id is that of `ref`, or a new one.
        in_hardware: Whether the NIC handles it (a kernel may keep a rule in software only).
        foreign: What of it the model has no words for; empty where `rule` says all. Such a rule is somebody else's,
            and its actions are not those of `rule`.
    """

    ref: RuleRef
    rule: FlowRule
    in_hardware: bool = True
    foreign: str = ""

    @classmethod
    def many(
        cls, refs: Sequence[RuleRef], rules: Sequence[FlowRule], *, in_hardware: bool = True
    ) -> list[InstalledRule]:
        """Return one for each of many rules that the model has all words for, in a quarter of the time."""
        made = [_new(cls) for _ in rules]
        for put, values in (
            (_PUT["ref"], refs),
            (_PUT["rule"], rules),
            (_PUT["in_hardware"], repeat(in_hardware)),
            (_PUT["foreign"], repeat("")),
        ):
            deque(map(put, made, values), maxlen=0)
        return made


_new = object.__new__
_PUT: Mapping[str, Callable[[InstalledRule, object], None]] = MappingProxyType(
    {name: InstalledRule.__dict__[name].__set__ for name in InstalledRule.__slots__}
)


Outcome = RuleRef | NicOffloadError
"""What became of one rule of a bulk call: where it is, or why it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableState:
    """A table of a live NIC.

    Args:
        table: What its profile says.
        rows: Capacity, probed where the device tells it, else the profile's; None where nobody knows.
        in_use: Rows in use, by anybody.
        blocked: Why it takes no rules at present (feature off, other eswitch mode); empty where it does.
        enable: What enabling it would cost, where `blocked` can be mended by `enable_table`; None where it can't.
        firmware_shapes: For mask model firmware_list: the field combinations that this device lists, each with the
            names of its flow type and fields; None where nobody can ask it, so that a rule shows when it is tried.
        mode: Mode that enabling it puts the NIC's switch into; empty where it changes none.
        enable_without_vfs: What enabling it would cost if no VF existed; None where more than VFs stands against it,
            or nothing does.
        on_each_vf: Whether VFs that are made come with what it needs turned off on their ports, so that it has to be
            enabled again after their number changed.
    """

    table: Table
    rows: int | None
    in_use: int
    blocked: tuple[Reason, ...] = ()
    enable: Disruption | None = None
    firmware_shapes: tuple[tuple[str, frozenset[str]], ...] | None = ()
    mode: str = ""
    enable_without_vfs: Disruption | None = None
    on_each_vf: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What of a NIC will have changed by the time that commands are run which are shown now.

    Args:
        vf_count: How many VFs will have been made anew; None where they stay as they are.
        mode: Mode that its switch will be in; empty where that stays.
    """

    vf_count: int | None = None
    mode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """How many receive queues a rule can name; None where nobody knows.

    Args:
        pf: Of the physical function.
        vf: Of each VF.
    """

    pf: int | None = None
    vf: int | None = None


class FlowFilters(ABC):
    """Flow rules in the NIC."""

    def queues(self) -> QueueCounts:
        """Return the receive queues that exist. Changes nothing."""
        return QueueCounts()

    @abstractmethod
    def tables(self) -> Sequence[TableState]:
        """Return the tables in order of preference. Changes nothing."""

    @abstractmethod
    def create_many(self, placements: Sequence[Placement]) -> Sequence[Outcome]:
        """Install rules in one go; outcome i is that of placement i.

        A refused rule does not stop the others and leaves no trace. Not repeatable where a table allows duplicates.
        """

    @abstractmethod
    def destroy_many(self, refs: Sequence[RuleRef]) -> Sequence[NicOffloadError | None]:
        """Remove rules in one go; answer i is None when rule i is gone, else why it is not.

        A rule that is not there is answered with `NotFoundError`, so a caller may repeat the call.
        """

    @abstractmethod
    def dump(self, refs: Sequence[RuleRef] | None = None) -> Sequence[InstalledRule]:
        """Return the rules in the tables, also those of others, as the NIC reports them. Changes nothing.

        Args:
            refs: Only these (those that are gone are left out); None for all.
        """

    @abstractmethod
    def read_counters(self, refs: Sequence[RuleRef]) -> FlowCounters:
        """Return the counters of rules that have a rule_id; a rule that is gone or has no counter is not valid."""

    def enable_table(self, name: str) -> None:
        """Turn on what a blocked table needs; `TableState.enable` tells the cost beforehand. Repeatable.

        Raises:
            NotSupportedError: It can't be enabled from here.
        """
        raise NotSupportedError(
            f"table {name} can't be enabled by software",
            capability=f"flow_filters.{name}",
            reasons=[Reason(code="table.fixed", path="", message="the driver has no switch for it")],
        )

    def mode(self) -> str:
        """Return the mode of the NIC's switch; empty where it has none that could be changed. Changes nothing."""
        return ""

    def set_mode(self, mode: str) -> None:
        """Change the mode of the switch: takes back what `enable_table` did to it. Repeatable.

        Raises:
            ConflictError: Something stands against it (rules, VFs).
            NotSupportedError: The NIC has no such mode.
        """
        raise NotSupportedError(
            f"the switch can't be put into {mode} mode",
            capability="eswitch",
            reasons=[Reason(code="eswitch.absent", path="", message="the driver has no modes of a switch")],
        )


class VirtualFunctions(ABC):
    """The virtual functions of a NIC."""

    @abstractmethod
    def limit(self) -> int:
        """Return how many VFs there can be."""

    @abstractmethod
    def states(self) -> Sequence[VfState]:
        """Return all VFs that exist, by index. Changes nothing."""

    @abstractmethod
    def set_count(self, count: int) -> Disruption:
        """Make it so that `count` VFs exist, and wait until each is there; repeatable.

        Returns:
            What it cost those who use the NIC.

        Raises:
            InvalidRequestError: Fewer than 0 or more than `limit`.
            NotSupportedError: VFs can't be made at run time on this NIC; the reason tells how they are made.
            VerificationError: The call succeeded and the count did not change.
            DeviceBusyError: A VF is in use by a guest or still resetting.
        """

    @abstractmethod
    def configure_many(self, configs: Sequence[VfConfig]) -> Sequence[NicOffloadError | None]:
        """Apply settings; answer i is None when all settings of config i are in force. Repeatable.

        A config that is refused half-way leaves the VF as it was before.
        """

    @abstractmethod
    def reset(self, vf: int) -> None:
        """Reset a VF (function level reset), so that nothing of an old owner is left. Repeatable.

        Raises:
            NotFoundError: No such VF.
            DeviceBusyError: The VF is already resetting.
        """

    @abstractmethod
    def bind(self, vf: int, driver: str) -> None:
        """Bind a VF to a driver (``vfio-pci``), or unbind it (empty). Repeatable.

        Raises:
            NotFoundError: No such VF, or no such driver.
        """


class RateControl(ABC):
    """Transmit rates of VFs."""

    @abstractmethod
    def set_many(self, limits: Mapping[int, RateLimit]) -> Mapping[int, RateReport | NicOffloadError]:
        """Set both rates of some VFs (index to rates); answers one report or error a VF. Repeatable.

        A VF that is refused keeps the rates that it had.
        """

    @abstractmethod
    def read(self) -> Sequence[RateReport]:
        """Return the rates of all VFs, by index. Changes nothing."""


class Statistics(ABC):
    """Counters of ports and VFs."""

    @abstractmethod
    def read(self) -> Sequence[TrafficStats]:
        """Return the counters of the uplink and of every VF that has some. Changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Where an emulated NIC delivered packets; row i is packet i of the request.

    Args:
        port: int32[N], switch port: 0 uplink, 1 PF (and so the host's virtual switch), 2 + N VF N; -1 dropped.
        next_change_ns: When a packet's way would change without any call (a reset ends); None where it would not.
    """

    port: npt.NDArray[np.int32]
    next_change_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """Something that the NIC's driver lost, and that was set again.

    Args:
        target: What: ``vf:0/rate``.
        detail: What happened, in words.
        error: Why it could not be set again; None where it was.
    """

    target: str
    detail: str
    error: NicOffloadError | None = None


class Upkeep(ABC):
    """Keeps in force what was set: some drivers lose it when something happens to the NIC, and tell nobody."""

    @abstractmethod
    def wait(self, timeout_s: float) -> bool:
        """Wait until something happened that can have cost settings, and return whether it did.

        Args:
            timeout_s: How long at most; 0 only looks.
        """

    @abstractmethod
    def mend(self) -> Sequence[Mended]:
        """Set again what was set in this process and is lost. Repeatable; changes nothing where nothing is."""


class PacketPath(ABC):
    """The data path of a NIC that is emulated: packets go in by hand, on a clock that the caller moves."""

    @abstractmethod
    def advance(self, time_ns: int) -> None:
        """Move the NIC's clock forward to `time_ns`; going back does nothing."""

    @abstractmethod
    def receive(self, batch: PacketBatch, start: int, stop: int, in_port: int) -> Delivery:
        """Send packets `start` to `stop` (exclusive) of a batch into a switch port, and count them.

        Args:
            batch: The packets; successive calls with the same object are cheap.
            start: First packet.
            stop: One past the last.
            in_port: 0 uplink, 1 PF, 2 + N VF N.
        """


class Driver(ABC):
    """One open NIC. A facet that the NIC lacks is None, and `capabilities` says why."""

    flow_filters: FlowFilters | None = None
    virtual_functions: VirtualFunctions | None = None
    rates: RateControl | None = None
    statistics: Statistics | None = None
    upkeep: Upkeep | None = None
    packet_path: PacketPath | None = None

    @property
    @abstractmethod
    def info(self) -> DeviceInfo:
        """The NIC."""

    @property
    @abstractmethod
    def profile(self) -> NicProfile:
        """Its profile."""

    @abstractmethod
    def capabilities(self) -> Sequence[Capability]:
        """Return what the NIC can do, declared by its profile and refined by what was probed. Changes nothing."""

    def try_out(self) -> None:  # noqa: B027 - most drivers have a profile that knows
        """Find out what only doing it tells, so that `capabilities` knows: do it, and undo it at once. Repeatable.

        Raises:
            NicOffloadError: What was done can't be undone.
        """

    def look_ahead(self, ahead: Ahead) -> None:  # noqa: B027 - plugins whose commands depend on it override it
        """Let the commands that are shown from now on be for a NIC as it will be. Changes nothing of the NIC.

        What has no name yet is shown as a variable of the shell, after a command that finds the name.

        Args:
            ahead: What will have changed; holds until the next call.
        """

    # Of each: empty where there are none (an emulated NIC), or where no tool has words for it.

    def equivalents(self, placement: Placement) -> Sequence[str]:  # noqa: ARG002 - plugins override it
        """Return the shell commands that would install a rule."""
        return ()

    def equivalents_of_removal(self, refs: Sequence[RuleRef]) -> Sequence[Sequence[str]]:
        """Return, for each rule, the shell commands that would remove it, run in this order.

        What `equivalents` says after this call is of a NIC without these rules, until the next such call.
        """
        return [()] * len(refs)

    def equivalents_of_table(self, name: str) -> Sequence[str]:  # noqa: ARG002 - plugins override it
        """Return the shell commands that would do what `FlowFilters.enable_table` does."""
        return ()

    def equivalents_of_count(self, count: int) -> Sequence[str]:  # noqa: ARG002 - plugins override it
        """Return the shell commands that would make so many VFs of those that there are now."""
        return ()

    def equivalents_of_config(self, config: VfConfig) -> Sequence[str]:  # noqa: ARG002 - plugins override it
        """Return the shell commands that would set a VF."""
        return ()

    def equivalents_of_rate(self, vf: int, limit: RateLimit) -> Sequence[str]:  # noqa: ARG002 - plugins override it
        """Return the shell commands that would set a VF's rates."""
        return ()

    @property
    def persistent(self) -> bool:
        """Whether what is installed outlives this process, so that the journal has to as well."""
        return True

    def identity(self) -> str:
        """Return what the journal files this NIC's records under: stable across restarts and renames."""
        return self.info.pci_address or self.info.name

    def port(self) -> str:
        """Return which of the NIC's ports it was opened by, where each has rules of its own; empty for the first.

        Rules and changes are of a port, VFs and their leases of the NIC.
        """
        return ""

    @abstractmethod
    def close(self) -> None:
        """Let go of the NIC; what is installed stays. Repeatable."""


class ProfileCatalog(Protocol):
    """The profiles of all plugins that are loaded."""

    def families(self) -> Sequence[str]:
        """Return their names, sorted."""

    def get(self, family: str) -> NicProfile:
        """Return a profile.

        Raises:
            NotFoundError: No plugin brings that family.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenContext:
    """What a plugin gets when it opens a NIC.

    Args:
        profiles: Every profile that is installed.
        kernel: The only way to the kernel; a plugin that drives hardware uses no other.
        wall_clock_s: Seconds since the epoch.
        monotonic_s: Seconds since some moment, for measuring how long something takes.
        sleep_s: Waits that many seconds.
    """

    profiles: ProfileCatalog
    kernel: Kernel
    wall_clock_s: Callable[[], float]
    monotonic_s: Callable[[], float]
    sleep_s: Callable[[float], None]


class DriverFactory(ABC):
    """Finds and opens the NICs that a plugin drives."""

    last: ClassVar[bool] = False
    """Whether it takes what no other plugin opens: it is asked last, and what others found is not shown twice."""

    @abstractmethod
    def discover(self, context: OpenContext) -> Sequence[DeviceInfo]:
        """Return the NICs of this machine that the plugin can open. Changes nothing."""

    @abstractmethod
    def claims(self, name: str) -> bool:
        """Tell whether a name, as a user would write it, is for this plugin. Must be quick and raise nothing."""

    @abstractmethod
    def open(self, name: str, context: OpenContext) -> Driver:
        """Open a NIC.

        Raises:
            NotFoundError: There is no such NIC.
            InvalidRequestError: The name is malformed.
        """
