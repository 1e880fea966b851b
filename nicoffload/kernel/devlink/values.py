"""What devlink knows of a NIC: device, switch, ports, functions behind ports, transmit rates."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from nicoffload.errors import InvalidRequestError

MAX_BYTES_PER_S = (1 << 64) - 1
_WORD = re.compile(r"[^\s/\x00-\x1f\x7f]+")
_MAX_U32 = (1 << 32) - 1
_MAX_MAC = (1 << 48) - 1


class EswitchMode(enum.Enum):
    """What forwards between the functions of a NIC."""

    LEGACY = "legacy"
    """The NIC, by MAC and VLAN."""
    SWITCHDEV = "switchdev"
    """Rules; every VF has a representor."""


class InlineMode(enum.Enum):
    """How many headers a VF's driver puts into a descriptor."""

    NONE = "none"
    LINK = "link"
    NETWORK = "network"
    TRANSPORT = "transport"


class EncapMode(enum.Enum):
    """Whether the switch puts tunnel headers on."""

    NONE = "none"
    BASIC = "basic"


class PortFlavour(enum.Enum):
    """What a port leads to."""

    PHYSICAL = "physical"
    CPU = "cpu"
    DSA = "dsa"
    PCI_PF = "pcipf"
    PCI_VF = "pcivf"
    VIRTUAL = "virtual"
    UNUSED = "unused"
    PCI_SF = "pcisf"
    OTHER = "other"
    """One that this SDK does not know, or none told."""


class FunctionState(enum.Enum):
    """Whether a function may be used."""

    INACTIVE = "inactive"
    ACTIVE = "active"


class FunctionOpstate(enum.Enum):
    """Whether a driver holds a function."""

    DETACHED = "detached"
    ATTACHED = "attached"


class VersionKind(enum.Enum):
    """How far a version can change."""

    FIXED = "fixed"
    RUNNING = "running"
    STORED = "stored"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Handle:
    """Name of a devlink device, which does not change while the device is there.

    Args:
        bus: Such as ``pci``.
        name: Its name on the bus: a PCI address.

    Raises:
        InvalidRequestError: Either is empty or holds white space or a slash.
    """

    bus: str
    name: str

    def __post_init__(self) -> None:
        if not (_WORD.fullmatch(self.bus) and _WORD.fullmatch(self.name)):
            raise InvalidRequestError(
                f"{self.bus}/{self.name} names no devlink device", hint="write pci/0000:03:00.0"
            )

    @staticmethod
    def of(written: str) -> Handle:
        """Return the handle that a text such as ``pci/0000:03:00.0`` names.

        Raises:
            InvalidRequestError: It has no slash, or more than one.
        """
        bus, _, name = written.partition("/")
        return Handle(bus=bus, name=name)

    def __str__(self) -> str:
        return f"{self.bus}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Version of one part of a NIC.

    Args:
        kind: Whether it is of metal, of what runs, or of what the next start runs.
        name: Of the part, such as ``fw.mgmt``.
        value: The version.
    """

    kind: VersionKind
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a driver tells of its device.

    Args:
        handle: The device.
        driver: Name of the driver; empty where not told.
        serial_number: Of the device; empty where not told.
        board_serial_number: Of the board; empty where not told.
        versions: In the driver's order.
    """

    handle: Handle
    driver: str = ""
    serial_number: str = ""
    board_serial_number: str = ""
    versions: tuple[Version, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Eswitch:
    """Modes of a NIC's switch; None where the driver does not report one.

    Args:
        handle: The device.
        mode: What forwards.
        inline_mode: Headers in descriptors.
        encap_mode: Tunnels.
    """

    handle: Handle
    mode: EswitchMode | None = None
    inline_mode: InlineMode | None = None
    encap_mode: EncapMode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFunction:
    """The function behind a port; None where the driver does not report it.

    Args:
        hw_addr: 48-bit MAC address; 0 where none was set.
        state: Whether it may be used.
        opstate: Whether a driver holds it.
    """

    hw_addr: int | None = None
    state: FunctionState | None = None
    opstate: FunctionOpstate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port of a NIC's switch. Numbers are None where the flavour has none.

    Args:
        handle: The device.
        index: Its number at the device.
        flavour: What it leads to.
        ifindex: Its network device in this namespace; None where it has none.
        ifname: Present name of that; empty where it has none.
        number: Of a physical port, as printed on the NIC.
        controller: Host that the function belongs to, 0 for the NIC's own.
        pf: PF of the function behind it.
        vf: VF likewise.
        sf: Scalable function likewise.
        external: Whether the function belongs to another host.
        function: The function; None where the port has none, or the driver tells nothing of it.
    """

    handle: Handle
    index: int
    flavour: PortFlavour = PortFlavour.OTHER
    ifindex: int | None = None
    ifname: str = ""
    number: int | None = None
    controller: int | None = None
    pf: int | None = None
    vf: int | None = None
    sf: int | None = None
    external: bool = False
    function: PortFunction | None = None


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RateLeaf:
    """The rate object of a port.

    Args:
        port: Index of the port.
    """

    port: int

    def __post_init__(self) -> None:
        _check("port", self.port, _MAX_U32)

    def __str__(self) -> str:
        return str(self.port)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RateNode:
    """A rate object that groups others.

    Args:
        name: Not empty, not a decimal number, without white space or slash.

    Raises:
        InvalidRequestError: The name breaks that.
    """

    name: str

    def __post_init__(self) -> None:
        if not _WORD.fullmatch(self.name) or (self.name.isascii() and self.name.isdecimal()):
            raise InvalidRequestError(
                f"{self.name!r} names no rate node",
                path="/name",
                hint="take letters: a number names a port, and a slash or a blank ends a name",
            )

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A transmit rate, as read.

    Args:
        handle: The device.
        ref: What it is of.
        tx_share_bps: Guaranteed rate in bit/s; 0: none.
        tx_max_bps: Limit in bit/s; 0: none.
        tx_priority: Among those of one parent, higher first; None where the kernel does not report it.
        tx_weight: Share among those of one priority; None likewise.
        parent: Name of the node that it is in; empty: none.
    """

    handle: Handle
    ref: RateLeaf | RateNode
    tx_share_bps: int = 0
    tx_max_bps: int = 0
    tx_priority: int | None = None
    tx_weight: int | None = None
    parent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateChange:
    """What to set of a transmit rate; None leaves a value as it is.

    Args:
        tx_share_bps: Guaranteed rate in bit/s, a multiple of 8; 0 takes it away.
        tx_max_bps: Limit in bit/s, a multiple of 8; 0 takes it away.
        tx_priority: 0 to 2^32 - 1.
        tx_weight: 0 to 2^32 - 1.
        parent: Name of a node; empty: of none.

    Raises:
        InvalidRequestError: A value is out of range, a rate is no whole number of bytes, the guarantee exceeds the
            limit, or a parent's name is none.
    """

    tx_share_bps: int | None = None
    tx_max_bps: int | None = None
    tx_priority: int | None = None
    tx_weight: int | None = None
    parent: str | None = None

    def __post_init__(self) -> None:
        for name in ("tx_share_bps", "tx_max_bps"):
            value = getattr(self, name)
            if value is not None:
                to_bytes_per_s(value, f"/{name}")
        if self.tx_share_bps and self.tx_max_bps and self.tx_share_bps > self.tx_max_bps:
            raise InvalidRequestError(
                f"the guarantee of {self.tx_share_bps} bit/s exceeds the limit of {self.tx_max_bps} bit/s",
                path="/tx_share_bps",
            )
        for name in ("tx_priority", "tx_weight"):
            value = getattr(self, name)
            if value is not None:
                _check(name, value, _MAX_U32)
        if self.parent:
            RateNode(name=self.parent)


def to_bytes_per_s(bits_per_s: int, path: str = "") -> int:
    """Return what devlink is told for a rate in bit/s.

    Raises:
        InvalidRequestError: It is below 0, above 2^67 - 8, or no multiple of 8.
    """
    _check(path.lstrip("/") or "rate", bits_per_s, 8 * MAX_BYTES_PER_S)
    if bits_per_s % 8:
        down = bits_per_s - bits_per_s % 8
        raise InvalidRequestError(
            f"{bits_per_s} bit/s is no whole number of bytes per second, which devlink counts in",
            path=path,
            hint=f"take {down} or {down + 8}",
        )
    return bits_per_s // 8


def to_bits_per_s(bytes_per_s: int) -> int:
    """Return the bit/s of a rate as devlink tells it."""
    return 8 * bytes_per_s


def check_hw_addr(address: int) -> None:
    """Refuse what is no address of a function.

    Raises:
        InvalidRequestError: It is not 48 bits wide, or of a group.
    """
    _check("hw_addr", address, _MAX_MAC)
    if address >> 40 & 1:
        raise InvalidRequestError("a function can't have the address of a group", path="/hw_addr")


def _check(name: str, value: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
        raise InvalidRequestError(f"{name} is {value!r}, not 0 to {highest}", path=f"/{name}")
