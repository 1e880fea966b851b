"""Virtual functions: how one should be, and how one was found."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nicoffload.errors import InvalidRequestError
from nicoffload.model.action import MAX_RATE_BPS, MAX_VF_INDEX, check_range


class LinkState(enum.Enum):
    """What a VF sees of the link."""

    AUTO = "auto"
    """The state of the physical port."""
    ENABLE = "enable"
    """Always up: VFs can talk to each other while the port is down."""
    DISABLE = "disable"


@dataclass(frozen=True, slots=True, kw_only=True)
class VlanTag:
    """A VLAN that the NIC puts on what a VF sends and takes off what it receives.

    Args:
        vid: 0 to 4095; 0 with pcp 0 means no VLAN.
        pcp: 0 to 7.
        protocol: ``802.1Q`` or ``802.1ad``.
    """

    vid: int
    pcp: int = 0
    protocol: str = "802.1Q"

    def __post_init__(self) -> None:
        check_range("vid", self.vid, 0, 4095, "/vlan/vid")
        check_range("pcp", self.pcp, 0, 7, "/vlan/pcp")
        if self.protocol not in ("802.1Q", "802.1ad"):
            raise InvalidRequestError(
                f"{self.protocol!r} is neither 802.1Q nor 802.1ad", path="/vlan/protocol"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """Transmit rates of a VF, in bits per second.

    Args:
        min_tx_bps: Guaranteed rate, 1 to 1.6e12; None for no guarantee.
        max_tx_bps: Limit, 1 to 1.6e12; None for no limit.

    Raises:
        InvalidRequestError: A rate of 0, below 0, above the fastest port there is, or min above max.
    """

    min_tx_bps: int | None = None
    max_tx_bps: int | None = None

    def __post_init__(self) -> None:
        for name in ("min_tx_bps", "max_tx_bps"):
            value = getattr(self, name)
            if value is None:
                continue
            if value == 0:
                raise InvalidRequestError(
                    "0 means no traffic to one driver and no limit to another",
                    path=f"/{name}",
                    hint="use None (on the command line: none) for no limit; disable the link to stop a VF",
                )
            check_range(name, value, 1, MAX_RATE_BPS, f"/{name}")
        if self.min_tx_bps and self.max_tx_bps and self.min_tx_bps > self.max_tx_bps:
            raise InvalidRequestError(
                f"the guarantee of {self.min_tx_bps} bit/s exceeds the limit of {self.max_tx_bps} bit/s",
                path="/min_tx_bps",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RateReport:
    """What became of a rate: NICs round, and some report what was asked for instead of what they do.

    Args:
        vf: Index of the VF.
        requested: What was asked for; None if nothing was asked in this process.
        applied: What the NIC enforces, by the rules of its profile; None where that is unknown.
        read_back: What the NIC reports; None where it reports nothing.
        note: Why the three differ, in words; empty where they agree.
    """

    vf: int
    requested: RateLimit | None
    applied: RateLimit | None
    read_back: RateLimit | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VfConfig:
    """Settings of one VF; None leaves a setting as it is.

    Args:
        vf: Index, from 0.
        mac: 48-bit address; 0 gives it back to the VF's own driver, where the NIC has that.
        vlan: Port VLAN.
        spoof_check: Whether frames with a foreign source MAC are dropped.
        trust: Whether the VF may change its MAC and go promiscuous.
        link_state: What the VF sees of the link.
    """

    vf: int
    mac: int | None = None
    vlan: VlanTag | None = None
    spoof_check: bool | None = None
    trust: bool | None = None
    link_state: LinkState | None = None

    def __post_init__(self) -> None:
        check_range("vf", self.vf, 0, MAX_VF_INDEX, "/vf")
        if self.mac is not None:
            check_range("mac", self.mac, 0, (1 << 48) - 1, "/mac")
            if self.mac >> 40 & 1:
                raise InvalidRequestError("a VF can't have a multicast address", path="/mac")


@dataclass(frozen=True, slots=True, kw_only=True)
class VfState:
    """One VF, as read; None where the NIC does not report a setting (which is not the same as off).

    Args:
        vf: Index.
        mac: Administered address; 0 for none.
        vlan: Port VLAN.
        spoof_check: Whether spoofed frames are dropped.
        trust: Whether the VF is trusted.
        link_state: What the VF sees of the link.
        rate: Rates as the NIC reports them.
        pci_address: Address of the VF; empty where it has none.
        driver: Driver bound to the VF on this host; empty for none.
        ready: Whether the VF is out of its reset; None where nothing tells.
    """

    vf: int
    mac: int | None
    vlan: VlanTag | None
    spoof_check: bool | None
    trust: bool | None
    link_state: LinkState | None
    rate: RateLimit | None
    pci_address: str = ""
    driver: str = ""
    ready: bool | None = None
