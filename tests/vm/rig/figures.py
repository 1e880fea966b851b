"""The figures of the bench that need flower, measured in user-mode Linux without the tests: for `make bench`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from tests.vm.rig.boot import boot
from tests.vm.rig.layout import CHECKOUT, RESULTS, UML, RigError
from tests.vm.rig.session import new_results_folder

FOLDER = "figures"
NIC = "netdevsim90"
FILES = {
    "flower.json": ("kernel.py",),
    "rss.json": ("kernel.py", "rss"),
    "vendor.json": ("vendor.py", f"netdevsim/{NIC}"),
}
"""What the guest leaves, and what measures it; the guest's tests leave the same."""

_PREPARED = (
    "export PATH=$PATH:/usr/sbin:/sbin",
    f"echo '{NIC.removeprefix('netdevsim')} 1' > /sys/bus/netdevsim/new_device",
    f"net=$(ls /sys/bus/netdevsim/devices/{NIC}/net)",
    'ethtool -K "$net" hw-tc-offload on',
    'ip link set "$net" up',
)
"""Makes the simulated NIC."""


def measure(kernel: Path, *, time_limit_s: float | None = None) -> Path:
    """Measure in the guest, and return the folder with the figures, build/vm/figures.

    Args:
        kernel: Folder of user-mode Linux.
        time_limit_s: The guest's own if None.

    Raises:
        RigError: The guest did not bring them back.
    """
    out, results = new_results_folder(FOLDER), RESULTS / FOLDER
    bench = os.path.relpath(CHECKOUT / "tests/bench", CHECKOUT)
    lines = [
        f"{shlex.join([sys.executable, f'{bench}/{script}', *words])} > /run/out/{file}"
        for file, (script, *words) in FILES.items()
    ]
    try:
        ended = boot(
            UML,
            kernel,
            ["sh", "-ec", "\n".join((*_PREPARED, *lines))],
            out,
            time_limit_s=time_limit_s or UML.time_limit_s,
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        )
    finally:
        shutil.rmtree(results, ignore_errors=True)
        out.rename(results)
    if ended.status != 0:
        why = "its time was up" if ended.timed_out else f"status {ended.status}"
        raise RigError(f"the guest brought no figures back: {why}, see {results / ended.console.name}")
    return results
