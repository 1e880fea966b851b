"""A software NIC that exists: its namespace, and the memory that it shares with its data path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from nicoffload.errors import DeviceGoneError
from nicoffload.kernel.bpf import BpfMap, open_program, possible_cpus
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import Kernel
from nicoffload.kernel.tc import Hook, bpf_filter
from nicoffload_softnic import layout, names
from nicoffload_softnic.path import DataPath, cut_off

MAPS = ("flows", "short_flows", "counters", "records", "traffic", "ports", "classes", "config")


class SoftDevice(DataPath):
    """The maps of a NIC, and its namespace. Of one thread; close it.

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
            raise cut_off(name)
        super().__init__(kernel, name, netlink)
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

    @property
    def link_bps(self) -> int:
        """The speed of the port that was asked for; 0 for none."""
        return int(self.config["link_bps"])

    def port(self, number: int) -> Any:
        """Return the entry of a switch port, to be read and written."""
        return self.ports[layout.ifindex_of(number)]

    def program(self, ifindex: int) -> int:
        """Return a descriptor of the program on a device; the caller closes it."""
        found = bpf_filter.attached(self.netlink, Hook.ingress(ifindex))
        if found is None:
            raise DeviceGoneError("a part of the data path is gone", device=names.PREFIX + self.name)
        return open_program(self.kernel, found[0])

    def close(self) -> None:
        """Let go of it; the NIC stays. Repeatable."""
        super().close()
        for each in self._maps.values():
            each.close()


def close_quietly(*descriptors: int) -> None:
    """Close descriptors."""
    for one in descriptors:
        os.close(one)


def _records(source: BpfMap, form: np.dtype[Any]) -> Any:
    return source.memory().view(form).reshape(-1)
