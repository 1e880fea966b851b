"""Makes a NIC whose data path is eBPF."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files

from nicoffload.errors import AccessDeniedError, NicOffloadError, NotSupportedError, Reason, errno_name
from nicoffload.kernel import veth
from nicoffload.kernel.bpf import BpfMap, bind_map, create_map, load_program, possible_cpus, read_object
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel
from nicoffload.kernel.tc import qdisc
from nicoffload_softnic import layout, names
from nicoffload_softnic.device import close_quietly
from nicoffload_softnic.ebpf import EbpfPath
from nicoffload_softnic.links import whole_packets
from nicoffload_softnic.path import Wanted, inside
from nicoffload_softnic.ports import hang

DEFAULT_ROWS = 65_536
MAX_ROWS = 1 << 22
_NOT_FOR_GOOD = frozenset({errno.EPERM, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_ROOM = 2
"""The map of most rules is this much larger than it need be: fewer share a bucket, and a packet looks at fewer."""


def make(kernel: Kernel, wanted: Wanted) -> None:
    """Fill a NIC's namespace, which is empty; its devices appear in the namespace that the caller is in.

    Raises:
        NicOffloadError: The kernel refuses.
    """
    home = kernel.open_namespace()
    rows = wanted.rows or DEFAULT_ROWS
    try:
        with inside(kernel, wanted.name) as within:
            netlink = Netlink(within, NETLINK_ROUTE, device=names.PREFIX + wanted.name)
            try:
                _add_devices(within, netlink, wanted.name, home)
                maps = _load(kernel, netlink, wanted.name, rows)
            except BaseException:
                netlink.close()
                raise
        device = EbpfPath(kernel, wanted.name, netlink, maps)
        try:
            _write_config(device, wanted, rows)
            for index in range(wanted.vfs):
                device.add_vf(index, home)
            device.config["version"] = layout.VERSION
        finally:
            device.close()
    finally:
        os.close(home)


def _add_devices(within: Kernel, netlink: Netlink, name: str, home: int) -> None:
    pairs = [
        (veth.VethEnd(ifname="up", ifindex=layout.ifindex_of(layout.UPLINK)), names.wire(name), 0, home),
        (veth.VethEnd(ifname="pf", ifindex=layout.ifindex_of(layout.PF)), names.pf(name), 0, home),
        (veth.VethEnd(ifname="shaper", ifindex=layout.SHAPER_IN), "shaped", layout.SHAPER_OUT, None),
    ]
    for inner, outer, ifindex, namespace in pairs:
        veth.add_veth(netlink, inner, veth.VethEnd(ifname=outer, ifindex=ifindex, namespace=namespace))
    for ifindex in (layout.SHAPER_IN, layout.SHAPER_OUT, *map(layout.ifindex_of, (layout.UPLINK, layout.PF))):
        veth.keep_silent(netlink, ifindex)
        qdisc.ensure(netlink, ifindex)
        veth.set_up(netlink, ifindex)
    whole_packets(within, "pf")


def _load(kernel: Kernel, netlink: Netlink, nic: str, rows: int) -> Mapping[str, BpfMap]:
    source = read_object(files("nicoffload_softnic").joinpath("data_path/softnic.bpf.o").read_bytes())
    cpus = possible_cpus(kernel)
    sizes = {
        "flows": rows,
        "short_flows": _ROOM * rows,
        "records": rows,
        "counters": rows * cpus,
        "traffic": layout.MAX_PORTS * cpus,
    }
    maps: dict[str, BpfMap] = {}
    programs: list[int] = []
    try:
        for name, shape in source.maps.items():
            maps[name] = create_map(
                kernel, name, replace(shape, max_entries=sizes.get(name, shape.max_entries))
            )
        descriptors = {name: each.descriptor for name, each in maps.items()}
        # The programs for VFs to come stay loaded where packets never come by: at the shaper's ends.
        for section, ifindexes in (
            ("tc/nic", [layout.ifindex_of(layout.UPLINK), layout.ifindex_of(layout.PF)]),
            ("tc/shaped", [layout.SHAPER_OUT]),
            ("tc/tap", [layout.SHAPER_IN]),
        ):
            name = section.removeprefix("tc/")
            program = load_program(kernel, name, source.program(section, descriptors), source.licence)
            programs.append(program)
            for each in maps.values():
                bind_map(kernel, program, each)
            with inside(kernel, nic) as within:
                for ifindex in ifindexes:
                    hang(within, netlink, ifindex, program, name)
    except BaseException as cause:
        for each in maps.values():
            each.close()
        if isinstance(cause, NicOffloadError) and _is_lacking(cause):
            raise _lacking(cause) from cause
        raise
    finally:
        close_quietly(*programs)
    return maps


def _is_lacking(cause: NicOffloadError) -> bool:
    """Tell whether a refusal is for what the kernel is, and not for who asks or for what is left."""
    return not isinstance(cause, (AccessDeniedError, NotSupportedError)) and cause.errno not in _NOT_FOR_GOOD


def _lacking(cause: NicOffloadError) -> NotSupportedError:
    reason = Reason(
        code="bpf.lacking",
        path="",
        message=cause.message,
        errno=errno_name(cause.errno) if cause.errno else "",
        source="ebpf_build.py: _load",
    )
    return NotSupportedError(
        f"this kernel's eBPF is not enough for the data path: {cause.message}",
        capability="bpf",
        reasons=[reason],
        hint="--data-path u32 needs none",
    )


def _write_config(device: EbpfPath, wanted: Wanted, rows: int) -> None:
    config = device.config
    config["rows"] = rows
    config["next_epoch"] = 1
    config["link_bps"] = wanted.link_bps or 0
    config["instance"] = list(os.urandom(16))
    for number, role, miss in (
        (layout.UPLINK, layout.ROLE_UPLINK, layout.PF),
        (layout.PF, layout.ROLE_PF, layout.UPLINK),
    ):
        port = device.port(number)
        port["number"] = number
        port["miss"] = layout.ifindex_of(miss)
        port["role"] = role
