"""The kernels that `make test-vm` has built, and folders for what guests write."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.vm.rig.layout import GUESTS
from tests.vm.rig.session import new_results_folder

_KERNELS = {
    guest: Path(os.environ[f"NICOFFLOAD_KERNEL_{guest.name.upper()}"])
    for guest in GUESTS.values()
    if f"NICOFFLOAD_KERNEL_{guest.name.upper()}" in os.environ
}
# What comes after a guest has written its files is the same for every kind: the one that boots in a second will do.
collect_ignore = [] if any(guest.name == "uml" for guest in _KERNELS) else ["test_outcomes.py"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"guest", "kernel"} <= set(metafunc.fixturenames):
        names = [guest.name for guest in _KERNELS]
        metafunc.parametrize(("guest", "kernel"), list(_KERNELS.items()), ids=names)


@pytest.fixture
def uml_kernel():
    return next(kernel for guest, kernel in _KERNELS.items() if guest.name == "uml")


@pytest.fixture
def out():
    folder = new_results_folder("boot-test")
    yield folder
    shutil.rmtree(folder)
