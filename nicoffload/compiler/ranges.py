"""Ranges of ports as values with masks, which is all that most filter tables compare."""

from __future__ import annotations

import itertools
import uuid

from nicoffload.errors import InvalidRequestError
from nicoffload.model import FlowRule, Masked, PortRange

PORT_BITS = 16
MAX_EXPANSION = 256
"""Most rules that one rule is split into; a table is better spent on something else."""


def range_to_masks(first: int, last: int) -> list[Masked]:
    """Return the fewest values with prefix masks that together match exactly a range of ports.

    The full range needs two, since a mask is never empty: leave the field out instead.

    Args:
        first: 0 to 65535.
        last: `first` to 65535.

    Raises:
        InvalidRequestError: No range of ports.
    """
    PortRange(first, last)
    full = (1 << PORT_BITS) - 1
    masks: list[Masked] = []
    while first <= last:
        # The largest block that starts here, is aligned and does not reach beyond the range.
        aligned = (first & -first).bit_length() - 1 if first else PORT_BITS - 1
        bits = min(aligned, (last - first + 1).bit_length() - 1)
        masks.append(Masked(first, full & ~((1 << bits) - 1)))
        first += 1 << bits
    return masks


def expand_ranges(rule: FlowRule) -> tuple[FlowRule, ...]:
    """Split a rule with ranges into rules with masks that together match the same packets.

    The parts have ids of their own, made from the rule's and so the same each time; a rule without ranges is
    returned as it is.

    Args:
        rule: Any rule.

    Raises:
        InvalidRequestError: It would take more than 256 rules.
    """
    ranged = {name: value for name, value in rule.match.items() if isinstance(value, PortRange)}
    if not ranged:
        return (rule,)
    covers = [range_to_masks(value.first, value.last) for value in ranged.values()]
    count = 1
    for cover in covers:
        count *= len(cover)
    if count > MAX_EXPANSION:
        raise InvalidRequestError(
            f"the ranges would take {count} rules, and at most {MAX_EXPANSION} are made of one",
            path=f"/match/{next(iter(ranged))}",
            hint="give ranges that start and end at multiples of a power of two, or leave one of them out",
        )
    return tuple(
        FlowRule(
            match=rule.match.replace(**dict(zip(ranged, masks, strict=True))),
            actions=rule.actions,
            priority=rule.priority,
            rule_id=uuid.uuid5(rule.rule_id, str(index)),
        )
        for index, masks in enumerate(itertools.product(*covers))
    )
