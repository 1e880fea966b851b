"""A software NIC that exists: its namespace, and the memory that it shares with its data path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from nicoffload.errors import (
    AccessDeniedError,
    DeviceGoneError,
    KernelError,
    NicOffloadError,
    NotFoundError,
    from_errno,
)
from nicoffload.kernel.bpf import BpfMap, maps_of_program, open_program, possible_cpus
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel
from nicoffload.kernel.tc import Hook, bpf_filter
from nicoffload_softnic import layout, names

ROOT_HINT = "run as root; without root, mock:softnic emulates this NIC, without packets"
MAPS = ("flows", "short_flows", "counters", "records", "traffic", "ports", "classes", "config")


class SoftDevice:
    """The maps and the namespace of a NIC. Of one thread; close it.

    Args:
        kernel: Where.
        name: The NIC's, without prefix.
        netlink: A socket in the NIC's namespace; closed with it.
        maps: Its maps; closed with it.

    Raises:
        KernelError: Some of its maps are missing.
    """

    def __init__(self, kernel: Kernel, name: str, netlink: Netlink, maps: Mapping[str, BpfMap]) -> None:
        if set(MAPS) - set(maps):
            raise _cut_off(name)
        self.kernel = kernel
        self.name = name
        self.netlink = netlink
        self.flows = maps["flows"]
        self.short_flows = maps["short_flows"]
        self._maps = maps
        self.config: Any = _records(maps["config"], layout.CONFIG)[0]
        self.ports: Any = _records(maps["ports"], layout.PORT)
        self.classes: Any = _records(maps["classes"], layout.CLASSES)
        self.records: Any = _records(maps["records"], layout.RECORD)
        self.rows = len(self.records)
        cpus = possible_cpus(kernel)
        self.counters: Any = _records(maps["counters"], layout.COUNT).reshape(cpus, self.rows)
        self.traffic: Any = _records(maps["traffic"], layout.TRAFFIC).reshape(cpus, layout.MAX_PORTS)

    @property
    def vfs(self) -> int:
        """How many VFs exist."""
        return int(self.config["vfs"])

    @property
    def instance(self) -> str:
        """What tells this NIC from another one that had the same name."""
        return bytes(self.config["instance"]).hex()

    def port(self, number: int) -> Any:
        """Return the entry of a switch port, to be read and written."""
        return self.ports[layout.ifindex_of(number)]

    def check_alive(self) -> None:
        """Find out whether the NIC still exists.

        Raises:
            DeviceGoneError: Somebody destroyed it.
        """
        if names.namespace_of(self.name) not in self.kernel.namespaces():
            raise DeviceGoneError("the software NIC was destroyed", device=names.PREFIX + self.name)

    def program(self, ifindex: int) -> int:
        """Return a descriptor of the program on a device; the caller closes it."""
        found = bpf_filter.attached(self.netlink, Hook.ingress(ifindex))
        if found is None:
            raise DeviceGoneError("a part of the data path is gone", device=names.PREFIX + self.name)
        return open_program(self.kernel, found[0])

    def close(self) -> None:
        """Let go of it; the NIC stays. Repeatable."""
        self.netlink.close()
        for each in self._maps.values():
            each.close()


@contextmanager
def inside(kernel: Kernel, name: str) -> Iterator[Kernel]:
    """Be in a NIC's namespace while the context lasts.

    Raises:
        NotFoundError: There is no such NIC.
        AccessDeniedError: The process may not enter it.
    """
    device = names.PREFIX + name
    if names.namespace_of(name) not in kernel.namespaces():
        raise NotFoundError(
            "there is no such software NIC", device=device, hint=f"make it: nicoffload soft create {name}"
        )
    context = kernel.namespace(names.namespace_path(name))
    try:
        within = context.__enter__()
    except PermissionError as cause:
        raise AccessDeniedError(
            "opening a software NIC needs root (CAP_SYS_ADMIN)", device=device, hint=ROOT_HINT
        ) from cause
    except OSError as cause:
        raise from_errno(
            cause.errno or 0, "the NIC's namespace can't be entered", capability="namespaces", device=device
        ) from cause
    try:
        yield within
    finally:
        context.__exit__(None, None, None)


def open_device(kernel: Kernel, name: str) -> SoftDevice:
    """Open a NIC by what the kernel knows of it: its uplink's filter names the program, that its maps.

    Raises:
        NotFoundError: There is no such NIC.
        AccessDeniedError: The process may not.
        KernelError: It is incomplete, or made by another release.
    """
    device = names.PREFIX + name
    with inside(kernel, name) as within:
        netlink = Netlink(within, NETLINK_ROUTE, device=device)
    try:
        found = bpf_filter.attached(netlink, Hook.ingress(layout.ifindex_of(layout.UPLINK)))
        maps = maps_of_program(kernel, found[0]) if found is not None else {}
        try:
            return _checked(SoftDevice(kernel, name, netlink, maps))
        except BaseException:
            for each in maps.values():
                each.close()
            raise
    except BaseException:
        netlink.close()
        raise


def _checked(device: SoftDevice) -> SoftDevice:
    """Return a NIC whose data path is whole and of this release."""
    version = int(device.config["version"])
    if version == layout.VERSION:
        return device
    if not version:
        raise _cut_off(device.name)
    raise _unusable(
        device.name, f"its data path is of version {version}, and this release knows {layout.VERSION}"
    )


def close_quietly(*descriptors: int) -> None:
    """Close descriptors."""
    for one in descriptors:
        os.close(one)


def _cut_off(name: str) -> NicOffloadError:
    return _unusable(name, "its making was cut off")


def _unusable(name: str, why: str) -> NicOffloadError:
    return KernelError(
        f"the software NIC can't be used: {why}",
        device=names.PREFIX + name,
        hint=f"remove it: nicoffload soft destroy {name}",
    )


def _records(source: BpfMap, form: np.dtype[Any]) -> Any:
    return source.memory().view(form).reshape(-1)
