"""Statistics: every value with where it comes from and what its bytes count. Absent is never zero."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class ByteBasis(enum.Enum):
    """Which bytes of a frame a counter counts; none counts the FCS."""

    L2 = "l2"
    """The frame from its destination MAC on."""
    L3 = "l3"
    """The packet behind the Ethernet header and its VLAN tags."""
    UNKNOWN = "unknown"
    """No source says; the SDK does not guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterFacts:
    """How a kind of counter counts.

    Args:
        source: What counts: ``nic:rule``, ``nic:vf``, ``nic:port``, ``vswitch``, ``vm``.
        byte_basis: Which bytes.
        packet_bits: Width of the packet counter; it wraps at 2 ** packet_bits.
        byte_bits: Width of the byte counter.
        refresh_s: How old a value may be when read; 0 where it is read from the hardware.
    """

    source: str
    byte_basis: ByteBasis
    packet_bits: int = 64
    byte_bits: int = 64
    refresh_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStats:
    """Counters of one rule.

    Args:
        rule_id: The rule.
        packets: Packets since the rule was installed; None where the NIC does not count them.
        bytes: Bytes, by the basis of `facts`; None where the NIC does not count them.
        last_used_ns: Time of the last hit on the NIC's clock; None where unknown.
        epoch: Changes when the counter starts anew (re-installation, reset); deltas never cross epochs.
        facts: How these counters count; None where there are none.
    """

    rule_id: uuid.UUID
    packets: int | None
    bytes: int | None
    last_used_ns: int | None = None
    epoch: int = 0
    facts: CounterFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowCounters:
    """Counters of many rules in columns; row i is rule i of the request.

    Args:
        rule_ids: The rules, in the order asked for.
        valid: bool[N], False where the NIC has no counter for the rule; its other columns are then 0.
        packets: uint64[N].
        bytes: uint64[N].
        epoch: int64[N], see `FlowStats.epoch`.
        last_used_ns: int64[N], -1 where unknown.
        time_ns: When the values were read, on the NIC's clock.
        facts: How each counts, one entry a rule; None where it does not. Rules of one table share one object.
    """

    rule_ids: Sequence[uuid.UUID]
    valid: npt.NDArray[np.bool_]
    packets: npt.NDArray[np.uint64]
    bytes: npt.NDArray[np.uint64]
    epoch: npt.NDArray[np.int64]
    last_used_ns: npt.NDArray[np.int64]
    time_ns: int
    facts: Sequence[CounterFacts | None]

    def row(self, index: int) -> FlowStats:
        """Return the counters of one rule as a value."""
        valid = bool(self.valid[index])
        last = int(self.last_used_ns[index])
        return FlowStats(
            rule_id=self.rule_ids[index],
            packets=int(self.packets[index]) if valid else None,
            bytes=int(self.bytes[index]) if valid else None,
            last_used_ns=last if valid and last >= 0 else None,
            epoch=int(self.epoch[index]),
            facts=self.facts[index],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficStats:
    """Counters of a port or of one VF, seen from it: received is what came to it. None where there is no such counter.

    Args:
        name: ``uplink``, ``pf`` or ``vf:N``.
        rx_packets: Received packets.
        tx_packets: Sent packets.
        rx_bytes: Received bytes.
        tx_bytes: Sent bytes.
        rx_dropped: Packets to it that were dropped.
        tx_dropped: Packets from it that were dropped (spoof check, rate).
        epoch: Changes when the counters start anew.
        facts: How they count; None where there are none.
    """

    name: str
    rx_packets: int | None
    tx_packets: int | None
    rx_bytes: int | None
    tx_bytes: int | None
    rx_dropped: int | None = None
    tx_dropped: int | None = None
    epoch: int = 0
    facts: CounterFacts | None = None
