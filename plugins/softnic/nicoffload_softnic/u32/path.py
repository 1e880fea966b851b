"""The data path without eBPF: each of our ends has filters of u32, and what they take is redirected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

from nicoffload.driver import FlowFilters
from nicoffload.errors import DeviceGoneError, NicOffloadError, NotFoundError
from nicoffload.kernel import veth
from nicoffload.kernel.link import read_link_by
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import Kernel
from nicoffload.kernel.tc import OWN_ROOT, Hook, Mirred, U32Filter, U32Filters, U32Key, htb
from nicoffload.model import ByteBasis, CounterFacts, TrafficStats, format_switch_port
from nicoffload.profiles.types import Table
from nicoffload_softnic import layout, links, names
from nicoffload_softnic.functions import is_up
from nicoffload_softnic.path import DataPath, VfSettings, cut_off, inside, other_version
from nicoffload_softnic.u32 import notes, pairs, renewal, words
from nicoffload_softnic.u32.flows import U32Flows
from nicoffload_softnic.u32.places import ALL, GUARD_PREF, SHAPER_PREF, SINK, hook_of, queue_of, stand_in_of

_HTB = 1 << 16
_HTB_CLASS = _HTB | 1
_GSO_BYTES = 65_536
_TURNS_PER_S = 250
_UNICAST = U32Key(words.ETH_DST_HIGH, 0x0100, 0)
_MIRRORED = (("rx_packets", "tx_packets"), ("rx_bytes", "tx_bytes"))


class U32Path(DataPath):
    """The data path of one NIC: its settings are filters, and lines of text on its devices."""

    kind: ClassVar[str] = "u32"
    family: ClassVar[str] = "softnic_u32"

    def __init__(self, kernel: Kernel, name: str, netlink: Netlink, note: notes.NicNote) -> None:
        super().__init__(kernel, name, netlink)
        self.rows = note.rows
        self._note = note

    @property
    def vfs(self) -> int:
        """How many VFs exist."""
        return notes.count_vfs(self.netlink)

    @property
    def instance(self) -> str:
        """What tells this NIC from another one that had the same name."""
        return self._note.instance

    @property
    def link_bps(self) -> int:
        """The speed of the port that was asked for; 0 for none."""
        return self._note.link_bps

    @contextmanager
    def filters(self, hook: Hook) -> Iterator[U32Filters]:
        """Have a hook of the NIC's namespace in hand.

        Raises:
            NotFoundError: The NIC is gone.
        """
        with (
            inside(self.kernel, self.name) as within,
            U32Filters(within, hook, device=names.PREFIX + self.name) as filters,
        ):
            yield filters

    def rules_in_use(self) -> int:
        """Return how many rules the filters hold."""
        return U32Flows.count(self)

    def flow_filters(self, table: Table, monotonic_s: Callable[[], float]) -> FlowFilters:
        """Return its flow filters."""
        return U32Flows(self, table, monotonic_s)

    def settings(self, vf: int) -> VfSettings:
        """Return what is set of a VF that exists."""
        return self._note_of(vf).settings

    def change(self, vf: int, settings: VfSettings) -> None:
        """Set a VF; its guards are put in anew where they change."""
        note = self._note_of(vf)
        before = note.settings
        notes.write_vf(self.netlink, vf, replace(note, settings=settings))
        if (settings.mac, settings.spoof_check) != (before.mac, before.spoof_check):
            self._guard_sent(vf, settings)
        if (settings.mac, settings.trust) != (before.mac, before.trust):
            self._guard_received(vf, settings)

    def set_link(self, vf: int, *, up: bool) -> None:
        """Let a VF see its link up or down: a link that is down here has no carrier there."""
        veth.set_up(self.netlink, layout.ifindex_of(layout.FIRST_VF + vf), up=up)

    def shape(self) -> None:
        """Put the limits of all VFs in force. Repeatable."""
        for vf in range(self.vfs):
            self._limit(vf, self.settings(vf).rate.max_tx_bps)

    def add_vf(self, index: int, home: int) -> None:
        """Make the next VF and its representor."""
        number = layout.FIRST_VF + index
        pairs.add_queue(self, number)
        pairs.add_vf(self, index, home)
        pairs.add_representor(self, index, home)
        with self.filters(hook_of(number)) as filters:
            pairs.redirect_rest(filters, layout.representor_of(number))
        notes.write_vf(self.netlink, index, notes.VfNote(settings=VfSettings()))

    def remove_vf(self, index: int) -> None:
        """Remove the last VF and its representor."""
        number = layout.FIRST_VF + index
        # The queue first: its note is what makes a VF of the rest.
        for ifindex in (queue_of(number), layout.ifindex_of(number), layout.representor_of(number)):
            if veth.find_link(self.netlink, ifindex) is not None:
                veth.delete_link(self.netlink, ifindex)

    def renew_vf(self, index: int, home: int) -> None:
        """Make a VF's device anew, down; its settings stay, and its rules."""
        self._make_anew(index, home)

    def complete(self, home: int) -> None:
        """Make devices of VFs that are missing or half made; their settings and rules stay."""
        for vf in range(self.vfs):
            if not self._note_of(vf).whole:
                self._make_anew(vf, home)
                settings = self.settings(vf)
                if settings.mac:
                    links.set_own_mac(self, vf, settings.mac)
                self.set_link(vf, up=is_up(self, settings.link_state))

    def counts(self) -> Sequence[TrafficStats]:
        """Return the counters of the kernel's devices, each seen from the port."""
        found = []
        for number in range(layout.FIRST_VF + self.vfs):
            ours = read_link_by(self.netlink, layout.ifindex_of(number)).counters
            from_device = number == layout.UPLINK
            values: dict[str, int | None] = {"rx_dropped": None, "tx_dropped": None}
            for received, sent in _MIRRORED:
                first, second = (received, sent) if from_device else (sent, received)
                values |= {received: ours[first], sent: ours[second]}
            if number >= layout.FIRST_VF:
                values |= self._dropped(number)
            found.append(self._stats(number, values))
        return found

    def _stats(self, number: int, values: dict[str, int | None]) -> TrafficStats:
        is_vf = number >= layout.FIRST_VF
        return TrafficStats(
            name=format_switch_port(number),
            epoch=self._note_of(number - layout.FIRST_VF).epoch if is_vf else 0,
            facts=CounterFacts(
                source="nic:port" if number == layout.UPLINK else "nic:vf", byte_basis=ByteBasis.L2
            ),
            rx_packets=values["rx_packets"],
            tx_packets=values["tx_packets"],
            rx_bytes=values["rx_bytes"],
            tx_bytes=values["tx_bytes"],
            rx_dropped=values["rx_dropped"],
            tx_dropped=values["tx_dropped"],
        )

    def _dropped(self, number: int) -> dict[str, int | None]:
        """Return what the guards of a VF took."""
        found: dict[str, int | None] = {}
        for name, hook in (
            ("rx_dropped", Hook.egress(layout.ifindex_of(number))),
            ("tx_dropped", hook_of(number)),
        ):
            with self.filters(hook) as filters:
                found[name] = int(filters.counters(pref=GUARD_PREF).packets.sum())
        queued = 0
        try:
            queued = sum(one.dropped for one in htb.counters(self.netlink, queue_of(number)))
        except NicOffloadError:  # a kernel without HTB has no classes
            queued = 0
        found["tx_dropped"] = (found["tx_dropped"] or 0) + queued
        return found

    def _make_anew(self, vf: int, home: int) -> None:
        """Make a VF's device anew; its note says so until all is done, for the next who opens the NIC."""
        note, number = self._note_of(vf), layout.FIRST_VF + vf
        notes.write_vf(self.netlink, vf, replace(note, whole=False))
        ifindex = layout.ifindex_of(number)
        if veth.find_link(self.netlink, ifindex) is not None:
            renewal.lead(self, ifindex, stand_in_of(number))
            veth.delete_link(self.netlink, ifindex)
        pairs.add_vf(self, vf, home)
        pairs.lead_from_representor(self, number)
        renewal.lead(self, stand_in_of(number), ifindex)
        self._guard_received(vf, note.settings)
        notes.write_vf(self.netlink, vf, replace(note, epoch=note.epoch + 1, whole=True))

    def _note_of(self, vf: int) -> notes.VfNote:
        note = notes.read_vf(self.netlink, vf)
        if note is None:
            self.check_alive()
            raise NotFoundError(f"there is no VF {vf}", path="/vf", device=names.PREFIX + self.name)
        return note

    def _guard_sent(self, vf: int, settings: VfSettings) -> None:
        high, low = (words.ETH_SRC_HIGH, 0), (words.ETH_SRC_LOW, 16)
        keys = words.differing(settings.mac, high, low) if settings.mac and settings.spoof_check else []
        number = layout.FIRST_VF + vf
        self._guard(hook_of(number), keys, indev=pairs.inner(number))

    def _guard_received(self, vf: int, settings: VfSettings) -> None:
        high, low = (words.ETH_DST_HIGH, 0), (words.ETH_DST_LOW, 32)
        wanted = settings.mac and not settings.trust
        keys = words.differing(settings.mac, high, low, _UNICAST) if wanted else []
        self._guard(Hook.egress(layout.ifindex_of(layout.FIRST_VF + vf)), keys)

    def _guard(self, hook: Hook, keys: Sequence[tuple[U32Key, ...]], indev: str = "") -> None:
        """Drop what any of some filters takes, and nothing else."""
        with self.filters(hook) as filters:
            filters.delete_pref(GUARD_PREF, protocol=ALL)
            pairs.add_all(
                filters,
                [
                    U32Filter(
                        keys=one,
                        actions=(Mirred(ifindex=SINK),),
                        pref=GUARD_PREF,
                        table=OWN_ROOT,
                        indev=indev,
                        protocol=ALL,
                    )
                    for one in keys
                ],
            )

    def _limit(self, vf: int, most_bps: int | None) -> None:
        """Lead what a VF sends through its queue, or past it."""
        number = layout.FIRST_VF + vf
        with self.filters(hook_of(number)) as filters:
            if most_bps is None:
                filters.delete_pref(SHAPER_PREF, protocol=ALL)
                return
            limit(self.netlink, queue_of(number), most_bps)
            if not len(filters.counters(pref=SHAPER_PREF).handles):
                pairs.add_all(
                    filters,
                    [
                        U32Filter(
                            keys=(),
                            actions=(Mirred(ifindex=queue_of(number)),),
                            pref=SHAPER_PREF,
                            table=OWN_ROOT,
                            indev=pairs.inner(number),
                            protocol=ALL,
                        )
                    ],
                )


def limit(netlink: Netlink, ifindex: int, most_bps: int) -> None:
    """Let a device send so much at most.

    Raises:
        NicOffloadError: The kernel refuses, or has no HTB.
    """
    if not any(one.class_id == _HTB_CLASS for one in htb.counters(netlink, ifindex)):
        htb.add_htb(netlink, ifindex, _HTB, _HTB_CLASS & 0xFFFF)
    burst = max(_GSO_BYTES, most_bps // 8 // _TURNS_PER_S)
    one = htb.HtbClass(
        class_id=_HTB_CLASS,
        parent=_HTB,
        rate_bps=most_bps,
        ceil_bps=most_bps,
        burst_bytes=burst,
        ceil_burst_bytes=burst,
    )
    htb.set_class(netlink, ifindex, one)


def adopt(kernel: Kernel, name: str, netlink: Netlink) -> U32Path:
    """Return a NIC's data path by what is kept on its devices.

    Args:
        kernel: Where.
        name: The NIC's, without prefix.
        netlink: A route socket in the NIC's namespace.

    Raises:
        KernelError: It is incomplete, or made by another release.
        DeviceGoneError: It went meanwhile.
    """
    note = notes.read_nic(netlink)
    if note is None:
        raise DeviceGoneError("the software NIC was destroyed", device=names.PREFIX + name)
    if note.version != layout.VERSION:
        raise other_version(name, note.version) if note.version else cut_off(name)
    return U32Path(kernel, name, netlink, note)
