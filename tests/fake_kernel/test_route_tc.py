"""What the stock tc sends is read by the fake kernel as what we send for the same filter."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess

import pytest

from nicoffload.errors import NicOffloadError
from nicoffload.kernel import Netlink
from nicoffload.kernel.linux import LinuxKernel
from nicoffload.kernel.seam import NETLINK_ROUTE
from nicoffload.kernel.tc import Hook, Placing, TcFilters, add_command, qdisc
from tests.fake_kernel.test_route_filters import as_read
from tests.kernel.exchanges import fake
from tests.kernel.random_filters import random_filters

FILTERS = 120
_LINE = re.compile(r"^ \| [0-9a-f]{5}  ((?:[0-9a-f]{2} +)+)", re.MULTILINE)
_DEVICES = ("b", "a")
"""In the order of their numbers: the peer of a veth comes first."""


def sent_by_tc(commands: list[str], folder) -> list[bytes]:
    """Return the messages that tc sends for commands, whatever this kernel answers."""
    (folder / "batch").write_text("".join(f"{one.removeprefix('tc ')}\n" for one in commands), "ascii")
    trace = ["strace", "-e", "trace=sendmsg", "-e", "write=3", "-o", str(folder / "trace")]
    command = [*trace, "tc", "-force", "-batch", str(folder / "batch")]
    subprocess.run(command, capture_output=True, check=False, timeout=120)
    parts = re.split(r"^sendmsg.*$", (folder / "trace").read_text("ascii"), flags=re.MULTILINE)[1:]
    return [bytes.fromhex("".join(_LINE.findall(part))) for part in parts]


@pytest.mark.root
@pytest.mark.skipif(not (shutil.which("strace") and shutil.which("tc")), reason="needs strace and tc")
def test_the_bytes_of_tc_and_ours_leave_the_same_filters(tmp_path):
    kernels = [fake.plain(*_DEVICES) for _ in range(2)]
    roles = kernels[0][1]
    made = random_filters(FILTERS, [roles["b"]], [Placing.BOTH, Placing.SOFTWARE])
    made = [dataclasses.replace(item, handle=item.handle | 1 << 31) for item in made]
    hook = Hook.ingress(roles["a"])
    names = {number: f"s{role}" for role, number in roles.items()}
    space = f"nicoffload-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", space], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces here")
    try:
        with LinuxKernel().namespace(f"/run/netns/{space}"):
            words = ["ip", "link", "add", "sa", "index", str(roles["a"]), "type", "veth"]
            words += ["peer", "name", "sb", "index", str(roles["b"])]
            subprocess.run(words, check=True, capture_output=True)
            sent = sent_by_tc([add_command(item, hook, names.__getitem__) for item in made], tmp_path)
    finally:
        subprocess.run(["ip", "netns", "del", space], check=True)
    assert len(sent) == FILTERS
    dumps = []
    for place, (kernel, _) in enumerate(kernels):
        with Netlink(kernel, NETLINK_ROUTE) as netlink:
            qdisc.ensure(netlink, roles["a"])
        with TcFilters(kernel, hook) as filters:
            if place:
                outcomes = filters.add_many(made)
                assert [one for one in outcomes if isinstance(one, NicOffloadError)] == []
            else:
                answers = [kernel.route.handle(message) for message in sent]
                assert {answer[16:20] for (answer,) in answers} == {bytes(4)}
            dumps.append(sorted(filters.dump(), key=lambda state: state.ref.pref))
    assert dumps[0] == dumps[1]
    assert [state.filter for state in dumps[0]] == [as_read(item) for item in made]
