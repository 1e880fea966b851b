"""What is read from a NIC as values of the contract: rules of others, and which table a rule is in."""

from __future__ import annotations

from collections.abc import Sequence

from nicoffload.driver.contract import InstalledRule, RuleRef
from nicoffload.model import FlowRule, Masked, Match, ToPf
from nicoffload.profiles.types import FlowType, Table

_ANYTHING = Match()
_GROUP_BIT = 1 << 40
_TAKES_GROUP_BIT = ("group_bit", "exact_or_group_bit", "any")


def unreadable(ref: RuleRef, why: str, match: Match = _ANYTHING) -> InstalledRule:
    """Return a rule of somebody else that the model has no words for: it takes a row, and what it does is not known.

    Args:
        ref: Where it is.
        why: What of it has no words.
        match: What could be read.
    """
    return InstalledRule(ref=ref, rule=FlowRule(match=match, actions=(ToPf(),)), foreign=why or "unknown")


def table_of(tables: Sequence[Table], match: Match) -> Table:
    """Return the table that holds such a rule, of several that a NIC lists as one; the first where none fits."""
    for table in tables:
        if any(_fits(kind, match) for kind in table.flow_types):
            return table
    return tables[0]


def _fits(kind: FlowType, match: Match) -> bool:
    for name, allowed in kind.fixed.items():
        value = getattr(match, name)
        if allowed and not (isinstance(value, Masked) and value.value in allowed):
            return False
        if not allowed and value is not None:
            return False
    return all(name in kind.fixed or _takes(kind, name, match) for name, _ in match.shape)


def _takes(kind: FlowType, name: str, match: Match) -> bool:
    rule = kind.fields.get(name)
    if rule is None:
        return False
    value = getattr(match, name)
    is_group = name == "eth_dst" and isinstance(value, Masked) and value.mask == _GROUP_BIT
    if rule.mask == "group_bit" or is_group:
        return is_group and rule.mask in _TAKES_GROUP_BIT
    return True
