"""What the host must have, and how it gets it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm.rig.apt import Apt
from tests.vm.rig.layout import QEMU, UML, Guest, RigError
from tests.vm.rig.shell import find, run, say

_QEMU_PROGRAM = "qemu-system-x86_64"
_QEMU_OLDEST = 8  # the first with the igb NIC (8.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something that the host must have.

    Args:
        package: Debian's package that brings it.
        present: Tells whether it is there.
        detail: What about it matters, for people; may be empty.
    """

    package: str
    present: Callable[[], bool]
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.package} ({self.detail})" if self.detail else self.package


def _program(package: str, *names: str) -> Need:
    return Need(package=package, present=lambda: all(find(name) for name in names))


def _file(package: str, path: str) -> Need:
    return Need(package=package, present=Path(path).exists)


def busybox_is_static() -> bool:
    """Tell whether the host's busybox runs without libraries: it is all that a guest has at first."""
    path = find("busybox")
    return path is not None and b"/ld-linux" not in Path(path).read_bytes()[:4096]


def qemu_major(version_text: str) -> int:
    """Return the major version that `qemu-system-x86_64 --version` tells; 0 if it tells none."""
    found = re.search(r"version (\d+)\.", version_text)
    return int(found[1]) if found else 0


def _qemu_present() -> bool:
    return find(_QEMU_PROGRAM) is not None and qemu_major(run([_QEMU_PROGRAM, "--version"])) >= _QEMU_OLDEST


_COMMON = (
    Need(package="busybox-static", present=busybox_is_static),
    _program("kmod", "modprobe", "depmod"),
    _program("xz-utils", "xz"),
    _program("iproute2", "ip", "tc", "devlink"),
    _program("ethtool", "ethtool"),
    _program("iputils-ping", "ping"),
)
_BUILD = (
    _program("gcc", "gcc"),
    _file("libc6-dev", "/usr/include/stdio.h"),
    _program("make", "make"),
    _program("bc", "bc"),
    _program("flex", "flex"),
    _program("bison", "bison"),
    _program("patch", "patch"),
)
_VIRTUAL_MACHINE = (
    Need(package="qemu-system-x86", present=_qemu_present, detail=f"version {_QEMU_OLDEST} or later"),
    _program("cpio", "cpio"),
    _program("zstd", "zstd"),
)


def needs_of(guests: Sequence[Guest]) -> list[Need]:
    """Return what the host must have for these guests."""
    needs = list(_COMMON)
    if UML in guests:
        needs += _BUILD
    if QEMU in guests:
        needs += _VIRTUAL_MACHINE
    return needs


def provide(needs: Sequence[Need], apt: Apt) -> None:
    """Install what is missing, and nothing if nothing is.

    Raises:
        RigError: Something is missing and this is not root on Debian; the message names the packages.
    """
    missing = [need for need in needs if not need.present()]
    if not missing:
        return
    names = ", ".join(map(str, missing))
    if os.geteuid() != 0 or find("apt-get") is None:
        raise RigError(f"missing: {names}; as root on Debian, make test-vm installs them")
    say(f"installing {names}")
    plain = [need.package for need in missing if need.package != "qemu-system-x86"]
    if plain:
        apt.install(plain)
    if len(plain) < len(missing):
        _install_qemu(apt)
    still = [need for need in missing if not need.present()]
    if still:
        raise RigError(f"installed, and yet missing: {', '.join(map(str, still))}")


def _install_qemu(apt: Apt) -> None:
    if _upstream_major(apt.candidate("qemu-system-x86")) >= _QEMU_OLDEST:
        apt.install(["qemu-system-x86"])
        return
    version, suite = apt.backported("qemu-system-x86")
    if _upstream_major(version) < _QEMU_OLDEST:
        raise RigError(
            f"missing: qemu-system-x86, version {_QEMU_OLDEST} or later: no package of this release has it"
        )
    apt.install(["qemu-system-x86"], suite)


def _upstream_major(version: str) -> int:
    found = re.match(r"(?:\d+:)?(\d+)", version)
    return int(found[1]) if found else 0
