"""Makes and removes software NICs."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.resources import files

from nicoffload.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidRequestError,
    NicOffloadError,
    from_errno,
)
from nicoffload.kernel import veth
from nicoffload.kernel.bpf import (
    BpfMap,
    bind_map,
    create_map,
    load_program,
    possible_cpus,
    read_object,
    require_bpf,
)
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel
from nicoffload.kernel.tc import qdisc
from nicoffload_softnic import layout, names
from nicoffload_softnic.device import ROOT_HINT, SoftDevice, close_quietly, inside, open_device
from nicoffload_softnic.ports import add_vf, hang, whole_packets

DEFAULT_ROWS = 65_536
MAX_ROWS = 1 << 22
DEFAULT_LINK_BPS = 10_000_000_000
_ROOM = 2
"""The map of most rules is this much larger than it need be: fewer share a bucket, and a packet looks at fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A NIC that is to be made.

    Args:
        name: Without prefix.
        vfs: How many VFs, 0 to 128.
        rows: Rules that its table holds.
        link_bps: Speed of its port; None for 10 Gbit/s, which nothing enforces until a VF has a rate.
    """

    name: str
    vfs: int = 4
    rows: int = DEFAULT_ROWS
    link_bps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A NIC that was found.

    Args:
        name: Without prefix.
        vfs: How many VFs; None where it can't be used.
        rows: Rules that its table holds.
        in_use: Rules that it holds.
        problem: Why it can't be used; empty where it can.
    """

    name: str
    vfs: int | None = None
    rows: int | None = None
    in_use: int | None = None
    problem: str = ""


def create(kernel: Kernel, wanted: Wanted) -> None:
    """Make a NIC; its devices appear in the namespace that the caller is in, all of them down.

    Raises:
        ConflictError: There is one of that name, or a device of one of the names.
        AccessDeniedError: The process may not.
        NotSupportedError: The kernel has no eBPF.
        InvalidRequestError: A number is out of range.
    """
    name = names.checked(wanted.name)
    _check(wanted)
    device = names.PREFIX + name
    try:
        require_bpf(kernel)
        kernel.add_namespace(names.namespace_of(name))
    except FileExistsError as cause:
        raise ConflictError(
            "there is a software NIC of that name",
            device=device,
            existing=device,
            hint="nicoffload soft list",
        ) from cause
    except (AccessDeniedError, PermissionError) as cause:
        raise AccessDeniedError(
            "making a software NIC needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_BPF)",
            device=device,
            hint=ROOT_HINT,
        ) from cause
    except OSError as cause:
        if isinstance(cause, NicOffloadError):
            raise
        if cause.errno == errno.EXDEV:
            raise InvalidRequestError(
                f"the NIC would not outlive this process: {cause.strerror}",
                device=device,
                hint="enter the namespace alone: nsenter --net=/run/netns/NAMESPACE nicoffload soft create ...",
            ) from cause
        raise from_errno(
            cause.errno or 0, "the NIC's namespace was not made", capability="namespaces", device=device
        ) from cause
    try:
        _fill(kernel, wanted)
    except BaseException:
        destroy(kernel, name)
        raise


def destroy(kernel: Kernel, name: str) -> None:
    """Remove a NIC, whole or half made, with all its devices wherever they are.

    Raises:
        NotFoundError: There is none.
        AccessDeniedError: The process may not.
    """
    try:
        with inside(kernel, names.checked(name)) as within, Netlink(within, NETLINK_ROUTE) as netlink:
            for link in veth.links(netlink):
                # Of a pair within the namespace, the second end is gone with the first.
                with suppress(NicOffloadError):
                    veth.delete_link(netlink, link.ifindex)
    except InvalidRequestError as cause:
        if cause.errno != errno.EINVAL:
            raise
        # Its maker was killed between the namespace's file and the namespace.
    kernel.remove_namespace(names.namespace_of(name))


def find_all(kernel: Kernel) -> Sequence[Found]:
    """Return the NICs of this machine. Changes nothing.

    Raises:
        AccessDeniedError: The process may not look.
    """
    prefix = names.NAMESPACE_PREFIX
    found = []
    for namespace in kernel.namespaces():
        if not namespace.startswith(prefix):
            continue
        name = namespace.removeprefix(prefix)
        try:
            opened = open_device(kernel, name)
        except AccessDeniedError:
            raise
        except NicOffloadError as cause:
            found.append(Found(name=name, problem=cause.message))
            continue
        try:
            in_use = sum(len(each.read_all()[0]) for each in (opened.flows, opened.short_flows))
            found.append(Found(name=name, vfs=opened.vfs, rows=opened.rows, in_use=in_use))
        finally:
            opened.close()
    return found


def _check(wanted: Wanted) -> None:
    if not 0 <= wanted.vfs <= layout.MAX_VFS:
        raise InvalidRequestError(f"{wanted.vfs} VFs; it can have 0 to {layout.MAX_VFS}", path="/vfs")
    if not 1 <= wanted.rows <= MAX_ROWS:
        raise InvalidRequestError(f"{wanted.rows} rows; it can have 1 to {MAX_ROWS}", path="/rows")
    if wanted.link_bps is not None and not 1_000_000 <= wanted.link_bps <= 1_600_000_000_000:
        raise InvalidRequestError(
            f"a port of {wanted.link_bps} bit/s; it can have 1e6 to 1.6e12", path="/link_bps"
        )


def _fill(kernel: Kernel, wanted: Wanted) -> None:
    home = kernel.open_namespace()
    try:
        with inside(kernel, wanted.name) as within:
            netlink = Netlink(within, NETLINK_ROUTE, device=names.PREFIX + wanted.name)
            _add_devices(within, netlink, wanted.name, home)
        maps = _load(kernel, netlink, wanted.name, wanted.rows)
        device = SoftDevice(kernel, wanted.name, netlink, maps)
        try:
            _write_config(device, wanted)
            for index in range(wanted.vfs):
                add_vf(device, index, home)
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
    except BaseException:
        for each in maps.values():
            each.close()
        raise
    finally:
        close_quietly(*programs)
    return maps


def _write_config(device: SoftDevice, wanted: Wanted) -> None:
    config = device.config
    config["rows"] = wanted.rows
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
