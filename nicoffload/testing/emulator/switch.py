"""The switch inside the emulated NIC: which rule, else which port, a header gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nicoffload.model import FIRST_VF_PORT, LinkState
from nicoffload.testing.emulator import assumptions
from nicoffload.testing.emulator.actions import DROPPED, PF, UPLINK
from nicoffload.testing.emulator.entry import Entry
from nicoffload.testing.emulator.tables import Table
from nicoffload.testing.emulator.view import BatchView

if TYPE_CHECKING:
    from nicoffload.testing.emulator.device import Device

_GROUP = 1 << 40
_VLAN_BYTES = 4
LOST_AT_SOURCE = -2
"""Stands for the port that a packet came from: it was spoofed, or its VF is down."""
_NOT_LOST = -1


class Verdict(NamedTuple):
    """What becomes of packets with one header.

    Args:
        port: Switch port; -1 dropped.
        entry: The rule that decided; None where the switch did.
        added_bytes: What the frame gains on its way.
        lost_at: Port that counts the drop; -1 for none, -2 for the port that it came from.
    """

    port: int
    entry: Entry | None
    added_bytes: int
    lost_at: int


def decide(device: Device, view: BatchView, rows: list[int], in_port: int) -> list[Verdict]:
    """Return what becomes of packets with the headers `rows` of a batch that enter a switch port."""
    gate = _Gate(device, view, in_port)
    by_rule = _match(device.live_tables(), view, rows, in_port)
    return [gate.verdict(row, by_rule.get(row)) for row in rows]


def _match(tables: list[Table], view: BatchView, rows: list[int], in_port: int) -> dict[int, Entry]:
    decided: dict[int, Entry] = {}
    left = rows
    for table in tables:
        found = _match_table(table, view, left, in_port)
        if found:
            decided.update(found)
            left = [row for row in left if row not in found]
    return decided


def _match_table(table: Table, view: BatchView, rows: list[int], in_port: int) -> dict[int, Entry]:
    found: dict[int, Entry] = {}
    for shape, by_values in table.space.items():
        if in_port != UPLINK and not any(name == "in_port" for name, _ in shape):
            continue
        keys = view.keys(shape, in_port)
        for row in rows:
            key = keys[row]
            if key is None or key not in by_values:
                continue
            entries = by_values[key]
            best = entries[0] if len(entries) == 1 else max(entries, key=_rank)
            other = found.get(row)
            if other is None or best.rank > other.rank:
                found[row] = best
    return found


def _rank(entry: Entry) -> tuple[int, int]:
    return entry.rank


class _Gate:
    """Everything but rules: source checks, port VLANs, MAC addresses, VFs that are down."""

    def __init__(self, device: Device, view: BatchView, in_port: int) -> None:
        self._device = device
        self._view = view
        self._in_port = in_port
        self._switchdev = device.mode == "switchdev"
        source = in_port - FIRST_VF_PORT
        self._source = device.sriov.vfs[source] if 0 <= source < len(device.sriov.vfs) else None
        self._by_mac: dict[int, list[int]] = {}
        if not self._switchdev:
            for vf in device.sriov.vfs:
                if vf.mac:
                    self._by_mac.setdefault(vf.mac, []).append(vf.index)

    def verdict(self, row: int, entry: Entry | None) -> Verdict:
        """Return the verdict on one header, given the rule that it hits."""
        if self._is_blocked(row):
            return Verdict(DROPPED, None, 0, LOST_AT_SOURCE)
        pushed = _VLAN_BYTES if self._source is not None and self._source.has_vlan else 0
        if entry is not None:
            return self._arrive(entry.plan.port, entry, entry.plan.added_bytes + pushed)
        port, popped = self._switch(row)
        return self._arrive(port, None, pushed - popped)

    def _is_blocked(self, row: int) -> bool:
        if self._in_port < FIRST_VF_PORT:
            return False
        vf = self._source
        if vf is None or vf.link_state is LinkState.DISABLE or not self._device.sriov.is_ready(vf):
            return True
        return bool(vf.spoof_check and vf.mac and self._view.column("eth_src")[row] != vf.mac)

    def _switch(self, row: int) -> tuple[int, int]:
        """Return the port that a frame goes to without any rule, and the bytes of a tag that is taken off."""
        if self._switchdev:
            # The representor, and so the host's switch, takes what no rule does.
            return (PF, 0) if self._in_port != PF else (UPLINK, 0)
        mac = self._view.column("eth_dst")[row]
        beyond = PF if self._in_port == UPLINK else UPLINK
        if not self._by_mac or mac & _GROUP:
            return beyond, 0
        for index in self._by_mac.get(mac, ()):
            found = self._vlan_fits(row, index)
            if found is not None and index + FIRST_VF_PORT != self._in_port:
                return index + FIRST_VF_PORT, found
        if mac == assumptions.PF_MAC and self._in_port >= FIRST_VF_PORT:
            return PF, 0
        return beyond, 0

    def _vlan_fits(self, row: int, index: int) -> int | None:
        """Return the bytes that are taken off a frame for a VF; None where it is in another VLAN."""
        vf = self._device.sriov.vfs[index]
        if self._source is not None and self._source.has_vlan:
            return _VLAN_BYTES if vf.has_vlan and vf.vid == self._source.vid else None
        if not vf.has_vlan:
            return 0
        tagged = self._view.column("vlan_depth")[row] > 0
        return _VLAN_BYTES if tagged and self._view.column("vlan_tci")[row] & 0xFFF == vf.vid else None

    def _arrive(self, port: int, entry: Entry | None, added_bytes: int) -> Verdict:
        index = port - FIRST_VF_PORT
        if index < 0:
            return Verdict(port, entry, added_bytes, _NOT_LOST)
        if index >= len(self._device.sriov.vfs):
            return Verdict(DROPPED, entry, added_bytes, _NOT_LOST)
        vf = self._device.sriov.vfs[index]
        if vf.link_state is LinkState.DISABLE or not self._device.sriov.is_ready(vf):
            return Verdict(DROPPED, entry, added_bytes, port)
        return Verdict(port, entry, added_bytes, _NOT_LOST)
