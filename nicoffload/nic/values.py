"""What a Nic takes and answers, as values."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from nicoffload.driver.contract import InstalledRule, RuleRef
from nicoffload.errors import NicOffloadError
from nicoffload.model.device import Disruption
from nicoffload.model.rule import FlowRule
from nicoffload.model.vf import RateLimit, VfConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowReport:
    """What became of the rules of one `Nic.add_flows`.

    Args:
        installed: The rules that are in the NIC, in the order asked for; `rule` is the rule as asked for.
        refused: The others, each with why.
    """

    installed: tuple[InstalledRule, ...] = ()
    refused: tuple[tuple[FlowRule, NicOffloadError], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedRule:
    """One rule in the NIC.

    Args:
        rule: As asked for where it is ours, else as the NIC reports it.
        ref: Where it is.
        ours: Whether the SDK installed it; others' rules are shown and never touched.
        in_hardware: Whether the NIC handles it.
    """

    rule: FlowRule
    ref: RuleRef
    ours: bool
    in_hardware: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to use a VF, for a while.

    Args:
        vf: Index of the VF.
        owner: Who holds it.
        epoch: Fencing token: grows with every lease of the VF and is never given twice.
        expires_at_s: When others may take the VF, in seconds since the epoch of the wall clock.
    """

    vf: int
    owner: str
    epoch: int
    expires_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRelease:
    """What became of a release; true when the VF was given back.

    Args:
        released: Whether this call gave the VF back.
        detail: Why nothing was done, when nothing was; of a VF that was given back without a reset, why it was not;
            empty otherwise.
    """

    released: bool
    detail: str = ""

    def __bool__(self) -> bool:
        return self.released


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """How a NIC should be. What is left out stays as it is.

    Args:
        vf_count: How many VFs there should be; None leaves their number alone.
        vfs: Settings of VFs, one entry a VF.
        rates: VF index to its rates; both rates of a VF that is named are set.
        flows: Rules that should be in the NIC. A rule that is there already under another id counts as there.
        exact: Whether rules of ours that are not in `flows` are removed. Rules of others never are.
    """

    vf_count: int | None = None
    vfs: tuple[VfConfig, ...] = ()
    rates: Mapping[int, RateLimit] = field(default_factory=lambda: MappingProxyType({}))
    flows: tuple[FlowRule, ...] = ()
    exact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a plan.

    Args:
        action: ``add_flow``, ``remove_flow``, ``replace_flow``, ``enable_table``, ``set_vf_count``,
            ``configure_vf`` or ``set_rate``.
        target: What it is done to: a rule id, a table, ``vf:N``, ``vfs``.
        detail: What is done, in words.
        disruption: What it costs those who use the NIC.
        equivalents: The shell commands that would do the same; empty where there are none.
    """

    action: str
    target: str
    detail: str
    disruption: Disruption = Disruption.NONE
    equivalents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What it takes to bring a NIC to a desired state. Making one changes nothing.

    Args:
        desired: The state.
        steps: In the order in which they are done; empty when the NIC is in that state.
    """

    desired: DesiredState
    steps: tuple[Step, ...]

    @property
    def disruption(self) -> Disruption:
        """The worst of the steps."""
        order = list(Disruption)
        return max((step.disruption for step in self.steps), key=order.index, default=Disruption.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyReport:
    """What `Nic.apply` did.

    Args:
        steps: The steps, all done and read back.
        installed: The rules that it added.
    """

    steps: tuple[Step, ...]
    installed: tuple[InstalledRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What opening a NIC found left over and did about it. All empty after an orderly end.

    Args:
        undone: Changes that were cut off half-way and were taken back, in words.
        completed: Changes that were cut off when all was done but the record of it, in words.
        adopted: Rules of ours that the journal did not know and the NIC's cookies did.
        missing: Rules of ours that are no longer in the NIC. They are ours no more; add them again to have them back.
        changed: What is now in the NIC in the place of a rule of ours: without a cookie it is another's.
        unaccounted: Rules in the NIC with neither cookie nor record: another's, or, if records were lost, ours.
        damaged: Where a damaged journal was put aside.
        salvaged: How many records of a damaged journal could be read.
        problems: What could not be put right, in words.
    """

    undone: tuple[str, ...] = ()
    completed: tuple[str, ...] = ()
    adopted: tuple[InstalledRule, ...] = ()
    missing: tuple[FlowRule, ...] = ()
    changed: tuple[InstalledRule, ...] = ()
    unaccounted: tuple[InstalledRule, ...] = ()
    damaged: tuple[Path, ...] = ()
    salvaged: int = 0
    problems: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether there was nothing of ours to put right (rules of others don't count)."""
        return not (
            self.undone
            or self.completed
            or self.adopted
            or self.missing
            or self.changed
            or self.damaged
            or self.problems
        )


class Owned(NamedTuple):
    """A rule of ours and where it is; a tuple, for there are as many as rules."""

    rule: FlowRule
    ref: RuleRef

    @property
    def rule_id(self) -> uuid.UUID:
        """The rule's id."""
        return self.rule.rule_id
