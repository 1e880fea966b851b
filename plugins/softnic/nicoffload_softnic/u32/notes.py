"""What is kept of a NIC without eBPF: a line of text on its devices, which goes with them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from nicoffload.kernel import veth
from nicoffload.kernel.netlink import Netlink
from nicoffload.model import LinkState, RateLimit
from nicoffload_softnic import layout
from nicoffload_softnic.path import VfSettings
from nicoffload_softnic.u32.places import queue_of

_MARK = "nicoffload-u32"
_UPLINK = layout.ifindex_of(layout.UPLINK)


@dataclass(frozen=True, slots=True, kw_only=True)
class NicNote:
    """What is kept on the uplink.

    Args:
        rows: Rules that the table holds.
        link_bps: Speed of the port that was asked for; 0 for none.
        version: Of the data path.
        generation: Grows with each change of rules.
        instance: What tells this NIC from another of its name.
    """

    rows: int
    link_bps: int
    version: int = layout.VERSION
    generation: int = 0
    instance: str = field(default_factory=lambda: os.urandom(16).hex())


@dataclass(frozen=True, slots=True, kw_only=True)
class VfNote:
    """What is kept of a VF, on the device of its queue: that stays while the VF's own is made anew.

    Args:
        settings: What is set.
        epoch: Grows as its counters start anew.
        whole: False from before its device is removed to be made anew until that is done.
    """

    settings: VfSettings
    epoch: int = 0
    whole: bool = True


def is_there(netlink: Netlink) -> bool:
    """Tell whether the NIC of a namespace has this data path."""
    return _read(netlink, _UPLINK) is not None


def read_nic(netlink: Netlink) -> NicNote | None:
    """Return what is kept on the uplink; None where nothing is."""
    words = _read(netlink, _UPLINK)
    if words is None:
        return None
    return NicNote(
        rows=int(words["rows"]),
        link_bps=int(words["link"]),
        version=int(words["version"]),
        generation=int(words["generation"]),
        instance=words["instance"],
    )


def write_nic(netlink: Netlink, note: NicNote) -> None:
    """Keep it on the uplink."""
    text = (
        f"{_MARK} version={note.version} rows={note.rows} link={note.link_bps} generation={note.generation}"
    )
    veth.set_alias(netlink, _UPLINK, f"{text} instance={note.instance}")


def count_change(netlink: Netlink) -> int:
    """Let other processes know that rules change; returns the new generation."""
    note = read_nic(netlink)
    if note is None:
        return -1
    write_nic(netlink, replace(note, generation=note.generation + 1))
    return note.generation + 1


def read_vf(netlink: Netlink, vf: int) -> VfNote | None:
    """Return what is kept of a VF; None where nothing is: it is half made, or gone."""
    words = _read(netlink, queue_of(layout.FIRST_VF + vf))
    if words is None:
        return None
    return VfNote(
        settings=VfSettings(
            mac=int(words["mac"], 16),
            spoof_check=words["spoof"] == "1",
            trust=words["trust"] == "1",
            link_state=LinkState(words["link"]),
            rate=RateLimit(max_tx_bps=int(words["max"]) or None),
        ),
        epoch=int(words["epoch"]),
        whole=words["whole"] == "1",
    )


def write_vf(netlink: Netlink, vf: int, note: VfNote) -> None:
    """Keep it."""
    kept = note.settings
    text = f"{_MARK} mac={kept.mac:012x} spoof={kept.spoof_check:d} trust={kept.trust:d}"
    text += f" link={kept.link_state.value} max={kept.rate.max_tx_bps or 0} epoch={note.epoch}"
    veth.set_alias(netlink, queue_of(layout.FIRST_VF + vf), f"{text} whole={note.whole:d}")


def count_vfs(netlink: Netlink) -> int:
    """Return how many VFs are there, one after the other."""
    noted = {one.ifindex for one in veth.links(netlink) if one.alias.startswith(_MARK)}
    number = layout.FIRST_VF
    while queue_of(number) in noted:
        number += 1
    return number - layout.FIRST_VF


def _read(netlink: Netlink, ifindex: int) -> dict[str, str] | None:
    found = veth.find_link(netlink, ifindex)
    if found is None or not found.alias.startswith(_MARK):
        return None
    return dict(word.split("=", 1) for word in found.alias.split()[1:])
