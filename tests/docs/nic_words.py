"""Facts of NIC profiles in words, for the pages of the reference."""

from __future__ import annotations

from nicoffload.codec import format_rate
from nicoffload.model import FIELDS
from nicoffload.profiles.types import Counters, NicProfile, Rate, Setting, Table
from tests.docs.markdown import code

TARGETS = ("vf", "queue", "pf", "uplink", "drop")
"""Actions that say where a packet goes, in the order in which they are listed."""
MASKS = {
    "any": "any mask",
    "prefix": "leading bits",
    "exact": "all bits",
    "required": "all bits, never left out",
    "group_bit": "the multicast bit alone, never left out",
    "exact_or_group_bit": "all bits, or the multicast bit alone",
    "exact_or_ignored": "all bits; under another mask taken and not compared",
    "ignored": "taken and not compared",
}
METHODS = {
    "sysfs": "at run time",
    "module_param": "when the driver loads",
    "vendor": "by the vendor's own driver",
    "links": "at run time",
}


def number(value: int | None) -> str:
    """Return a number; None is what no source states or only the device knows."""
    return "unknown" if value is None else f"{value:,}"


def field(name: str) -> str:
    """Return a field by the word that rules have for it."""
    return FIELDS[name].texts[0]


def targets(table: Table) -> str:
    """Return where rules of a table can send packets."""
    words = [name for name in TARGETS if name in table.actions]
    if table.vf_queue:
        words[words.index("vf") : words.index("vf") + 1] = ["vf", "vf queue"]
    return ", ".join(words) or "nowhere"


def extras(table: Table) -> list[str]:
    """Return the actions of a table that do not say where packets go."""
    return sorted(table.actions - set(TARGETS))


def counters(facts: Counters | None) -> str:
    """Return what is counted."""
    if facts is None or not facts.values:
        return "no"
    width = f", {facts.bits} bits" if facts.bits else ""
    basis = {"l2": ", bytes of the frame", "l3": ", bytes of the IP packet"}.get(facts.byte_basis, "")
    fresh = f", up to {facts.refresh_s:g} s old" if facts.refresh_s else ""
    return ", ".join(sorted(facts.values)) + width + basis + fresh


def vfs(profile: NicProfile) -> str:
    """Return how many VFs there can be, and how they are made."""
    if profile.sriov is None:
        return "none"
    return f"{number(profile.sriov.max_vfs)}, {METHODS[profile.sriov.method]}"


def setting(facts: Setting) -> str:
    """Return whether a VF has a setting."""
    words = [facts.supported if facts.supported != "capability" else "some parts"]
    if facts.values is not None:
        words.append("only " + ", ".join(str(value) for value in facts.values))
    if facts.no_effect:
        words.append("no effect: " + ", ".join(str(value) for value in facts.no_effect))
    if facts.not_in_mode:
        words.append(f"not in {facts.not_in_mode} mode")
    if facts.resets_vf:
        words.append("resets the VF")
    return "; ".join(words)


def rate(facts: Rate) -> str:
    """Return what a rate can be."""
    if facts.supported == "no":
        return "no"
    words = ["yes" if facts.supported == "yes" else "some parts"]
    if facts.meaning == "share":
        words.append("a share, not a guarantee")
    if facts.quantum_bps > 1:
        words.append(f"steps of {format_rate(facts.quantum_bps)}bit/s")
    if facts.smallest_bps:
        below = "less is raised to it" if facts.below_smallest == "raise" else "less is refused"
        words.append(f"from {format_rate(facts.smallest_bps)}bit/s ({below})")
    if facts.largest_bps == "link":
        words.append("up to the link's speed")
    elif isinstance(facts.largest_bps, int):
        words.append(f"up to {format_rate(facts.largest_bps)}bit/s")
    if facts.needs_port_vlan:
        words.append("needs a port VLAN on the VF")
    if facts.needs:
        words.append(f"needs {facts.needs}")
    if facts.read_back != "applied":
        words.append({"requested": "reads back as asked for", "zero": "reads back as 0"}[facts.read_back])
    return "; ".join(words)


def values(name: str, allowed: tuple[int, ...]) -> str:
    """Return which values a flow type fixes a field to."""
    if not allowed:
        return f"no {field(name)}"
    shown = [f"{value:#x}" if name == "eth_type" else str(value) for value in allowed]
    return f"{field(name)}={' or '.join(shown)}"


def needs(table: Table) -> str:
    """Return what must be so before a table takes rules."""
    facts = table.needs
    words = []
    if facts.feature:
        words.append(f"ethtool feature {code([facts.feature])} (by default {facts.feature_default})")
    if facts.eswitch_mode:
        words.append(f"eswitch in {facts.eswitch_mode} mode")
    if facts.vf_driver_on_host:
        words.append("a VF's driver bound on the host, while the VF is a target")
    if facts.mqprio:
        words.append("queue groups set up as traffic classes")
    if facts.other:
        words.append(facts.other)
    return "; ".join(words)
