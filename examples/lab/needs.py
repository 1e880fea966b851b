"""Sees to it that what the lab needs is there, before anything is done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from examples.lab.shell import LabError, run

PROGRAMS: Mapping[str, str] = {
    "ip": "iproute2",
    "tc": "iproute2",
    "ping": "iputils-ping",
    "ss": "iproute2",
    "sysctl": "procps",
    "nsenter": "util-linux",
    "ethtool": "ethtool",
    "iperf3": "iperf3",
}
"""Programs, and the Debian packages that have them."""

SWITCH, SWITCH_PACKAGE = "ovs-vswitchd", "openvswitch-switch"
_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def check_root() -> None:
    """Check that the process may make network namespaces.

    Raises:
        LabError: It is not root's.
    """
    if os.geteuid() != 0:
        raise LabError(
            "the lab needs root for its network namespaces: run `sudo make lab`; without root, `make demo` "
            "replays a capture on an emulated NIC instead"
        )


def missing(find: Callable[[str], str | None]) -> list[str]:
    """Return the packages of the programs that are not there, Open vSwitch apart.

    Args:
        find: Answers where a program is; None for nowhere.
    """
    return sorted({package for program, package in PROGRAMS.items() if find(program) is None})


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PLACES}")


def prepare(folder: Path, say: Callable[[str], None]) -> Path:
    """Install what is missing; return where Open vSwitch is: ``/``, or the folder that it was unpacked into.

    It is unpacked rather than installed, as its package would start a switch on the host.

    Args:
        folder: For what is unpacked.
        say: Told what is being installed.

    Raises:
        LabError: Something is missing, and can't be installed; the message says what to do.
    """
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{_PLACES}"
    wanted = missing(_find)
    unpacked = folder / "root"
    has_switch = _find(SWITCH) is not None
    if has_switch and not wanted:
        return Path("/")
    if not wanted and unpacked.exists():
        return unpacked
    names = [*wanted, *([] if has_switch else [SWITCH_PACKAGE])]
    if _find("apt-get") is None:
        raise LabError(f"missing: {' '.join(names)}; install them with this system's package manager")
    try:
        say(f"installing {' '.join(names)}")
        run("apt-get", "update", "-q", timeout_s=300, environment=_QUIET)
        if wanted:
            run(
                "apt-get",
                "install",
                "-q",
                "-y",
                "--no-install-recommends",
                *wanted,
                timeout_s=600,
                environment=_QUIET,
            )
        if has_switch:
            return Path("/")
        return _unpack(folder, unpacked)
    except LabError as cause:
        raise LabError(f"{cause}; run `apt-get install {' '.join(names)}` by hand, then again") from cause


def _unpack(folder: Path, target: Path) -> Path:
    """Fetch Open vSwitch and the libraries that it lacks, and unpack them into a folder."""
    archives = folder / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    run(
        *("apt-get", "install", "-q", "-y", "--no-install-recommends", "--download-only"),
        *(
            "-o",
            f"Dir::Cache::archives={archives.resolve()}",
            "-o",
            "APT::Sandbox::User=root",
            SWITCH_PACKAGE,
        ),
        timeout_s=600,
        environment=_QUIET,
    )
    fresh = folder / "root.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for package in sorted(archives.glob("*.deb")):
        run("dpkg-deb", "-x", str(package), str(fresh), timeout_s=120)
    shutil.rmtree(archives)
    fresh.rename(target)
    return target
