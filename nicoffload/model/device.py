"""NICs and what they can do, each answer with the evidence for it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Support(enum.Enum):
    """Whether a NIC can do something."""

    YES = "yes"
    PARTIAL = "partial"
    NO = "no"
    UNKNOWN = "unknown"


class Evidence(enum.Enum):
    """How an answer is known, weakest first."""

    DECLARED = "declared"
    """The NIC's profile says so."""
    PROBED = "probed"
    """The live device was asked."""
    OBSERVED = "observed"
    """It was done, and read back."""


class Disruption(enum.Enum):
    """What a change costs those who use the NIC, mildest first."""

    NONE = "none"
    VF_RESET = "vf_reset"
    LINK_FLAP = "link_flap"
    REBOOT = "reboot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One answer to "can this NIC do that?".

    Args:
        name: What: ``flow_filters.fdir``, ``vf.trust``, ``rates.min_tx``, ``statistics.rule``.
        support: The answer.
        evidence: How it is known.
        detail: Limits and conditions, in words.
        source: File and function of the driver, or the paper.
    """

    name: str
    support: Support
    evidence: Evidence
    detail: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """What discovery knows of one NIC (a physical function), without touching it.

    Args:
        name: What `open_nic` takes: a PCI address, or ``mock:sfn5122f``.
        family: Its profile.
        title: For people.
        plugin: Name of the plugin that drives it.
        driver: Kernel driver; empty for an emulated NIC.
        pci_address: Empty for an emulated NIC.
        ifname: Present name of its network interface; names can change, so nothing is keyed by it.
        emulated: Whether answers come from an emulator and not from hardware.
    """

    name: str
    family: str
    title: str
    plugin: str
    driver: str = ""
    pci_address: str = ""
    ifname: str = ""
    emulated: bool = False
