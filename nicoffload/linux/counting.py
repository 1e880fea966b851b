"""Counters of many rules in columns, while they are read mechanism by mechanism."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nicoffload.model import ByteBasis, CounterFacts, FlowCounters
from nicoffload.profiles.types import Counters


@dataclass(slots=True, kw_only=True)
class CounterColumns:
    """The columns of `FlowCounters`, at first without a valid row.

    Args:
        rule_ids: The rules.
        time_ns: When they are read.
    """

    rule_ids: list[uuid.UUID]
    time_ns: int
    valid: npt.NDArray[np.bool_] = field(init=False)
    packets: npt.NDArray[np.uint64] = field(init=False)
    bytes: npt.NDArray[np.uint64] = field(init=False)
    epoch: npt.NDArray[np.int64] = field(init=False)
    last_used_ns: npt.NDArray[np.int64] = field(init=False)
    facts: list[CounterFacts | None] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.rule_ids)
        self.valid = np.zeros(count, np.bool_)
        self.packets = np.zeros(count, np.uint64)
        self.bytes = np.zeros(count, np.uint64)
        self.epoch = np.zeros(count, np.int64)
        self.last_used_ns = np.full(count, -1, np.int64)
        self.facts = [None] * count

    def done(self) -> FlowCounters:
        """Return them."""
        return FlowCounters(
            rule_ids=self.rule_ids,
            valid=self.valid,
            packets=self.packets,
            bytes=self.bytes,
            epoch=self.epoch,
            last_used_ns=self.last_used_ns,
            time_ns=self.time_ns,
            facts=self.facts,
        )


def counter_facts(counters: Counters, source: str) -> CounterFacts:
    """Return how counters count, by the profile.

    Args:
        counters: Of the profile.
        source: What counts: ``nic:rule``, ``nic:vf``, ``nic:port``.
    """
    bits = counters.bits or 64
    return CounterFacts(
        source=source,
        byte_basis=ByteBasis(counters.byte_basis),
        packet_bits=bits,
        byte_bits=bits,
        refresh_s=counters.refresh_s or 0.0,
    )
