"""What a policy says of many flows at once: at their first packet, and by what they do later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nicoffload.flexivoffload.headers import Headers, match_headers
from nicoffload.flexivoffload.policy.types import Measure, Policy, PolicyRule, RuleKind, Tier

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_NS_PER_S = 1_000_000_000
_NO_TIME = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstVerdicts:
    """What the header rules say of some first packets, in columns.

    Args:
        tier: int8[N], the `Tier` that speaks: DENY, PIN, HEADER or DEFAULT.
        rule: int16[N], place of the rule in the document; -1 for the default.
        offload: bool[N].
        applies: bool[S, N], which rules on statistics match the flow, in the order of `Policy.statistics_rules`.
    """

    tier: npt.NDArray[np.int8]
    rule: npt.NDArray[np.int16]
    offload: Bools
    applies: Bools


def judge_first_packets(
    policy: Policy,
    headers: Headers,
    in_port: npt.NDArray[np.int32],
    vm: npt.NDArray[np.int32],
    vm_names: Sequence[str],
) -> FirstVerdicts:
    """Apply a policy to the first packets of flows.

    Args:
        policy: The policy.
        headers: HEADER_DTYPE[N].
        in_port: int32[N], the port of the NIC's switch that each packet enters.
        vm: int32[N], index of the VM of each; -1 for none.
        vm_names: Names of the VMs.
    """
    count = len(headers)
    tier = np.full(count, Tier.DEFAULT, np.int8)
    spoke = np.full(count, -1, np.int16)
    offload = np.full(count, policy.default_offload, np.bool_)
    is_open = np.ones(count, np.bool_)
    for rule in policy.header_rules:
        hit = _caught(rule, headers, in_port, vm, vm_names) & is_open
        tier[hit], spoke[hit], offload[hit] = rule.tier, rule.index, rule.kind is RuleKind.OFFLOAD
        is_open &= ~hit
    statistics = policy.statistics_rules
    applies = np.zeros((len(statistics), count), np.bool_)
    for place, rule in enumerate(statistics):
        applies[place] = _caught(rule, headers, in_port, vm, vm_names)
    return FirstVerdicts(tier=tier, rule=spoke, offload=offload, applies=applies)


def _caught(
    rule: PolicyRule,
    headers: Headers,
    in_port: npt.NDArray[np.int32],
    vm: npt.NDArray[np.int32],
    vm_names: Sequence[str],
) -> Bools:
    hit = match_headers(rule.match, headers, in_port)
    if rule.vm:
        wanted = [index for index, name in enumerate(vm_names) if name == rule.vm]
        hit &= np.isin(vm, wanted)
    return hit


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What statistics rules look at, a row a flow.

    Args:
        now_ns: Time of the readings.
        values: Measure to its values.
        on_nic_s: float64[N], how long each flow has been on the NIC; negative where it is not.
    """

    now_ns: int
    values: Mapping[Measure, Floats]
    on_nic_s: Floats


class StatisticsRules:
    """The rules on statistics of a policy, and for each flow which of them hold at present.

    A rule holds from when its conditions have been met for `hold_s` until the opposite conditions have: that is its
    hysteresis.
    """

    def __init__(self, policy: Policy, rows: int) -> None:
        self.rules = policy.statistics_rules
        count = len(self.rules)
        self.applies = np.zeros((count, rows), np.bool_)
        self.holds = np.zeros((count, rows), np.bool_)
        self._since_ns = np.full((count, rows), _NO_TIME, np.int64)

    def grow(self, rows: int) -> None:
        """Make room for more flows."""
        extra = (len(self.rules), rows - self.applies.shape[1])
        self.applies = np.concatenate([self.applies, np.zeros(extra, np.bool_)], axis=1)
        self.holds = np.concatenate([self.holds, np.zeros(extra, np.bool_)], axis=1)
        self._since_ns = np.concatenate([self._since_ns, np.full(extra, _NO_TIME, np.int64)], axis=1)

    def start(self, row: int, applies: Bools) -> None:
        """Begin with a new flow in a row."""
        self.applies[:, row] = applies
        self.holds[:, row] = False
        self._since_ns[:, row] = _NO_TIME

    def update(self, readings: Readings) -> None:
        """Take new readings of the first N rows."""
        count = len(readings.on_nic_s)
        for place, rule in enumerate(self.rules):
            applies = self.applies[place, :count]
            if applies.any():
                self._update(place, rule, readings, count)

    def _update(self, place: int, rule: PolicyRule, readings: Readings, count: int) -> None:
        holds = self.holds[place, :count]
        since = self._since_ns[place, :count]
        begins, ends = _conditions(rule, readings)
        resident = readings.on_nic_s
        if rule.kind is RuleKind.DEMOTE:
            begins &= (resident >= 0) & (resident >= rule.min_residence_s)
        else:
            ends &= (resident < 0) | (resident >= rule.min_residence_s)
        flips = np.where(holds, ends, begins) & self.applies[place, :count]
        since[~flips] = _NO_TIME
        since[flips & (since == _NO_TIME)] = readings.now_ns
        ripe = flips & (readings.now_ns - since >= int(rule.hold_s * _NS_PER_S))
        holds ^= ripe
        since[ripe] = _NO_TIME

    def verdicts(self, kind: RuleKind, count: int) -> npt.NDArray[np.int16]:
        """Return for the first N rows the rule of a kind that holds, by its place in the document; -1 for none."""
        spoke = np.full(count, -1, np.int16)
        for place, rule in enumerate(self.rules):
            if rule.kind is kind:
                spoke[self.holds[place, :count] & (spoke < 0)] = rule.index
        return spoke


def _conditions(rule: PolicyRule, readings: Readings) -> tuple[Bools, Bools]:
    count = len(readings.on_nic_s)
    begins = np.ones(count, np.bool_)
    ends = np.zeros(count, np.bool_)
    for threshold in rule.thresholds:
        values = readings.values[threshold.measure]
        if rule.kind is RuleKind.DEMOTE and threshold.down is not None:
            begins &= values <= threshold.down
            ends |= values >= threshold.up
        else:
            begins &= values >= threshold.up
            if threshold.down is not None:
                ends |= values <= threshold.down
    return begins, ends
