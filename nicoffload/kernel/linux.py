"""The real kernel behind the seam."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import errno
import fcntl
import math
import os
import re
import select
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nicoffload.errors import InvalidRequestError
from nicoffload.kernel.seam import MAX_DATAGRAM_BYTES, Kernel, NetlinkChannel, OpenFiles, Sighting

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SOCKET_BUFFER_BYTES = 4 << 20
_SIOCETHTOOL = 0x8946
_IFNAME_BYTES = 16
_CLONE_NEWNET = 0x40000000
_NAMESPACES = Path("/run/netns")
_CLONE_NEWNS = 0x20000
_CLONE_FS = 0x200
_MS_BIND = 4096
_MS_REC = 16384
_MS_SHARED = 1 << 20
_MNT_DETACH = 2
_BPF_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_MEMBARRIER_NUMBERS = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
"""Numbers of system calls, as arch/*/ of Linux has them."""
_MEMBARRIER_CMD_GLOBAL = 1
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
"""The same on every architecture, as all that came after Linux 5.0."""
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_CMD_CREATE = 6
_MOUNT_ATTR_NOSUID_NODEV_NOEXEC = 0x2 | 0x4 | 0x8
_SYSFS = Path("/sys")
_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


class LinuxChannel(NetlinkChannel):
    """A netlink socket of the operating system.

    Args:
        family: Netlink family.
    """

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        try:
            self._set_up()
        except BaseException:
            self._socket.close()
            raise
        self._buffer = bytearray(MAX_DATAGRAM_BYTES)
        self._poll = select.poll()  # not select(2), which takes no descriptor from 1024
        self._poll.register(self._socket, select.POLLIN)

    def _set_up(self) -> None:
        for forced, polite in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, forced, _SOCKET_BUFFER_BYTES)
            except PermissionError:  # an ordinary user gets what net.core.*mem_max allows
                self._socket.setsockopt(socket.SOL_SOCKET, polite, _SOCKET_BUFFER_BYTES)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            # Older than 4.20, and no extack or strict dump then: every answer is checked for what it is.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send one datagram."""
        self._socket.send(data)

    def receive(self, timeout_s: float | None = None) -> bytes:
        """Return the next datagram from the kernel."""
        while True:
            if timeout_s is not None and not self._poll.poll(math.ceil(timeout_s * 1000)):
                raise TimeoutError(errno.ETIMEDOUT, "no answer from the kernel")
            size, _, flags, sender = self._socket.recvmsg_into([self._buffer])
            if flags & socket.MSG_TRUNC:
                raise OSError(errno.EMSGSIZE, f"a datagram is longer than {MAX_DATAGRAM_BYTES} bytes")
            if sender[0] == 0:  # anybody may send to a netlink socket; the kernel's address is 0
                return bytes(memoryview(self._buffer)[:size])

    def join(self, group: int) -> None:
        """Take part in a multicast group."""
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class LinuxKernel(Kernel):
    """The kernel that this process runs on.

    Args:
        sysfs: Where sysfs is mounted.
        proc: Where procfs is mounted.
        dev: Where the device files are.
    """

    def __init__(
        self,
        sysfs: str | os.PathLike[str] = "/sys",
        *,
        proc: str | os.PathLike[str] = "/proc",
        dev: str | os.PathLike[str] = "/dev",
    ) -> None:
        self._sysfs = Path(sysfs)
        self._within: _OwnSysfs | None = None
        self._proc = Path(proc)
        self._dev = Path(dev)

    def open_netlink(self, family: int) -> NetlinkChannel:
        """Open a netlink socket."""
        return LinuxChannel(family)

    def ethtool(self, ifname: str, buffer: bytes) -> bytes:
        """Run the ioctl SIOCETHTOOL."""
        name = ifname.encode()
        if not 0 < len(name) < _IFNAME_BYTES or b"\0" in name:
            raise InvalidRequestError(f"{ifname!r} is no name of a network device")
        data = ctypes.create_string_buffer(buffer, len(buffer))
        request = struct.pack(f"{_IFNAME_BYTES}sP16x", name, ctypes.addressof(data))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as carrier:
            fcntl.ioctl(carrier, _SIOCETHTOOL, request)
        return data.raw

    def _path(self, path: str) -> Path:
        if path.startswith("/") or ".." in Path(path).parts:
            raise InvalidRequestError(f"{path!r} is no path below sysfs")
        if self._within is None:
            return self._sysfs / path
        return self._within.path(path)

    def read_sysfs(self, path: str) -> bytes:
        """Return what a file holds."""
        return self._path(path).read_bytes()

    def write_sysfs(self, path: str, data: bytes) -> None:
        """Write a file in one call."""
        descriptor = os.open(self._path(path), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, data)  # not a file object: its second write, on close, would hide the errno
        finally:
            os.close(descriptor)

    def list_sysfs(self, path: str) -> Sequence[str]:
        """Return the names in a folder."""
        return sorted(os.listdir(self._path(path)))  # noqa: PTH208  (names, not paths)

    def readlink_sysfs(self, path: str) -> str:
        """Return where a link points."""
        return str(self._path(path).readlink())

    def sightings(self) -> Sequence[Sighting]:
        """Return all PCI functions and the network devices below one; it needs no udev daemon."""
        if self._within is not None:  # libudev looks at /sys
            return self._sightings_below()
        import pyudev  # noqa: PLC0415  (whoever uses an emulated NIC needs no libudev)

        context = pyudev.Context()
        seen = [Sighting(pci_address=one.sys_name) for one in context.list_devices(subsystem="pci")]
        for one in context.list_devices(subsystem="net"):
            function = one.find_parent("pci")
            if function is not None:
                seen.append(Sighting(pci_address=function.sys_name, ifname=one.sys_name))
        return seen

    def _sightings_below(self) -> Sequence[Sighting]:
        seen: list[Sighting] = []
        with contextlib.suppress(FileNotFoundError):  # a machine without PCI
            seen += [Sighting(pci_address=name) for name in self.list_sysfs("bus/pci/devices")]
        for name in self.list_sysfs("class/net"):
            try:
                parts = self.readlink_sysfs(f"class/net/{name}").split("/")
            except OSError as cause:
                # It went meanwhile, or is no device (bonding_masters).
                if cause.errno not in {errno.ENOENT, errno.EINVAL}:
                    raise
                continue
            address = next((part for part in reversed(parts) if _PCI_ADDRESS.fullmatch(part)), "")
            if address:
                seen.append(Sighting(pci_address=address, ifname=name))
        return seen

    def open_files(self) -> Sequence[OpenFiles]:
        """Return what each process that can be seen has open."""
        return [
            OpenFiles(pid=int(folder.name), name=_name(folder), files=_targets(folder))
            for folder in self._proc.iterdir()
            if folder.name.isdigit()
        ]

    def is_busy(self, device_file: str) -> bool:
        """Tell whether a device file is open: to open it once more is refused then."""
        try:
            os.close(os.open(self._dev / device_file.removeprefix("/dev/"), os.O_RDWR | os.O_CLOEXEC))
        except OSError as cause:
            return cause.errno == errno.EBUSY
        return False

    @contextlib.contextmanager
    def namespace(self, path: str) -> Iterator[Kernel]:
        """Be in another network namespace while the context lasts.

        Of the one at ``/sys`` sysfs shows the network devices of the namespace it was mounted from. So the kernel that
        is returned has a sysfs of its own, of the namespace it is in: a mount without a place (fsmount(2), Linux 5.2),
        for to mount it somewhere the thread would need mounts of its own, and with them lose its working directory on
        the way back. Where such a mount is refused, reading of network devices in sysfs is (EXDEV).
        """
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _enter(target)
            finally:
                os.close(target)
            with contextlib.ExitStack() as stack:
                stack.callback(_enter, home)
                within = copy.copy(self)
                if self._sysfs == _SYSFS or self._within is not None:
                    own = within._within = _OwnSysfs()  # noqa: SLF001  (of this class)
                    stack.callback(own.close)
                yield within
        finally:
            os.close(home)

    def open_namespace(self, path: str = "") -> int:
        """Return a descriptor of a network namespace."""
        return os.open(path or "/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def add_namespace(self, name: str) -> None:
        """Make a network namespace with a name."""
        file = _namespace_file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        try:
            _apart(lambda: _bind_new_namespace(file))
        except BaseException:
            file.unlink()
            raise

    def remove_namespace(self, name: str) -> None:
        """Take a namespace's name away."""
        file = _namespace_file(name)
        # EINVAL: nothing is mounted there, as where the maker was killed between file and mount.
        with contextlib.suppress(_NotMountedError):
            _apart(lambda: _unmount(file))
        file.unlink()

    def namespaces(self) -> Sequence[str]:
        """Return the names of the network namespaces."""
        return sorted(file.name for file in _NAMESPACES.iterdir()) if _NAMESPACES.is_dir() else ()

    def bpf(self, command: int, attributes: bytearray) -> int:
        """Make the system call for eBPF."""
        view = (ctypes.c_char * len(attributes)).from_buffer(attributes)
        return _system_call(_BPF_NUMBERS, command, view, len(attributes))

    def await_readers(self) -> None:
        """Wait for a grace period of RCU, as membarrier(2) does."""
        _system_call(_MEMBARRIER_NUMBERS, _MEMBARRIER_CMD_GLOBAL, 0, 0)


class _OwnSysfs:
    """The sysfs of the network namespace that this thread is in when it is first asked for. Of one thread."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._refusal: OSError | None = None

    def path(self, path: str) -> Path:
        """Return where a path below sysfs is.

        Raises:
            OSError: EXDEV: the path is of network devices, and only those of another namespace can be seen.
        """
        if self._descriptor < 0 and self._refusal is None:
            try:
                self._descriptor = _mount_sysfs()
            except OSError as cause:
                self._refusal = cause
        if self._refusal is None:
            return Path(f"/proc/self/fd/{self._descriptor}") / path
        if "net" in path.split("/"):
            text = (
                f"sysfs shows another network namespace, and none can be mounted ({self._refusal.strerror})"
            )
            raise OSError(errno.EXDEV, text, path) from self._refusal
        return _SYSFS / path

    def close(self) -> None:
        """Unmount it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._refusal = -1, OSError(errno.EBADF, "the namespace was left")


def _mount_sysfs() -> int:
    """Return a descriptor of a new mount of sysfs that has no place among other mounts."""
    call = _libc().syscall
    call.restype = ctypes.c_long
    context = _checked(call(_FSOPEN, b"sysfs", _FSOPEN_CLOEXEC))
    try:
        _checked(call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0))
        return _checked(call(_FSMOUNT, context, _FSMOUNT_CLOEXEC, _MOUNT_ATTR_NOSUID_NODEV_NOEXEC))
    finally:
        os.close(context)


class _NotMountedError(OSError):
    """There is no mount to undo."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def _system_call(numbers: Mapping[str, int], *arguments: object) -> int:
    number = numbers.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"the number of the system call is not known for {os.uname().machine}")
    call = _libc().syscall
    call.restype = ctypes.c_long
    return _checked(call(number, *arguments))


def _enter(descriptor: int) -> None:
    _checked(_libc().setns(descriptor, _CLONE_NEWNET))  # os.setns came with Python 3.12


def _namespace_file(name: str) -> Path:
    if not name or "/" in name or name in {".", ".."}:
        raise InvalidRequestError(f"{name!r} is no name of a network namespace")
    return _NAMESPACES / name


def _apart(work: Callable[[], None]) -> None:
    """Do something in a thread of its own, among the mounts of the first process.

    What ``ip netns exec`` starts has mounts of its own: a namespace that is bound there, nobody else could enter.
    """

    def go() -> None:
        _checked(_libc().unshare(_CLONE_FS))
        try:
            descriptor = os.open("/proc/1/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _checked(_libc().setns(descriptor, _CLONE_NEWNS))
            finally:
                os.close(descriptor)
        except OSError:  # not ours to enter, as in some containers: then among our own, where others see them
            if _has_own_mounts():
                text = "what this process mounts, no other process sees (it runs under `ip netns exec`)"
                raise OSError(errno.EXDEV, text) from None
        work()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(go).result()


def _has_own_mounts() -> bool:
    """Tell whether what is mounted below the namespaces' folder stays unseen by those who had this mount first."""
    folder = str(_NAMESPACES)
    best, is_slave = "", False
    for line in Path("/proc/thread-self/mountinfo").read_text("utf-8", "replace").splitlines():
        words = line.split(" - ")[0].split()
        place = words[4]
        if len(place) >= len(best) and (place in {"/", folder} or folder.startswith(f"{place}/")):
            best, is_slave = place, any(word.startswith("master:") for word in words[6:])
    return is_slave


def _bind_new_namespace(file: Path) -> None:
    libc = _libc()
    folder = os.fsencode(file.parent)
    # As `ip netns add` does it, so that those with mounts of their own see what is bound here later.
    if libc.mount(b"", folder, b"none", _MS_SHARED | _MS_REC, None):
        _checked(libc.mount(folder, folder, b"none", _MS_BIND | _MS_REC, None))
        _checked(libc.mount(b"", folder, b"none", _MS_SHARED | _MS_REC, None))
    _checked(libc.unshare(_CLONE_NEWNET))
    _checked(libc.mount(b"/proc/thread-self/ns/net", os.fsencode(file), b"none", _MS_BIND, None))


def _unmount(file: Path) -> None:
    if _libc().umount2(os.fsencode(file), _MNT_DETACH):
        number = ctypes.get_errno()
        kind = _NotMountedError if number == errno.EINVAL else OSError
        raise kind(number, os.strerror(number), str(file))


def _targets(folder: Path) -> frozenset[str]:
    targets = set()
    with contextlib.suppress(OSError):  # it ended, or is somebody else's
        for descriptor in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                targets.add(str(descriptor.readlink()))
    return frozenset(targets)


def _name(folder: Path) -> str:
    try:
        return (folder / "comm").read_text("utf-8", "backslashreplace").strip()
    except OSError:
        return ""
