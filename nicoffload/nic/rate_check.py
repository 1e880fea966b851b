"""Rates that a NIC can't keep, told before it is asked: from its profile, with what it takes instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nicoffload.errors import NotSupportedError, Reason
from nicoffload.model import RateLimit
from nicoffload.profiles.types import Rate, Rates


def check_rates(limits: Mapping[int, RateLimit], facts: Rates, device: str) -> None:
    """Refuse rates that the profile says are refused; what depends on the link is left to the NIC.

    Args:
        limits: VF index to its rates.
        facts: The profile's rates.
        device: The NIC, for the error.

    Raises:
        NotSupportedError: At least one rate can't be; every reason is named.
    """
    kinds = {"min_tx_bps": facts.min_tx, "max_tx_bps": facts.max_tx}
    found = [
        (name, reason)
        for vf, limit in sorted(limits.items())
        for name, kind in kinds.items()
        for reason in _reasons(getattr(limit, name), kind, f"/rates/{vf}/{name}")
    ]
    if found:
        names = sorted({name.removesuffix("_bps") for name, _ in found})
        raise NotSupportedError(
            f"the NIC does not take {'this rate' if len(found) == 1 else 'these rates'}",
            capability=f"rates.{names[0]}",
            reasons=[reason for _, reason in found],
            path=found[0][1].path,
            device=device,
            hint="`nicoffload capabilities` shows what it takes" if len(found) > 1 else "",
        )


def in_steps(bps: int, facts: Rate) -> int:
    """Return a rate as the interface can express it: whole steps, at least one, for 0 would mean no limit."""
    return max(bps // facts.api_quantum_bps, 1) * facts.api_quantum_bps


def _reasons(bps: int | None, facts: Rate, path: str) -> Iterator[Reason]:
    if bps is None:
        return
    if facts.supported == "no":
        yield Reason(
            code="rate.unsupported",
            path=path,
            message="the NIC has no such rate",
            accepted="none",
            source=facts.source,
            errno=facts.errno,
        )
        return
    asked, low, high = in_steps(bps, facts), facts.smallest_bps, facts.largest_bps
    too_low = low is not None and facts.below_smallest == "refuse" and asked < low
    too_high = isinstance(high, int) and asked > high
    if too_low or too_high:
        least = f"{low}" if low is not None and facts.below_smallest == "refuse" else "1"
        most = f" to {high}" if isinstance(high, int) else " or more"
        yield Reason(
            code="rate.range",
            path=path,
            message=f"{bps} bit/s is too {'little' if too_low else 'much'}",
            accepted=f"none, or {least}{most} bit/s",
            source=facts.source,
            errno=facts.range_errno,
        )
