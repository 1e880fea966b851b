"""NIC profiles as values. Names and meanings are those of ``schemas/nic-profile.schema.json``, which explains each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Errors = Mapping[str, str | None]
"""Condition to errno name; None where the driver accepts the condition without a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRule:
    """Which masks and values of one field a flow type takes."""

    mask: str
    values: frozenset[int] | None = None
    min: int | None = None
    max: int | None = None
    mask_errno: str = ""
    value_errno: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """Fields that count only when all of them are matched exactly."""

    fields: tuple[str, ...]
    errno: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotTogether:
    """Fields of which one rule can't compare all."""

    fields: tuple[str, ...]
    errno: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowType:
    """One kind of rule that a table takes."""

    name: str
    fixed: Mapping[str, tuple[int, ...]]
    fields: Mapping[str, FieldRule]
    field_errors: Mapping[str, str]
    at_least_one: tuple[str, ...] = ()
    together: tuple[Together, ...] = ()
    not_together: tuple[NotTogether, ...] = ()
    implicit: tuple[str, ...] = ()
    duplicate_ignores: frozenset[str] = frozenset()
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableShape:
    """One combination of compared fields, beyond those that its flow types fix."""

    name: str
    flow_types: frozenset[str]
    fields: frozenset[str]
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldLimit:
    """A narrower limit within a table, for the rules that compare one field."""

    field: str
    rows: int
    errno: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTarget:
    """A field by whose value the hardware knows one target only."""

    field: str
    errno: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HashFacts:
    """How a hashed table looks for a row."""

    search_depth: int
    function: str
    errno: str
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What must be so before a table takes rules."""

    feature: str = ""
    feature_or: tuple[str, ...] = ()
    feature_default: str = "on"
    feature_disruption: str = "none"
    eswitch_mode: str = ""
    vf_driver_on_host: bool = False
    mqprio: bool = False
    other: str = ""
    errno: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRules:
    """Limits on the actions of one rule."""

    at_most: Mapping[str, int]
    order: tuple[frozenset[str], ...] = ()
    not_together: tuple[frozenset[str], ...] = ()
    set_fields: frozenset[str] | None = None
    errno: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """What becomes of a second rule with the same match: an errno, ``replace``, ``allowed`` or ``unknown``."""

    answer: str
    allowed_copies: int = 1
    ignores: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What is counted, and how."""

    values: frozenset[str]
    source: str
    bits: int | None = None
    byte_basis: str = "unknown"
    refresh_s: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VfStride:
    """How many queues the hardware keeps for each VF, where the driver counts by those that the PF has.

    Args:
        queues: For each VF.
        many_pools: With more pools than this, VFs and the PF together, it is another number.
        queues_of_many: That number.
        source: Where the driver does that.
        inferred: Whether that was concluded and not seen.
    """

    queues: int
    many_pools: int
    queues_of_many: int
    source: str
    inferred: bool = False

    def reached(self, vf: int, queue: int, *, vfs: int, pf_queues: int) -> int:
        """Return the VF that a rule reaches.

        Args:
            vf: The VF that it names.
            queue: The queue of it.
            vfs: VFs that exist.
            pf_queues: Receive queues that the PF has beside them.
        """
        kept = self.queues_of_many if vfs + 1 > self.many_pools else self.queues
        return (vf * min(pf_queues, kept) + queue) // kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Caveat:
    """What a rule comes with when it is placed, of a quirk that is about it; no actions or fields: whatever it has."""

    text: str
    actions: frozenset[str]
    fields: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One filter table."""

    name: str
    mechanism: str
    bank: str
    rows: int | None
    rows_per_rule: int
    limits: tuple[FieldLimit, ...]
    capacity_note: str
    picker: str
    occupied: str
    erases_old: bool
    mask_model: str
    flow_types: tuple[FlowType, ...]
    shapes: tuple[TableShape, ...]
    combine: str
    empty_rule: str | None
    priority: str
    duplicate: Duplicate
    actions: frozenset[str]
    vf_queue: bool
    action_rules: ActionRules
    counters: Counters | None
    errors: Errors
    source: str
    needs: Needs
    excludes: tuple[str, ...] = ()
    hash: HashFacts | None = None
    first_slot: int = 0
    vf_stride: VfStride | None = None
    one_target_per_value: tuple[OneTarget, ...] = ()
    caveats: tuple[Caveat, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sriov:
    """How VFs are made, and how many."""

    method: str
    max_vfs: int | None
    errors: Errors
    source: str
    sysfs_write: str = "works"
    queues_per_vf: int | None = None
    pf_queues_with_vfs: tuple[tuple[int, int], ...] = ()
    note: str = ""

    @property
    def at_run_time(self) -> bool:
        """Whether VFs are made and removed while the NIC is in use."""
        return self.method in {"sysfs", "links"} and self.sysfs_write == "works"

    def pf_queues(self, vfs: int) -> int | None:
        """Return how many receive queues the PF has at most while so many VFs exist; None where no source states it.

        Args:
            vfs: 0 and up.
        """
        return next((queues for most, queues in self.pf_queues_with_vfs if 0 < vfs <= most), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Eswitch:
    """Eswitch modes and what refuses to change them."""

    modes: tuple[str, ...]
    errors: Errors
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of a VF."""

    supported: str
    errno: str = ""
    values: tuple[str | int, ...] | None = None
    no_effect: tuple[str | int, ...] = ()
    max: int | None = None
    default: bool | str | None = None
    zero: str = ""
    resets_vf: bool = False
    not_in_mode: str = ""
    mode_errno: str = ""
    no_effect_in_mode: tuple[str | int, ...] = ()
    via: str = "rtnetlink"
    value_errno: str = ""
    note: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VfFacts:
    """The settings of a VF."""

    mac: Setting
    vlan: Setting
    qos: Setting
    vlan_protocols: Setting
    spoof_check: Setting
    trust: Setting
    link_state: Setting
    errors: Errors
    source: str
    busy_while_resetting: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One kind of rate: the guarantee or the limit of a VF."""

    supported: str
    source: str
    errno: str = ""
    quantum_bps: int = 1
    api_quantum_bps: int = 1
    rounding: str = "refuse"
    smallest_bps: int | None = None
    below_smallest: str = "refuse"
    largest_bps: int | str | None = None
    range_errno: str = ""
    read_back: str = "applied"
    meaning: str = "limit"
    sum_within_link: bool = False
    link_speeds_bps: tuple[int, ...] = ()
    link_errno: str = ""
    needs_port_vlan: bool = False
    needs: str = ""
    lost_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DevlinkRate:
    """Rate objects of devlink."""

    leaf: tuple[str, ...]
    node: tuple[str, ...]
    quantum_bps: int
    rounding: str
    errors: Errors
    source: str
    node_nesting: bool = False
    node_needs_mode: str | None = None
    min_bps: int | None = None
    max_bps: int | str | None = None
    priority_range: tuple[int, int] | None = None
    weight_range: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Everything about rates."""

    min_tx: Rate
    max_tx: Rate
    devlink: DevlinkRate | None
    min_before_max: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Representor:
    """Which way and what a representor counts."""

    direction: str
    counts: str
    source: str
    phys_port_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counters of ports and VFs."""

    vf: Counters | None
    port: Counters | None
    representor: Representor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Warns:
    """The rules of one table that a quirk is about: with any of the actions, and any of the fields; empty for all."""

    table: str
    actions: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirk:
    """What a user can meet and would not expect."""

    id: str
    about: str
    text: str
    source: str
    inferred: bool = False
    warns: Warns | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a profile's facts come from."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PciIds:
    """``vendor:device`` ids, in lower-case hex."""

    pf: tuple[str, ...]
    vf: tuple[str, ...]
    source: str
    without_offload: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NicProfile:
    """What one family of NICs, with one driver, can do and how it fails.

    `document` is the JSON that the rest was read from: an emulator reads that, so that it shares facts with the SDK
    and no code.
    """

    family: str
    title: str
    vendor: str
    driver: str
    vf_driver: str | None
    provenance: Provenance
    pci_ids: PciIds
    sriov: Sriov | None
    eswitch: Eswitch | None
    tables: tuple[Table, ...]
    vf: VfFacts | None
    rates: Rates
    statistics: Statistics
    quirks: tuple[Quirk, ...]
    document: Mapping[str, Any]

    def table(self, name: str) -> Table:
        """Return a table by name.

        Raises:
            KeyError: The profile has no such table.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(name)
