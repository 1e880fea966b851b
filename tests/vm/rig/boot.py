"""One guest, one command: starts it, reads its console, ends it when its time is up."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm.rig.layout import CHECKOUT, GUEST_SCRIPTS, UML, Guest, RigError, for_command_line

# The guest prints these around the output of the command; the rest is for the log only.
_BEGIN, _END = "test-vm-begin", "test-vm-end"
_UML_LINE = "root=/dev/root rootfstype=hostfs rootflags=/ ro con0=fd:0,fd:1 con=null ssl=null quiet panic=-1"
_UML_MEMORY_FOLDERS = ("/dev/shm", "/tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a guest ended.

    Args:
        status: Exit status of the command, as the guest wrote it; None if it wrote none.
        timed_out: Whether we ended the guest since its time was up.
        elapsed_s: From start to end, in seconds.
        console: File that holds all that the guest printed.
    """

    status: int | None
    timed_out: bool
    elapsed_s: float
    console: Path


def boot(
    guest: Guest,
    kernel: Path,
    argv: Sequence[str],
    out: Path,
    *,
    time_limit_s: float,
    env: Mapping[str, str] | None = None,
    show: bool = True,
) -> Ended:
    """Run a command in a fresh guest, as root, in the checkout, and return how it ended.

    Args:
        guest: Which kind of guest.
        kernel: Folder that the kernel was built into.
        argv: The command.
        out: Empty folder; the guest sees it as /run/out and may write there.
        time_limit_s: The guest is ended after as many seconds.
        env: Environment variables for the command.
        show: Whether to print what the command prints.

    Raises:
        RigError: A path can't be handed to the guest, or there is no room for its memory.
    """
    for path in (kernel, out, CHECKOUT):
        for_command_line(path)
    variables = {"NICOFFLOAD_VM": guest.name, **(env or {})}
    _write_orders(out, argv, variables, _modules(guest, kernel))
    line = _uml_command(guest, kernel, out) if guest.name == UML.name else _qemu_command(guest, kernel, out)
    console = out / "console.log"
    started = time.monotonic()
    timed_out = _run_and_watch(line, console, time_limit_s=time_limit_s, show=show)
    return Ended(
        status=_status(out / "status"),
        timed_out=timed_out,
        elapsed_s=time.monotonic() - started,
        console=console,
    )


def _modules(guest: Guest, kernel: Path) -> Path:
    return kernel / "modules/lib/modules" if guest.name == UML.name else kernel / "lib/modules"


def _write_orders(out: Path, argv: Sequence[str], variables: Mapping[str, str], modules: Path) -> None:
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    lines += [f"MODULES={shlex.quote(str(modules))}", f"cd {shlex.quote(str(CHECKOUT))} || exit 127"]
    (out / "environment").write_text("\n".join(lines) + "\n", "utf-8")
    (out / "command").write_text(f"exec {shlex.join(argv)}\n", "utf-8")
    shutil.copy(GUEST_SCRIPTS / "init", out / "init")


def _uml_command(guest: Guest, kernel: Path, out: Path) -> list[str]:
    return [
        "env",
        f"TMPDIR={_memory_folder(guest.memory_mb)}",
        str(kernel / "linux"),
        f"mem={guest.memory_mb}M",
        *_UML_LINE.split(),
        f"init={GUEST_SCRIPTS / 'uml-init'}",
        f"OUT={out}",
    ]


def _qemu_command(guest: Guest, kernel: Path, out: Path) -> list[str]:
    # The plainest processor, one of it, no mitigations: interpreting costs least. KVM in a VM often can't do this.
    machine = (
        "-M q35 -accel tcg,thread=multi,tb-size=1024 -cpu Nehalem -smp 1 -nodefaults -display none -no-reboot"
    )
    iommu = "-device intel-iommu,intremap=on,caching-mode=on,device-iotlb=on"
    kernel_line = (
        "console=ttyS0 quiet panic=-1 mitigations=off nopti nokaslr tsc=reliable no_timer_check net.ifnames=0 "
        "intel_iommu=on"
    )
    command = ["qemu-system-x86_64", *machine.split(), "-m", str(guest.memory_mb), "-serial", "stdio"]
    command += ["-device", "virtio-rng-pci", *iommu.split()]
    command += _share("root", Path("/"), ",readonly=on,multidevs=remap") + _share("out", out)
    for port in (
        1,
        2,
    ):  # two NICs on one wire, each behind a port of its own, so in an IOMMU group of its own
        command += ["-netdev", f"hubport,hubid=0,id=wire{port}"]
        command += ["-device", f"pcie-root-port,id=slot{port},chassis={port},slot={port}"]
        command += ["-device", f"igb,bus=slot{port},netdev=wire{port},mac=52:54:00:00:0{port}:00"]
    return [
        *command,
        "-kernel",
        str(kernel / "vmlinux"),
        "-initrd",
        str(kernel / "initrd"),
        "-append",
        kernel_line,
    ]


def _share(tag: str, path: Path, options: str = "") -> list[str]:
    return [
        "-fsdev",
        f"local,id={tag},path={path},security_model=none{options}",
        "-device",
        f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
    ]


def _run_and_watch(command: Sequence[str], console: Path, *, time_limit_s: float, show: bool) -> bool:
    """Run the guest to its end, and return whether we had to end it."""
    deadline = time.monotonic() + time_limit_s
    guest = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that one signal reaches every process of user-mode Linux
    )
    try:
        return not _copy_console(guest, console, deadline, show=show)
    finally:
        _end(guest)


def _copy_console(guest: subprocess.Popen[bytes], console: Path, deadline: float, *, show: bool) -> bool:
    """Copy what the guest prints until it closes its output; return False if its time was up before."""
    assert guest.stdout is not None
    begun, rest = False, b""
    with console.open("wb") as log:
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([guest.stdout], [], [], left)[0]:
                break
            data = os.read(guest.stdout.fileno(), 65536)
            if not data:
                return True
            log.write(data)
            log.flush()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                text = line.decode("utf-8", "replace").replace("\r", "")
                if text.startswith(_END):
                    begun = False
                if begun and show:
                    print(text, flush=True)
                if text.startswith(_BEGIN):
                    begun = True
    return False


def _end(guest: subprocess.Popen[bytes]) -> None:
    """End the guest with all its processes; nothing is left to write to the folder that the caller then reads."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(guest.pid, signal.SIGKILL)
    if guest.stdout is not None:
        guest.stdout.close()
    guest.wait()


def _status(path: Path) -> int | None:
    try:
        return int(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _memory_folder(needed_mb: int) -> str:
    """Return where user-mode Linux keeps its memory, a file: in memory itself if there is room."""
    fits = [folder for folder in _UML_MEMORY_FOLDERS if _room_mb(folder) > needed_mb]
    if not fits:
        raise RigError(f"no {needed_mb} MiB for a guest's memory in any of: {', '.join(_UML_MEMORY_FOLDERS)}")
    return fits[0]


def _room_mb(folder: str) -> int:
    return shutil.disk_usage(folder).free >> 20 if os.access(folder, os.W_OK) else 0
