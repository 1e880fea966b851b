"""User-mode Linux, built from Debian's source of the kernel with our configuration and our patch of netdevsim."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.vm.rig.apt import Apt
from tests.vm.rig.cache import Cache, recipe
from tests.vm.rig.layout import KERNEL_INPUTS, KERNEL_SERIES, RigError
from tests.vm.rig.shell import run, say

_CONFIG = KERNEL_INPUTS / "uml.config"
_PATCH = KERNEL_INPUTS / "netdevsim-flow-table.patch"
_PACKAGE = f"linux-source-{KERNEL_SERIES}"


def user_mode_linux(cache: Cache, apt: Apt) -> Path:
    """Return the folder with the program `linux` and, below `modules`, the list of what is built into it.

    Raises:
        RigError: The source can't be had, the patch does not apply, or the build fails.
    """
    version = apt.candidate(_PACKAGE)
    if not version:
        raise RigError(f"missing: {_PACKAGE}: no package of this release has it")
    inputs: list[bytes | str] = [version, _CONFIG.read_bytes(), _PATCH.read_bytes(), *recipe("user_mode")]

    def build(target: Path) -> None:
        say(f"building user-mode Linux {version}; some five minutes, once")
        log = cache.root / "uml.log"
        log.write_text("", "utf-8")
        source = _unpack(apt, version, target, log)
        run(["patch", "-p1", "-i", _PATCH], cwd=source, log=log)
        make = ["nice", "make", "-s", f"-j{os.cpu_count()}", "ARCH=um"]
        run([*make, f"KCONFIG_ALLCONFIG={_CONFIG}", "allnoconfig"], cwd=source, log=log)
        refuse_lost_options(_CONFIG.read_text("utf-8"), (source / ".config").read_text("utf-8"))
        run([*make, "linux"], cwd=source, log=log)
        run(["strip", "-s", "-o", target / "linux", source / "linux"])
        _list_built_in(source, target / "modules")
        shutil.copy(source / ".config", target / "config")
        shutil.rmtree(source)

    return cache.entry("uml", inputs, build)


def refuse_lost_options(wanted: str, got: str) -> None:
    """Compare configurations: an option whose own needs are not met vanishes without a word.

    Args:
        wanted: Text of our configuration.
        got: Text of the one that the kernel's tools made of it.

    Raises:
        RigError: An option is lost; the message names each.
    """
    options = [line for line in wanted.splitlines() if line.startswith("CONFIG_")]
    lost = set(options) - set(got.splitlines())
    if lost:
        raise RigError(f"{_CONFIG.name}: lost on the way into the kernel: {', '.join(sorted(lost))}")


def _unpack(apt: Apt, version: str, target: Path, log: Path) -> Path:
    package = apt.fetch([f"{_PACKAGE}={version}"], target)[0]
    run(["dpkg-deb", "-x", package, target / "package"], log=log)
    source = target / "source"
    source.mkdir()
    archive = next((target / "package/usr/src").glob("linux-source-*.tar.xz"))
    run(["tar", "-xf", archive, "-C", source, "--strip-components=1"], log=log)
    shutil.rmtree(target / "package")
    package.unlink()
    return source


def _list_built_in(source: Path, modules: Path) -> None:
    """Let modprobe in the guest say yes to what is built in, and no to the rest."""
    release = (source / "include/config/kernel.release").read_text("utf-8").strip()
    folder = modules / "lib/modules" / release
    folder.mkdir(parents=True)
    for name in ("modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(source / name, folder / name)
    (folder / "modules.order").touch()
    run(["depmod", "-b", modules, release])
