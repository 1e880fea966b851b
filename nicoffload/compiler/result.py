"""What the compiler answers where a rule has no place: every reason, and the coarser rules that would have one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nicoffload.compiler.words import text_name
from nicoffload.errors import (
    ConflictError,
    NicOffloadError,
    NotSupportedError,
    Reason,
    ResourceExhaustedError,
    errno_number,
)
from nicoffload.model import FlowRule

OTHER_TABLE = "table.other"
"""Code of the one reason that sums up a table other than the closest."""

_FULL = frozenset({"table.full", "table.limit"})
_TAKEN = frozenset({"rule.duplicate", "rule.id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One step of the ladder of granularity.

    Args:
        name: ``5-tuple``, ``3-tuple``, ``destination IP``, ``MAC+VLAN`` or ``MAC``.
        rule: The rule of this step; None where the asked rule and what is known of the VF do not tell it.
        table: The table that would hold it; empty where none would.
        missing: Fields of which an exact value would have to be known; empty where `rule` is there.
        also_catches: What it would take beyond the asked rule, in words; says so where it takes less.
        reasons: Why this NIC can't hold it; empty where it can.
    """

    name: str
    rule: FlowRule | None
    table: str
    missing: tuple[str, ...]
    also_catches: str
    reasons: tuple[Reason, ...]


class Refusal:
    """A rule that this NIC, in this state, can't hold.

    Args:
        rule: The rule.
        reasons: Every reason for the table that comes closest, then one for each other table.
        ladder: The coarser rules, or what works them out when they are first asked for: a full table can refuse
            100,000 rules whose ladders nobody looks at.
        limit: Rows of the full table, where that is the reason.
        in_use: Rows in use of it.
        existing: Id of the rule that is in the way, where that is the reason.
    """

    __slots__ = ("_ladder", "existing", "in_use", "limit", "reasons", "rule")

    def __init__(
        self,
        *,
        rule: FlowRule,
        reasons: Sequence[Reason],
        ladder: tuple[Rung, ...] | Callable[[], tuple[Rung, ...]] = (),
        limit: int | None = None,
        in_use: int | None = None,
        existing: str = "",
    ) -> None:
        if not reasons:
            raise TypeError("a Refusal needs at least one reason")
        self.rule = rule
        self.reasons = tuple(reasons)
        self.limit = limit
        self.in_use = in_use
        self.existing = existing
        self._ladder = ladder

    def __repr__(self) -> str:
        return f"Refusal(rule={self.rule!r}, reasons={self.reasons!r})"

    def __str__(self) -> str:
        own = [str(reason) for reason in self.reasons if reason.code != OTHER_TABLE]
        return f"refused: {'; '.join(own)}"

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """The ladder, finest rung first, as the NIC stands when it is first asked for."""
        if not isinstance(self._ladder, tuple):
            self._ladder = self._ladder()
        return self._ladder

    def error(self, device: str) -> NicOffloadError:
        """Return the error to raise for it.

        Args:
            device: The NIC, as the user named it.

        Returns:
            `ResourceExhaustedError` where a full table is the only reason, `ConflictError` where a rule that is
            there already is, else `NotSupportedError`.
        """
        own = [reason for reason in self.reasons if reason.code != OTHER_TABLE]
        first = own[0]
        number = errno_number(first.errno) if first.errno else None
        codes = {reason.code for reason in own}
        if codes <= _FULL:
            return ResourceExhaustedError(
                str(first),
                limit=self.limit,
                in_use=self.in_use,
                device=device,
                errno=number,
                hint="remove rules, or hold a coarser one",
            )
        if codes <= _TAKEN:
            return ConflictError(
                first.message,
                existing=self.existing,
                path=first.path,
                device=device,
                errno=number,
                hint=first.accepted,
            )
        return NotSupportedError(
            "the rule can't be held: " + "; ".join(map(str, own)),
            capability="flow_filters",
            reasons=self.reasons,
            path=first.path if len(own) == 1 else "",
            device=device,
            errno=number,
            hint=self._hint(),
        )

    def _hint(self) -> str:
        offers = [rung for rung in self.ladder if not rung.reasons]
        if not offers:
            return ""
        ready = [f"{rung.name} in {rung.table} ({rung.also_catches})" for rung in offers if not rung.missing]
        more = [
            f"{rung.name} in {rung.table} with {', '.join(map(text_name, rung.missing))}"
            for rung in offers
            if rung.missing
        ]
        parts = ["it could hold: " + "; ".join(ready)] if ready else []
        parts += ["with more facts: " + "; ".join(more)] if more else []
        return "; ".join(parts)
