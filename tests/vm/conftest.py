"""Tests on real kernels: outside a guest, only the tests of the rig itself are collected."""

from __future__ import annotations

import os

import pytest

collect_ignore: list[str] = []
if "NICOFFLOAD_VM" not in os.environ:
    collect_ignore.append("guest_tests")
if not any(name.startswith("NICOFFLOAD_KERNEL_") for name in os.environ):
    collect_ignore.append("boot_tests")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "vm: runs on the kernel of a guest of `make test-vm`; every guest test has it"
    )
