"""The devices of a NIC without eBPF, each with the filters that every one of its kind has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nicoffload.errors import NicOffloadError
from nicoffload.kernel import veth
from nicoffload.kernel.tc import OWN_ROOT, Hook, Mirred, U32Filter, U32Filters, qdisc
from nicoffload_softnic import layout, names
from nicoffload_softnic.links import whole_packets
from nicoffload_softnic.path import inside
from nicoffload_softnic.u32.places import ALL, REST_PREF, block_of, queue_of

if TYPE_CHECKING:
    from nicoffload_softnic.u32.path import U32Path


def inner(number: int) -> str:
    """Return the name of a VF's end in the NIC's namespace."""
    return f"v{number - layout.FIRST_VF}"


def add_queue(path: U32Path, number: int) -> None:
    """Make the pair through which a VF sends while it has a limit; behind it are the VF's rules again."""
    index, netlink = number - layout.FIRST_VF, path.netlink
    here, there = queue_of(number), queue_of(number) + 1
    veth.add_veth(
        netlink,
        veth.VethEnd(ifname=f"q{index}", ifindex=here),
        veth.VethEnd(ifname=f"t{index}", ifindex=there),
    )
    qdisc.add(netlink, qdisc.IngressQdisc(ifindex=there, ingress_block=block_of(number)))
    for ifindex in (here, there):
        veth.keep_silent(netlink, ifindex)
        veth.set_up(netlink, ifindex)


def add_vf(path: U32Path, index: int, home: int) -> None:
    """Make a VF's pair; its rules are in a block that its queue's end holds as well."""
    number, netlink = layout.FIRST_VF + index, path.netlink
    ifindex = layout.ifindex_of(number)
    veth.add_veth(
        netlink,
        veth.VethEnd(ifname=inner(number), ifindex=ifindex),
        veth.VethEnd(ifname=names.vf(path.name, index), namespace=home),
    )
    veth.keep_silent(netlink, ifindex)
    qdisc.add(netlink, qdisc.IngressQdisc(ifindex=ifindex, ingress_block=block_of(number)))
    veth.set_up(netlink, ifindex)


def add_representor(path: U32Path, index: int, home: int) -> None:
    """Make the pair of a VF's representor: what enters there is the VF's."""
    number, netlink = layout.FIRST_VF + index, path.netlink
    ifindex, name = layout.representor_of(number), f"r{index}"
    veth.add_veth(
        netlink,
        veth.VethEnd(ifname=name, ifindex=ifindex),
        veth.VethEnd(ifname=names.representor(path.name, index), namespace=home),
    )
    veth.keep_silent(netlink, ifindex)
    qdisc.ensure(netlink, ifindex)
    with inside(path.kernel, path.name) as within:
        whole_packets(within, name)
    lead_from_representor(path, number)
    veth.set_up(netlink, ifindex)


def lead_from_representor(path: U32Path, number: int) -> None:
    """Lead what enters a VF's representor to the VF. Repeatable."""
    with path.filters(Hook.ingress(layout.representor_of(number))) as filters:
        filters.delete_pref(REST_PREF, protocol=ALL)
        redirect_rest(filters, layout.ifindex_of(number))


def redirect_rest(filters: U32Filters, ifindex: int) -> None:
    """Lead to a device what no other filter takes."""
    add_all(
        filters,
        [
            U32Filter(
                keys=(), actions=(Mirred(ifindex=ifindex),), pref=REST_PREF, table=OWN_ROOT, protocol=ALL
            )
        ],
    )


def add_all(filters: U32Filters, items: Sequence[U32Filter]) -> None:
    """Install filters, in this order.

    Raises:
        NicOffloadError: The kernel refuses one.
    """
    for answer in filters.add_many(items):
        if isinstance(answer, NicOffloadError):
            raise answer
