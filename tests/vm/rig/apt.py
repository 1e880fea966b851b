"""Debian's archive: what is missing here, installed where we may; kernels fetched without being installed.

The package lists are our own, below the cache: they hold the release's backports as well, the sources of the host stay
as they are, and fetching needs no root.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.vm.rig.layout import RigError
from tests.vm.rig.shell import find, run

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def backports_source(os_release: str) -> str:
    """Return the sources.list line of the backports of a Debian release; empty for anything else.

    Args:
        os_release: Text of /etc/os-release.
    """
    words = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', os_release, re.MULTILINE))
    if words.get("ID") != "debian" or not words.get("VERSION_CODENAME"):
        return ""
    suite = f"{words['VERSION_CODENAME']}-backports"
    return f"deb [signed-by={_KEYRING}] http://deb.debian.org/debian {suite} main\n"


class Apt:
    """APT with package lists of our own.

    Args:
        root: Folder for lists and for what was fetched.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._refreshed = False

    def candidate(self, package: str) -> str:
        """Return the newest version that the archive has, backports counted last; empty if none."""
        version = self._candidate(package)
        if not version:
            self.refresh()
            version = self._candidate(package)
        return version

    def backported(self, package: str) -> tuple[str, str]:
        """Return version and suite of a package in the backports; two empty strings if it is not there."""
        self.candidate(package)
        for line in self._cache("madison", package).splitlines():
            _, version, origin = (part.strip() for part in line.split("|"))
            suite = re.search(r"\s(\S+-backports)/", origin)
            if suite:
                return version, suite[1]
        return "", ""

    def depends(self, package: str) -> list[str]:
        """Return the names that a package depends on."""
        return re.findall(r"Depends: (\S+)", self._cache("depends", package))

    def closure(self, package: str) -> list[str]:
        """Return `name=version` of a package and of all it needs that this host has not installed."""
        self.candidate(package)
        plan = run([*self._command("apt-get"), "-s", "install", "--no-install-recommends", package])
        return [
            f"{name}={version}" for name, version in re.findall(r"^Inst (\S+) .*?\((\S+)", plan, re.MULTILINE)
        ]

    def fetch(self, packages: Sequence[str], folder: Path) -> list[Path]:
        """Fetch packages into a folder, not installing them, and return the files.

        Raises:
            RigError: The archive can't be reached, or has them no longer.
        """
        try:
            run([*self._command("apt-get"), "-q", "download", *packages], cwd=folder)
        except RigError:
            if self._refreshed:
                raise
            self.refresh()
            run([*self._command("apt-get"), "-q", "download", *packages], cwd=folder)
        return sorted(folder.glob("*.deb"))

    def install(self, packages: Sequence[str], suite: str = "") -> None:
        """Install packages; only root can.

        Args:
            packages: Their names.
            suite: Release to prefer, such as `bookworm-backports`; empty for the host's own choice.
        """
        if not self._refreshed:
            self.refresh()
        options = ["-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600"]
        prefer = ["-t", suite] if suite else []
        command = [*self._command("apt-get"), "install", *options, *prefer, *packages]
        run(command, log=self.root.parent / "apt.log", env={"DEBIAN_FRONTEND": "noninteractive"})
        for package in (self.root / "cache/archives").glob(
            "*.deb"
        ):  # `apt-get clean` would drop its index too
            package.unlink()

    def refresh(self) -> None:
        """Bring our package lists up to date."""
        parts = self.root / "sources.list.d"
        shutil.rmtree(parts, ignore_errors=True)
        for folder in (parts, self.root / "lists/partial", self.root / "cache/archives/partial"):
            folder.mkdir(parents=True, exist_ok=True)
        for source in Path("/etc/apt/sources.list.d").glob("*"):
            (parts / source.name).symlink_to(source)
        (parts / "nicoffload-backports.list").write_text(backports_source(_os_release()), "utf-8")
        run([*self._command("apt-get"), "-q", "update"])
        self._refreshed = True

    def _candidate(self, package: str) -> str:
        found = re.search(r"Candidate: (\S+)", self._cache("policy", package))
        return "" if found is None or found[1] == "(none)" else found[1]

    def _cache(self, verb: str, package: str) -> str:
        return run([*self._command("apt-cache"), verb, package]) if (self.root / "lists").is_dir() else ""

    def _command(self, program: str) -> list[str]:
        if find(program) is None:
            raise RigError(f"{program} is missing: only Debian's archive is known here")
        settings: dict[str, object] = {
            "Dir::Etc::sourceparts": self.root / "sources.list.d",
            "Dir::State::lists": self.root / "lists",
            "Dir::Cache": self.root / "cache",
            "Dir::Cache::pkgcache": "pkgcache.bin",  # container images turn these indexes off
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
        }
        if os.geteuid() == 0:
            settings["APT::Sandbox::User"] = "root"  # user _apt can't write into a home
        return [program, *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]


def _os_release() -> str:
    path = Path("/etc/os-release")
    return path.read_text("utf-8") if path.exists() else ""
