"""`import nicoffload` loads nothing that is not needed, and what it offers comes on first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"pyroute2", "pyudev", "jsonschema", "sqlite3", "numpy", "pluggy"}


def loaded(code):
    """Return which of the heavy modules a fresh interpreter has loaded after some code."""
    line = f"import sys; {code}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_alone_loads_none_of_them():
    assert loaded("import nicoffload") == set()
    assert loaded("import nicoffload; nicoffload.__version__; dir(nicoffload)") == set()


@pytest.mark.parametrize("module", ["errors", "model", "driver", "codec", "compiler"])
def test_nor_do_the_parts_that_plugins_and_programs_import_first(module):
    assert loaded(f"import nicoffload.{module}") == set()


def test_the_nic_layer_needs_no_sqlite_before_a_nic_outlives_the_process():
    assert loaded("import nicoffload; nicoffload.open_nic, nicoffload.Nic") <= {"pluggy"}


def test_the_public_names():
    import nicoffload
    from nicoffload.nic import Nic, open_nic
    from nicoffload.registry import load_registry

    assert nicoffload.Nic is Nic
    assert nicoffload.open_nic is open_nic
    assert nicoffload.load_registry is load_registry
    assert set(nicoffload.__all__) <= set(dir(nicoffload))
    with pytest.raises(AttributeError, match="no attribute 'opne_nic'"):
        _ = nicoffload.opne_nic
