"""The compiled data path: it is that of its source, and Python has its structures as it has them."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from nicoffload.errors import InvalidRequestError
from nicoffload.kernel.bpf import read_object
from nicoffload_softnic import layout

FOLDER = files("nicoffload_softnic").joinpath("data_path")
ROOT = Path(__file__).resolve().parents[3]
BUILT_WITH = "clang version 14."


def test_the_object_is_what_its_source_makes(tmp_path):
    if shutil.which("clang") is None or shutil.which("make") is None:
        pytest.skip("needs clang 14, which made the object")
    version = subprocess.run(["clang", "--version"], capture_output=True, text=True, check=True).stdout
    if BUILT_WITH not in version:
        pytest.skip("another clang than 14 makes another object")
    made = tmp_path / "made.o"
    subprocess.run(["make", "-s", "bpf", f"OUT={made}"], cwd=ROOT, check=True, capture_output=True)
    assert made.read_bytes() == FOLDER.joinpath("softnic.bpf.o").read_bytes(), "run: make bpf"


def test_python_has_the_structures_of_the_source():
    maps = read_object(FOLDER.joinpath("softnic.bpf.o").read_bytes()).maps
    sizes = {name: (shape.key_bytes, shape.value_bytes) for name, shape in maps.items()}
    assert sizes == {
        "flows": (layout.KEY_BYTES, layout.FLOW.itemsize),
        "short_flows": (layout.SHORT_KEY_BYTES, layout.FLOW.itemsize),
        "counters": (4, layout.COUNT.itemsize),
        "records": (4, layout.RECORD.itemsize),
        "traffic": (4, layout.TRAFFIC.itemsize),
        "ports": (4, layout.PORT.itemsize),
        "classes": (4, layout.CLASSES.itemsize),
        "config": (4, layout.CONFIG.itemsize),
    }
    assert maps["ports"].max_entries == layout.FIRST_IFINDEX + 2 * layout.MAX_PORTS


def constants():
    """Return the numbers that the source defines."""
    found = {}
    for line in FOLDER.joinpath("softnic.bpf.c").read_text().splitlines():
        words = line.split()
        if words[:1] == ["#define"] and len(words) > 2 and words[2].replace("0x", "", 1).isalnum():
            found[words[1]] = int(words[2], 0) if words[2][0].isdigit() else None
    return found


def test_python_has_the_numbers_of_the_source():
    source = constants()
    names = {
        "MAX_CLASSES",
        "MAX_PORTS",
        "FIRST_IFINDEX",
        "SHAPER_IN",
        "SHAPER_OUT",
        "NO_PORT",
        "UPLINK",
        "PF",
    }
    assert {name: source[name] for name in names} == {name: getattr(layout, name) for name in names}


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(200)])
def test_what_is_no_object_is_refused(damage):
    with pytest.raises(InvalidRequestError, match="no eBPF object"):
        read_object(damage)


def test_a_cut_object_is_refused_wherever_it_is_cut():
    data = FOLDER.joinpath("softnic.bpf.o").read_bytes()
    for length in range(0, len(data) - 64, 997):
        with pytest.raises(InvalidRequestError):
            read_object(data[:length])
