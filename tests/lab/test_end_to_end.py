"""The lab itself, short: with real packets, after a run that was killed, and ended before its time."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.lab import needs, topology

PROGRAM = """
import json, os, signal, sys
from dataclasses import asdict
from pathlib import Path
from examples.lab import needs, records
from examples.lab.plan import PathsStep, PeakStep, RateStep, TcpStep, UdpStep
from examples.lab.run import ends_with_us, measure
from examples.lab.vswitch import LinuxBridge, OpenVSwitch

def say(text):
    print(text, flush=True)

ovs = OpenVSwitch() if sys.argv[1] == "ovs" else None
steps = [
    RateStep(mode="vswitch", vms=2, seconds=1),
    RateStep(mode="offloaded", vms=2, seconds=1),
    PeakStep(mode="offloaded", seconds=0.5),
    UdpStep(switches=20, seconds=0.5),
    PathsStep(vms=2, seconds=4),
]
plans = [(LinuxBridge(), steps)]
if ovs is not None:
    plans.append((ovs, [RateStep(mode="manager", vms=2, seconds=1), TcpStep(switches=10, seconds=1, rounds=1)]))
try:
    found = measure(plans, vms=2, say=say, keep=lambda results: None)
except KeyboardInterrupt:
    sys.exit(130)
say(json.dumps(records.as_document(found)))
"""

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("lab")]


@pytest.fixture
def start(repo_root):
    lacking = needs.missing(shutil.which)
    if lacking:
        pytest.skip(f"needs {', '.join(lacking)}")
    which = "ovs" if shutil.which(needs.SWITCH) else "bridge"
    running = []

    def begin():
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, which],
                cwd=repo_root,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    topology.clean_up()


def read_until(process, word):
    """Read a program's lines until one has a word in it; return that line."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return line
    pytest.fail(f"no {word!r} in {''.join(lines)}")


def left_over():
    """Return what there still is of the lab."""
    ours = str(topology.RUN_DIR).encode()
    daemons = [path for path in Path("/proc").glob("[0-9]*/cmdline") if ours in words_of(path)]
    return [*topology.our_namespaces(), *daemons, *(["nic"] if topology.nic_exists() else [])]


def words_of(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_run_after_one_that_was_killed_and_one_that_is_ended(start):
    killed = start()
    read_until(killed, "VMs are up")
    killed.kill()
    killed.communicate()
    assert left_over()

    whole = start()
    read_until(whole, "removed what an earlier run had left")
    document = json.loads(read_until(whole, '"schema"'))
    assert whole.wait(60) == 0
    assert left_over() == []
    check(document)

    ended = start()
    read_until(ended, "VMs are up")
    ended.send_signal(signal.SIGINT)
    assert ended.wait(60) == 130
    assert left_over() == []


def check(document):
    """Check what holds on the slowest machine."""
    shares = {(rate["vswitch"], rate["mode"]): rate["nic_share"] for rate in document["rates"]}
    assert shares[("bridge", "vswitch")] < 0.1
    assert shares[("bridge", "offloaded")] > 0.9
    assert shares.get(("ovs", "manager"), 1) > 0.9
    assert all(rate["goodput_bps"] > 0 and not rate["error"] for rate in document["rates"])
    # Offloaded, all the kernel's work can fall into the time of those who send: nothing else may be left.
    assert all(rate["cpu_s_per_gb"] >= rate["ends_s_per_gb"] > 0 for rate in document["rates"])
    assert document["peaks"][0]["received_pps"] > 0
    (udp,) = document["udp"]
    assert (udp["switches"], udp["lost"], udp["duplicated"]) == (20, 0, 0)
    assert 0 < udp["nic_packets"] < udp["sent"]
    assert all(tcp["switches"] > 0 for tcp in document["tcp"])
    (view,) = document["paths"]
    assert view["counted_packets"] == view["received_packets"] > 0
    assert sum(flow["nic_packets"] for flow in view["flows"]) > 0
    assert sum(flow["vswitch_packets"] for flow in view["flows"]) > 0
