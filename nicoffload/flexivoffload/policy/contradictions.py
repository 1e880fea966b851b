"""Rules of a policy that say opposite things of one flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from nicoffload.flexivoffload.policy.marks import Fault
from nicoffload.flexivoffload.policy.types import HYSTERESIS, PolicyRule, RuleKind, is_within, overlap


def contradictions(rules: Sequence[PolicyRule]) -> Iterator[Fault]:
    """Yield every pair of rules that contradict each other, at the later one of the two."""
    headers = [rule for rule in rules if rule.is_header]
    for one, other in combinations(headers, 2):
        if one.kind is not other.kind and overlap(one, other) and _rank_equal(one, other):
            yield Fault(
                pointer=f"/rules/{other.index}",
                message=f"{other.rule_id!r} says {other.kind.value} and {one.rule_id!r} says {one.kind.value} to the "
                f"same flows, at the same priority {one.priority}: give one a higher priority or a narrower match",
            )
    promotions = [rule for rule in rules if rule.kind is RuleKind.PROMOTE]
    demotions = [rule for rule in rules if rule.kind is RuleKind.DEMOTE]
    for demote in demotions:
        for promote in promotions:
            if overlap(promote, demote) and (why := _cycle(promote, demote)):
                later = max(promote, demote, key=lambda rule: rule.index)
                yield Fault(pointer=f"/rules/{later.index}", message=why)


def _rank_equal(one: PolicyRule, other: PolicyRule) -> bool:
    # Tiers would decide, and silently. A priority that is written down twice, or one match in two rules, is a slip.
    if one.priority != other.priority:
        return False
    inside, outside = is_within(one, other), is_within(other, one)
    if inside != outside:
        return False
    return inside or (one.is_ranked and other.is_ranked)


def _cycle(promote: PolicyRule, demote: PolicyRule) -> str:
    """Say how a flow would be promoted only to be demoted; empty where it would not."""
    ups = {threshold.measure: threshold.up for threshold in promote.thresholds}
    clashes = []
    for threshold in demote.thresholds:
        up = ups.get(threshold.measure)
        name = threshold.measure.value
        if up is None:
            return ""
        if threshold.down is not None and threshold.down > HYSTERESIS * up:
            clashes.append(
                f"promotes at {up:,.10g} {name} what {demote.rule_id!r} demotes below {threshold.down:,.10g} {name}; "
                f"the latter is to be at most {HYSTERESIS * up:,.10g}"
            )
        elif threshold.down is None and threshold.up <= up:
            clashes.append(
                f"promotes at {up:,.10g} {name} what {demote.rule_id!r} demotes from {threshold.up:,.10g} {name} on"
            )
        else:
            return ""
    return f"a flow would go round in circles: {promote.rule_id!r} " + "; ".join(clashes)
