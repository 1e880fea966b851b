"""The distribution's own kernel: fetched, unpacked, never installed on the host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.vm.rig.apt import Apt
from tests.vm.rig.cache import Cache, recipe
from tests.vm.rig.layout import GUEST_SCRIPTS, KERNEL_SERIES, RigError
from tests.vm.rig.shell import find, run, say

_META_PACKAGES = (f"linux-image-{KERNEL_SERIES}-amd64", "linux-image-amd64")
# Drivers of what no guest has: more than half of the package.
_LEFT_OUT = ("drivers/gpu", "drivers/media", "drivers/staging", "drivers/infiniband", "net/wireless", "sound")
# What the first program of the guest loads to reach the host's files; the rest comes from there.
_FIRST_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
_COMPRESSIONS = ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"))


def stock_kernel(cache: Cache, apt: Apt) -> Path:
    """Return the folder with `vmlinux`, `initrd` and, below `lib/modules`, the modules.

    Raises:
        RigError: The package can't be had, or does not hold what such a package holds.
    """
    image = _image_package(apt)
    version = apt.candidate(image)
    busybox = Path(str(find("busybox")))
    inputs: list[bytes | str] = [
        image,
        version,
        busybox.read_bytes(),
        (GUEST_SCRIPTS / "initramfs-init").read_bytes(),
        *recipe("stock"),
    ]

    def build(target: Path) -> None:
        say(f"unpacking {image} {version}; once")
        package = apt.fetch([f"{image}={version}"], target)[0]
        skip = [f"--exclude=*/kernel/{folder}" for folder in _LEFT_OUT]
        unpack = f"dpkg-deb --fsys-tarfile {package} | tar -x -C {target} {' '.join(skip)}"
        run(["bash", "-o", "pipefail", "-c", unpack])
        package.unlink()
        if not (target / "lib").exists():
            (target / "lib").symlink_to("usr/lib")
        release = next((target / "lib/modules").iterdir()).name
        run(["depmod", "-b", target, release])
        bzimage = (target / f"boot/vmlinuz-{release}").read_bytes()
        (target / "vmlinux").write_bytes(uncompressed_kernel(bzimage))
        _make_initramfs(target, release, busybox)
        shutil.rmtree(target / "boot")

    return cache.entry("qemu", inputs, build)


def uncompressed_kernel(bzimage: bytes) -> bytes:
    """Return the ELF image inside a compressed kernel: QEMU starts it without interpreting the decompressor.

    Raises:
        RigError: There is none inside.
    """
    for magic, program in _COMPRESSIONS:
        at = bzimage.find(magic)
        while at != -1:
            # What follows the compressed part makes the program complain; the image counts, not its exit status.
            done = subprocess.run([program, "-dc"], input=bzimage[at:], capture_output=True, check=False)
            if done.stdout.startswith(b"\x7fELF"):
                return done.stdout
            at = bzimage.find(magic, at + 1)
    raise RigError("no kernel image found inside the kernel's file")


def _image_package(apt: Apt) -> str:
    for meta in _META_PACKAGES:
        if not apt.candidate(meta):
            continue
        for name in apt.depends(meta):
            if name.startswith(f"linux-image-{KERNEL_SERIES}."):
                return name
    raise RigError(f"missing: a Linux {KERNEL_SERIES} kernel: no package of this release has it")


def _make_initramfs(target: Path, release: str, busybox: Path) -> None:
    root = target / "initramfs"
    for folder in ("bin", "modules", "proc", "sys", "dev", "root", "lower", "upper"):
        (root / folder).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(busybox.read_bytes())
    (root / "bin/busybox").chmod(0o755)
    (root / "init").write_bytes((GUEST_SCRIPTS / "initramfs-init").read_bytes())
    (root / "init").chmod(0o755)
    order = []
    for path in _with_dependencies(target, release):
        name = path.name.removesuffix(".xz")
        (root / "modules" / name).write_bytes(_module_text(path))
        order.append(name)
    (root / "modules/order").write_text("".join(f"{name}\n" for name in order), "utf-8")
    listing = "\n".join(sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet", "--owner=0:0"],
        cwd=root,
        input=listing.encode(),
        capture_output=True,
        check=True,
    )
    (target / "initrd").write_bytes(archive.stdout)
    shutil.rmtree(root)


def _with_dependencies(target: Path, release: str) -> list[Path]:
    paths: dict[Path, None] = {}  # ordered: a module comes after what it needs
    for module in _FIRST_MODULES:
        for line in run(["modprobe", "-d", target, "-S", release, "--show-depends", module]).splitlines():
            if line.startswith("insmod "):
                paths[Path(line.split()[1])] = None
    return list(paths)


def _module_text(path: Path) -> bytes:
    if path.suffix != ".xz":
        return path.read_bytes()
    return subprocess.run(["xz", "-dc", path], capture_output=True, check=True).stdout
