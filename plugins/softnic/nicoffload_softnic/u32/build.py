"""Makes a NIC whose data path is u32."""

from __future__ import annotations

import os
from dataclasses import replace

from nicoffload.kernel import veth
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel
from nicoffload.kernel.tc import Hook, qdisc
from nicoffload_softnic import layout, names
from nicoffload_softnic.links import whole_packets
from nicoffload_softnic.path import Wanted, inside
from nicoffload_softnic.u32 import notes, pairs
from nicoffload_softnic.u32.path import U32Path, limit
from nicoffload_softnic.u32.places import SINK, SINK_END

MAX_ROWS = 4095
"""A bucket of u32 holds as many filters, so that this many rules fit whatever they compare."""
DEFAULT_ROWS = MAX_ROWS


def make(kernel: Kernel, wanted: Wanted) -> None:
    """Fill a NIC's namespace, which is empty; its devices appear in the namespace that the caller is in.

    Raises:
        NotSupportedError: The kernel has no u32, mirred or clsact.
        NicOffloadError: The kernel refuses otherwise.
    """
    note = notes.NicNote(rows=wanted.rows or DEFAULT_ROWS, link_bps=wanted.link_bps or 0, version=0)
    home = kernel.open_namespace()
    try:
        with inside(kernel, wanted.name) as within:
            netlink = Netlink(within, NETLINK_ROUTE, device=names.PREFIX + wanted.name)
        path = U32Path(kernel, wanted.name, netlink, note)
        try:
            _add_devices(path, home)
            notes.write_nic(netlink, note)
            for index in range(wanted.vfs):
                path.add_vf(index, home)
            notes.write_nic(netlink, replace(note, version=layout.VERSION))
        finally:
            path.close()
    finally:
        os.close(home)


def _add_devices(path: U32Path, home: int) -> None:
    netlink = path.netlink
    uplink, pf = layout.ifindex_of(layout.UPLINK), layout.ifindex_of(layout.PF)
    for ifname, ifindex, outer in (("up", uplink, names.wire(path.name)), ("pf", pf, names.pf(path.name))):
        veth.add_veth(
            netlink,
            veth.VethEnd(ifname=ifname, ifindex=ifindex),
            veth.VethEnd(ifname=outer, namespace=home),
        )
        qdisc.ensure(netlink, ifindex)
    veth.add_veth(
        netlink, veth.VethEnd(ifname="sink", ifindex=SINK), veth.VethEnd(ifname="sunk", ifindex=SINK_END)
    )
    for ifindex in (SINK, SINK_END, uplink, pf):
        veth.keep_silent(netlink, ifindex)
        veth.set_up(netlink, ifindex)
    qdisc.add_drop_all(netlink, SINK)
    if path.link_bps:
        limit(netlink, uplink, path.link_bps)
    with inside(path.kernel, path.name) as within:
        whole_packets(within, "pf")
    for ifindex, other in ((uplink, pf), (pf, uplink)):
        with path.filters(Hook.ingress(ifindex)) as filters:
            pairs.redirect_rest(filters, other)
