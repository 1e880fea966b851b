"""What every data path of a software NIC is to the rest of the plugin: the facets know this, and not which it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from nicoffload.driver import FlowFilters
from nicoffload.errors import (
    AccessDeniedError,
    DeviceGoneError,
    KernelError,
    NicOffloadError,
    NotFoundError,
    from_errno,
)
from nicoffload.kernel import veth
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import Kernel
from nicoffload.model import LinkState, RateLimit, TrafficStats, VlanTag
from nicoffload.profiles.types import Table
from nicoffload_softnic import layout, names

ROOT_HINT = "run as root; without root, mock:softnic emulates this NIC, without packets"
DEFAULT_LINK_BPS = 10_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A NIC that is to be made.

    Args:
        name: Without prefix.
        vfs: How many VFs, 0 to 128.
        rows: Rules that its table holds; None for as many as its data path has by default.
        link_bps: Speed of its port; None for 10 Gbit/s, which nothing enforces until a VF has a rate.
        data_path: ``ebpf``, ``u32``, or ``auto``: eBPF where the kernel has it, else u32.
    """

    name: str
    vfs: int = 4
    rows: int | None = None
    link_bps: int | None = None
    data_path: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class VfSettings:
    """What is set of a VF; the defaults are those of a new one.

    Args:
        mac: Its address; 0 for none.
        vlan: Its port VLAN.
        spoof_check: Whether what it sends from another address is dropped.
        trust: Whether unicast to another address reaches it.
        link_state: What it sees of the link.
        rate: Its rates.
    """

    mac: int = 0
    vlan: VlanTag = field(default_factory=lambda: VlanTag(vid=0))
    spoof_check: bool = True
    trust: bool = False
    link_state: LinkState = LinkState.AUTO
    rate: RateLimit = field(default_factory=RateLimit)


class DataPath(ABC):
    """The data path of one NIC that exists. Of one thread; close it.

    Args:
        kernel: Where.
        name: The NIC's, without prefix.
        netlink: A route socket in the NIC's namespace; closed with it.
    """

    kind: ClassVar[str]
    """Its name on the command line."""
    family: ClassVar[str]
    """Its profile."""
    rows: int
    """How many rules its table holds."""

    def __init__(self, kernel: Kernel, name: str, netlink: Netlink) -> None:
        self.kernel = kernel
        self.name = name
        self.netlink = netlink

    @property
    @abstractmethod
    def vfs(self) -> int:
        """How many VFs exist."""

    @property
    @abstractmethod
    def instance(self) -> str:
        """What tells this NIC from another one that had the same name."""

    @property
    @abstractmethod
    def link_bps(self) -> int:
        """The speed of the port that was asked for; 0 for none."""

    @abstractmethod
    def rules_in_use(self) -> int:
        """Return how many rules the table holds."""

    @abstractmethod
    def flow_filters(self, table: Table, monotonic_s: Callable[[], float]) -> FlowFilters:
        """Return its flow filters.

        Args:
            table: What the profile says of it.
            monotonic_s: The NIC's clock.
        """

    @abstractmethod
    def settings(self, vf: int) -> VfSettings:
        """Return what is set of a VF that exists."""

    @abstractmethod
    def change(self, vf: int, settings: VfSettings) -> None:
        """Set a VF: all but its link and its rates takes effect at once."""

    @abstractmethod
    def set_link(self, vf: int, *, up: bool) -> None:
        """Let a VF see its link up or down; one that is down carries nothing."""

    @abstractmethod
    def shape(self) -> None:
        """Put the rates of all VFs in force. Repeatable.

        Raises:
            NicOffloadError: The kernel refuses, or has no HTB.
        """

    @abstractmethod
    def add_vf(self, index: int, home: int) -> None:
        """Make the next VF and its representor, with the settings of a new one.

        Args:
            index: Of the VF.
            home: Descriptor of the namespace where its devices appear.
        """

    @abstractmethod
    def remove_vf(self, index: int) -> None:
        """Remove the last VF and its representor, wherever their devices are, whole or half made."""

    @abstractmethod
    def renew_vf(self, index: int, home: int) -> None:
        """Make a VF's device anew, down; its settings stay."""

    @abstractmethod
    def complete(self, home: int) -> None:
        """Make what VFs lack since a process was killed that made or renewed them. Repeatable.

        Args:
            home: Descriptor of the namespace where their devices appear.
        """

    @abstractmethod
    def counts(self) -> Sequence[TrafficStats]:
        """Return the counters of uplink, PF and VFs."""

    def close(self) -> None:
        """Let go of it; the NIC stays. Repeatable."""
        self.netlink.close()

    def has_wire(self) -> bool:
        """Tell whether the link of the uplink is up."""
        found = veth.find_link(self.netlink, layout.ifindex_of(layout.UPLINK))
        return found is not None and found.carrier

    def has_link(self, vf: int) -> bool | None:
        """Tell whether a VF's link is set up on our side; None while it has no device, as while it is made anew."""
        found = veth.find_link(self.netlink, layout.ifindex_of(layout.FIRST_VF + vf))
        return None if found is None else found.up

    def check_alive(self) -> None:
        """Find out whether the NIC still exists.

        Raises:
            DeviceGoneError: Somebody destroyed it.
        """
        if names.namespace_of(self.name) not in self.kernel.namespaces():
            raise DeviceGoneError("the software NIC was destroyed", device=names.PREFIX + self.name)


@contextmanager
def inside(kernel: Kernel, name: str) -> Iterator[Kernel]:
    """Be in a NIC's namespace while the context lasts.

    Raises:
        NotFoundError: There is no such NIC.
        AccessDeniedError: The process may not enter it.
    """
    device = names.PREFIX + name
    if names.namespace_of(name) not in kernel.namespaces():
        raise NotFoundError(
            "there is no such software NIC",
            device=device,
            hint=f"see `nicoffload soft list`, or make it: `nicoffload soft create {name}`",
        )
    context = kernel.namespace(names.namespace_path(name))
    try:
        within = context.__enter__()
    except PermissionError as cause:
        raise AccessDeniedError(
            "opening a software NIC needs root (CAP_SYS_ADMIN)", device=device, hint=ROOT_HINT
        ) from cause
    except OSError as cause:
        raise from_errno(
            cause.errno or 0, "the NIC's namespace can't be entered", capability="namespaces", device=device
        ) from cause
    try:
        yield within
    finally:
        context.__exit__(None, None, None)


def cut_off(name: str) -> NicOffloadError:
    """Return the error for a NIC that is incomplete."""
    return unusable(name, "its making was cut off")


def other_version(name: str, version: int) -> NicOffloadError:
    """Return the error for a NIC that another release made."""
    return unusable(name, f"its data path is of version {version}, and this release knows {layout.VERSION}")


def unusable(name: str, why: str) -> NicOffloadError:
    """Return the error for a NIC that can only be removed."""
    return KernelError(
        f"the software NIC can't be used: {why}",
        device=names.PREFIX + name,
        hint=f"remove it: nicoffload soft destroy {name}",
    )
