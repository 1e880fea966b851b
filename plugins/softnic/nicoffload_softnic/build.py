"""Makes and removes software NICs."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

from nicoffload.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidRequestError,
    NicOffloadError,
    NotSupportedError,
    from_errno,
)
from nicoffload.kernel import veth
from nicoffload.kernel.bpf import require_bpf
from nicoffload.kernel.netlink import Netlink
from nicoffload.kernel.seam import NETLINK_ROUTE, Kernel
from nicoffload_softnic import ebpf_build, layout, names
from nicoffload_softnic.ebpf import EbpfPath
from nicoffload_softnic.finding import open_path
from nicoffload_softnic.path import ROOT_HINT, Wanted, inside
from nicoffload_softnic.u32 import build as u32_build
from nicoffload_softnic.u32.path import U32Path

__all__ = ["DATA_PATHS", "Found", "Made", "Wanted", "create", "destroy", "find_all"]

_MAKERS: Mapping[str, Callable[[Kernel, Wanted], None]] = MappingProxyType(
    {EbpfPath.kind: ebpf_build.make, U32Path.kind: u32_build.make}
)
_MAX_ROWS = {EbpfPath.kind: ebpf_build.MAX_ROWS, U32Path.kind: u32_build.MAX_ROWS}
DATA_PATHS = ("auto", *_MAKERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A NIC that was made.

    Args:
        data_path: Which one it has.
        why: Why it is that one, in words.
    """

    data_path: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A NIC that was found.

    Args:
        name: Without prefix.
        family: Its profile.
        data_path: Which one it has; empty where nobody knows.
        vfs: How many VFs; None where it can't be used.
        rows: Rules that its table holds.
        in_use: Rules that it holds.
        problem: Why it can't be used; empty where it can.
    """

    name: str
    family: str = ""
    data_path: str = ""
    vfs: int | None = None
    rows: int | None = None
    in_use: int | None = None
    problem: str = ""


def create(kernel: Kernel, wanted: Wanted) -> Made:
    """Make a NIC; its devices appear in the namespace that the caller is in, all of them down.

    Raises:
        ConflictError: There is one of that name, or a device of one of the names.
        AccessDeniedError: The process may not.
        NotSupportedError: The kernel lacks what the data path needs.
        InvalidRequestError: A number is out of range.
    """
    names.checked(wanted.name)
    _check(wanted)
    if wanted.data_path != "auto":
        _create(kernel, wanted, wanted.data_path)
        return Made(data_path=wanted.data_path, why="as asked for")
    try:
        require_bpf(kernel)
        _create(kernel, wanted, EbpfPath.kind)
    except AccessDeniedError as cause:
        raise _no_root(names.PREFIX + wanted.name) from cause
    except NotSupportedError as cause:
        _check_rows(wanted, U32Path.kind)
        _create(kernel, wanted, U32Path.kind)
        return Made(data_path=U32Path.kind, why=f"eBPF does not work here: {cause.message}")
    return Made(data_path=EbpfPath.kind, why="eBPF works here")


def _create(kernel: Kernel, wanted: Wanted, data_path: str) -> None:
    name, device = wanted.name, names.PREFIX + wanted.name
    try:
        kernel.add_namespace(names.namespace_of(name))
    except FileExistsError as cause:
        raise ConflictError(
            "there is a software NIC of that name",
            device=device,
            existing=device,
            hint="nicoffload soft list",
        ) from cause
    except (AccessDeniedError, PermissionError) as cause:
        raise _no_root(device) from cause
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
        _MAKERS[data_path](kernel, wanted)
    except BaseException:
        destroy(kernel, name)
        raise


def _no_root(device: str) -> AccessDeniedError:
    return AccessDeniedError(
        "making a software NIC needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_BPF)",
        device=device,
        hint=ROOT_HINT,
    )


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
            found.append(_look(kernel, name))
        except AccessDeniedError:
            raise
        except NicOffloadError as cause:
            if namespace in kernel.namespaces():  # else somebody destroyed it while it was looked at
                found.append(Found(name=name, problem=cause.message))
    return found


def _look(kernel: Kernel, name: str) -> Found:
    opened = open_path(kernel, name)
    try:
        return Found(
            name=name,
            family=opened.family,
            data_path=opened.kind,
            vfs=opened.vfs,
            rows=opened.rows,
            in_use=opened.rules_in_use(),
        )
    finally:
        opened.close()


def _check(wanted: Wanted) -> None:
    if wanted.data_path not in DATA_PATHS:
        raise InvalidRequestError(
            f"there is no data path {wanted.data_path!r}",
            path="/data_path",
            hint=f"one of {', '.join(DATA_PATHS)}",
        )
    if not 0 <= wanted.vfs <= layout.MAX_VFS:
        raise InvalidRequestError(f"{wanted.vfs} VFs; it can have 0 to {layout.MAX_VFS}", path="/vfs")
    _check_rows(wanted, EbpfPath.kind if wanted.data_path == "auto" else wanted.data_path)
    if wanted.link_bps is not None and not 1_000_000 <= wanted.link_bps <= 1_600_000_000_000:
        raise InvalidRequestError(
            f"a port of {wanted.link_bps} bit/s; it can have 1e6 to 1.6e12", path="/link_bps"
        )


def _check_rows(wanted: Wanted, data_path: str) -> None:
    most = _MAX_ROWS[data_path]
    if wanted.rows is not None and not 1 <= wanted.rows <= most:
        raise InvalidRequestError(
            f"{wanted.rows} rows; with the data path {data_path} it can have 1 to {most}", path="/rows"
        )
