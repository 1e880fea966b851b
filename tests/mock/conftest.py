"""What the tests of the emulator share: NICs at driver level, rules, packets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nicoffload import load_registry
from nicoffload.driver import Placement
from nicoffload.model import FlowRule, Match
from nicoffload.packets import (
    HAS_ETH,
    HAS_IPV4,
    HAS_PORTS,
    HAS_TCP_FLAGS,
    HAS_VLAN,
    HEADER_DTYPE,
    PacketBatch,
)


@pytest.fixture(scope="session")
def registry():
    return load_registry()


@pytest.fixture
def open_mock(registry, tmp_path):
    """Open a NIC below `Nic`: its driver, without compiler and journal."""
    opened = []

    def make(name, faults=()):
        if faults:
            path = tmp_path / f"faults-{len(opened)}.json"
            path.write_text(json.dumps({"faults": list(faults)}), "utf-8")
            name += f",faults={path}"
        driver = registry.open(f"mock:{name}")
        opened.append(driver)
        return driver

    yield make
    for driver in opened:
        driver.close()


@pytest.fixture
def put():
    """Install one rule, past the compiler; return the outcome."""

    def install(driver, table, actions, slot=None, priority=None, **fields):
        rule = FlowRule(match=Match.of(**fields), actions=(actions,), priority=priority)
        placement = Placement(rule=rule, table=table, flow_type="", slot=slot)
        return driver.flow_filters.create_many([placement])[0]

    return install


@pytest.fixture
def packets():
    """Make a batch: one dict a header, and how many packets of each, round robin."""

    def make(headers, count=None, gap_ns=1000, size=100):
        rows = np.zeros(len(headers), HEADER_DTYPE)
        for row, fields in zip(rows, headers, strict=True):
            present = HAS_ETH | HAS_IPV4 | HAS_PORTS | HAS_TCP_FLAGS
            row["l2_bytes"], row["eth_type"], row["ip_proto"] = 14, 0x0800, 6
            for name, value in fields.items():
                row[name] = value
            if "vlan_tci" in fields:
                present |= HAS_VLAN
                row["vlan_depth"], row["l2_bytes"] = 1, 18
            row["present"] = present
        total = len(headers) if count is None else count
        return PacketBatch(
            time_ns=np.arange(total, dtype=np.int64) * gap_ns,
            wire_bytes=np.full(total, size, np.int64),
            header_index=(np.arange(total) % len(headers)).astype(np.int32),
            headers=rows,
        )

    return make
