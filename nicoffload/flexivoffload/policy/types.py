"""Policy documents as values. Names and meanings are those of ``schemas/policy.schema.json``."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from nicoffload.model import FIELDS, Masked, Match, PortRange

HYSTERESIS = 0.8
"""`down` is at most this part of `up`: a rate that hovers at one threshold must not cross the other."""


class RuleKind(enum.Enum):
    """What a rule decides, and when."""

    ONLOAD = "onload"
    """At the first packet: the virtual switch."""
    OFFLOAD = "offload"
    """At the first packet: the NIC."""
    PROMOTE = "promote"
    """By statistics: the NIC, while the conditions hold."""
    DEMOTE = "demote"
    """By statistics: the virtual switch, while the conditions hold."""


class Tier(enum.IntEnum):
    """Which kind of reason wins over which; the lower number wins."""

    CAPABILITY = 0
    DENY = 1
    PIN = 2
    DEMOTION = 3
    HEADER = 4
    PROMOTION = 5
    DEFAULT = 6


class Granularity(enum.Enum):
    """How coarse a NIC rule may be, where the NIC can't match the flow itself."""

    FLOW = "flow"
    DESTINATION = "destination"
    VM = "vm"


class Measure(enum.Enum):
    """What a statistics condition looks at."""

    PACKETS = "packets"
    BYTES = "bytes"
    PPS = "pps"
    BPS = "bps"
    AGE_S = "age_s"

    @property
    def is_rate(self) -> bool:
        """Whether it can fall again."""
        return self in (Measure.PPS, Measure.BPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """One condition on one measure.

    Args:
        measure: What is looked at.
        up: Reached from below, it counts as high: bits per second, packets per second, packets, bytes or seconds.
        down: Reached from above, it counts as low; None for a measure that never falls.
    """

    measure: Measure
    up: float
    down: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One rule of a policy.

    Args:
        rule_id: Unique name.
        kind: What it decides.
        match: Which flows, by their first packet.
        vm: Only flows to or from this VM; empty for all.
        priority: Higher first, within a tier.
        is_ranked: Whether the document gave the priority.
        pin: Whether statistics can never change the decision.
        thresholds: Conditions of a statistics rule, all of which must hold.
        hold_s: How long they must hold before the rule acts.
        min_residence_s: How long a flow stays on the NIC before the rule takes it off.
        index: Place in the document.
    """

    rule_id: str
    kind: RuleKind
    match: Match
    vm: str = ""
    priority: int = 0
    is_ranked: bool = False
    pin: bool = False
    thresholds: tuple[Threshold, ...] = ()
    hold_s: float = 0.0
    min_residence_s: float = 0.0
    index: int = 0

    @property
    def tier(self) -> Tier:
        """The tier in which the rule speaks."""
        if self.kind is RuleKind.ONLOAD:
            return Tier.DENY
        if self.kind is RuleKind.OFFLOAD:
            return Tier.PIN if self.pin else Tier.HEADER
        return Tier.DEMOTION if self.kind is RuleKind.DEMOTE else Tier.PROMOTION

    @property
    def is_header(self) -> bool:
        """Whether the rule decides at the first packet."""
        return self.kind in (RuleKind.ONLOAD, RuleKind.OFFLOAD)

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sorts rules of one tier, the winner first: priority, then the more specific match, then document order."""
        return (-self.priority, -specificity(self.match) - (1 << 12 if self.vm else 0), self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of the NIC the manager may use.

    Args:
        max_operations_per_s: Rules added and removed a second, with a burst of one second's worth.
        max_table_share: Part of a table's rows, above 0 to 1.
        max_vm_share: Part of those that one VM may have where there are several VMs, above 0 to 1.
    """

    max_operations_per_s: float = 1000.0
    max_table_share: float = 1.0
    max_vm_share: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A whole policy.

    Args:
        rules: In document order.
        default_offload: What becomes of a flow that no rule speaks for.
        granularity: Which NIC rules may be used, finest first.
        limits: How much of the NIC may be used.
        source: File name, for messages.
    """

    rules: tuple[PolicyRule, ...]
    default_offload: bool
    granularity: tuple[Granularity, ...] = (Granularity.FLOW,)
    limits: Limits = Limits()
    source: str = ""

    @property
    def statistics_rules(self) -> tuple[PolicyRule, ...]:
        """The rules on statistics, the first to be obeyed first."""
        return tuple(sorted((r for r in self.rules if not r.is_header), key=lambda r: (r.tier, r.rank)))

    @property
    def header_rules(self) -> tuple[PolicyRule, ...]:
        """The rules on the first packet, the first to be obeyed first."""
        return tuple(sorted((r for r in self.rules if r.is_header), key=lambda r: (r.tier, r.rank)))


def specificity(match: Match) -> int:
    """Return how many bits of a header a match compares; a range counts those that all its ports share."""
    bits = 0
    for name, value in match.items():
        if isinstance(value, PortRange):
            bits += FIELDS[name].bits - (value.last - value.first).bit_length()
        else:
            bits += value.mask.bit_count()
    return bits


def overlap(one: PolicyRule, other: PolicyRule) -> bool:
    """Tell whether some flow could match both rules; never False where one could."""
    if one.vm and other.vm and one.vm != other.vm:
        return False
    return matches_overlap(one.match, other.match)


def matches_overlap(one: Match, other: Match) -> bool:
    """Tell whether some packet could match both; never False where one could."""
    return all(
        _meet(value, getattr(other, name)) for name, value in one.items() if getattr(other, name) is not None
    )


def is_within(inner: PolicyRule, outer: PolicyRule) -> bool:
    """Tell whether every flow of one rule matches the other as well."""
    if outer.vm and inner.vm != outer.vm:
        return False
    return all(
        getattr(inner.match, name) is not None and _covers(value, getattr(inner.match, name))
        for name, value in outer.match.items()
    )


def _meet(one: Masked | PortRange, other: Masked | PortRange) -> bool:
    if isinstance(one, Masked) and isinstance(other, Masked):
        return (one.value ^ other.value) & one.mask & other.mask == 0
    if isinstance(one, PortRange) and isinstance(other, PortRange):
        return one.first <= other.last and other.first <= one.last
    span, bits = (one, other) if isinstance(one, PortRange) else (other, one)
    assert isinstance(span, PortRange)
    assert isinstance(bits, Masked)
    return any(port & bits.mask == bits.value for port in range(span.first, span.last + 1))


def _covers(outer: Masked | PortRange, inner: Masked | PortRange) -> bool:
    if isinstance(outer, Masked) and isinstance(inner, Masked):
        return outer.mask & ~inner.mask == 0 and inner.value & outer.mask == outer.value
    if isinstance(inner, Masked):
        assert isinstance(outer, PortRange)
        free = 0xFFFF & ~inner.mask
        return outer.first <= inner.value and inner.value | free <= outer.last
    if isinstance(outer, PortRange):
        return outer.first <= inner.first and inner.last <= outer.last
    return all(port & outer.mask == outer.value for port in range(inner.first, inner.last + 1))
