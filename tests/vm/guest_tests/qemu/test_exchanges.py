"""Settings of VFs on a real igb and on the fake one: answer by answer, errno by errno."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from nicoffload.kernel.linux import LinuxKernel
from tests.kernel.exchanges import fake, vfs
from tests.kernel.exchanges.stage import Stage

_OUT = Path("/run/out")
_LINK_BPS = 1_000_000_000  # of the emulated igb


def test_settings_of_vfs(emulated_nics, sh):
    nic = emulated_nics[0]
    nic.set_vfs(2)
    deadline = time.monotonic() + 30
    while "LOWER_UP" not in sh(f"ip link show dev {nic.netdev}"):  # igb takes no rate before
        assert time.monotonic() < deadline, "the port stays down"
    with Stage(LinuxKernel(), {"pf": socket.if_nametoindex(nic.netdev)}) as stage:
        real = vfs.play(stage)
    with Stage(*fake.with_vfs("igb_82576", 2, link_bps=_LINK_BPS)) as stage:
        ours = vfs.play(stage)
    (_OUT / "exchange-vfs-igb.txt").write_text("\n".join(real) + "\n", "utf-8")
    assert ours == real
