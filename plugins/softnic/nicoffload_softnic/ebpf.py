"""The data path in eBPF: programs behind the ingress of our ends, and maps that hold all that there is to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from nicoffload.driver import FlowFilters
from nicoffload.kernel import veth
from nicoffload.kernel.bpf import maps_of_program
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import Kernel
from nicoffload.kernel.tc import Hook, bpf_filter
from nicoffload.model import (
    ByteBasis,
    CounterFacts,
    LinkState,
    RateLimit,
    TrafficStats,
    VlanTag,
    format_switch_port,
)
from nicoffload.profiles.types import Table
from nicoffload_softnic import layout, links, ports, shaper
from nicoffload_softnic.device import SoftDevice
from nicoffload_softnic.flows import SoftFlows
from nicoffload_softnic.path import VfSettings, cut_off, other_version

_LINK_STATES = (LinkState.AUTO, LinkState.ENABLE, LinkState.DISABLE)
_PROTOCOLS = {"802.1Q": 0x8100, "802.1ad": 0x88A8}
_PCP_SHIFT = 13


class EbpfPath(SoftDevice):
    """The data path of one NIC: its settings are bytes that the programs read with each packet."""

    kind: ClassVar[str] = "ebpf"
    family: ClassVar[str] = "softnic"

    def rules_in_use(self) -> int:
        """Return how many rules the maps hold."""
        return sum(len(each.read_all()[0]) for each in (self.flows, self.short_flows))

    def flow_filters(self, table: Table, monotonic_s: Callable[[], float]) -> FlowFilters:
        """Return its flow filters."""
        return SoftFlows(self, table, monotonic_s)

    def settings(self, vf: int) -> VfSettings:
        """Return what is set of a VF that exists."""
        port = self.port(layout.FIRST_VF + vf)
        has_mac, has_vlan = (port["flags"] & bit for bit in (layout.PORT_MAC, layout.PORT_VLAN))
        tci = int(port["tci"]) if has_vlan else 0
        protocol = "802.1ad" if tci and port["vlan_proto"] == _PROTOCOLS["802.1ad"] else "802.1Q"
        return VfSettings(
            mac=int.from_bytes(port["mac"].tobytes(), "big") if has_mac else 0,
            vlan=VlanTag(vid=tci & 0xFFF, pcp=tci >> _PCP_SHIFT, protocol=protocol),
            spoof_check=bool(port["settings"] & ports.SPOOF_CHECK_SET),
            trust=bool(port["settings"] & ports.TRUSTED),
            link_state=_LINK_STATES[port["link_state"]],
            rate=RateLimit(
                min_tx_bps=int(port["min_tx_bps"]) or None, max_tx_bps=int(port["max_tx_bps"]) or None
            ),
        )

    def change(self, vf: int, settings: VfSettings) -> None:
        """Set a VF; what is as it was is not written."""
        port, before = self.port(layout.FIRST_VF + vf), self.settings(vf)
        if settings.mac != before.mac:
            # The flag is off while the address is half written.
            _put(port, "flags", layout.PORT_MAC, on=False)
            port["mac"] = list(settings.mac.to_bytes(6, "big"))
            _put(port, "flags", layout.PORT_MAC, on=settings.mac != 0)
        if settings.vlan != before.vlan:
            vlan = settings.vlan
            _put(port, "flags", layout.PORT_VLAN, on=False)
            port["tci"] = vlan.vid | vlan.pcp << _PCP_SHIFT
            port["vlan_proto"] = _PROTOCOLS[vlan.protocol]
            _put(port, "flags", layout.PORT_VLAN, on=bool(vlan.vid or vlan.pcp))
        _put(port, "flags", layout.PORT_SPOOF_CHECK, on=settings.spoof_check)
        _put(port, "settings", ports.SPOOF_CHECK_SET, on=settings.spoof_check)
        _put(port, "flags", layout.PORT_MAC_FILTER, on=not settings.trust)
        _put(port, "settings", ports.TRUSTED, on=settings.trust)
        port["link_state"] = _LINK_STATES.index(settings.link_state)
        port["min_tx_bps"] = settings.rate.min_tx_bps or 0
        port["max_tx_bps"] = settings.rate.max_tx_bps or 0

    def set_link(self, vf: int, *, up: bool) -> None:
        """Let a VF see its link up or down: a link that is down here has no carrier there."""
        number = layout.FIRST_VF + vf
        _put(self.port(number), "flags", layout.PORT_DOWN, on=not up)
        veth.set_up(self.netlink, layout.ifindex_of(number), up=up)

    def shape(self) -> None:
        """Put the rates of all VFs in force. Repeatable."""
        shaper.apply(self)

    def add_vf(self, index: int, home: int) -> None:
        """Make the next VF and its representor."""
        ports.add_vf(self, index, home)

    def remove_vf(self, index: int) -> None:
        """Remove the last VF and its representor."""
        ports.remove_vf(self, index)
        shaper.forget(self, index)

    def renew_vf(self, index: int, home: int) -> None:
        """Make a VF's device anew, down; its settings stay."""
        number = layout.FIRST_VF + index
        ifindex = layout.ifindex_of(number)
        if veth.find_link(self.netlink, ifindex) is not None:
            veth.delete_link(self.netlink, ifindex)
        ports.add_pair(self, number, representor=False, home=home)

    def complete(self, home: int) -> None:
        """Make ends that are missing or have no program; the settings are in the maps, and stay."""
        for vf in range(self.vfs):
            if ports.complete(self, vf, home) and (mac := self.settings(vf).mac):
                links.set_own_mac(self, vf, mac)

    def counts(self) -> Sequence[TrafficStats]:
        """Return the counters of uplink, PF and VFs, from the data path's memory."""
        queued = shaper.dropped(self)
        return [self._counts_of(number, queued) for number in range(layout.FIRST_VF + self.vfs)]

    def _counts_of(self, number: int, queued: Mapping[int, int]) -> TrafficStats:
        port, column = self.port(number), self.traffic[:, number]
        values = {name: int(column[name].sum()) for name in layout.TRAFFIC_VALUES}
        if number >= layout.FIRST_VF:
            values["tx_dropped"] += queued.get(int(port["class_id"]), 0)
        kind = "port" if number == layout.UPLINK else "vf"
        return TrafficStats(
            name=format_switch_port(number),
            epoch=int(port["spare"][0]),
            facts=CounterFacts(source=f"nic:{kind}", byte_basis=ByteBasis.L2),
            **values,
        )


def adopt(kernel: Kernel, name: str, netlink: Netlink) -> EbpfPath:
    """Return a NIC's data path by what the kernel knows of it: its uplink's filter names the program, that its maps.

    Args:
        kernel: Where.
        name: The NIC's, without prefix.
        netlink: A route socket in the NIC's namespace.

    Raises:
        KernelError: It is incomplete, or made by another release.
    """
    found = bpf_filter.attached(netlink, Hook.ingress(layout.ifindex_of(layout.UPLINK)))
    maps = maps_of_program(kernel, found[0]) if found is not None else {}
    try:
        return _checked(EbpfPath(kernel, name, netlink, maps))
    except BaseException:
        for each in maps.values():
            each.close()
        raise


def _checked(path: EbpfPath) -> EbpfPath:
    """Return a data path that is whole and of this release."""
    version = int(path.config["version"])
    if version != layout.VERSION:
        raise other_version(path.name, version) if version else cut_off(path.name)
    return path


def _put(port: Any, field: str, bit: int, *, on: bool) -> None:
    held = int(port[field])
    port[field] = held | bit if on else held & ~bit & 0xFF
