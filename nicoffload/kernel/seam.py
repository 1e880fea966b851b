"""The one way to the kernel: sockets, ioctls, sysfs, what is open and network namespaces, behind two abstract classes.

A fake kernel stands in for the real one here. It sees the same bytes and decodes them with a decoder of its own, so a
wrong encoder can't agree with itself.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

NETLINK_ROUTE = 0
NETLINK_KOBJECT_UEVENT = 15
NETLINK_GENERIC = 16

MAX_DATAGRAM_BYTES = 256 * 1024
"""Longest datagram that is read. The kernel sends 32 KiB of a dump at most, and a message it echoes is one of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A PCI function, or a network device below one, that the kernel has.

    Args:
        pci_address: The function; of a network device, the nearest one above it.
        ifname: Name of the network device; empty for the function itself.
    """

    pci_address: str
    ifname: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFiles:
    """What a process has open.

    Args:
        pid: The process.
        name: Its name; empty where that may not be seen.
        files: What its descriptors point to: paths, and what has none, such as ``anon_inode:[vfio-device]``.
    """

    pid: int
    name: str
    files: frozenset[str]


class NetlinkChannel(ABC):
    """An open netlink socket. Of one thread."""

    @abstractmethod
    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send one datagram, of one message or many.

        Raises:
            OSError: The kernel does not take it (EMSGSIZE: longer than the send buffer).
        """

    @abstractmethod
    def receive(self, timeout_s: float | None = None) -> bytes:
        """Return the next datagram from the kernel, at most `MAX_DATAGRAM_BYTES` of it.

        Datagrams of other processes are left out.

        Args:
            timeout_s: How long to wait; None waits without end.

        Raises:
            TimeoutError: Nothing came.
            OSError: ENOBUFS: datagrams were lost; EMSGSIZE: the datagram was longer.
        """

    @abstractmethod
    def join(self, group: int) -> None:
        """Take part in a multicast group, by number (1 is ``RTNLGRP_LINK``)."""

    @abstractmethod
    def fileno(self) -> int:
        """Return what a selector waits on."""

    @abstractmethod
    def close(self) -> None:
        """Close the socket. Repeatable."""


class Kernel(ABC):
    """A Linux kernel, seen from one network namespace."""

    @abstractmethod
    def open_netlink(self, family: int) -> NetlinkChannel:
        """Open a netlink socket.

        Args:
            family: `NETLINK_ROUTE`, `NETLINK_GENERIC` or `NETLINK_KOBJECT_UEVENT`.

        Raises:
            OSError: The kernel has no such family, or the process may not.
        """

    @abstractmethod
    def ethtool(self, ifname: str, buffer: bytes) -> bytes:
        """Run the ioctl SIOCETHTOOL and return the buffer as the kernel left it, of the same length.

        Args:
            ifname: Name of the network device, 1 to 15 bytes.
            buffer: The command's structure.

        Raises:
            OSError: As the driver refused.
        """

    @abstractmethod
    def read_sysfs(self, path: str) -> bytes:
        """Return what a file below ``/sys`` holds.

        Args:
            path: Relative, such as ``class/net/eth0/device/sriov_numvfs``.

        Raises:
            OSError: ENOENT: no such file; EOPNOTSUPP: the driver does not fill it.
        """

    @abstractmethod
    def write_sysfs(self, path: str, data: bytes) -> None:
        """Write a file below ``/sys`` in one call.

        Raises:
            OSError: As the driver refused.
        """

    @abstractmethod
    def list_sysfs(self, path: str) -> Sequence[str]:
        """Return the names in a folder below ``/sys``, sorted.

        Raises:
            OSError: ENOENT: no such folder.
        """

    @abstractmethod
    def readlink_sysfs(self, path: str) -> str:
        """Return where a link below ``/sys`` points, as it is written there.

        Raises:
            OSError: ENOENT: no such file; EINVAL: it is no link.
        """

    @abstractmethod
    def sightings(self) -> Sequence[Sighting]:
        """Return all PCI functions, and the network devices of this namespace that are below one."""

    @abstractmethod
    def open_files(self) -> Sequence[OpenFiles]:
        """Return what each process that can be seen has open; of others' processes nothing may be seen."""

    @abstractmethod
    def is_busy(self, device_file: str) -> bool:
        """Tell whether a device file that is opened once at a time is open at present.

        Args:
            device_file: Its usual path, such as ``/dev/vfio/7``. False where there is none, or it may not be opened.
        """

    @abstractmethod
    def namespace(self, path: str) -> AbstractContextManager[Kernel]:
        """Be in another network namespace while the context lasts; sockets opened there stay there.

        Args:
            path: A namespace file, such as ``/run/netns/blue`` or ``/proc/123/ns/net``.

        Raises:
            OSError: ENOENT: no such namespace; EPERM: the process may not.
        """

    # What follows only a kernel that this process runs on can do: a fake one that lacks it answers so.

    def open_namespace(self, path: str = "") -> int:
        """Return a descriptor of a network namespace, to be named in netlink messages; the caller closes it.

        Args:
            path: A namespace file; empty for the namespace that the thread is in.

        Raises:
            OSError: ENOENT: no such namespace; ENOSYS: this kernel is a fake without namespaces.
        """
        raise OSError(errno.ENOSYS, f"no network namespaces here: {path or 'own'}")

    def add_namespace(self, name: str) -> None:
        """Make a network namespace with a name, which lives until it is removed.

        Equivalent to: ``ip netns add NAME``

        Raises:
            OSError: EEXIST: there is one; EPERM: the process may not; ENOSYS: see `open_namespace`.
        """
        raise OSError(errno.ENOSYS, f"no network namespaces here: {name}")

    def remove_namespace(self, name: str) -> None:
        """Take a namespace's name away; it goes when nobody uses it any more.

        Equivalent to: ``ip netns del NAME``

        Raises:
            OSError: ENOENT: there is none; EPERM: the process may not; ENOSYS: see `open_namespace`.
        """
        raise OSError(errno.ENOSYS, f"no network namespaces here: {name}")

    def namespaces(self) -> Sequence[str]:
        """Return the names of the network namespaces, sorted; none where there can be none."""
        return ()

    def bpf(self, command: int, attributes: bytearray) -> int:
        """Make the system call for eBPF and return its answer; the kernel may write into the attributes.

        Args:
            command: ``BPF_MAP_CREATE`` and so on, by number.
            attributes: ``union bpf_attr``, as long as the command needs. Addresses in it are this process's.

        Raises:
            OSError: As the kernel refused; ENOSYS: it has no bpf(2).
        """
        raise OSError(errno.ENOSYS, f"no bpf(2) here: command {command}, {len(attributes)} bytes")

    def await_readers(self) -> None:
        """Wait until no packet is on its way that entered a program before this call (a grace period of RCU).

        Raises:
            OSError: ENOSYS: the kernel has no membarrier(2); EINVAL: it runs CPUs without ticks (``nohz_full``).
        """
        raise OSError(errno.ENOSYS, "no membarrier(2) here")
