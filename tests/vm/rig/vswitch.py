"""Open vSwitch for the guests: unpacked, not installed, since its package would start a daemon on the host."""

from __future__ import annotations

from pathlib import Path

from tests.vm.rig.apt import Apt
from tests.vm.rig.cache import Cache, recipe
from tests.vm.rig.shell import run, say


def open_vswitch(cache: Cache, apt: Apt) -> Path:
    """Return the folder that Open vSwitch and the libraries that the host lacks are unpacked into.

    Raises:
        RigError: The packages can't be had.
    """
    packages = apt.closure("openvswitch-switch")
    if not packages:
        return Path("/")  # installed on the host

    def build(target: Path) -> None:
        say("unpacking Open vSwitch; once")
        for package in apt.fetch(packages, target):
            run(["dpkg-deb", "-x", package, target])
            package.unlink()

    return cache.entry("openvswitch", [*packages, *recipe("vswitch")], build)
