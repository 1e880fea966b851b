"""Finds out which data path a NIC has, and opens it."""

from __future__ import annotations

from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel
from nicoffload_softnic import ebpf, names
from nicoffload_softnic.path import DataPath, inside
from nicoffload_softnic.u32 import notes
from nicoffload_softnic.u32 import path as u32


def open_path(kernel: Kernel, name: str) -> DataPath:
    """Open a NIC by what the kernel knows of it.

    Args:
        kernel: Where.
        name: The NIC's, without prefix.

    Raises:
        NotFoundError: There is no such NIC.
        AccessDeniedError: The process may not.
        KernelError: It is incomplete, or made by another release.
    """
    with inside(kernel, name) as within:
        netlink = Netlink(within, NETLINK_ROUTE, device=names.PREFIX + name)
    try:
        if notes.is_there(netlink):
            return u32.adopt(kernel, name, netlink)
        return ebpf.adopt(kernel, name, netlink)
    except BaseException:
        netlink.close()
        raise
