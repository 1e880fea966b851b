"""Which flows are worth a row of the NIC's table: prices for rows and for operations, moved by scarcity.

The rule is that of an online primal-dual: a flow gets a row when its rate exceeds the price of a row plus the price of
adding and removing it, spread over the time that it is expected to live. Ages have heavy tails, so a flow is expected
to live as long again as it has lived.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementConfig:
    """Constants of the rule; the defaults are its calm form, which prefers few moves to the last percent.

    Args:
        tau_s: Time constant of rates.
        min_life_s: Shortest remaining life that a flow is credited with.
        max_life_s: Longest.
        base_op_price: Least price of an operation, in packets: cost of an install over cost of a packet.
        delta: By how much a newcomer's rate must exceed its victim's, as a part of it.
        min_residence_s: How long a flow stays before it can be a victim.
        cold_part: Part of the residents that may be victims in one tick.
        max_lead: Cap of the factor by which `delta` and `min_residence_s` grow for flows that come and go.
    """

    tau_s: float = 2.0
    min_life_s: float = 0.5
    max_life_s: float = 30.0
    base_op_price: float = 4.0
    delta: float = 0.25
    min_residence_s: float = 1.0
    cold_part: float = 1 / 8
    max_lead: float = 4.0


class OperationBudget:
    """A token bucket of table operations: never more than `rate_per_s` times the time passed, plus a second's worth."""

    def __init__(self, rate_per_s: float, *, now_ns: int) -> None:
        self.rate_per_s = rate_per_s
        self.burst = max(rate_per_s, 1.0)
        self.tokens = self.burst
        self._now_ns = now_ns

    def advance(self, now_ns: int) -> None:
        """Let time pass; going back does nothing."""
        if now_ns > self._now_ns:
            gained = (now_ns - self._now_ns) / NS_PER_S * self.rate_per_s
            self.tokens = min(self.burst, self.tokens + gained)
            self._now_ns = now_ns

    def take(self, operations: int = 1) -> bool:
        """Take tokens if there are enough, and tell whether there were."""
        if self.tokens < operations:
            return False
        self.tokens -= operations
        return True

    @property
    def level(self) -> float:
        """Filling, 0 to 1."""
        return self.tokens / self.burst


class Capacity:
    """How many rows may be used: as advertised, and less after the NIC says that it is full below that.

    Additive increase, multiplicative decrease: from where the NIC said "full", up by 1 % every 10 seconds.
    """

    def __init__(self, rows: int, *, now_ns: int) -> None:
        self.rows = rows
        self.usable = rows
        self._next_raise_ns = now_ns

    def full(self, in_use: int, now_ns: int) -> None:
        """Learn that the NIC refused a row while `in_use` were taken."""
        self.usable = max(min(self.usable, in_use), 0)
        self._next_raise_ns = now_ns + 10 * NS_PER_S

    def advance(self, now_ns: int) -> None:
        """Let time pass."""
        while self.usable < self.rows and now_ns >= self._next_raise_ns:
            self.usable = min(self.rows, self.usable + max(1, math.ceil(self.usable * 0.01)))
            self._next_raise_ns += 10 * NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What things cost at the moment.

    Args:
        row_pps: Price of a table row, in packets per second.
        operation: Price of a table operation, in packets.
    """

    row_pps: float = 0.0
    operation: float = 4.0


def next_row_price(price_pps: float, resident_rates: Floats, usable: int) -> float:
    """Return the price of a row: what the least residents are worth while a table is full, else falling."""
    if usable and len(resident_rates) >= usable:
        return float(np.percentile(resident_rates, 2))
    return price_pps * 0.5


def next_operation_price(price: float, budget_level: float, config: PlacementConfig) -> float:
    """Return the price of an operation: rising while the budget is nearly used up, falling while there is plenty."""
    if budget_level < 0.25:
        return price * 1.25 + 0.1
    if budget_level > 0.6:
        return max(price / 1.25, config.base_op_price)
    return price


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Rules that could be installed, in columns.

    Args:
        rate_pps: float64[N], of all flows that the rule would serve.
        age_s: float64[N], of the oldest of them.
        vm: int64[N].
        pinned: bool[N], wanted whatever the price.
        lead: float64[N], factor on `delta`, 1 for rules that don't come and go.
    """

    rate_pps: Floats
    age_s: Floats
    vm: Ints
    pinned: Bools
    lead: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Residents:
    """Rules that are installed, in columns.

    Args:
        rate_pps: float64[N].
        idle_s: float64[N], since the last packet.
        residence_s: float64[N], since the installation.
        min_residence_s: float64[N], as the policy asks.
        vm: int64[N].
        pinned: bool[N], never a victim.
        closing: bool[N], all connections were seen to end.
        lead: float64[N], factor on `min_residence_s`.
    """

    rate_pps: Floats
    idle_s: Floats
    residence_s: Floats
    min_residence_s: Floats
    vm: Ints
    pinned: Bools
    closing: Bools
    lead: Floats

    def __len__(self) -> int:
        return len(self.rate_pps)


@dataclass(slots=True, kw_only=True)
class Admission:
    """What a tick decides for one table.

    Args:
        admitted: Rows of the candidates to install.
        victims: Rows of the residents to remove for them.
        refused: Row of a candidate to why it has to wait: ``price``, ``budget``, ``table_full``, ``vm_share``.
    """

    admitted: list[int] = field(default_factory=list)
    victims: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)


def thresholds_pps(candidates: Candidates, prices: Prices, config: PlacementConfig) -> Floats:
    """Return the rate that each candidate must exceed: the price of a row plus that of two operations over its life."""
    life_s = np.clip(candidates.age_s, config.min_life_s, config.max_life_s)
    bar: Floats = prices.row_pps + 2 * prices.operation / life_s
    return bar


def idle_rows(residents: Residents, usable: int, prices: Prices, budget: OperationBudget) -> list[int]:
    """Return the residents to remove because nothing comes any more, and take the operations from the budget."""
    free_to_go = ~residents.pinned
    crowded = len(residents) > 0.9 * usable
    if crowded:
        quiet = (residents.idle_s > 1.0) & (residents.rate_pps < max(0.5, prices.row_pps / 2))
        most = len(residents) - int(0.85 * usable)
    else:
        quiet = residents.idle_s > 10.0
        most = int(budget.tokens * 0.25)
    ended = residents.closing & (residents.idle_s >= 1.0)
    rows = np.flatnonzero(free_to_go & (quiet | ended))
    longest_first = rows[np.argsort(-residents.idle_s[rows], kind="stable")][:most]
    return [row for row in longest_first.tolist() if budget.take()]


def admit(
    candidates: Candidates,
    residents: Residents,
    *,
    usable: int,
    weights: Floats,
    max_vm_share: float,
    prices: Prices,
    budget: OperationBudget,
    config: PlacementConfig,
) -> Admission:
    """Choose which candidates get a row, and whose, and take the operations from the budget.

    Args:
        candidates: Who wants one.
        residents: Who has one, those about to be removed left out.
        usable: Rows that may be used.
        weights: float64[VMs], each VM's weight; half of the table is guaranteed in proportion.
        max_vm_share: Part of the table that one VM may have where there are several.
        prices: Present prices.
        budget: Operations that may be used.
        config: Constants.
    """
    result = Admission()
    share = _Shares(residents, usable, weights, max_vm_share)
    cold = _cold_list(residents, share, config)
    bar = thresholds_pps(candidates, prices, config)
    life_s = np.clip(candidates.age_s, config.min_life_s, config.max_life_s)
    order = np.lexsort((-candidates.rate_pps, ~candidates.pinned)).tolist()
    room = usable - len(residents)
    for row in order:
        vm, rate = int(candidates.vm[row]), float(candidates.rate_pps[row])
        pinned = bool(candidates.pinned[row])
        at_most = not share.has_room(vm)
        if rate <= bar[row] and not pinned:
            result.refused[row] = "price"
        elif room > 0 and not at_most:
            if not budget.take():
                result.refused[row] = "budget"
                continue
            room -= 1
            share.add(vm)
            result.admitted.append(row)
        else:
            # A VM that has all it may have can still exchange one of its own rows.
            cold_here = [other for other in cold if residents.vm[other] == vm] if at_most else cold
            lead = config.delta * float(candidates.lead[row])
            op_cost_pps = 2 * prices.operation / float(life_s[row])
            victim = _victim(cold_here, residents, rate, lead, op_cost_pps, pinned=pinned)
            if victim is None:
                result.refused[row] = "vm_share" if at_most and len(share.used) > 1 else "table_full"
            elif not budget.take(2):
                result.refused[row] = "budget"
            else:
                cold.remove(victim)
                share.swap(int(residents.vm[victim]), vm)
                result.victims.append(victim)
                result.admitted.append(row)
    return result


class _Shares:
    """Rows by VM, against what each is guaranteed and what each may have."""

    def __init__(self, residents: Residents, usable: int, weights: Floats, max_vm_share: float) -> None:
        count = len(weights)
        self.used = (
            np.bincount(residents.vm, minlength=count) if len(residents) else np.zeros(count, np.int64)
        )
        total = float(weights.sum()) or 1.0
        self.guaranteed = np.floor(0.5 * usable * weights / total)
        self._most = usable if count < 2 else max(1, int(usable * max_vm_share))

    def has_room(self, vm: int) -> bool:
        return int(self.used[vm]) < self._most

    def add(self, vm: int) -> None:
        self.used[vm] += 1

    def swap(self, out: int, into: int) -> None:
        self.used[out] -= 1
        self.used[into] += 1


def _cold_list(residents: Residents, share: _Shares, config: PlacementConfig) -> list[int]:
    stay_s = np.maximum(config.min_residence_s * residents.lead, residents.min_residence_s)
    rows = np.flatnonzero(~residents.pinned & (residents.residence_s >= stay_s))
    if not len(rows):
        return []
    spared = share.used[residents.vm[rows]] <= share.guaranteed[residents.vm[rows]]
    order = np.lexsort((residents.rate_pps[rows], spared))
    most = max(1, int(len(residents) * config.cold_part))
    coldest: list[int] = rows[order][:most].tolist()
    return coldest


def _victim(
    cold: list[int], residents: Residents, rate: float, lead: float, op_cost_pps: float, *, pinned: bool
) -> int | None:
    if not cold:
        return None
    other = float(residents.rate_pps[cold[0]])
    worth = rate > (1 + lead) * other and rate - other > op_cost_pps
    return cold[0] if pinned or worth else None


def jain_index(amounts: Floats) -> float:
    """Return Jain's fairness index of some amounts: 1 where all are equal, 1/N where one has all."""
    total = float(amounts.sum())
    squares = float((amounts**2).sum())
    return total * total / (len(amounts) * squares) if squares else 1.0
