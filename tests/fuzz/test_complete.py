"""Whatever reads bytes from outside is fed by some decoder of the list: what is not would go unnoticed otherwise."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import nicoffload
from tests.fuzz.decoders import decoders

ROOT = Path(nicoffload.__file__).parent
READERS = frozenset(
    {
        *("parse", "fields", "number", "network_number", "string", "messages", "walk", "boundaries"),
        *("unpack", "unpack_from", "iter_unpack", "from_bytes", "frombuffer", "number_of", "text_of"),
    }
)
LISTED = {"kernel": "tc.full", "testing/fake_kernel": "fake.flower"}
NOT_FED = {
    "kernel": {
        # What bpf(2) writes into buffers of ours, of a layout and a length that we chose.
        "bpf/maps.py": {"_batch", "memory", "read_all"},
        "bpf/programs.py": {"_map_by_id", "_map_ids"},
        # It reads messages of ours again.
        "tc/lost.py": {"look"},
        # They write.
        "tc/filters.py": {"add_columns"},
        "tc/u32_filters.py": {"add_columns"},
    },
    # It walks through filters.
    "testing/fake_kernel": {"route/server.py": {"offloaded"}},
}


def readers(folder: Path) -> set[tuple[str, str]]:
    """Return module and name of each function that calls something that reads bytes."""
    found = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(map(_reads, ast.walk(node))):
                found.add((str(file.relative_to(folder)), node.name))
    return found


def _reads(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in READERS


@pytest.fixture(scope="module")
def called() -> set[tuple[str, str]]:
    """Return file and name of each function that is called while every decoder reads what was recorded."""
    found: set[tuple[str, str]] = set()

    def note(frame, event, argument):
        if event == "call":
            found.add((frame.f_code.co_filename, frame.f_code.co_name))

    sys.setprofile(note)
    try:
        for one in decoders():
            for seed in one.seeds:
                one.decode(seed)
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("package", LISTED)
def test_every_function_that_reads_bytes_is_fed(called, package):
    folder = ROOT / package
    fed = {
        (str(Path(file).relative_to(folder)), name)
        for file, name in called
        if Path(file).is_relative_to(folder)
    }
    unfed = readers(folder) - fed
    excused = {(file, name) for file, names in NOT_FED[package].items() for name in names}
    assert unfed == excused
